import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from memwarp_core import ConfigError, DataError, VideoDetector
from memwarp_core.data.clips import Clip
from memwarp_core.data.coco_vid import ClipAnnotations, frame_annotations, write_coco_vid
from memwarp_core.data.displacement_file import write_displacement
from memwarp_core.evaluation import kept_runs
from memwarp_core.evaluation.running import ClipRun, run_clip
from memwarp_core.evaluation.side_by_side import evaluate_models
from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.types import Frame

CLIPS, FRAMES = 2, 3
NAMES = ("square", "bar")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of three frames, 64x48, with an object that moves right by 8 pixels per frame."""
    folder = tmp_path_factory.mktemp("data")
    clips = []
    for number in range(CLIPS):
        frames = []
        for t in range(FRAMES):
            file = f"clip_{number}/{t}"
            frame = Frame(
                image=np.full((48, 64, 3), 40, np.uint8),
                stamp_ns=t * 50_000_000,
                boxes_xyxy=np.array([[8 + 8 * t, 8, 24 + 8 * t, 24]], np.float32),
                labels=np.array([0]),
                track_ids=np.array([1]),
                degradation="noise" if t == 1 else "none",
            )
            (folder / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "images" / f"{file}.png"), frame.image)
            frames.append(frame_annotations(frame, f"{file}.png"))
        clips.append(ClipAnnotations(name=f"clip_{number}", frames=tuple(frames)))
    write_coco_vid(folder, clips, NAMES)
    return folder


@pytest.fixture
def with_fields(data: Path) -> Path:
    """The same data set, with displacement fields."""
    for number in range(CLIPS):
        for t in range(1, FRAMES):
            path = data / "displacement" / f"clip_{number}" / f"{t}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_displacement(path, np.full((48, 64, 2), 3, np.float32), np.ones((48, 64), bool))
    return data


def detector(name: str = "memnet", class_names: tuple[str, ...] = NAMES, **changes: object) -> VideoDetector:
    torch.manual_seed(0)
    config = {"name": name, "class_names": class_names, "short_side": 48, **changes}
    return VideoDetector(Detector(DetectorConfig.model_validate(config)), "cpu")


def per_frame(name: str = "per frame") -> VideoDetector:
    return detector(name, memory={"kind": "none"}, displacement={"kind": "none"})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Model, clip and first frame of every run that is really made."""
    seen: list[tuple[str, str, int]] = []

    def count(of: VideoDetector, clip: Clip, horizons_s: object = (), *, first: int = 0) -> ClipRun:
        seen.append((of.name, clip.name, first))
        return run_clip(of, clip, horizons_s, first=first)  # type: ignore[arg-type]

    monkeypatch.setattr(kept_runs, "run_clip", count)
    return seen


