"""Values that cross the borders between the parts of memwarp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor  # loading torch takes seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Detections:
    """What a detector says about one instant.

    Convention: boxes are continuous xyxy in source-image pixels, x to the right, y down; the pixel in the
    corner covers (0, 0) to (1, 1).
    """

    boxes_xyxy: Tensor
    """(N, 4), float32."""
    scores: Tensor
    """(N,), float32, in [0, 1], highest first."""
    labels: Tensor
    """(N,), int64, index into the detector's class_names."""
    stamp_ns: int
    """The instant for which the boxes are valid."""
    track_ids: Tensor | None = None
    """(N,), int64, the same for the same object in a stream, -1 where none is known; None where nothing tracks."""

    def __len__(self) -> int:
        return len(self.scores)

    def cpu(self) -> Detections:
        """The same detections in host memory; this is where a caller waits for the device."""
        return self._with(lambda of_each: of_each.cpu())

    def select(self, which: Tensor | slice) -> Detections:
        """Some of them: a mask (N,), indices, or a slice."""
        return self._with(lambda of_each: of_each[which])

    def _with(self, change: Callable[[Tensor], Tensor]) -> Detections:
        return replace(
            self,
            boxes_xyxy=change(self.boxes_xyxy),
            scores=change(self.scores),
            labels=change(self.labels),
            track_ids=None if self.track_ids is None else change(self.track_ids),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One image of a clip with its ground truth.

    Boxes follow the convention of Detections and show the visible extent of each object.
    """

    image: np.ndarray
    """(H, W, 3), uint8, RGB."""
    stamp_ns: int
    boxes_xyxy: np.ndarray
    """(N, 4), float32."""
    labels: np.ndarray
    """(N,), int64, index into the clip's class_names."""
    track_ids: np.ndarray
    """(N,), int64, unique within the clip."""
    degradation: str = "none"
    """The sensor fault in this frame, "none" for a clean one."""
