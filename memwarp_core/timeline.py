"""What was said, and of which instant: finds the one that belongs to a stamp."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch

from memwarp_core.types import Detections


def index_at(stamps_ns: Sequence[int], stamp_ns: int, tolerance_ns: int) -> int | None:
    """Index of the nearest of increasing stamps; None if even that one is further away than the tolerance."""
    right = bisect_left(stamps_ns, stamp_ns)
    candidates = [index for index in (right - 1, right) if 0 <= index < len(stamps_ns)]
    nearest = min(candidates, key=lambda index: abs(stamps_ns[index] - stamp_ns), default=None)
    if nearest is None or abs(stamps_ns[nearest] - stamp_ns) > tolerance_ns:
        return None
    return nearest


def half_interval_ns(stamps_ns: Sequence[int]) -> int:
    """Half of the median distance between increasing stamps; 0 if there are fewer than two."""
    return int(np.median(np.diff(stamps_ns))) // 2 if len(stamps_ns) > 1 else 0


class Anticipations:
    """What was said, earlier, about each instant; finds it again when the instant is there.

    `add` takes the anticipations in the order of their source frames; `at` gives, per horizon, those
    whose stamp is nearest to the instant asked for.
    """

    def __init__(self, horizons_s: Sequence[float]) -> None:
        self.horizons_s = tuple(horizons_s)
        self._said: list[list[Detections]] = [[] for _ in self.horizons_s]
        self._stamps_ns: list[list[int]] = [[] for _ in self.horizons_s]

    def add(self, anticipated: Sequence[Detections]) -> None:
        """Keep one Detections per horizon, in the order of horizons_s, all from one source frame."""
        for said, stamps_ns, one in zip(self._said, self._stamps_ns, anticipated, strict=True):
            said.append(one)
            stamps_ns.append(one.stamp_ns)

    def at(self, stamp_ns: int, tolerance_ns: int) -> list[Detections]:
        """What was said about stamp_ns, one entry per horizon; it has no boxes where nothing was said."""
        found = []
        for said, stamps_ns in zip(self._said, self._stamps_ns, strict=True):
            index = index_at(stamps_ns, stamp_ns, tolerance_ns)
            found.append(no_objects(stamp_ns) if index is None else said[index])
        return found


def no_objects(stamp_ns: int) -> Detections:
    """Detections without any object in them."""
    return Detections(
        boxes_xyxy=torch.zeros(0, 4),
        scores=torch.zeros(0),
        labels=torch.zeros(0, dtype=torch.int64),
        stamp_ns=stamp_ns,
    )
