"""The drawing: what is coloured, what is not, and that nothing is written outside of the image."""

import numpy as np
import pytest
import torch

from memwarp_core.types import Detections
from memwarp_core.visualization import (
    LegendEntry,
    class_color,
    draw_detections,
    draw_legend,
    horizon_color,
)

NAMES = ("ball", "crate")


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Detections from rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(boxes_xyxy=table[:, :4], scores=table[:, 4], labels=table[:, 5].long(), stamp_ns=0)


def gray(height: int = 192, width: int = 320) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_solid_box_colours_its_edge_pixels_and_nothing_inside() -> None:
    drawn = draw_detections(gray(), detections((100, 60, 180, 140, 0.9, 1)), NAMES)
    color = class_color(1)
    assert (drawn[139, 100:180] == color).all()  # the last row inside the box, not the first one outside
    assert (drawn[60:140, 100] == color).all()
    assert (drawn[60:140, 179] == color).all()
    assert (drawn[61:139, 101:179] == 90).all()
    assert (drawn[140:] == 90).all() and (drawn[:, 180:] == 90).all()


def test_input_is_not_changed() -> None:
    image, boxes = gray(), detections((10, 10, 90, 90, 0.9, 0))
    draw_detections(image, boxes, NAMES, [boxes])
    assert (image == 90).all()


def test_dashed_box_has_whole_corners_and_gaps() -> None:
    drawn = draw_detections(gray(), detections(), NAMES, [detections((100, 60, 200, 160, 0.9, 0))])
    color = horizon_color(class_color(0), 0, 1)
    row = (drawn[60, 100:200] == color).all(axis=1)
    assert row[:3].all() and row[-3:].all()
    changes = np.flatnonzero(np.diff(row.astype(int)))
    assert len(changes) >= 6, "a dashed side of 100 pixels needs several gaps"
    assert 0.4 < row.mean() < 0.9
    assert (drawn[61:159, 101:199] == 90).all()


def test_later_horizons_are_lighter() -> None:
    shades = [sum(horizon_color(class_color(0), index, 3)) for index in range(3)]
    assert sum(class_color(0)) < shades[0] < shades[1] < shades[2] < 3 * 255


def test_score_threshold_hides_solid_and_dashed_boxes() -> None:
    weak = detections((10, 10, 90, 90, 0.3, 0))
    assert (draw_detections(gray(), weak, NAMES, [weak], score_threshold=0.4) == 90).all()
    assert (draw_detections(gray(), weak, NAMES, [weak], score_threshold=0.2) != 90).any()


def test_scale_enlarges_image_and_boxes() -> None:
    drawn = draw_detections(gray(), detections((100, 60, 180, 140, 0.9, 1)), NAMES, scale=3)
    assert drawn.shape == (576, 960, 3)
    color = class_color(1)
    assert (drawn[200:400, 300] == color).all()
    assert (drawn[419, 300:540] == color).all()


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 20), (290, 0, 320, 20), (-40, -30, 20, 10), (300, 180, 360, 230), (0, 0, 320, 192)]
)
def test_whole_tag_is_on_the_image(box: tuple[float, float, float, float]) -> None:
    """As much ink of the text is seen at a border as in the middle of the image."""

    def ink(x1: float, y1: float, x2: float, y2: float) -> int:
        drawn = draw_detections(gray(), detections((x1, y1, x2, y2, 0.9, 1)), NAMES)
        return int((drawn.max(axis=2) < 85).sum())  # darker than the image and than the class's colour

    assert ink(*box) == ink(120, 90, 200, 150) > 40


def test_boxes_far_outside_do_not_disturb() -> None:
    drawn = draw_detections(gray(), detections((-1e9, -1e9, 1e9, 1e9, 0.9, 0)), NAMES)
    assert drawn.shape == (192, 320, 3)


def test_label_beyond_the_names_is_shown_as_a_number() -> None:
    assert (draw_detections(gray(), detections((50, 50, 90, 90, 0.9, 17)), NAMES) != 90).any()


def test_classes_of_a_small_model_have_different_colours() -> None:
    assert len({class_color(label) for label in range(10)}) == 10


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(image, detections(), NAMES)


def test_legend_is_added_below_and_leaves_the_image_as_it_is() -> None:
    image = gray(384, 640)
    entries = [LegendEntry("now", (0, 255, 0), False), LegendEntry("0.1 s before", (255, 255, 0), True)]
    with_legend = draw_legend(image, entries, note="frame 1")
    assert with_legend.shape[0] > 384 and with_legend.shape[0] % 2 == 0 and with_legend.shape[1:] == (640, 3)
    assert (with_legend[:384] == image).all()
    strip = with_legend[384:]
    assert (strip == (0, 255, 0)).all(axis=2).any() and (strip == (255, 255, 0)).all(axis=2).any()
