"""Average precision on ImageNet VID by the evaluation that FGFA published: over all, slow, medium and fast objects.

An object's speed is its motion IoU (`memwarp_core.evaluation.motion_iou`): slow from 0.9 up, medium from 0.7 to 0.9,
fast up to 0.7; a border belongs to both sides. Per frame and class, in the order of their scores, each detection takes
the free object that it overlaps most, among those that it overlaps enough. Speed has no part in this. A split then
counts what took an object of its speed as right and forgets what took another. A detection that took nothing is wrong:

- in the splits of the object that it overlaps most, whatever that one's class, and taken or not;
- where objects of a split and others come equal, as they do when it overlaps none, by the fraction of the frame's
  objects that are *outside* the split. One would expect those inside, but this is what the published code does, and so
  what published figures hold;
- in a frame without objects, by the fraction of all objects that are in the split. Each such frame counts among them
  as one more fast object: the published file of motion IoUs holds nothing for it, which is read as 0.

Left out is what the published figures don't use: ranges of areas. Boxes are continuous here, so the "+1" of the
published arithmetic, which has inclusive corners, is in them already. Where scores are equal, the earlier frame comes
first, and within it the earlier detection; the published order is left to an unstable sort.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memwarp_core.evaluation.motion_iou import intersection_over_union, motion_iou
from memwarp_core.types import Detections, Frame

SPEEDS = ("all", "slow", "medium", "fast")
_BORDER_TOLERANCE = 1e-12  # IoUs whose mean is a border exactly may come out a rounding error beside it
_SMALL_OBJECT_MARGIN = 10  # pixels by which a box may be too wide and too high


@dataclass(frozen=True, kw_only=True, slots=True)
class VidAveragePrecision:
    """Figures by speed ("all", "slow", "medium", "fast"); None where no object has it."""

    map: dict[str, float | None]
    """Mean over the classes that have objects of the speed."""
    ap: dict[str, dict[str, float | None]]
    """From class name to its figures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """The objects of a data set, and its detections as right or wrong: what all figures come from.

    Detections are in the order of their labels, and within a label by falling score.
    """

    object_frames: np.ndarray
    """(N,), int64, index of each object's frame, counted through all clips."""
    object_labels: np.ndarray
    """(N,), int64."""
    object_speeds: np.ndarray
    """(4, N), bool, rows as in SPEEDS."""
    frames: np.ndarray
    """(D,), int64, of each detection."""
    labels: np.ndarray
    """(D,), int64."""
    right: np.ndarray
    """(4, D), bool: it took an object of the speed."""
    wrong: np.ndarray
    """(4, D), in [0, 1]."""


def vid_average_precision(
    detections: Sequence[Detections],
    clips: Sequence[Sequence[Frame]],
    class_names: Sequence[str],
    *,
    adaptive_iou: bool = True,
    frame_ids: Sequence[Sequence[int]] | None = None,
) -> VidAveragePrecision:
    """Score the detections of each frame against its ground truth.

    Args:
        detections: of every frame of the clips, one clip after the other.
        clips: the frames of each clip in order, since speed is measured across them; images are not looked at.
        class_names: what the labels of both mean.
        adaptive_iou: the overlap that is enough is min(0.5, wh / ((w + 10)(h + 10))), which asks less of a small
            object; without it, 0.5 for all.
        frame_ids: growing places of each clip's frames in its video, where some of its frames may be missing.
    Raises: ValueError if the numbers of frames differ.
    """
    return accumulate(judge(detections, clips, adaptive_iou=adaptive_iou, frame_ids=frame_ids), class_names)


def judge(
    detections: Sequence[Detections],
    clips: Sequence[Sequence[Frame]],
    *,
    adaptive_iou: bool = True,
    frame_ids: Sequence[Sequence[int]] | None = None,
) -> Judgement:
    """The half of `vid_average_precision` that looks at boxes, done once where many samples of the frames are scored.

    Args, Raises: as there.
    """
    truths = [frame for clip in clips for frame in clip]
    if len(detections) != len(truths):
        raise ValueError(f"expected the detections of {len(truths)} frames, got {len(detections)}.")
    ids_of_clips = frame_ids or [range(len(clip)) for clip in clips]
    motion = [of_frame for clip, ids in zip(clips, ids_of_clips, strict=True) for of_frame in motion_iou(clip, ids)]
    with_empty = _speeds(np.concatenate([np.zeros(0), *(of_frame if len(of_frame) else [0.0] for of_frame in motion)]))
    weight_in_empty = with_empty.sum(axis=1) / max(with_empty.shape[1], 1)
    found = [of_frame.cpu() for of_frame in detections]
    judged = [
        _judge(of_frame, truth, _speeds(speeds), weight_in_empty, adaptive_iou)
        for of_frame, truth, speeds in zip(found, truths, motion, strict=True)
    ]
    scores = np.concatenate([np.zeros(0), *(of_frame.scores.numpy() for of_frame in found)])
    labels = np.concatenate([np.zeros(0, np.int64), *(of_frame.labels.numpy() for of_frame in found)])
    order = np.lexsort((-scores, labels))  # which is stable
    return Judgement(
        object_frames=np.repeat(np.arange(len(truths)), [len(truth.labels) for truth in truths]),
        object_labels=np.concatenate([np.zeros(0, np.int64), *(truth.labels for truth in truths)]),
        object_speeds=_speeds(np.concatenate([np.zeros(0), *motion])),
        frames=np.repeat(np.arange(len(truths)), [len(of_frame) for of_frame in found])[order],
        labels=labels[order],
        right=np.concatenate([np.zeros((len(SPEEDS), 0), bool), *(right for right, _ in judged)], axis=1)[:, order],
        wrong=np.concatenate([np.zeros((len(SPEEDS), 0)), *(wrong for _, wrong in judged)], axis=1)[:, order],
    )


