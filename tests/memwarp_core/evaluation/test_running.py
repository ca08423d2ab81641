from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
import torch

from memwarp_core.evaluation import running
from memwarp_core.evaluation.running import WAYS, ground_truth, run_clip
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.types import Detections, Frame

FRAME_NS = 50_000_000


class Clock:
    """A time that only passes when somebody says so."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(running, "time", clock)
    return clock


class CountingClip:
    """Four frames whose images hold their numbers; reading one takes 100 s."""

    name = "counting"
    class_names = ("ball",)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Frame:
        self._clock.now_s += 100
        return Frame(
            image=np.full((8, 8, 3), index, np.uint8),
            stamp_ns=index * FRAME_NS,
            boxes_xyxy=np.array([[0, 0, 4, 4]], np.float32),
            labels=np.array([0]),
            track_ids=np.array([1]),
        )


class ReadsNumbers:
    """Finds an object whose score says which frame was seen; takes 1 s for frame 0, 2 s for frame 1, and so on."""

    name = "reads numbers"
    class_names = ("ball",)

    def __init__(self, clock: Clock, lookahead: int = 0) -> None:
        self._clock = clock
        self.lookahead = lookahead

    def start(self) -> tuple[int, ...]:
        return ()

    def step(self, image: np.ndarray, stamp_ns: int, state: tuple[int, ...]) -> tuple[Detections, tuple[int, ...]]:
        number = int(image[0, 0, 0])
        self._clock.now_s += 1 + number
        return says(number, stamp_ns), (*state, number)

    def detect_clip(self, frames: Iterable[tuple[np.ndarray, int]]) -> Iterator[Detections]:
        seen = [self.step(image, stamp_ns, ())[0] for image, stamp_ns in frames]
        yield from seen

    def anticipate(
        self, state: tuple[int, ...], horizons_s: Sequence[float], how: AnticipationConfig
    ) -> list[Detections]:
        self._clock.now_s += 1000
        return [says(len(state), state[-1] * FRAME_NS + round(1e9 * horizon_s)) for horizon_s in horizons_s]


def says(number: int, stamp_ns: int) -> Detections:
    return Detections(
        boxes_xyxy=torch.zeros(1, 4),
        scores=torch.tensor([number / 10]),
        labels=torch.zeros(1).long(),
        stamp_ns=stamp_ns,
    )


def numbers(detections: Iterable[Detections]) -> list[int]:
    return [round(10 * float(one.scores)) for one in detections]


def test_every_frame_is_seen_in_order(clock: Clock) -> None:
    run = run_clip(ReadsNumbers(clock), CountingClip(clock))  # type: ignore[arg-type]
    assert numbers(run.detections) == [0, 1, 2, 3]
    assert [one.stamp_ns for one in run.detections] == [0, FRAME_NS, 2 * FRAME_NS, 3 * FRAME_NS]
    assert run.anticipated == {}


def test_neither_reading_nor_anticipating_counts_as_time_of_a_step(clock: Clock) -> None:
    run = run_clip(ReadsNumbers(clock), CountingClip(clock), [0.1])  # type: ignore[arg-type]
    np.testing.assert_allclose(run.step_ms, [1000, 2000, 3000, 4000])


def test_a_detector_that_looks_ahead_is_timed_without_reading_and_anticipates_nothing(clock: Clock) -> None:
    run = run_clip(ReadsNumbers(clock, lookahead=4), CountingClip(clock), [0.1])  # type: ignore[arg-type]
    assert numbers(run.detections) == [0, 1, 2, 3]
    np.testing.assert_allclose(run.step_ms, [10_000, 0, 0, 0])
    assert all(not said for said in run.anticipated.values())


def test_each_frame_but_the_first_is_anticipated_from_in_every_way(clock: Clock) -> None:
    run = run_clip(ReadsNumbers(clock), CountingClip(clock), [0.05, 0.1])  # type: ignore[arg-type]
    assert set(run.anticipated) == {(way, horizon_s) for way in WAYS for horizon_s in (0.05, 0.1)}
    said = run.anticipated["nothing moved", 0.1]
    assert numbers(said) == [2, 3, 4]  # frames seen by then
    assert [one.stamp_ns for one in said] == [3 * FRAME_NS, 4 * FRAME_NS, 5 * FRAME_NS]


def test_a_stream_can_begin_later(clock: Clock) -> None:
    run = run_clip(ReadsNumbers(clock), CountingClip(clock), first=2)  # type: ignore[arg-type]
    assert numbers(run.detections) == [2, 3]


def test_ground_truth_has_no_images(clock: Clock) -> None:
    frames = ground_truth(CountingClip(clock))
    assert [frame.stamp_ns for frame in frames] == [0, FRAME_NS, 2 * FRAME_NS, 3 * FRAME_NS]
    assert all(frame.image.size == 0 and len(frame.labels) == 1 for frame in frames)
