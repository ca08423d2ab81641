"""Score a detector on clips, frame by frame as a stream, and what it said of the frames to come."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.progress import track

from memwarp_core.data.clips import Clip
from memwarp_core.evaluation.average_precision import average_precision
from memwarp_core.evaluation.vid_average_precision import vid_average_precision
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.streaming import DetectorState, VideoDetector
from memwarp_core.timeline import half_interval_ns, index_at
from memwarp_core.types import Detections, Frame

WAYS = {
    "features, robust": AnticipationConfig(source="features", motion="robust"),
    "features, constant velocity": AnticipationConfig(source="features", motion="constant_velocity"),
    "features, constant acceleration": AnticipationConfig(source="features", motion="constant_acceleration"),
    "boxes, robust": AnticipationConfig(source="boxes", motion="robust"),
    "boxes, constant velocity": AnticipationConfig(source="boxes", motion="constant_velocity"),
    "boxes, constant acceleration": AnticipationConfig(source="boxes", motion="constant_acceleration"),
    "nothing moved": AnticipationConfig(source="boxes", motion="still"),
}
"""The ways of anticipation that are compared."""


def evaluate(detector: VideoDetector, clips: Sequence[Clip], horizons_s: Sequence[float] = ()) -> dict[str, Any]:
    """Run a detector through every clip, each from a new state.

    Args:
        horizons_s: with any, every way of anticipation is scored at them as well, against the frame of the same clip
            whose stamp is nearest to the target and within half a frame interval.
    Returns: JSON-ready: "frames"; "ms_per_frame", the mean time of a step; "map50" and "map", each for "all", "clean"
        and "degraded" frames; "map50_by_speed" of "slow", "medium" and "fast" objects by ImageNet VID's evaluation,
        None where there are none; "ap50_per_class"; and "anticipation", from way to horizon in seconds to mAP@0.5.
    """
    found: list[Detections] = []
    truths_of_clips: list[list[Frame]] = []
    anticipated: dict[tuple[str, float], tuple[list[Detections], list[Frame]]] = {
        (way, horizon): ([], []) for way in WAYS for horizon in horizons_s
    }
    step_s = 0.0
    for clip in track(clips, description=f"evaluating {detector.name}", transient=True):
        frames = [clip[index] for index in range(len(clip))]
        stamps_ns = [frame.stamp_ns for frame in frames]
        tolerance_ns = half_interval_ns(stamps_ns)
        truths_of_clips.append([_without_image(frame) for frame in frames])
        started = time.perf_counter()
        for frame, (detections, state) in zip(frames, _run(detector, frames), strict=True):
            found.append(detections.cpu())
            step_s += time.perf_counter() - started
            # A detector that looks ahead anticipates nothing, and in a first frame nothing is known of motion.
            if state is None or frame is frames[0]:
                started = time.perf_counter()
                continue
            targets = [index_at(stamps_ns, frame.stamp_ns + round(h * 1e9), tolerance_ns) for h in horizons_s]
            for way, how in WAYS.items():
                said = detector.anticipate(state, horizons_s, how)
                for horizon, target, detections in zip(horizons_s, targets, said, strict=True):
                    if target is not None:
                        of_way, truth_of_way = anticipated[way, horizon]
                        of_way.append(detections.cpu())
                        truth_of_way.append(_without_image(frames[target]))
            started = time.perf_counter()
    names = detector.class_names
    truths = [truth for clip in truths_of_clips for truth in clip]
    splits = {
        "all": list(range(len(truths))),
        "clean": [index for index, frame in enumerate(truths) if frame.degradation == "none"],
        "degraded": [index for index, frame in enumerate(truths) if frame.degradation != "none"],
    }
    scores = {
        split: average_precision([found[i] for i in chosen], [truths[i] for i in chosen], names)
        for split, chosen in splits.items()
    }
    by_speed = vid_average_precision(found, truths_of_clips, names, adaptive_iou=False).map
    return {
        "frames": len(truths),
        "ms_per_frame": 1e3 * step_s / max(len(truths), 1),
        "map50": {split: score.map50 for split, score in scores.items()},
        "map": {split: score.map for split, score in scores.items()},
        "map50_by_speed": {speed: by_speed[speed] for speed in ("slow", "medium", "fast")},
        "ap50_per_class": scores["all"].ap50_per_class,
        "anticipation": {
            way: {f"{horizon:g}": average_precision(*anticipated[way, horizon], names).map50 for horizon in horizons_s}
            for way in WAYS
        }
        if horizons_s
        else {},
    }


def _run(detector: VideoDetector, frames: Sequence[Frame]) -> Iterator[tuple[Detections, DetectorState | None]]:
    """Detections of each frame, and the state after it unless the detector looks ahead."""
    if detector.lookahead:
        for detections in detector.detect_clip((frame.image, frame.stamp_ns) for frame in frames):
            yield detections, None
        return
    state = detector.start()
    for frame in frames:
        detections, state = detector.step(frame.image, frame.stamp_ns, state)
        yield detections, state


def _without_image(frame: Frame) -> Frame:
    """Ground truth alone, so that a long evaluation does not keep every image, as even an empty view of one would."""
    return replace(frame, image=frame.image[:0].copy())
