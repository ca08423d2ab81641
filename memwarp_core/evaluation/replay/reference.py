"""A reference where nobody labelled anything: what a detector says of every image, whenever that is known.

It says how well two detectors, or a detector and its later self, agree; not whether either is right.
"""

from collections.abc import Iterator

import numpy as np

from memwarp_core.data.clips import Clip
from memwarp_core.errors import DataError
from memwarp_core.streaming import VideoDetector
from memwarp_core.types import Frame

SELF = "self"
"""As --pseudo: the model that is replayed."""
_SURE = 0.5
"""The score from which on a detection is taken for an object."""


def pseudo_truths(detector: VideoDetector, clip: Clip) -> list[Frame]:
    """Sure detections in every image that can be read, as if they were ground truth."""
    stamps_ns: list[int] = []

    def images() -> Iterator[tuple[np.ndarray, int]]:
        for index in range(len(clip)):
            try:
                frame = clip[index]
            except DataError:
                continue
            stamps_ns.append(frame.stamp_ns)
            yield frame.image, frame.stamp_ns

    found = [of_image.cpu() for of_image in detector.detect_clip(images())]
    sure = [of_image.select(of_image.scores >= _SURE) for of_image in found]
    return [
        Frame(
            image=np.empty((0, 0, 3), np.uint8),
            stamp_ns=stamp_ns,
            boxes_xyxy=of_image.boxes_xyxy.numpy(),
            labels=of_image.labels.numpy(),
            track_ids=np.full(len(of_image), -1, np.int64),
        )
        for stamp_ns, of_image in zip(stamps_ns, sure, strict=True)
    ]
