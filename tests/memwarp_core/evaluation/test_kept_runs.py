from pathlib import Path

import numpy as np
import pytest
import torch

from memwarp_core import DataError, VideoDetector
from memwarp_core.evaluation import kept_runs
from memwarp_core.evaluation.kept_runs import KeptRuns, read_run, write_run
from memwarp_core.evaluation.running import ClipRun, run_clip
from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.timeline import no_objects
from memwarp_core.types import Detections, Frame


class NoisyClip:
    """Three frames of noise."""

    name = "noisy"
    class_names = ("ball", "crate")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Frame:
        return Frame(
            image=np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8),
            stamp_ns=index * 50_000_000,
            boxes_xyxy=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            track_ids=np.zeros(0, np.int64),
        )


class UnreadableClip(NoisyClip):
    def __getitem__(self, index: int) -> Frame:
        raise AssertionError("a run that was kept is made again")


def detector(seed: int = 0, **overrides: object) -> VideoDetector:
    torch.manual_seed(seed)
    config = DetectorConfig(name="test", class_names=("ball", "crate"), short_side=64, **overrides)  # type: ignore[arg-type]
    return VideoDetector(Detector(config), "cpu")


def found(stamp_ns: int) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor([[1.25, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]]),
        scores=torch.tensor([0.7, 0.6]),
        labels=torch.tensor([1, 0]),
        stamp_ns=stamp_ns,
    )


def assert_same(left: ClipRun, right: ClipRun) -> None:
    np.testing.assert_array_equal(left.step_ms, right.step_ms)
    assert left.session == right.session
    assert left.anticipated.keys() == right.anticipated.keys()
    for some, others in [(left.detections, right.detections)] + [
        (left.anticipated[key], right.anticipated[key]) for key in left.anticipated
    ]:
        assert [one.stamp_ns for one in some] == [one.stamp_ns for one in others]
        for one, other in zip(some, others, strict=True):
            for field in ("boxes_xyxy", "scores", "labels"):
                torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=0, atol=0)


@pytest.mark.parametrize(
    "run",
    [
        ClipRun(
            detections=(found(0), no_objects(1 << 60), found(2)),
            step_ms=np.array([1.5, 0.1, 7]),
            anticipated={("way", 0.05): (found(3), no_objects(4)), ("way", 0.1): (), ("other", 0.05): (found(5),)},
        ),
        ClipRun(detections=(), step_ms=np.zeros(0)),
    ],
)
def test_a_run_is_read_as_it_was_written(tmp_path: Path, run: ClipRun) -> None:
    write_run(tmp_path / "run.safetensors", run)
    assert_same(read_run(tmp_path / "run.safetensors"), run)


def test_a_run_is_made_once(tmp_path: Path) -> None:
    made = KeptRuns(detector(), [0.05], parent=tmp_path, data_fingerprint="d").run(4, NoisyClip())
    again = KeptRuns(detector(), [0.05], parent=tmp_path, data_fingerprint="d").run(4, UnreadableClip())
    assert len(made.detections) == 3 and made.anticipated
    assert_same(made, again)


def test_runs_from_other_frames_are_kept_beside(tmp_path: Path) -> None:
    runs = KeptRuns(detector(), parent=tmp_path)
    assert [len(runs.run(0, NoisyClip(), first=first).detections) for first in (0, 1, 2)] == [3, 2, 1]
    assert [len(runs.run(0, UnreadableClip(), first=first).detections) for first in (0, 1, 2)] == [3, 2, 1]


def test_whatever_a_run_depends_on_is_in_the_name_of_the_folder(tmp_path: Path) -> None:
    several = [
        KeptRuns(detector(), parent=tmp_path),
        KeptRuns(detector(seed=1), parent=tmp_path),
        KeptRuns(detector(version="2"), parent=tmp_path),
        KeptRuns(detector(), [0.1], parent=tmp_path),
        KeptRuns(detector(), parent=tmp_path, data_fingerprint="another"),
    ]
    assert len({runs.folder for runs in several}) == len(several)
    assert KeptRuns(detector(), parent=tmp_path).folder == several[0].folder


def test_without_a_folder_every_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(KeptRuns(detector()).run(0, NoisyClip()).detections) == 3
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kept_runs, "save_file", interrupted)
    runs = KeptRuns(detector(), parent=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        runs.run(0, NoisyClip())
    assert runs.folder is not None and not list(runs.folder.iterdir())


@pytest.mark.parametrize("content", [b"", b"something else", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"run\.safetensors: expected a run that memwarp kept"):
        read_run(path)


def test_runs_of_one_program_share_a_session() -> None:
    assert run_clip(detector(), NoisyClip()).session == run_clip(detector(), NoisyClip()).session
