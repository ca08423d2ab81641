"""What happens to the bad boxes and frames of a data set: an error at the first one, or a count of those left out."""

import logging

import numpy as np

from memwarp_core.errors import DataError

_log = logging.getLogger(__name__)


class BadEntries:
    """Either refuses the first bad entry of a data set, or counts them and says so once, at `finish`."""

    def __init__(self, data_set: object, *, skip: bool) -> None:
        """
        Args:
            data_set: its path, for the message.
            skip: leave bad entries out.
        """
        self._data_set = data_set
        self._skip = skip
        self._first = ""
        self.count = 0

    def add(self, problem: str | DataError) -> None:
        """Tell of an entry that its reader leaves out. Raises: DataError with the problem unless it may be."""
        if not self._skip:
            raise problem if isinstance(problem, DataError) else DataError(problem)
        self._first = self._first or str(problem)
        self.count += 1

    def finish(self) -> None:
        """Log how many entries were left out, if any were."""
        if self.count:
            _log.warning(
                "%s: %d bad boxes or frames were left out; the first: %s", self._data_set, self.count, self._first
            )


TOLERANCE = 0.5
"""Pixels by which a box may leave its image, because some tools round; the rest is cut off."""


def box_problem(box_xyxy: np.ndarray, size: tuple[int, int], tolerance: float = TOLERANCE) -> str | None:
    """Why a box cannot be in an image, or None if it can.

    Args:
        box_xyxy: (4,), pixels.
        size: (height, width) of the image.
        tolerance: pixels by which it may leave the image.
    """
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    height, width = size
    inside = x0 >= -tolerance and y0 >= -tolerance and x1 <= width + tolerance and y1 <= height + tolerance
    # What is written so that a NaN is a problem, too.
    if inside and x1 > x0 and y1 > y0 and x1 > 0 and y1 > 0 and x0 < width and y0 < height:
        return None
    return (
        f"box (left, top, right, bottom) must lie in its image of {width}x{height} pixels and have a size, "
        f"got ({x0:g}, {y0:g}, {x1:g}, {y1:g})."
    )


def cut_to_image(boxes_xyxy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) cut at the border of an image of (height, width)."""
    return np.clip(boxes_xyxy, 0, np.array([size[1], size[0]] * 2, np.float32)).astype(np.float32)
