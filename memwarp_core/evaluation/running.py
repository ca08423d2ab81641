"""Runs a detector over clips and keeps everything that it said; what the figures of `scoring` are made of."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from uuid import uuid4

import numpy as np

from memwarp_core.data.clips import Clip
from memwarp_core.data.coco_vid import CocoVidClip
from memwarp_core.data.imagenet_vid import ImageNetClip
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.streaming import DetectorState, VideoDetector
from memwarp_core.types import Detections, Frame

WAYS = {
    "features, robust": AnticipationConfig(source="features", motion="robust"),
    "features, constant velocity": AnticipationConfig(source="features", motion="constant_velocity"),
    "features, constant acceleration": AnticipationConfig(source="features", motion="constant_acceleration"),
    "proposals, robust": AnticipationConfig(source="proposals", motion="robust"),
    "boxes, robust": AnticipationConfig(source="boxes", motion="robust"),
    "boxes, constant velocity": AnticipationConfig(source="boxes", motion="constant_velocity"),
    "boxes, constant acceleration": AnticipationConfig(source="boxes", motion="constant_acceleration"),
    "nothing moved": AnticipationConfig(source="boxes", motion="still"),
}
"""The ways of anticipation that are compared."""

_NO_IMAGE = np.empty((0, 0, 3), np.uint8)


@cache
def _session() -> str:
    return uuid4().hex


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRun:
    """What one detector said of one clip, from a new state; all in host memory."""

    detections: tuple[Detections, ...]
    """Of each frame."""
    step_ms: np.ndarray
    """(F,), float64, for each frame from its image to its boxes; reading the image and anticipating are not in it."""
    anticipated: Mapping[tuple[str, float], tuple[Detections, ...]] = field(default_factory=dict)
    """From the name in WAYS and the horizon in seconds to what was said in each frame but the first, in which nothing
    is known of motion; empty for a detector that looks ahead. Their stamps are those of the instants they speak of."""
    session: str = field(default_factory=_session)
    """Of the program's start in which it was made: times are comparable within a session."""


def run_clip(detector: VideoDetector, clip: Clip, horizons_s: Sequence[float] = (), *, first: int = 0) -> ClipRun:
    """Run a detector through one clip, frame by frame as a stream.

    Args:
        horizons_s: with any, objects are anticipated in every way, so many seconds ahead.
        first: the frame that the stream begins with; those before it are left out.
    """
    watch = _Stopwatch()
    detections: list[Detections] = []
    step_ms: list[float] = []
    anticipated: dict[tuple[str, float], list[Detections]] = {(way, h): [] for way in WAYS for h in horizons_s}
    for found, state in _stream(detector, _read(clip, first, watch)):
        detections.append(found.cpu())
        step_ms.append(watch.lap_ms())
        if state is None or len(detections) == 1:
            continue
        with watch.paused():
            for way, how in WAYS.items() if horizons_s else ():
                for horizon_s, said in zip(horizons_s, detector.anticipate(state, horizons_s, how), strict=True):
                    anticipated[way, horizon_s].append(said.cpu())
    return ClipRun(
        detections=tuple(detections),
        step_ms=np.array(step_ms),
        anticipated={key: tuple(said) for key, said in anticipated.items()},
    )


def ground_truth(clip: Clip) -> list[Frame]:
    """The frames of a clip without their images, which a long evaluation could not keep."""
    if isinstance(clip, (CocoVidClip, ImageNetClip)):  # which know it without reading images
        return list(clip.records)
    return [replace(clip[index], image=_NO_IMAGE) for index in range(len(clip))]


class _Stopwatch:
    """Tells the time between laps, less what was spent in pauses."""

    def __init__(self) -> None:
        self._lap_began_s = time.perf_counter()

    def lap_ms(self) -> float:
        now_s = time.perf_counter()
        lap_s, self._lap_began_s = now_s - self._lap_began_s, now_s
        return 1e3 * lap_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        began_s = time.perf_counter()
        yield
        self._lap_began_s += time.perf_counter() - began_s


def _read(clip: Clip, first: int, watch: _Stopwatch) -> Iterator[Frame]:
    """One frame at a time, since long clips do not fit into memory."""
    for index in range(first, len(clip)):
        with watch.paused():
            frame = clip[index]
        yield frame


def _stream(detector: VideoDetector, frames: Iterable[Frame]) -> Iterator[tuple[Detections, DetectorState | None]]:
    """Detections of each frame, and the state after it unless the detector looks ahead."""
    if detector.lookahead:
        for detections in detector.detect_clip((frame.image, frame.stamp_ns) for frame in frames):
            yield detections, None
        return
    state = detector.start()
    for frame in frames:
        detections, state = detector.step(frame.image, frame.stamp_ns, state)
        yield detections, state
