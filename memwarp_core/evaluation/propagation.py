"""How long evidence lasts: detections by the frames since a frame was looked at in full (section 5.2, Figure 7d)."""

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from memwarp_core.evaluation.average_precision import average_precision
from memwarp_core.evaluation.running import ClipRun
from memwarp_core.models.config import DetectorConfig, PropagationConfig
from memwarp_core.streaming import VideoDetector
from memwarp_core.streaming.load import run_detector
from memwarp_core.types import Detections, Frame

Source = Literal["features", "boxes"]
SOURCES: tuple[Source, ...] = ("features", "boxes")
"""What is propagated; see PropagationConfig."""


def propagating(detector: VideoDetector, every: int, source: Source) -> VideoDetector | None:
    """The same detector, with evidence in every n-th frame only; None if it cannot propagate.

    That takes a causal detector that compares frames, and for features one that has a memory. The weights are copied.
    """
    changed = detector.config.model_copy(update={"propagation": PropagationConfig(every=every, source=source)})
    try:
        config = DetectorConfig.model_validate(changed.model_dump())
    except ValidationError:
        return None
    network = copy.copy(detector.network)  # its parts are copied later; the first one keeps its configuration
    network.config = config
    return run_detector(network, str(detector.device))


def score_propagation(
    runs: Sequence[Sequence[ClipRun]], truths: Sequence[Sequence[Frame]], class_names: Sequence[str]
) -> dict[str, Any]:
    """Figures by age, which is the number of frames since the last evidence.

    A detector with evidence in every n-th frame runs over each clip n times, beginning with frame 0, 1, ... n - 1. So
    each frame from n - 1 on is seen once at every age, and all ages are scored on the same frames.

    Args:
        runs: per clip, the n runs in this order.
        truths: every frame of the same clips.
        class_names: what the labels of both mean.
    Returns: JSON-ready, from age to figure: "map50", None where there is nothing to find, and "ms", the median time of
        a frame, without the first of each run, which has nothing to be compared with; and "ms_per_frame", their mean.
    """
    every = len(runs[0])
    map50: dict[str, float | None] = {}
    ms: dict[str, float | None] = {}
    for age in range(every):
        found: list[Detections] = []
        frames: list[Frame] = []
        for of_clip, of_truth in zip(runs, truths, strict=True):
            for first, run in enumerate(of_clip):
                start = age if first + age >= every - 1 else age + every
                found += run.detections[start::every]
                frames += of_truth[first + start :: every]
        map50[str(age)] = average_precision(found, frames, class_names).map50
        times = np.concatenate([run.step_ms[age or every :: every] for run in chain(*runs)])
        ms[str(age)] = float(np.median(times)) if len(times) else None
    known = [time for time in ms.values() if time is not None]
    return {"map50": map50, "ms": ms, "ms_per_frame": sum(known) / every if len(known) == every else None}
