"""Frames and clips that the tests of the formats share."""

import os
import sys

import numpy as np
import pytest

from memwarp_core.types import Frame


def draw_frame(index: int, *, objects: int = 2, size: tuple[int, int] = (48, 64)) -> Frame:
    """A frame with smooth content (JPEG keeps it) and `objects` boxes that move by a pixel per frame."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 3, y * 4, (x + y + 5 * index) % 200], axis=-1).astype(np.uint8)
    left = np.arange(objects) * 20.0 + index
    boxes = np.stack([left, left + 1.0, left + 12.5, left + 20.25], axis=-1).astype(np.float32)
    return Frame(
        image=image,
        stamp_ns=index * 50_000_000,
        boxes_xyxy=boxes.reshape(-1, 4),
        labels=np.arange(objects, dtype=np.int64) % 3,
        track_ids=np.arange(objects, dtype=np.int64) + 7,
        degradation="noise" if index == 1 else "none",
    )


@pytest.fixture
def frames() -> list[Frame]:
    """Four frames; the third has no object."""
    return [draw_frame(0), draw_frame(1), draw_frame(2, objects=0), draw_frame(3)]


@pytest.fixture(scope="session")
def renderer() -> None:
    """Skips a test where MuJoCo cannot render without a screen."""
    # MuJoCo chooses its OpenGL platform when it is imported.
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
    mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed; pip install memwarp[simulate]")
    try:
        mujoco.GLContext(16, 16).free()
    except Exception as err:  # what is raised depends on the OpenGL platform
        pytest.skip(f"no OpenGL context for headless rendering ({err})")
