from dataclasses import replace

import numpy as np
import pytest
import torch

from memwarp_core.evaluation.reproduction.bootstrap import sample_clips
from memwarp_core.evaluation.reproduction.measure import Figures, score_row
from memwarp_core.evaluation.running import ClipRun
from memwarp_core.types import Detections, Frame

NAMES = ("ball", "crate")


def clip(right: bool) -> tuple[ClipRun, list[Frame]]:
    """One frame with one ball, which is found or not."""
    box = np.array([[10, 10, 50, 50]], np.float32)
    truth = Frame(
        image=np.zeros((0, 0, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=box,
        labels=np.zeros(1, np.int64),
        track_ids=np.zeros(1, np.int64),
    )
    found = Detections(
        boxes_xyxy=torch.tensor(box if right else box + 100),
        scores=torch.ones(1),
        labels=torch.zeros(1, dtype=torch.int64),
        stamp_ns=0,
    )
    return ClipRun(detections=(found,), step_ms=np.array([40.0 if right else 60.0]), session="now"), [truth]


def score(runs: list[ClipRun], truths: list[list[Frame]], beside: list[ClipRun]) -> Figures:
    return score_row(runs, truths, NAMES, times=sample_clips(len(runs), 50), beside=beside)


def test_a_row_is_scored_on_the_clips_and_on_samples_of_them() -> None:
    runs, truths = zip(*[clip(True), clip(True), clip(False)], strict=True)
    figures = score(list(runs), list(truths), list(runs))
    assert figures.map["all"][0] == pytest.approx(200 / 3)  # two of three are found before anything wrong
    assert {0.0, 100.0} < {round(value, 6) for value in figures.map["all"]}
    assert figures.map["slow"][0] == figures.map["all"][0]
    assert np.isnan(figures.map["fast"]).all()
    assert figures.ap == {"ball": pytest.approx(200 / 3), "crate": None}


def test_times_are_the_median_over_clips() -> None:
    runs, truths = zip(*[clip(True), clip(True), clip(False)], strict=True)
    figures = score(list(runs), list(truths), list(runs))
    assert figures.ms[0] == 40.0
    assert set(figures.ms) <= {40.0, 50.0, 60.0}


def test_only_clips_of_the_same_session_are_timed() -> None:
    runs, truths = zip(*[clip(True), clip(False)], strict=True)
    before = [replace(runs[0], session="before"), runs[1]]
    assert score(list(runs), list(truths), before).ms[0] == 60.0
    assert np.isnan(score(list(runs), list(truths), [before[0], before[0]]).ms).all()
