"""Compares what was said about a later instant with what was true then."""

from collections.abc import Sequence
from dataclasses import replace

from memwarp_core.evaluation.average_precision import average_precision
from memwarp_core.timeline import half_interval_ns, index_at
from memwarp_core.types import Detections, Frame


def nothing_moved(detections: Sequence[Detections], horizon_s: float) -> list[Detections]:
    """The baseline of every anticipation: the current boxes, said to hold a horizon later as well."""
    horizon_ns = round(horizon_s * 1e9)
    return [replace(one, stamp_ns=one.stamp_ns + horizon_ns) for one in detections]


def meet_truths(detections: Sequence[Detections], truths: Sequence[Frame]) -> tuple[list[Detections], list[Frame]]:
    """Bring detections together with the ground truth of the instant that each of them speaks of.

    Args:
        detections: any number of them, at any stamps.
        truths: frames by increasing stamp. Detections without a frame within half a median frame interval of
            their stamp are left out, as those that look beyond the end of a clip.
    Returns: the detections that are left, and the frame of each.
    """
    stamps_ns = [frame.stamp_ns for frame in truths]
    tolerance_ns = half_interval_ns(stamps_ns)
    indices = [index_at(stamps_ns, one.stamp_ns, tolerance_ns) for one in detections]
    met = [(one, truths[index]) for one, index in zip(detections, indices, strict=True) if index is not None]
    return [one for one, _ in met], [truth for _, truth in met]


def map50_at_their_time(
    detections: Sequence[Detections], truths: Sequence[Frame], class_names: Sequence[str]
) -> float | None:
    """mAP@0.5 of detections against the ground truth of the instant that each of them speaks of.

    Args:
        detections, truths: as for meet_truths.
        class_names: what the labels of both mean.
    Returns: in [0, 1]; None if no ground truth is met.
    """
    return average_precision(*meet_truths(detections, truths), class_names).map50
