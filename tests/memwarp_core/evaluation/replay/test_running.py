"""Real time, with a clock that passes only when somebody works or waits."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from memwarp_core.data.bags import read_bag
from memwarp_core.evaluation.replay.running import CameraRun, Clock, run_cameras, run_in_real_time
from memwarp_core.evaluation.replay.schedule import newest_wins
from memwarp_core.types import Detections

START_NS, MS = 1_000_000_000, 1_000_000
CLASS_NAMES = ("ball", "crate")


class FakeClock(Clock):
    def __init__(self) -> None:
        self.time_ns = 0
        self.stands = False

    def start(self, start_ns: int) -> Clock:
        self.time_ns = start_ns
        return self

    def now_ns(self) -> int:
        return self.time_ns

    def wait_until(self, time_ns: int) -> None:
        self.time_ns = max(self.time_ns, time_ns)

    def work(self, ms: int) -> None:
        if not self.stands:
            self.time_ns += ms * MS

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.stands = True
        yield
        self.stands = False


@pytest.fixture
def clock(detector: Any, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Detecting takes 140 ms of it, and moving boxes 10."""
    clock, step, anticipate = FakeClock(), detector.step, detector.anticipate

    def slow_step(*args: object) -> object:
        clock.work(140)
        return step(*args)

    def slow_anticipate(*args: object) -> list[Detections]:
        clock.work(10)
        return anticipate(*args)

    monkeypatch.setattr(detector, "step", slow_step)
    monkeypatch.setattr(detector, "anticipate", slow_anticipate)
    return clock


def in_real_time(clock: FakeClock, detector: Any, bag: Path, horizons_s: Sequence[float] = ()) -> CameraRun:
    clip = read_bag(bag, class_names=CLASS_NAMES)
    (run,) = run_in_real_time(detector, [clip], [clip.stamps_ns], horizons_s, clock.start)
    clip.close()
    return run


def milliseconds(times_ns: Sequence[int]) -> list[int]:
    return [(time_ns - START_NS) // MS for time_ns in times_ns]


def test_the_newest_image_wins_in_real_time(
    clock: FakeClock, detector: Any, tmp_path: Path, write_bag: Callable[..., Path]
) -> None:
    run = in_real_time(clock, detector, write_bag(tmp_path / "walk"))
    assert milliseconds(run.stamps_ns) == [0, 100, 300, 400, 600, 700]
    assert milliseconds(run.begun_ns) == [0, 150, 300, 450, 600, 750]
    assert milliseconds(run.available_ns) == [150, 300, 450, 600, 750, 900]


def test_boxes_are_moved_to_the_end_of_moving_them(
    clock: FakeClock, detector: Any, tmp_path: Path, write_bag: Callable[..., Path]
) -> None:
    run = in_real_time(clock, detector, write_bag(tmp_path / "walk"))
    assert milliseconds([one.stamp_ns for one in run.now]) == [140, 300, 450, 600, 750, 900]  # the first cannot know


def test_what_is_there_to_be_scored_takes_no_time(
    clock: FakeClock, detector: Any, tmp_path: Path, write_bag: Callable[..., Path]
) -> None:
    run = in_real_time(clock, detector, write_bag(tmp_path / "walk"), [0.1, 0.2])
    assert milliseconds(run.available_ns) == [150, 300, 450, 600, 750, 900]
    assert all(len(said) == 6 for said in run.anticipated.values())


def test_real_time_and_the_virtual_clock_agree(
    clock: FakeClock, detector: Any, tmp_path: Path, write_bag: Callable[..., Path]
) -> None:
    bag = write_bag(tmp_path / "walk", 20)
    real = in_real_time(clock, detector, bag)
    clip = read_bag(bag, class_names=CLASS_NAMES)
    turns = newest_wins([clip.stamps_ns], repeat((150 * MS, 150 * MS)))
    (simulated,) = run_cameras(detector, [clip], turns, [])
    clip.close()
    assert (real.stamps_ns, real.available_ns) == (simulated.stamps_ns, simulated.available_ns)
    for one, other in zip(real.now[1:], simulated.now[1:], strict=True):
        assert one.stamp_ns == other.stamp_ns and one.boxes_xyxy.equal(other.boxes_xyxy)


def test_a_clock_goes_on_where_it_stood() -> None:
    clock = Clock(START_NS)
    with clock.stopped():
        before_ns = clock.now_ns()
        clock.wait_until(before_ns + 20 * MS)
    assert 0 <= clock.now_ns() - before_ns < 15 * MS
    clock.wait_until(START_NS)  # which has passed
