"""A whole training in small, on a data set that the test writes itself."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file

from memwarp_core import ConfigError
from memwarp_core.models import Detector, DetectorConfig, build_detector, load_weights, save_weights
from memwarp_core.models.systems import find_system
from memwarp_core.training import train as train_file
from memwarp_core.training.config import StageConfig, TrainingConfig, read_training_config
from memwarp_core.training.packed_clips import pack_clips
from memwarp_core.training.train import train

RECIPES = Path(__file__).parents[3] / "memwarp_core" / "training" / "recipes"
NAMES = ("square", "bar")


def small(names: tuple[str, ...] = NAMES) -> TrainingConfig:
    stage = StageConfig(name="frames", trains="frames", epochs=2, steps_per_epoch=2, batch_size=2, warmup_steps=1)
    memory = stage.model_copy(update={"name": "memory", "trains": "memory", "frames": 3, "evidence_dropping": 0.5})
    detector = DetectorConfig(name="small", class_names=names, short_side=48)
    return TrainingConfig(detector=detector, stages=(stage, memory))


def test_packed_clips_hold_what_the_data_set_says(data: Path) -> None:
    clips, names = pack_clips(data)
    assert names == NAMES
    assert [len(clip.images) for clip in clips] == [4, 4, 4]
    clip = clips[1]
    assert clip.images[2, 10, 25].tolist() == [220, 60, 60]
    assert clip.boxes_xyxy[2].tolist() == [[24, 8, 40, 24]]
    assert clip.labels[2].tolist() == [1]
    assert clip.displacement[2, :, 1, 3].tolist() == [-1, 0]
    assert not clip.valid[0].any() and clip.valid[1:].all()


@pytest.mark.slow
def test_a_training_goes_through_its_stages_and_goes_on_where_it_was_stopped(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    weights = train(small(), data, data, tmp_path / "run")
    trained = load_weights(weights)
    assert trained.config.name == "small"
    assert (tmp_path / "run" / "frames.safetensors").is_file()
    assert (tmp_path / "run" / "memory" / "validation.jsonl").is_file()

    # Stopped after the first stage and the first half of the second: the same weights in the end.
    (tmp_path / "run" / "memory.safetensors").unlink()
    train(small(), data, data, tmp_path / "run")
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(load_weights(weights).state_dict()[name], weight)


@pytest.mark.slow
def test_other_class_names_or_another_run_in_the_folder_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_names"):
        train(small(("cat", "dog")), data, None, tmp_path / "run")
    with pytest.raises(ConfigError, match="another configuration"):
        train(small(), data, None, tmp_path / "run")


@pytest.mark.slow
def test_a_training_starts_from_published_weights(data: Path, tmp_path: Path) -> None:
    published = torchvision.models.resnet18(weights=None).state_dict()
    save_file(published, tmp_path / "resnet18.safetensors")
    stage = StageConfig(name="frames", trains="frames", epochs=1, steps_per_epoch=1, batch_size=1)
    detector = {"name": "small", "class_names": NAMES, "short_side": 48, "features": {"kind": "resnet", "depth": 18}}
    detector["features"]["channels"] = 64
    config = TrainingConfig.model_validate(
        {"detector": detector, "stages": [stage], "features_weights": str(tmp_path / "resnet18.safetensors")}
    )
    trained = load_weights(train(config, data, None, tmp_path / "run")).state_dict()
    # The first layers are frozen, so they are still what they started from.
    torch.testing.assert_close(trained["features.conv1.weight"], published["conv1.weight"])


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a per-frame detector."""
    config = small().model_copy(update={"stages": small().stages[:1]})
    return train(config, data, None, tmp_path_factory.mktemp("trained"))


def one_step(**changes: object) -> TrainingConfig:
    stage = {"name": "memory", "trains": "memory", "epochs": 1, "steps_per_epoch": 1, "frozen": ["features"]}
    return TrainingConfig.model_validate({"detector": small().detector, "stages": [stage], **changes})


@pytest.mark.slow
@pytest.mark.parametrize("precision", [32, "bf16-mixed"])
def test_a_training_goes_on_with_the_parts_of_a_former_one(
    data: Path, tmp_path: Path, trained: Path, precision: int | str
) -> None:
    # Other classes, so that the head cannot be taken over.
    start = {"start_from": str(trained), "start_parts": ["features", "displacement"], "precision": precision}
    weights = load_weights(train(one_step(**start), data, None, tmp_path / "run"))
    for key, value in load_weights(trained).features.state_dict().items():
        torch.testing.assert_close(weights.features.state_dict()[key], value, rtol=0, atol=0)
    assert all(value.isfinite().all() for value in weights.state_dict().values())


@pytest.mark.slow
def test_parts_may_start_from_different_weights(data: Path, tmp_path: Path, trained: Path) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save_weights(build_detector(small().detector), other)
    sources = {"features": trained, "displacement": trained, "head": other}
    start = {part: str(path) for part, path in sources.items()}
    weights = load_weights(train(one_step(start_from=start), data, None, tmp_path / "run"))
    for part, path in sources.items():
        expected = load_weights(path).get_submodule(part).state_dict()
        for key, value in weights.get_submodule(part).state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-4)  # one small step


