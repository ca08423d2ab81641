import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memwarp_core import ConfigError
from memwarp_core.models import Detector, DetectorConfig, available_models, load_weights, save_weights


@pytest.fixture
def detector() -> Detector:
    return Detector(DetectorConfig(name="test", class_names=("ball", "crate")))


def test_a_saved_detector_comes_back_with_its_configuration(detector: Detector, tmp_path: Path) -> None:
    save_weights(detector, tmp_path / "test.safetensors")
    loaded = load_weights(tmp_path / "test.safetensors")
    assert loaded.config == detector.config
    assert not loaded.training
    for name, weight in detector.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight)
    assert [path.name for path in tmp_path.iterdir()] == ["test.safetensors"]
    (tmp_path / "any").touch()
    assert (tmp_path / "test.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_the_shipped_model_loads() -> None:
    assert "memnet-tiny" in available_models()
    assert load_weights("memnet-tiny").config.name == "memnet-tiny"


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'no-such-model'.*memnet-tiny"):
        load_weights("no-such-model")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("runs/rfcn-nano+clocknet-tiny/fast.safetensors", "neither a file nor a model that ships"),
        ("fcos_resnet50+memnet", r"expected one of .*fcos_resnet50_fpn.* \+memnet"),
        ("fcos_resnet50_fpn+lstm", r"expected one of .* \+memnet"),
    ],
)
def test_a_plus_in_a_name_does_not_make_it_one_of_torchvision(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_weights(name)


def test_a_file_comes_before_a_name_of_torchvision(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(detector, tmp_path / "mine+memnet")
    monkeypatch.chdir(tmp_path)
    assert load_weights("mine+memnet").config == detector.config


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(ConfigError, match="pickled checkpoints.*never loaded"):
        load_weights(path)


def test_weights_without_a_configuration_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(ConfigError, match="memwarp_config"):
        load_weights(tmp_path / "bare.safetensors")


def test_weights_of_another_architecture_are_refused(detector: Detector, tmp_path: Path) -> None:
    del detector.memory.aggregate
    del detector.displacement.refine
    save_weights(detector, tmp_path / "cut.safetensors")
    with pytest.raises(ConfigError, match="do not fit"):
        load_weights(tmp_path / "cut.safetensors")
