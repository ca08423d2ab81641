from pathlib import Path

import pytest
import torch

from memwarp_core.errors import ConfigError
from memwarp_core.evaluation.reproduction.rows import propagated, rows
from memwarp_core.models import Detector
from memwarp_core.models.config import CorrelationConfig
from memwarp_core.models.systems import find_system, systems
from memwarp_core.models.zoo import build_detector, load_weights, save_weights


def save(folder: Path, name: str, system: str, *, displacement: bool = False) -> Detector:
    config = find_system(system).config
    if displacement:
        config = config.model_copy(update={"displacement": CorrelationConfig()})
    detector = build_detector(config)
    save_weights(detector, folder / f"{name}.safetensors")
    return detector


def test_every_row_of_the_papers_tables_is_there() -> None:
    small = {name for name, system in systems().items() if system.tables and ("tiny" in name or "nano" in name)}
    assert set(rows()) == small


def test_no_propagation_is_the_system_itself() -> None:
    assert propagated("clocknet-tiny", "featprop", 0) == "clocknet-tiny"
    assert propagated("clocknet-tiny", "featprop", 4) in rows()


def test_a_row_leaves_out_what_its_system_does_not_have(tmp_path: Path) -> None:
    trained = save(tmp_path, "rfcn-tiny", "rfcn-tiny", displacement=True)
    row = rows()["rfcn-tiny"]
    assert row.is_trained(tmp_path)
    built = row.build(tmp_path)
    assert built.displacement is None
    assert torch.equal(built.features.stem[0].weight, trained.features.stem[0].weight)


def test_a_row_of_two_models_needs_both(tmp_path: Path) -> None:
    row = rows()["rfcn-nano+clocknet-tiny-boxprop"]
    fast = save(tmp_path, "rfcn-nano", "rfcn-nano", displacement=True)
    assert not row.is_trained(tmp_path)
    strong = save(tmp_path, "clocknet-tiny", "clocknet-tiny")
    assert row.is_trained(tmp_path)
    built = row.build(tmp_path)
    assert torch.equal(built.features.stem[0].weight, fast.features.stem[0].weight)
    assert torch.equal(built.strong.features.stem[0].weight, strong.features.stem[0].weight)


def test_weights_of_another_system_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "memnet-tiny", "rfcn-tiny")
    with pytest.raises(ConfigError, match="memnet-tiny: expected the weights of memnet-tiny-6, got others; .* missing"):
        rows()["memnet-tiny-6"].build(tmp_path)


def test_the_shipped_weights_fill_every_row() -> None:
    for row in rows().values():
        assert row.is_trained(), row.models
        row.build()


def test_the_row_of_the_pair_aggregates_as_the_shipped_one_was_trained() -> None:
    row = rows()["rfcn-nano+clocknet-tiny-featprop"]
    trained, built = load_weights(row.weights).state_dict(), row.build().state_dict()
    assert trained.keys() == built.keys()
