"""What was said about a later instant is compared with that instant, and only with it."""

import numpy as np
import torch
from pytest import approx

from memwarp_core.evaluation.horizons import map50_at_their_time, nothing_moved
from memwarp_core.types import Detections, Frame

FRAME_NS = 50_000_000
SPEED = 10.0  # pixels per frame


def box_at(index: float) -> list[float]:
    return [SPEED * index, 20.0, SPEED * index + 30.0, 60.0]


def said(index: float, stamp_ns: int) -> Detections:
    """One ball where it is at frame index, said of stamp_ns."""
    return Detections(
        boxes_xyxy=torch.tensor([box_at(index)]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        stamp_ns=stamp_ns,
    )


def truths(count: int = 10) -> list[Frame]:
    return [
        Frame(
            image=np.zeros((1, 1, 3), np.uint8),
            stamp_ns=index * FRAME_NS,
            boxes_xyxy=np.array([box_at(index)], np.float32),
            labels=np.array([0]),
            track_ids=np.array([1]),
        )
        for index in range(count)
    ]


def test_true_anticipation_scores_one_and_nothing_moved_zero() -> None:
    current = [said(index, index * FRAME_NS) for index in range(10)]
    anticipated = [said(index + 2, (index + 2) * FRAME_NS) for index in range(10)]
    assert map50_at_their_time(current, truths(), ["ball"]) == approx(1.0)
    assert map50_at_their_time(anticipated, truths(), ["ball"]) == approx(1.0)
    assert map50_at_their_time(nothing_moved(current, 0.1), truths(), ["ball"]) == 0.0


def test_stamps_that_jitter_by_less_than_half_an_interval_are_matched() -> None:
    late = [said(index, index * FRAME_NS + FRAME_NS // 3) for index in range(10)]
    assert map50_at_their_time(late, truths(), ["ball"]) == approx(1.0)


def test_what_lies_beyond_the_end_is_left_out() -> None:
    assert map50_at_their_time([said(0, 0), said(0, 99 * FRAME_NS)], truths(), ["ball"]) == approx(1.0)
    assert map50_at_their_time([said(0, 99 * FRAME_NS)], truths(), ["ball"]) is None
