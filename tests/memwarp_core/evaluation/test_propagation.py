from dataclasses import replace

import numpy as np
import pytest
import torch

from memwarp_core import VideoDetector
from memwarp_core.evaluation.propagation import SOURCES, propagating, score_propagation
from memwarp_core.evaluation.running import ClipRun
from memwarp_core.models import DetectorConfig, build_detector
from memwarp_core.timeline import no_objects
from memwarp_core.types import Detections, Frame

EVERY = 3


def truth(index: int) -> Frame:
    """An object that is elsewhere in every frame."""
    return Frame(
        image=np.empty((0, 0, 3), np.uint8),
        stamp_ns=index,
        boxes_xyxy=np.array([[50 * index, 0, 50 * index + 40, 40]], np.float32),
        labels=np.array([0]),
        track_ids=np.array([1]),
    )


def found(frame: Frame) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor(frame.boxes_xyxy),
        scores=torch.ones(1),
        labels=torch.tensor(frame.labels),
        stamp_ns=frame.stamp_ns,
    )


def with_hidden_object(frame: Frame) -> Frame:
    return replace(
        frame,
        boxes_xyxy=np.concatenate([frame.boxes_xyxy, [[1000, 0, 1040, 40]]]),
        labels=np.zeros(2, np.int64),
        track_ids=np.array([1, 2]),
    )


def runs_of(truths: list[Frame], lasts: int) -> list[ClipRun]:
    """Finds the object until evidence is `lasts` frames old; takes 10 ms with evidence, 2 ms without, 99 at first."""
    runs = []
    for first in range(EVERY):
        ages = [index % EVERY for index in range(len(truths) - first)]
        seen = [
            found(frame) if age < lasts else no_objects(frame.stamp_ns)
            for age, frame in zip(ages, truths[first:], strict=True)
        ]
        times = [10.0 if age == 0 else 2.0 for age in ages]
        times[:1] = [99.0] * len(times[:1])
        runs.append(ClipRun(detections=tuple(seen), step_ms=np.array(times)))
    return runs


@pytest.mark.parametrize("lengths", [(7,), (3, 8, 5)])
@pytest.mark.parametrize("lasts", [1, 2, 3])
def test_frames_are_scored_by_the_age_of_their_evidence(lengths: tuple[int, ...], lasts: int) -> None:
    truths = [[truth(index) for index in range(length)] for length in lengths]
    scores = score_propagation([runs_of(frames, lasts) for frames in truths], truths, ["ball"])
    assert scores["map50"] == {str(age): pytest.approx(float(age < lasts)) for age in range(EVERY)}
    assert scores["ms"] == {"0": 10, "1": 2, "2": 2}
    assert scores["ms_per_frame"] == pytest.approx(14 / 3)


def test_every_age_is_scored_on_the_same_frames() -> None:
    truths = [truth(index) for index in range(6)]
    runs = runs_of(truths, lasts=EVERY)
    # No run has come as far as to frame EVERY - 2 at the largest age.
    for spoilt, expected in ((EVERY - 2, 1.0), (EVERY - 1, 81 / 101)):
        changed = [*truths[:spoilt], with_hidden_object(truths[spoilt]), *truths[spoilt + 1 :]]
        scores = score_propagation([runs], [changed], ["ball"])
        assert scores["map50"] == {str(age): pytest.approx(expected) for age in range(EVERY)}


def test_a_clip_that_is_too_short_says_nothing() -> None:
    truths = [truth(index) for index in range(EVERY - 1)]
    scores = score_propagation([runs_of(truths, lasts=EVERY)], [truths], ["ball"])
    assert scores["map50"] == {"0": None, "1": None, "2": None}
    assert scores["ms_per_frame"] is None


def detector(**changes: object) -> VideoDetector:
    torch.manual_seed(0)
    plain = {"name": "plain", "class_names": ["ball"], "short_side": 64}
    return VideoDetector(build_detector(DetectorConfig.model_validate({**plain, **changes})), "cpu")


@pytest.mark.parametrize("source", SOURCES)
def test_a_propagating_detector_has_the_same_weights_and_leaves_the_first_as_it_is(source: str) -> None:
    plain = detector()
    changed = propagating(plain, 4, source)  # type: ignore[arg-type]
    assert changed is not None
    assert (changed.config.propagation.every, changed.config.propagation.source) == (4, source)
    assert plain.config.propagation.every == 1
    for own, first in zip(changed.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(own, first)


@pytest.mark.parametrize(
    ("changes", "sources"),
    [
        ({"memory": {"kind": "clocknet"}}, ["features", "boxes"]),
        ({"memory": {"kind": "none"}}, ["boxes"]),
        ({"memory": {"kind": "none"}, "displacement": {"kind": "none"}}, []),
        ({"memory": {"kind": "fgfa", "past": 2, "future": 2}}, []),
        ({"memory": {"kind": "none"}, "strong": {"detector": {"name": "strong", "class_names": ["ball"]}}}, []),
    ],
)
def test_only_what_a_detector_has_can_be_propagated(changes: dict[str, object], sources: list[str]) -> None:
    plain = detector(**changes)
    assert [source for source in SOURCES if propagating(plain, 2, source) is not None] == sources
