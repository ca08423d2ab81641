"""Mean average precision of many samples of the clips at once: how far a figure depends on which clips there are."""

from dataclasses import dataclass

import numpy as np

from memwarp_core.evaluation.vid_average_precision import SPEEDS, Judgement


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure with the 95 % interval of its bootstrap samples."""

    value: float
    low: float
    high: float


def interval(figure: np.ndarray) -> Interval:
    """
    Args:
        figure: (1 + S,), of the clips as they are and of S samples; NaN where a sample tells nothing.
    """
    low, high = np.nanpercentile(figure[1:], [2.5, 97.5]) if np.isfinite(figure[1:]).any() else (np.nan, np.nan)
    return Interval(value=float(figure[0]), low=float(low), high=float(high))


def sample_clips(clips: int, samples: int) -> np.ndarray:
    """(1 + samples, clips), int: how often each clip counts; once in the first row, then drawn with replacement."""
    drawn = np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), size=samples)
    return np.concatenate((np.ones((1, clips), drawn.dtype), drawn))


def sampled_map(judged: Judgement, clips: np.ndarray, times: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """What `accumulate` says of each sample, for all samples together.

    Args:
        judged: of all clips.
        clips: (F,), int, the clip of each frame.
        times: (S, C), how often each clip counts in each sample.
        classes: their number.
    Returns: (S,) per speed, the mean over the classes in [0, 1]; NaN where a sample has no objects of the speed.
    """
    of_speeds = {}
    for row, speed in enumerate(SPEEDS):
        per_class = np.stack([_sampled_ap(judged, clips, times, label, row) for label in range(classes)])
        present = np.isfinite(per_class)
        total, count = np.where(present, per_class, 0).sum(axis=0), present.sum(axis=0)
        of_speeds[speed] = np.divide(total, count, out=np.full(len(times), np.nan), where=count > 0)
    return of_speeds


def _sampled_ap(judged: Judgement, clips: np.ndarray, times: np.ndarray, label: int, row: int) -> np.ndarray:
    """(S,), of one class and speed."""
    counts = times.T.astype(np.float64)  # (C, S)
    is_object = (judged.object_labels == label) & judged.object_speeds[row]
    objects = np.bincount(clips[judged.object_frames[is_object]], minlength=len(counts)) @ counts
    chosen = slice(*np.searchsorted(judged.labels, (label, label + 1)))
    clip, wrong = clips[judged.frames[chosen]], judged.wrong[row, chosen]
    found = np.flatnonzero(judged.right[row, chosen])
    # Per right detection and clip, how much is wrong among those before it: (K, C), the same for all samples.
    wrong_before = np.zeros((len(found) + 1, len(counts)))
    np.add.at(wrong_before, (np.searchsorted(found, np.arange(len(wrong))), clip), wrong)
    wrongs = wrong_before.cumsum(axis=0)[:-1] @ counts  # (K, S)
    rights = counts[clip[found]]
    hits = rights.cumsum(axis=0)
    precision = hits / np.maximum(hits + wrongs, np.finfo(np.float64).eps)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    area = (rights * envelope).sum(axis=0)
    return np.divide(area, objects, out=np.full(len(times), np.nan), where=objects > 0)
