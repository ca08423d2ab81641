"""The overlay video shows an anticipation on the frame that it speaks of."""

from pathlib import Path

import numpy as np
import torch

from memwarp_core.data.video import VideoClip
from memwarp_core.overlay import OverlayVideo
from memwarp_core.types import Detections
from memwarp_core.visualization import class_color, horizon_color

FRAME_NS = 100_000_000


def box(x: float, stamp_ns: int) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor([[x, 40.0, x + 60.0, 100.0]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        stamp_ns=stamp_ns,
    )


def count(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == color).all(axis=2).sum())


def test_anticipation_is_dashed_on_the_frame_that_it_speaks_of(tmp_path: Path) -> None:
    image = np.full((120, 960, 3), 90, np.uint8)
    solid, dashed = class_color(0), horizon_color(class_color(0), 0, 1)
    with OverlayVideo(
        tmp_path / "a.mp4", frame_rate_hz=10, class_names=["ball"], horizons_s=[0.2], score_threshold=0.5
    ) as video:
        first = video.add(image, 0, box(100, 0), [box(500, 2 * FRAME_NS)])
        second = video.add(image, FRAME_NS, box(300, FRAME_NS))
        third = video.add(image, 2 * FRAME_NS, None)
    assert count(first, solid) > 100 and count(first, dashed) == 0
    assert count(second, solid) > 100 and count(second, dashed) == 0
    assert count(third, solid) == 0 and count(third, dashed) > 50
    assert (third[:, :490] == 90).all()  # where it was said to be, and not where it was seen
    clip = VideoClip(tmp_path / "a.mp4")
    assert len(clip) == 3
    assert clip[0].image.shape[0] > 120  # with a legend below


def test_small_images_are_enlarged(tmp_path: Path) -> None:
    with OverlayVideo(tmp_path / "a.mp4", frame_rate_hz=10, class_names=["ball"], horizons_s=[]) as video:
        drawn = video.add(np.zeros((192, 320, 3), np.uint8), 0, box(10, 0))
    assert drawn.shape == (576, 960, 3)
