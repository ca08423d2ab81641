"""Runs a detector over the images that a schedule chose, and keeps what it said and when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memwarp_core.data.clips import Clip
from memwarp_core.errors import DataError
from memwarp_core.evaluation.replay.schedule import Turn
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.streaming import DetectorState, VideoDetector
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
    states = [detector.start() for _ in cameras]
    ways = dict(zip(WAYS, _ways(detector), strict=True))
    taken: list[list[Turn]] = [[] for _ in cameras]
    refused: list[list[str]] = [[] for _ in cameras]
    detections: list[list[Detections]] = [[] for _ in cameras]
    now: list[list[Detections]] = [[] for _ in cameras]
    anticipated: list[dict[tuple[str, float], list[Detections]]] = [
        {(way, horizon_s): [] for way in WAYS for horizon_s in horizons_s} for _ in cameras
    ]
    for turn in turns:
        camera = turn.camera
        try:
            frame = cameras[camera][turn.index]
            found, state = detector.step(frame.image, frame.stamp_ns, states[camera])
        except DataError as error:
            refused[camera].append(str(error))
            continue
        states[camera] = state
        taken[camera].append(turn)
        detections[camera].append(found.cpu())
        now[camera].append(_now(detector, found, state, turn.available_ns).cpu())
        for way, how in ways.items():
            for horizon_s, said in zip(horizons_s, detector.anticipate(state, horizons_s, how), strict=True):
                anticipated[camera][way, horizon_s].append(said.cpu())
    return [
        CameraRun(
            stamps_ns=tuple(one.stamp_ns for one in detections[camera]),
            begun_ns=tuple(turn.begun_ns for turn in taken[camera]),
            available_ns=tuple(turn.available_ns for turn in taken[camera]),
            detections=tuple(detections[camera]),
            now=tuple(now[camera]),
            anticipated={key: tuple(said) for key, said in anticipated[camera].items()},
            refused=tuple(refused[camera]),
        )
        for camera in range(len(cameras))
    ]


def _ways(detector: VideoDetector) -> list[AnticipationConfig]:
    own = detector.config.anticipation
    return [own, own.model_copy(update={"source": "boxes"}), AnticipationConfig(source="boxes", motion="still")]


def _now(detector: VideoDetector, found: Detections, state: DetectorState, available_ns: int) -> Detections:
    age_ns = available_ns - found.stamp_ns
    if not 0 < age_ns <= 1e9 * MAX_IMAGE_AGE_S:
        return found
    (moved,) = detector.anticipate(state, [age_ns / 1e9])
    return replace(moved, stamp_ns=available_ns)