def accumulate(judged: Judgement, class_names: Sequence[str], times: np.ndarray | None = None) -> VidAveragePrecision:
    """The half of `vid_average_precision` that follows: precision over recall.

    Args:
        times: (F,), how often each frame counts: once by default, 0 to leave it out, more in a bootstrap sample.
    """
    of_objects = np.ones(len(judged.object_frames)) if times is None else times[judged.object_frames]
    of_detections = np.ones(len(judged.frames)) if times is None else times[judged.frames]
    ap: dict[str, dict[str, float | None]] = {}
    for label, name in enumerate(class_names):
        is_label = judged.object_labels == label
        objects = judged.object_speeds[:, is_label] @ of_objects[is_label]
        chosen = slice(*np.searchsorted(judged.labels, (label, label + 1)))
        right = judged.right[:, chosen] * of_detections[chosen]
        wrong = judged.wrong[:, chosen] * of_detections[chosen]
        ap[name] = {
            speed: _area_under_envelope(right[row], wrong[row], objects[row]) if objects[row] else None
            for row, speed in enumerate(SPEEDS)
        }
    return VidAveragePrecision(map={speed: _mean([of[speed] for of in ap.values()]) for speed in SPEEDS}, ap=ap)


def _speeds(motion: np.ndarray) -> np.ndarray:
    """(4, N) bool, rows as in SPEEDS, which of N motion IoUs is of which speed; NaN is only in the first."""
    at_least_medium = motion >= 0.7 - _BORDER_TOLERANCE
    at_most_medium = motion <= 0.9 + _BORDER_TOLERANCE
    return np.stack(
        (
            np.ones(len(motion), bool),
            motion >= 0.9 - _BORDER_TOLERANCE,
            at_least_medium & at_most_medium,
            motion <= 0.7 + _BORDER_TOLERANCE,
        )
    )


def _judge(
    detections: Detections, truth: Frame, speeds: np.ndarray, weight_in_empty: np.ndarray, adaptive_iou: bool
) -> tuple[np.ndarray, np.ndarray]:
    """How right, (4, D) bool, and how wrong, (4, D) in [0, 1], each of a frame's D detections is in each split.

    Args:
        speeds: (4, N), of the frame's N objects.
        weight_in_empty: (4,), how wrong a detection is in a frame without objects.
    """
    objects = truth.boxes_xyxy.astype(np.float64)
    boxes = detections.boxes_xyxy.numpy().astype(np.float64)
    overlaps = intersection_over_union(boxes[:, None], objects[None])
    enough = np.full(len(objects), 0.5)
    if adaptive_iou:
        size = objects[:, 2:] - objects[:, :2]
        enough = np.minimum(enough, size.prod(axis=1) / (size + _SMALL_OBJECT_MARGIN).prod(axis=1))
    may_take = (detections.labels.numpy()[:, None] == truth.labels) & (overlaps >= enough)
    taken = _take(np.where(may_take, overlaps, -1.0), detections.scores.numpy())
    right = np.zeros((len(SPEEDS), len(boxes)), bool)
    right[:, taken >= 0] = speeds[:, taken[taken >= 0]]
    if not len(objects):
        return right, np.repeat(weight_in_empty[:, None], len(boxes), axis=1)
    inside = np.where(speeds[:, None], overlaps, -1.0).max(axis=2)
    outside = np.where(speeds[:, None], -1.0, overlaps).max(axis=2)
    fraction_outside = (~speeds).mean(axis=1, keepdims=True)
    wrong = np.where(inside == outside, fraction_outside, inside > outside)
    wrong[:, taken >= 0] = 0
    return right, wrong


def _take(overlaps: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(D,), the object that each detection takes, or -1. Overlaps are (D, N), negative where it may not."""
    free = overlaps.copy()
    taken = np.full(len(scores), -1)
    able = np.flatnonzero((overlaps >= 0).any(axis=1))
    for index in able[np.argsort(-scores[able], kind="stable")]:
        best = free[index].argmax()
        if free[index, best] >= 0:
            taken[index] = best
            free[:, best] = -1
    return taken


def _area_under_envelope(right: np.ndarray, wrong: np.ndarray, objects: float) -> float:
    """Recall integrated over the best precision that is reached at it or beyond; detections by falling score."""
    found = np.flatnonzero(right)  # recall rises there alone, and the best precision is there as well
    hits = np.cumsum(right[found])
    precision = hits / (hits + np.cumsum(wrong)[found])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(right[found] / objects @ envelope)


def _mean(figures: Sequence[float | None]) -> float | None:
    present = [figure for figure in figures if figure is not None]
    return sum(present) / len(present) if present else None
