"""How fast ground truth moves: FGFA's motion IoU."""

from collections.abc import Sequence

import numpy as np

from memwarp_core.types import Frame

WINDOW = 10
"""Frames on either side that a box is compared with."""


def intersection_over_union(boxes_xyxy: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """(...), of boxes (..., 4) with others (..., 4) that broadcast; continuous pixels, 0 where nothing is shared."""
    low = np.maximum(boxes_xyxy[..., :2], others_xyxy[..., :2])
    high = np.minimum(boxes_xyxy[..., 2:], others_xyxy[..., 2:])
    shared = (high - low).clip(min=0).prod(axis=-1)
    union = _area(boxes_xyxy) + _area(others_xyxy) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _area(boxes_xyxy: np.ndarray) -> np.ndarray:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(axis=-1)


def motion_iou(frames: Sequence[Frame], frame_ids: Sequence[int] | None = None) -> list[np.ndarray]:
    """Mean IoU of each box with those of the same track up to 10 frames before and after it.

    Frames that lack the track are skipped, as are those beyond the clip; where a frame has a track twice, its first
    box counts.

    Args:
        frames: a clip, in order.
        frame_ids: growing places of the frames in their video, where some of its frames may be missing; without
            them, none is.
    Returns: per frame (N,), float64: 1 where the track is in no other frame of the window; NaN for a box without a
        track (a negative id), since nothing is known of its motion.
    """
    counts = [len(frame.track_ids) for frame in frames]
    boxes = np.concatenate([np.zeros((0, 4)), *(frame.boxes_xyxy for frame in frames)])
    tracks = np.concatenate([np.zeros(0, np.int64), *(frame.track_ids for frame in frames)])
    ids = np.arange(len(frames)) if frame_ids is None else np.asarray(frame_ids, np.int64)
    # As far apart as the ids are, up to where it no longer matters.
    instants = np.cumsum(np.diff(ids, prepend=ids[:1]).clip(max=WINDOW + 1))
    # One number per track and frame; between the tracks is a gap as wide as the window, so that none reaches another.
    span = instants.max(initial=0) + 1 + WINDOW
    places = np.unique(tracks, return_inverse=True)[1] * span + np.repeat(instants, counts)
    order = np.argsort(places, kind="stable")
    in_order = np.append(places[order], np.iinfo(np.int64).max)
    total, found = np.zeros(len(boxes)), np.zeros(len(boxes))
    for offset in (*range(-WINDOW, 0), *range(1, WINDOW + 1)):
        at = np.searchsorted(in_order, places + offset)
        there = in_order[at] == places + offset
        total[there] += intersection_over_union(boxes[there], boxes[order[at[there]]])
        found += there
    mean = np.where(found > 0, total / found.clip(min=1), 1.0)
    mean[tracks < 0] = np.nan
    return np.split(mean, np.cumsum(counts))[:-1]
