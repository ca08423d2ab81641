from dataclasses import replace

import numpy as np
import pytest
import torch

from memwarp_core.evaluation import average_precision
from memwarp_core.types import Detections, Frame

NAMES = ("ball", "crate", "cone")


def truth(boxes: list[list[float]], labels: list[int]) -> Frame:
    return Frame(
        image=np.zeros((1, 1, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        track_ids=np.arange(len(labels)),
    )


def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores),
        stamp_ns=0,
    )


TWO_OBJECTS = truth([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1])
BOTH_FOUND = found([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1], [0.9, 0.8])


def test_perfect_detections_score_one() -> None:
    score = average_precision([BOTH_FOUND], [TWO_OBJECTS], NAMES)
    assert score.map == pytest.approx(1.0)
    assert score.map50 == pytest.approx(1.0)
    assert score.ap50_per_class == {"ball": pytest.approx(1.0), "crate": pytest.approx(1.0), "cone": None}


def test_the_first_label_counts_like_the_others() -> None:
    only_crate = found([[20, 20, 40, 40]], [1], [0.8])
    score = average_precision([only_crate], [TWO_OBJECTS], NAMES)
    assert score.ap50_per_class["ball"] == 0.0
    assert score.map50 == pytest.approx(0.5)


def test_an_overlap_of_three_quarters_counts_up_to_that_threshold() -> None:
    shorter = replace(BOTH_FOUND, boxes_xyxy=torch.tensor([[0.0, 0, 10, 7.6], [20, 20, 40, 35.2]]))
    score = average_precision([shorter], [TWO_OBJECTS], NAMES)
    assert score.map50 == pytest.approx(1.0)
    assert score.map == pytest.approx(0.6)  # thresholds 0.50 to 0.75 of ten


def test_a_second_box_on_one_object_is_a_false_positive() -> None:
    twice = found([[0, 0, 10, 10], [0, 0, 10, 10]], [0, 0], [0.9, 0.95])
    one_of_two = truth([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])
    # Precision 1 up to recall one half: 51 of the 101 points of COCO's curve.
    assert average_precision([twice], [one_of_two], NAMES).map50 == pytest.approx(51 / 101)


def test_without_detections_or_without_truth() -> None:
    nothing = found([], [], [])
    assert average_precision([nothing], [TWO_OBJECTS], NAMES).map50 == 0.0
    assert average_precision([BOTH_FOUND], [truth([], [])], NAMES).map50 is None


def test_numbers_of_frames_must_agree() -> None:
    with pytest.raises(ValueError, match="2 frames, got 1"):
        average_precision([BOTH_FOUND], [TWO_OBJECTS] * 2, NAMES)
