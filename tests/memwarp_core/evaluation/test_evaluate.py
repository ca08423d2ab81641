from dataclasses import replace

import numpy as np
import pytest
import torch

from memwarp_core import VideoDetector
from memwarp_core.evaluation.evaluate import evaluate
from memwarp_core.evaluation.running import WAYS
from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.types import Detections, Frame


class DarkClip:
    """Four frames, two of them called noisy, with one object."""

    name = "dark"
    class_names = ("ball", "crate")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Frame:
        return Frame(
            image=np.zeros((64, 64, 3), np.uint8),
            stamp_ns=index * 50_000_000,
            boxes_xyxy=np.array([[8, 8, 40, 40]], np.float32),
            labels=np.array([0]),
            track_ids=np.array([1]),
            degradation="noise" if index % 2 else "none",
        )


def test_a_report_has_every_split_and_every_way_of_anticipation() -> None:
    torch.manual_seed(0)
    config = DetectorConfig(name="test", class_names=("ball", "crate"), short_side=64)
    report = evaluate(VideoDetector(Detector(config), "cpu"), [DarkClip(), DarkClip()], horizons_s=[0.05, 1.0])
    assert report["frames"] == 8
    assert set(report["map50"]) == {"all", "clean", "degraded"}
    assert report["map50_by_speed"]["slow"] is not None
    assert report["map50_by_speed"]["medium"] is report["map50_by_speed"]["fast"] is None  # nothing moves
    assert report["ap50_per_class"]["crate"] is None
    assert set(report["anticipation"]) == set(WAYS)
    for scores in report["anticipation"].values():
        assert scores["0.05"] is not None
        assert scores["1"] is None  # beyond the end of every clip: nothing to compare with
    assert report["map50"]["all"] == pytest.approx(report["map50"]["clean"], abs=1.0)


class BusyClip(DarkClip):
    """An object that stays where it is, and one that is somewhere else in every frame."""

    def __getitem__(self, index: int) -> Frame:
        return replace(
            super().__getitem__(index),
            boxes_xyxy=np.array([[8, 8, 40, 40], [40, 16 * index, 60, 16 * index + 16]], np.float32),
            labels=np.array([0, 0]),
            track_ids=np.array([1, 2]),
        )


class FindsWhatStays:
    """As much of a VideoDetector as an evaluation needs."""

    name = "finds what stays"
    class_names = ("ball", "crate")
    lookahead = 0

    def start(self) -> None:
        return None

    def step(self, image: np.ndarray, stamp_ns: int, state: None) -> tuple[Detections, None]:
        box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        return Detections(boxes_xyxy=box, scores=torch.ones(1), labels=torch.zeros(1).long(), stamp_ns=stamp_ns), state


def test_slow_and_fast_objects_are_scored_apart_in_each_clip() -> None:
    report = evaluate(FindsWhatStays(), [BusyClip(), BusyClip()])  # type: ignore[arg-type]
    assert report["map50_by_speed"] == {"slow": 1.0, "medium": None, "fast": 0.0}
    assert report["map50"]["all"] == pytest.approx(51 / 101)  # COCO's points up to a recall of one half
