import numpy as np
import pytest
import torch

from memwarp_core.evaluation.reproduction.bootstrap import interval, sample_clips, sampled_map
from memwarp_core.evaluation.vid_average_precision import SPEEDS, accumulate, judge
from memwarp_core.types import Detections, Frame

NAMES = ("ball", "crate")
CLIPS, FRAMES = 5, 4


def data_set() -> tuple[list[Detections], list[list[Frame]]]:
    """Objects that move by some pixels per frame, and detections around them, some far off."""
    rng = np.random.default_rng(3)
    clips, detections = [], []
    for _ in range(CLIPS):
        clip = []
        speed, count = rng.uniform(0, 20), int(rng.integers(0, 4))
        corners = rng.uniform(0, 200, (count, 2))
        labels = rng.integers(0, len(NAMES), count)
        for at in range(FRAMES):
            boxes = np.concatenate((corners + at * speed, corners + at * speed + 40), axis=1)
            clip.append(
                Frame(
                    image=np.zeros((0, 0, 3), np.uint8),
                    stamp_ns=at,
                    boxes_xyxy=boxes.astype(np.float32),
                    labels=labels,
                    track_ids=np.arange(count),
                )
            )
            found = np.concatenate((boxes + rng.normal(0, 6, boxes.shape), rng.uniform(0, 50, (2, 4)) + [0, 0, 99, 99]))
            detections.append(
                Detections(
                    boxes_xyxy=torch.tensor(found, dtype=torch.float32),
                    scores=torch.tensor(rng.uniform(size=len(found)), dtype=torch.float32),
                    labels=torch.tensor([*labels, 0, 1]),
                    stamp_ns=at,
                )
            )
        clips.append(clip)
    return detections, clips


def test_every_sample_scores_as_if_it_were_accumulated_by_itself() -> None:
    judged = judge(*data_set())
    times = sample_clips(CLIPS, 20)
    sampled = sampled_map(judged, np.repeat(np.arange(CLIPS), FRAMES), times, len(NAMES))
    for index, sample in enumerate(times):
        expected = accumulate(judged, NAMES, np.repeat(sample, FRAMES)).map
        for speed in SPEEDS:
            value = sampled[speed][index]
            assert (None if np.isnan(value) else value) == (
                None if expected[speed] is None else pytest.approx(expected[speed], abs=1e-12)
            )


def test_the_first_sample_is_the_clips_themselves_and_the_others_are_as_large() -> None:
    times = sample_clips(7, 30)
    assert times[0].tolist() == [1] * 7
    assert times.sum(axis=1).tolist() == [7] * 31
    assert len({tuple(sample) for sample in times}) > 20


def test_an_interval_leaves_out_a_fortieth_on_each_side() -> None:
    figure = interval(np.array([50.0, *np.arange(1, 102)]))
    assert (figure.value, figure.low, figure.high) == (50.0, pytest.approx(3.5), pytest.approx(98.5))


def test_samples_without_objects_are_left_out_of_the_interval() -> None:
    assert interval(np.array([1.0, np.nan, 2.0, 2.0])).low == 2.0
    assert np.isnan(interval(np.array([1.0, np.nan])).low)
