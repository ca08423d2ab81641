"""The baseline of two devices without anything shared: each detects in one half of the image (Table 3, "split")."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from memwarp_core.models.config import AnticipationConfig
from memwarp_core.models.detector import merge_boxes
from memwarp_core.streaming.video_detector import DetectorState, VideoDetector
from memwarp_core.types import Detections


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitState(DetectorState):
    """Of a camera whose left and right half are two streams."""

    halves: tuple[DetectorState, DetectorState]


class SplitVideoDetector(VideoDetector):
    """A VideoDetector that sees the halves of each image as two cameras, at the scale of the whole image."""

    def start(self) -> SplitState:
        """See VideoDetector.start."""
        return SplitState(halves=(super().start(), super().start()))

    @torch.inference_mode()
    def step_cameras(
        self, images: Sequence[np.ndarray], stamps_ns: Sequence[int], states: Sequence[DetectorState]
    ) -> list[tuple[Detections, DetectorState]]:
        """See VideoDetector.step_cameras."""
        halves: list[np.ndarray] = []
        stamps: list[int] = []
        states_of_halves: list[DetectorState] = []
        for image, stamp_ns, state in zip(images, stamps_ns, states, strict=True):
            assert isinstance(state, SplitState)
            self._check_image(image)
            middle = image.shape[1] // 2
            halves += [image[:, :middle], image[:, middle:]]
            stamps += [stamp_ns, stamp_ns]
            states_of_halves += state.halves
        stepped = super().step_cameras(halves, stamps, states_of_halves)
        merged: list[tuple[Detections, DetectorState]] = []
        for image, (left, left_state), (right, right_state) in zip(images, stepped[::2], stepped[1::2], strict=True):
            detections = self._merge(left, right, image.shape[1] // 2)
            state = SplitState(
                began=left_state.began,
                newest_ns=left_state.newest_ns,
                stamp_ns=left_state.stamp_ns,
                image_size=(image.shape[0], image.shape[1]),
                detections=detections,
                halves=(left_state, right_state),
            )
            merged.append((detections, state))
        return merged

    def detect_clip(self, frames: Iterable[tuple[np.ndarray, int]]) -> Iterator[Detections]:
        """See VideoDetector.detect_clip; the memory is causal."""
        state: DetectorState = self.start()
        for image, stamp_ns in frames:
            detections, state = self.step(image, stamp_ns, state)
            yield detections

    @torch.inference_mode()
    def anticipate(
        self, state: DetectorState, horizons_s: Sequence[float], how: AnticipationConfig | None = None
    ) -> list[Detections]:
        """See VideoDetector.anticipate."""
        assert isinstance(state, SplitState)
        left, right = (super(SplitVideoDetector, self).anticipate(half, horizons_s, how) for half in state.halves)
        assert state.image_size is not None
        return [self._merge(*of_horizon, state.image_size[1] // 2) for of_horizon in zip(left, right, strict=True)]

    def _merge(self, left: Detections, right: Detections, middle: int) -> Detections:
        x1, y1, x2, y2 = right.boxes_xyxy.unbind(1)
        right = replace(right, boxes_xyxy=torch.stack((x1 + middle, y1, x2 + middle, y2), dim=1))
        halves = [{"boxes": of.boxes_xyxy, "scores": of.scores, "labels": of.labels} for of in (left, right)]
        merged = merge_boxes(halves, self.config.head.nms_threshold)
        return Detections(
            boxes_xyxy=merged["boxes"], scores=merged["scores"], labels=merged["labels"], stamp_ns=left.stamp_ns
        )

    def _network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = super()._network_size((size[0], 2 * size[1]))
        return height, max(width // 2, 1)
