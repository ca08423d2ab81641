"""Runs a detector over the images that a schedule chose, and keeps what it said and when."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from memwarp_core.data.clips import Clip
from memwarp_core.errors import DataError
from memwarp_core.evaluation.replay.schedule import Arrivals, Turn
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.streaming import VideoDetector
from memwarp_core.types import Detections

ANTICIPATED = "anticipated"
NOTHING_MOVED = "nothing moved"
WAYS = (ANTICIPATED, "box propagation", NOTHING_MOVED)
"""Of saying where objects will be: the model's own, its boxes moved as its own would be, and its boxes as they are."""
MAX_IMAGE_AGE_S = 1.0
"""What is in older images is not moved to now; the node's default as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraRun:
    """What one detector said of one camera; all in host memory. Columns are by processed image, in their order."""

    stamps_ns: tuple[int, ...]
    begun_ns: tuple[int, ...]
    available_ns: tuple[int, ...]
    detections: tuple[Detections, ...]
    now: tuple[Detections, ...]
    """detections_now: moved to the instant at which they were there."""
    anticipated: Mapping[tuple[str, float], tuple[Detections, ...]]
    """By way and horizon in seconds; stamps are those of the instants spoken of."""
    refused: tuple[str, ...] = ()
    """Why images could not be used; these took their time but said nothing."""


def run_cameras(
    detector: VideoDetector, cameras: Sequence[Clip], turns: Sequence[Turn], horizons_s: Sequence[float]
) -> list[CameraRun]:
    """Process images in turn, with one state per camera.

    Args:
        turns: of each camera by growing stamps.
        horizons_s: how far ahead objects are anticipated, in every one of WAYS.
    Returns: a run per camera.
    """
    streams = [_Stream(detector, clip, horizons_s) for clip in cameras]
    for turn in turns:
        stream = streams[turn.camera]
        found = stream.look(turn.index)
        if found is not None:
            now = stream.move(found, turn.available_ns)
            stream.keep(found, now, begun_ns=turn.begun_ns, available_ns=turn.available_ns)
    return [stream.run() for stream in streams]


class Clock:
    """The real time since the clock was made, as if it had been `start_ns` then, less the time in which it stood."""

    def __init__(self, start_ns: int) -> None:
        self._offset_ns = start_ns - time.perf_counter_ns()

    def now_ns(self) -> int:
        return time.perf_counter_ns() + self._offset_ns

    def wait_until(self, time_ns: int) -> None:
        time.sleep(max(0, time_ns - self.now_ns()) / 1e9)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        stood_ns = self.now_ns()
        yield
        self._offset_ns += stood_ns - self.now_ns()


def run_in_real_time(
    detector: VideoDetector,
    cameras: Sequence[Clip],
    stamps_ns: Sequence[Sequence[int]],
    horizons_s: Sequence[float],
    make_clock: Callable[[int], Clock] = Clock,
) -> list[CameraRun]:
    """As run_cameras, by the real time that each image takes, from reading it to having moved its boxes to now.

    The clock stands still while objects are anticipated at the horizons, which are there to be scored.
    """
    if (first_ns := Arrivals(stamps_ns).next_ns()) is not None:
        for clip in cameras:  # nothing is known of what a first image takes
            _Stream(detector, clip, ()).look(0)
    streams, arrivals = [_Stream(detector, clip, horizons_s) for clip in cameras], Arrivals(stamps_ns)
    clock, moving_ns = make_clock(first_ns or 0), 0
    while (next_ns := arrivals.next_ns()) is not None:
        clock.wait_until(next_ns)
        begun_ns = clock.now_ns()
        if (taken := arrivals.take(begun_ns)) is None:  # woken a little early
            continue
        stream, index = streams[taken[0]], taken[1]
        found = stream.look(index)
        if found is None:
            continue
        # Moving the boxes takes time, too: about as long as for the image before, as in the node.
        found_ns = clock.now_ns()
        now = stream.move(found, found_ns + moving_ns)
        available_ns = clock.now_ns()
        moving_ns = available_ns - found_ns
        with clock.stopped():
            stream.keep(found, now, begun_ns=begun_ns, available_ns=available_ns)
    return [stream.run() for stream in streams]


class _Stream:
    """A camera under way: its memory, and what was said so far."""

    def __init__(self, detector: VideoDetector, clip: Clip, horizons_s: Sequence[float]) -> None:
        self._detector, self._clip, self._horizons_s = detector, clip, horizons_s
        self._state = detector.start()
        self._ways = dict(zip(WAYS, _ways(detector), strict=True))
        self._begun_ns: list[int] = []
        self._available_ns: list[int] = []
        self._detections: list[Detections] = []
        self._now: list[Detections] = []
        self._anticipated: dict[tuple[str, float], list[Detections]] = {
            (way, horizon_s): [] for way in WAYS for horizon_s in horizons_s
        }
        self._refused: list[str] = []

    def look(self, index: int) -> Detections | None:
        """What is found in an image, in host memory; None if it cannot be used."""
        try:
            frame = self._clip[index]
            found, self._state = self._detector.step(frame.image, frame.stamp_ns, self._state)
        except DataError as error:
            self._refused.append(str(error))
            return None
        return found.cpu()

    def move(self, found: Detections, to_ns: int) -> Detections:
        """What was found in the newest image, at a later instant."""
        age_ns = to_ns - found.stamp_ns
        if not 0 < age_ns <= 1e9 * MAX_IMAGE_AGE_S:
            return found
        (moved,) = self._detector.anticipate(self._state, [age_ns / 1e9])
        return replace(moved.cpu(), stamp_ns=to_ns)

    def keep(self, found: Detections, now: Detections, *, begun_ns: int, available_ns: int) -> None:
        """Keep what was said of the newest image, and say what comes at the horizons."""
        self._begun_ns.append(begun_ns)
        self._available_ns.append(available_ns)
        self._detections.append(found)
        self._now.append(now)
        for way, how in self._ways.items() if self._horizons_s else ():
            later = self._detector.anticipate(self._state, self._horizons_s, how)
            for horizon_s, said in zip(self._horizons_s, later, strict=True):
                self._anticipated[way, horizon_s].append(said.cpu())

    def run(self) -> CameraRun:
        return CameraRun(
            stamps_ns=tuple(one.stamp_ns for one in self._detections),
            begun_ns=tuple(self._begun_ns),
            available_ns=tuple(self._available_ns),
            detections=tuple(self._detections),
            now=tuple(self._now),
            anticipated={key: tuple(said) for key, said in self._anticipated.items()},
            refused=tuple(self._refused),
        )


def _ways(detector: VideoDetector) -> list[AnticipationConfig]:
    own = detector.config.anticipation
    return [own, own.model_copy(update={"source": "boxes"}), AnticipationConfig(source="boxes", motion="still")]
