from collections.abc import Sequence

import numpy as np
import pytest
import torch

from memwarp_core.evaluation.running import ClipRun
from memwarp_core.evaluation.scoring import score_runs
from memwarp_core.types import Detections, Frame

FRAME_NS = 50_000_000
NAMES = ("ball", "crate")
BALL, CRATE = [0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0]


def truth(index: int, degradation: str = "none", boxes: Sequence[Sequence[float]] = (BALL, CRATE)) -> Frame:
    return Frame(
        image=np.empty((0, 0, 3), np.uint8),
        stamp_ns=index * FRAME_NS,
        boxes_xyxy=np.array(boxes, np.float32),
        labels=np.array([0, 1]),
        track_ids=np.array([1, 2]),
        degradation=degradation,
    )


def found(index: int, *, ball: bool = True, crate: bool = True, ahead: int = 0) -> Detections:
    there = [label for label, is_there in enumerate((ball, crate)) if is_there]
    return Detections(
        boxes_xyxy=torch.tensor([(BALL, CRATE)[label] for label in there]).reshape(-1, 4),
        scores=torch.ones(len(there)),
        labels=torch.tensor(there, dtype=torch.int64),
        stamp_ns=(index + ahead) * FRAME_NS,
    )


def run_of(detections: Sequence[Detections], step_ms: Sequence[float] | None = None) -> ClipRun:
    return ClipRun(detections=tuple(detections), step_ms=np.array(step_ms or [1.0] * len(detections)))


def test_every_kind_of_degradation_is_scored_by_itself() -> None:
    truths = [truth(0), truth(1, "noise"), truth(2, "defocus"), truth(3, "defocus")]
    run = run_of([found(0), found(1, crate=False), found(2, ball=False, crate=False), found(3, crate=False)])
    report = score_runs([run], [truths], NAMES)
    half = 51 / 101  # COCO's points up to a recall of one half
    assert report["map50_by_degradation"] == {"defocus": pytest.approx(half / 2), "noise": pytest.approx(0.5)}
    assert report["map50"]["clean"] == pytest.approx(1)
    assert report["map50"]["degraded"] == pytest.approx(67 / 101 / 2)  # two of three balls, no crate
    assert list(report["map50_by_degradation"]) == ["defocus", "noise"]


def test_without_degradation_there_is_nothing_to_say_about_it() -> None:
    report = score_runs([run_of([found(0)])], [[truth(0)]], NAMES)
    assert report["map50"] == {"all": pytest.approx(1), "clean": pytest.approx(1), "degraded": None}
    assert report["map50_by_degradation"] == {}


def test_classes_are_scored_apart_and_by_speed() -> None:
    frames = [truth(index, boxes=(BALL, [50.0 * (index + 1), 50, 50.0 * (index + 1) + 40, 90])) for index in range(2)]
    report = score_runs([run_of([found(0), found(1)])], [frames], NAMES)
    assert report["ap50_per_class"] == {"ball": pytest.approx(1), "crate": pytest.approx(51 / 101)}
    assert report["ap50_per_class_by_speed"]["ball"] == {"all": 1.0, "slow": 1.0, "medium": None, "fast": None}
    assert report["ap50_per_class_by_speed"]["crate"] == {"all": 0.5, "slow": None, "medium": None, "fast": 0.5}
    assert report["map50_by_speed"] == {"slow": 1.0, "medium": None, "fast": 0.5}


def test_what_is_anticipated_is_held_against_the_frame_it_speaks_of() -> None:
    truths = [truth(0), truth(1), truth(2, boxes=([100, 0, 140, 40], CRATE))]
    clip = ClipRun(
        detections=(found(0), found(1), found(2)),
        step_ms=np.ones(3),
        anticipated={
            ("nothing moved", 0.05): (found(1, ahead=1), found(2, ahead=1)),
            ("nothing moved", 0.2): (found(1, ahead=4), found(2, ahead=4)),
        },
    )
    report = score_runs([clip], [truths], NAMES)
    # In frame 2 the ball is elsewhere and the crate is not; nothing is known of frame 3.
    assert report["anticipation"] == {"nothing moved": {"0.05": pytest.approx(0.5), "0.2": None}}


def test_time_per_frame_is_the_median_over_clips_of_their_mean() -> None:
    quick, slow = [found(0), found(1)], [found(0), found(1)]
    truths = [truth(0), truth(1)]
    runs = [run_of(quick, [1, 3]), run_of(slow, [100, 500]), run_of(quick, [4, 8])]
    report = score_runs(runs, [truths] * 3, NAMES)
    assert report["ms_per_frame"] == 6
    assert report["frames"] == 6


def test_a_frame_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the detections of 2 frames, got 1"):
        score_runs([run_of([found(0)])], [[truth(0), truth(1)]], NAMES)
