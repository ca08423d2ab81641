"""Single stages, a step or two long."""

from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open

from memwarp_core import ConfigError
from memwarp_core.models import Detector, DetectorConfig, build_detector
from memwarp_core.training import module as module_file
from memwarp_core.training.config import StageConfig, TrainingConfig
from memwarp_core.training.module import NotFiniteError, StageModule, rate_factor
from memwarp_core.training.packed_clips import pack_clips

SMALL = {"name": "small", "class_names": ("square", "bar"), "short_side": 48}
MEMORY = {**SMALL, "memory": {"kind": "memnet", "aggregation": "weights"}}
PAIR = {**SMALL, "memory": {"kind": "none"}, "strong": {"detector": MEMORY, "lag": 1}}


def make_stage(trains: str, **options: object) -> StageConfig:
    common = {"name": trains, "trains": trains, "epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "warmup_steps": 0}
    return StageConfig.model_validate({**common, **options})


def fit(detector: Detector, stage: StageConfig, data: Path, folder: Path) -> list[str]:
    """Returns: names of the weights and statistics that one epoch changed."""
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
    )
    trainer.fit(StageModule(detector, stage, data, seed=1))
    return [key for key, value in detector.state_dict().items() if not torch.equal(value, before[key])]


def parts(keys: list[str]) -> set[str]:
    return {key.split(".")[0] for key in keys}


def statistics(keys: list[str]) -> set[str]:
    """Of BatchNorm, by part."""
    return parts([key for key in keys if key.endswith("running_mean")])


def test_the_displacement_stage_changes_only_what_measures_displacements(data: Path, tmp_path: Path) -> None:
    changed = fit(build_detector(DetectorConfig(**MEMORY)), make_stage("displacement"), data, tmp_path)
    assert parts(changed) == {"features", "displacement"}
    assert {key.split(".")[1] for key in changed if key.startswith("features")} == {"stem", "quarter"}


def test_the_frames_stage_changes_everything_but_the_memory(data: Path, tmp_path: Path) -> None:
    changed = fit(build_detector(DetectorConfig(**MEMORY)), make_stage("frames"), data, tmp_path)
    assert parts(changed) == {"features", "displacement", "head"}
    assert statistics(changed) == {"features", "displacement"}


def test_the_memory_stage_changes_every_part_and_no_statistics(data: Path, tmp_path: Path) -> None:
    changed = fit(build_detector(DetectorConfig(**MEMORY)), make_stage("memory", frames=3), data, tmp_path)
    assert parts(changed) == {"features", "displacement", "memory", "head"}
    assert statistics(changed) == set()


def test_the_fast_stage_leaves_the_strong_detector_and_all_statistics_alone(data: Path, tmp_path: Path) -> None:
    changed = fit(build_detector(DetectorConfig(**PAIR)), make_stage("fast", frames=3), data, tmp_path)
    assert parts(changed) == {"features", "displacement", "head"}
    assert statistics(changed) == set()


def test_frozen_parts_keep_their_weights_and_statistics(data: Path, tmp_path: Path) -> None:
    stage = make_stage("frames", frozen=["features", "displacement"])
    assert parts(fit(build_detector(DetectorConfig(**SMALL)), stage, data, tmp_path)) == {"head"}


def test_without_exact_fields_only_the_detector_learns(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, names = pack_clips(data)
    unknown = [replace(clip, valid=np.zeros_like(clip.valid)) for clip in clips]
    monkeypatch.setattr(module_file, "pack_clips", lambda *_, **__: (unknown, names))
    detector = build_detector(DetectorConfig(**SMALL))
    assert parts(fit(detector, make_stage("frames"), data, tmp_path)) == {"features", "head"}
    with pytest.raises(ConfigError, match=r"exact displacement fields.* has none.*simulate --displacement"):
        fit(detector, make_stage("displacement"), data, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_batch(data: Path, tmp_path: Path) -> None:
    detector = build_detector(DetectorConfig(**SMALL))
    detector.displacement.log_temperature.data.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match=r"stage frames, step 0.* got displacement = nan\. The batch is in"):
        fit(detector, make_stage("frames"), data, tmp_path)
    with safe_open(tmp_path / "not-finite-0-0.safetensors", framework="pt") as batch:
        assert '"displacement": "nan"' in batch.metadata()["losses"]
        assert batch.get_tensor("images").shape == (2, 2, 3, 48, 64)
        assert {f"{name}.{index}" for name in ("boxes", "labels") for index in range(4)} < set(batch.keys())


def test_learning_rates_follow_the_paper_or_a_cosine() -> None:
    paper = make_stage("memory", optimizer="sgd", epochs=2, steps_per_epoch=300, warmup_steps=10)
    assert [rate_factor(paper, step) for step in (0, 9, 10, 399, 400, 599)] == [0.1, 1, 1, 1, 0.1, 0.1]
    cosine = make_stage("memory", epochs=1, steps_per_epoch=110, warmup_steps=10)
    assert [rate_factor(cosine, step) for step in (0, 10, 60, 110)] == pytest.approx([0.1, 1, 0.505, 0.01])


@pytest.mark.parametrize(("optimizer", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_displacement_has_a_rate_of_its_own(data: Path, optimizer: str, kind: type) -> None:
    detector = build_detector(DetectorConfig(**SMALL))
    stage = make_stage("memory", optimizer=optimizer, learning_rate=0.01, displacement_rate_factor=0.3)
    made = StageModule(detector, stage, data, seed=0).configure_optimizers()["optimizer"]
    assert isinstance(made, kind)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    for name, weights in detector.named_parameters():
        assert rates[id(weights)] == pytest.approx(0.003 if name.startswith("displacement") else 0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [make_stage("fast", frames=3)]}, "needs a detector with `strong`"),
        ({"stages": [make_stage("fast", frames=3)], "detector": PAIR}, "and strong_weights"),
        ({"stages": [make_stage("fast", frames=2)], "detector": PAIR | {"strong": {"detector": MEMORY, "lag": 4}},
          "strong_weights": "x"}, "frames above the lag of 4, got 2"),
        ({"stages": [make_stage("memory")], "detector": PAIR}, "train `fast` instead"),
        ({"strong_weights": "x"}, "for a detector with `strong`; small has none"),
        ({"start_parts": ["head"]}, "start_from, which is missing"),
        ({"start_parts": ["head"], "start_from": {"head": "x"}}, "start_from, which names the parts itself"),
        ({"stages": [make_stage("frames")] * 2}, "different names"),
        ({"detector": SMALL | {"memory": {"kind": "none"}, "displacement": {"kind": "none"}},
          "stages": [make_stage("displacement")]}, "trains a displacement; that of small is none"),
    ],
)  # fmt: skip
def test_choices_that_do_not_fit_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate({"detector": SMALL, "stages": [make_stage("frames")], **changes})


def test_a_stage_that_drops_evidence_without_a_memory_or_learns_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="only trains: memory can drop evidence, got frames"):
        make_stage("frames", evidence_dropping=0.5)
    with pytest.raises(ValidationError, match="everything that displacement would train is frozen"):
        make_stage("displacement", frozen=["features", "displacement"])
