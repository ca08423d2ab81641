"""Figures of what a detector said of clips."""

from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any

import numpy as np

from memwarp_core.evaluation.average_precision import AveragePrecision, average_precision
from memwarp_core.evaluation.horizons import meet_truths
from memwarp_core.evaluation.running import ClipRun
from memwarp_core.evaluation.vid_average_precision import vid_average_precision
from memwarp_core.types import Detections, Frame

CLEAN = "none"
"""The degradation of a frame that has none."""


def score_runs(
    runs: Sequence[ClipRun], truths: Sequence[Sequence[Frame]], class_names: Sequence[str]
) -> dict[str, Any]:
    """The figures of one detector. A figure is None where there is nothing to find.

    Args:
        runs: of one detector, one per clip.
        truths: every frame of the same clips; images are not looked at.
        class_names: what the labels of both mean.
    Returns: JSON-ready:
        "frames", and "ms_per_frame", the median over the clips of their mean time per frame: within a clip, a
            detector need not take equally long for all frames;
        "map50" and "map" (COCO's) of "all", "clean" and "degraded" frames; "map50_by_degradation", for each kind of it
            that is there; and "ap50_per_class";
        "map50_by_speed" of "slow", "medium" and "fast" objects by ImageNet VID's evaluation, and
            "ap50_per_class_by_speed", where each class has these and "all";
        "anticipation", from way to horizon in seconds to mAP@0.5 against the frame of the clip whose stamp is nearest
            to the instant spoken of and within half a frame interval; {} without horizons.
    Raises: ValueError if the numbers of frames differ.
    """
    found, frames = [*chain(*(run.detections for run in runs))], [*chain(*truths)]
    kinds = sorted({frame.degradation for frame in frames})
    degraded = [kind for kind in kinds if kind != CLEAN]
    everything = average_precision(found, frames, class_names)
    by_kind = {kind: _of_kinds([kind], found, frames, class_names) for kind in (CLEAN, *degraded)}
    splits = {"all": everything, "clean": by_kind[CLEAN], "degraded": _of_kinds(degraded, found, frames, class_names)}
    vid = vid_average_precision(found, truths, class_names, adaptive_iou=False)
    return {
        "frames": len(frames),
        "ms_per_frame": ms_per_frame(runs),
        "map50": {split: score.map50 for split, score in splits.items()},
        "map": {split: score.map for split, score in splits.items()},
        "map50_by_degradation": {kind: by_kind[kind].map50 for kind in degraded},
        "map50_by_speed": {speed: vid.map[speed] for speed in ("slow", "medium", "fast")},
        "ap50_per_class": everything.ap50_per_class,
        "ap50_per_class_by_speed": vid.ap,
        "anticipation": _anticipation(runs, truths, class_names),
    }


def ms_per_frame(runs: Sequence[ClipRun]) -> float | None:
    """See score_runs; None without frames."""
    of_clips = [run.step_ms.mean() for run in runs if len(run.step_ms)]
    return float(np.median(of_clips)) if of_clips else None


def _of_kinds(
    kinds: Collection[str], found: Sequence[Detections], frames: Sequence[Frame], class_names: Sequence[str]
) -> AveragePrecision:
    """In the frames whose degradation is one of these."""
    chosen = [index for index, frame in enumerate(frames) if frame.degradation in kinds]
    return average_precision([found[index] for index in chosen], [frames[index] for index in chosen], class_names)


def _anticipation(
    runs: Sequence[ClipRun], truths: Sequence[Sequence[Frame]], class_names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    scores: dict[str, dict[str, float | None]] = {}
    for way, horizon_s in dict.fromkeys(chain(*(run.anticipated for run in runs))):
        met = [meet_truths(run.anticipated[way, horizon_s], of_clip) for run, of_clip in zip(runs, truths, strict=True)]
        said, frames = ([*chain(*part)] for part in zip(*met, strict=True))
        scores.setdefault(way, {})[f"{horizon_s:g}"] = average_precision(said, frames, class_names).map50
    return scores