@pytest.fixture
def restart(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on, runs are made as by another start of the program."""
    current = run_clip

    def again() -> None:
        def later(*args: object, **settings: object) -> ClipRun:
            return replace(current(*args, **settings), session="another")  # type: ignore[arg-type]

        monkeypatch.setattr(kept_runs, "run_clip", later)

    return again


def test_every_model_has_its_report(data: Path) -> None:
    report = evaluate_models({"a": detector(), "b": per_frame()}, data, horizons_s=[0.05], propagation=2)
    assert (report["clips"], report["frames"]) == (CLIPS, CLIPS * FRAMES)
    assert list(report["models"]) == ["a", "b"]
    for model in report["models"].values():
        assert set(model["map50"]) == set(model["map"]) == {"all", "clean", "degraded"}
        assert set(model["map50_by_degradation"]) == {"noise"}
        assert set(model["map50_by_speed"]) == {"slow", "medium", "fast"}
        assert set(model["ap50_per_class"]) == set(NAMES)
        assert set(model["anticipation"]["nothing moved"]) == {"0.05"}
    assert {key: set(scores["map50"]) for key, scores in report["models"]["a"]["propagation"].items()} == {
        "features": {"0", "1"},
        "boxes": {"0", "1"},
    }
    assert report["models"]["b"]["propagation"] == {}  # it has nothing to propagate with
    assert report["runtime"]["clips"] == CLIPS
    times = report["runtime"]["ms_per_frame"]
    assert report["runtime"]["ratio"] == {"a": 1.0, "b": pytest.approx(times["b"] / times["a"])}


def test_models_take_turns_clip_by_clip(data: Path, calls: list[tuple[str, str, int]]) -> None:
    evaluate_models({"a": detector("a"), "b": per_frame("b")}, data, propagation=2)
    of_clip = [("a", 0), ("b", 0), ("a", 0), ("a", 1), ("a", 0), ("a", 1)]
    assert calls == [(name, f"clip_{number}", first) for number in range(CLIPS) for name, first in of_clip]


def test_an_interrupted_evaluation_goes_on_where_it_was(
    data: Path, tmp_path: Path, calls: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = kept_runs.run_clip

    def interrupted(*args: object, **settings: object) -> ClipRun:
        if len(calls) == 3:
            raise KeyboardInterrupt
        return counting(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(kept_runs, "run_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_models({"a": detector("a"), "b": per_frame("b")}, data, output=tmp_path)
    assert not (tmp_path / "report.json").exists()
    monkeypatch.setattr(kept_runs, "run_clip", counting)
    report = evaluate_models({"a": detector("a"), "b": per_frame("b")}, data, output=tmp_path)
    assert [(name, clip) for name, clip, _ in calls] == [
        (name, clip) for clip in ("clip_0", "clip_1") for name in ("a", "b")
    ]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert evaluate_models({"a": detector("a"), "b": per_frame("b")}, data, output=tmp_path) == report
    assert len(calls) == 4


def test_only_what_changed_runs_again(data: Path, tmp_path: Path, calls: list[tuple[str, str, int]]) -> None:
    evaluate_models({"a": detector("a")}, data, output=tmp_path)
    calls.clear()
    evaluate_models({"renamed": detector("a"), "b": per_frame("b")}, data, output=tmp_path)
    assert {name for name, _, _ in calls} == {"b"}


def test_times_of_different_runs_are_not_compared(data: Path, tmp_path: Path, restart: Callable[[], None]) -> None:
    evaluate_models({"a": detector("a")}, data, output=tmp_path)
    restart()
    report = evaluate_models({"a": detector("a"), "b": per_frame("b")}, data, output=tmp_path)
    nothing = {"a": None, "b": None}
    assert report["runtime"] == {"clips": 0, "ms_per_frame": nothing, "ratio": nothing}
    assert report["models"]["a"]["ms_per_frame"] > 0
    assert not (tmp_path / "runtime.png").exists()  # that of the first evaluation is gone


def test_plots_show_what_was_measured(data: Path, tmp_path: Path) -> None:
    evaluate_models({"a": detector("a"), "b": per_frame()}, data, horizons_s=[0.05], propagation=2, output=tmp_path)
    plots = sorted(tmp_path.glob("*.png"))
    assert [path.stem for path in plots] == ["accuracy", "anticipation", "propagation", "runtime"]
    assert all(min(cv2.imread(str(path)).shape[:2]) > 300 for path in plots)


def test_nothing_is_written_without_an_output(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_models({"a": per_frame()}, data)
    assert not list(tmp_path.iterdir())


def test_displacements_are_scored_where_the_exact_ones_are_known(with_fields: Path) -> None:
    report = evaluate_models({"a": detector(), "b": per_frame()}, with_fields)["models"]
    assert report["a"]["displacement"]["pairs"] == CLIPS * (FRAMES - 1)
    assert report["a"]["displacement"]["all"]["zero_motion"] == pytest.approx(18**0.5, abs=0.1)
    assert "displacement" not in report["b"]


def test_a_model_of_other_classes_is_refused_before_anything_runs(data: Path, calls: list[object]) -> None:
    models = {"a": detector(), "b": detector(class_names=("cat",))}
    with pytest.raises(DataError, match="expected the classes of b, cat; got square, bar"):
        evaluate_models(models, data)
    assert not calls


def test_an_output_that_is_a_file_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"report\.json: expected a folder"):
        evaluate_models({"a": per_frame()}, data, output=tmp_path / "report.json")