@pytest.mark.slow
def test_a_part_without_weights_starts_beside_one_with_them(data: Path, tmp_path: Path, trained: Path) -> None:
    still = small().detector.model_dump() | {"displacement": {"kind": "still"}}
    weights = load_weights(train(one_step(detector=still, start_from=str(trained)), data, None, tmp_path / "run"))
    for key, value in load_weights(trained).features.state_dict().items():
        torch.testing.assert_close(weights.features.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.slow
def test_weights_that_do_not_fit_are_named(data: Path, tmp_path: Path, trained: Path) -> None:
    wider = small().detector.model_dump() | {"displacement": {"kind": "correlation", "channels": 64}}
    config = one_step(detector=wider, start_from=str(trained))
    with pytest.raises(ConfigError, match=r"displacement\.context\..* must be .*64.*, got .*48.*start_parts"):
        train(config, data, None, tmp_path / "run")


@pytest.mark.slow
def test_a_fast_detector_is_trained_beside_a_strong_one(data: Path, tmp_path: Path, trained: Path) -> None:
    pair = {"name": "pair", "class_names": NAMES, "short_side": 48, "memory": {"kind": "none"}}
    pair |= {"strong": {"detector": load_weights(trained).config, "lag": 1}}
    stage = {"name": "fast", "trains": "fast", "epochs": 1, "steps_per_epoch": 1, "frames": 3}
    weights = load_weights(
        train(one_step(detector=pair, stages=[stage], strong_weights=str(trained)), data, None, tmp_path / "run")
    )
    for key, value in load_weights(trained).state_dict().items():
        torch.testing.assert_close(weights.strong.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.slow
def test_the_best_weights_are_kept_beside_the_last(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, seen = iter([0.1, 0.5, 0.3]), []
    monkeypatch.setattr(train_file, "run_detector", lambda detector: detector)

    def score(detector: Detector, clips: object) -> dict[str, dict[str, float]]:
        seen.append(copy.deepcopy(detector.state_dict()))
        return {"map50": {"all": next(scores)}}

    monkeypatch.setattr(train_file, "evaluate", score)
    stage = small().stages[0].model_copy(update={"epochs": 3})
    config = small().model_copy(update={"stages": (stage,), "evaluate_every_epochs": 1})
    last = train(config, data, data, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "frames" / "validation.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["map50"]["all"]) for line in lines] == [(1, 0.1), (2, 0.5), (3, 0.3)]
    for path, weights in ((tmp_path / "frames-best.safetensors", seen[1]), (last, seen[2])):
        saved = load_weights(path).state_dict()
        assert all(torch.equal(saved[key], value) for key, value in weights.items())


@pytest.mark.parametrize("key", ["features_weights", "displacement_weights"])
def test_published_weights_of_another_part_are_refused(data: Path, tmp_path: Path, key: str) -> None:
    config = small().model_copy(update={key: "anything"})
    with pytest.raises(ConfigError, match=f"{key} are for (resnet|flownet).*; got (tiny|correlation)"):
        train(config, data, None, tmp_path / "run")


def test_a_recipe_can_name_a_system_of_the_paper() -> None:
    stage = {"name": "frames", "trains": "frames", "epochs": 1}
    config = TrainingConfig.model_validate({"detector": "clocknet-101", "stages": [stage]})
    assert config.detector == find_system("clocknet-101").config
    with pytest.raises(ValidationError, match="clocknet-102"):
        TrainingConfig.model_validate({"detector": "clocknet-102", "stages": [stage]})


def test_a_recipe_can_say_what_differs_from_a_system() -> None:
    stage = {"name": "frames", "trains": "frames", "epochs": 1}
    detector = {"like": "rfcn-tiny", "version": "2.0", "displacement": {"kind": "correlation"}}
    config = TrainingConfig.model_validate({"detector": detector, "stages": [stage]}).detector
    system = find_system("rfcn-tiny").config
    assert (config.version, config.displacement.kind) == ("2.0", "correlation")
    assert config.model_copy(update={"version": "0", "displacement": system.displacement}) == system
    with pytest.raises(ValidationError, match="unknown key 'versoin'"):
        TrainingConfig.model_validate({"detector": {"like": "rfcn-tiny", "versoin": "2.0"}, "stages": [stage]})


def test_every_recipe_is_valid() -> None:
    recipes = list(RECIPES.glob("*.yaml"))
    assert recipes
    for path in recipes:
        assert read_training_config(path).detector.name == path.stem


def test_an_unknown_key_in_a_recipe_is_refused_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((RECIPES / "memnet-tiny.yaml").read_text() + "\nmomentum: 0.9\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml(.|\n)*momentum"):
        read_training_config(path)
