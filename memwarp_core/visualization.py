"""Draws detections on images: solid boxes for what is there now, dashed boxes for what was anticipated."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from memwarp_core.types import Detections

Color = tuple[int, int, int]
"""Red, green, blue; 0 to 255."""

# Colours that stay apart from each other and from typical floors and walls.
_PALETTE: tuple[Color, ...] = (
    (255, 99, 71),
    (64, 196, 255),
    (118, 214, 84),
    (255, 202, 40),
    (206, 128, 255),
    (255, 140, 0),
    (38, 214, 182),
    (255, 110, 180),
    (150, 170, 255),
    (205, 220, 57),
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK: Color = (16, 16, 16)


def class_color(label: int) -> Color:
    """The colour of a class, the same in every image; classes beyond the palette share its colours."""
    return _PALETTE[label % len(_PALETTE)]


def horizon_color(color: Color, index: int, count: int) -> Color:
    """A lighter shade of a class's colour for the index-th of count horizons; a later one is lighter."""
    white_part = 0.25 + 0.5 * index / max(count - 1, 1)
    red, green, blue = (round(value + (255 - value) * white_part) for value in color)
    return red, green, blue


def draw_detections(
    image_rgb: np.ndarray,
    detections: Detections,
    class_names: Sequence[str],
    dashed: Sequence[Detections] = (),
    score_threshold: float = 0.0,
    *,
    scale: int = 1,
) -> np.ndarray:
    """Draw current boxes solid, with name and score, over anticipated boxes, dashed.

    Args:
        image_rgb: (H, W, 3), uint8, RGB; it is not changed.
        detections: the current boxes, in pixels of image_rgb.
        class_names: name of each label; a label beyond its end is shown as a number.
        dashed: anticipated boxes, one entry per horizon, nearest first; a later one is drawn lighter.
        score_threshold: boxes with a lower score are left out.
        scale: enlarge the image by this whole factor before drawing, so that text stays crisp.
    Returns: (H * scale, W * scale, 3), uint8, RGB, a new array.
    Raises: ValueError if the image is not (H, W, 3) uint8 or scale is less than 1.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(
            f"image_rgb must be (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}; convert it to RGB."
        )
    if scale < 1:
        raise ValueError(f"scale must be 1 or more, got {scale}; shrink an image before drawing.")
    if scale == 1:
        canvas = image_rgb.copy(order="C")
    else:
        canvas = cv2.resize(image_rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    height, width = canvas.shape[:2]
    thickness = max(1, round(min(height, width) / 300))

    for index in reversed(range(len(dashed))):
        boxes, labels, _ = _visible(dashed[index], score_threshold, scale)
        for label in np.unique(labels):
            color = horizon_color(class_color(int(label)), index, len(dashed))
            dashes = _dashes(boxes[labels == label], length=5.0 * thickness + 2)
            cv2.polylines(canvas, list(dashes), isClosed=False, color=color, thickness=thickness)

    boxes, labels, scores = _visible(detections, score_threshold, scale)
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), class_color(int(label)), thickness + (scale > 1))
    # Tags come after all boxes, the surest last, so that no line crosses a name.
    for box, label, score in reversed(list(zip(boxes, labels, scores, strict=True))):
        name = class_names[label] if label < len(class_names) else str(label)
        _draw_tag(canvas, box, f"{name} {score:.2f}", class_color(int(label)))
    return canvas


class LegendEntry(NamedTuple):
    """One line style of a legend."""

    text: str
    color: Color
    dashed: bool


def draw_legend(image_rgb: np.ndarray, entries: Sequence[LegendEntry], note: str = "") -> np.ndarray:
    """Put a strip with line styles at the left and a note at the right below an image.

    Args:
        image_rgb: (H, W, 3), uint8.
        entries: shown from left to right; those for which there is no room are left out.
        note: short text at the right end.
    Returns: (H + strip, W, 3), uint8; the strip's height is even and follows from the image's size.
    """
    height, width = image_rgb.shape[:2]
    font_scale = _font_scale(height, width)
    unit = round(24 * font_scale)
    strip = np.full((2 * round(1.25 * unit), width, 3), 24, np.uint8)
    middle = strip.shape[0] // 2
    thickness = max(1, round(min(height, width) / 300))

    note_width = cv2.getTextSize(note, _FONT, font_scale, 1)[0][0] if note else 0
    if note:
        _write(strip, note, (width - unit - note_width, middle + unit // 3), (200, 200, 200), font_scale)
    x = unit
    for entry in entries:
        text_width = cv2.getTextSize(entry.text, _FONT, font_scale, 1)[0][0]
        end = x + 3 * unit + text_width
        if end > width - 2 * unit - note_width:
            break
        sample = np.array([[x, middle - unit // 2, x + 2 * unit, middle + unit // 2]], np.int32)
        if entry.dashed:
            dashes = list(_dashes(sample, length=5.0 * thickness + 2))
            cv2.polylines(strip, dashes, isClosed=False, color=entry.color, thickness=thickness)
        else:
            x1, y1, x2, y2 = sample[0]
            cv2.rectangle(strip, (x1, y1), (x2, y2), entry.color, thickness)
        _write(strip, entry.text, (x + round(2.5 * unit), middle + unit // 3), (235, 235, 235), font_scale)
        x = end + unit
    return np.concatenate([image_rgb, strip])


def _visible(detections: Detections, score_threshold: float, scale: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4) in whole pixels of the enlarged image, labels (N,), scores (N,) of what is to be drawn."""
    host = detections.cpu()
    scores = host.scores.numpy()
    keep = scores >= score_threshold
    # A box that covers (0, 0) to (1, 1) is drawn on pixel 0 only: its far edge lies on the last pixel inside.
    boxes = np.rint(host.boxes_xyxy.detach().numpy()[keep] * scale - np.array([0, 0, 1, 1]))
    limit = 1 << 14  # far outside of any image, and safe for OpenCV's integers
    return boxes.clip(-limit, limit).astype(np.int32), host.labels.numpy()[keep], scores[keep]


def _dashes(boxes: np.ndarray, length: float) -> np.ndarray:
    """Cut the outlines of boxes (N, 4) into dashes: (M, 2, 2) int32, the two ends (x, y) of each."""
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float32)  # (N, 4, 2), clockwise
    start = corners.reshape(-1, 2)
    step = np.roll(corners, -1, axis=1).reshape(-1, 2) - start  # (4 N, 2), along each side
    # An odd number of equal parts, so that every side begins and ends with a dash and corners stay whole.
    pairs = np.rint(np.abs(step).max(axis=1, initial=0) / (2 * length)).astype(np.int64)
    parts = 2 * np.maximum(1, pairs) + 1
    count = (parts + 1) // 2
    side = np.repeat(np.arange(len(parts)), count)  # (M,), the side to which a dash belongs
    within = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, ... along its side
    position = np.stack([2 * within, 2 * within + 1], axis=1) / parts[side, None]  # (M, 2), 0 to 1
    ends = start[side, None] + step[side, None] * position[..., None]
    return np.rint(ends).astype(np.int32)


def _draw_tag(canvas: np.ndarray, box: np.ndarray, text: str, color: Color) -> None:
    """Write text on a filled ground at the box's upper left corner, moved to be wholly on the image."""
    height, width = canvas.shape[:2]
    font_scale = _font_scale(height, width)
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, font_scale, 1)
    tag_width, tag_height = text_width + 4, text_height + baseline + 2
    x = int(np.clip(box[0], 0, max(width - tag_width, 0)))
    above = box[1] - tag_height
    y = int(np.clip(above if above >= 0 else box[1], 0, max(height - tag_height, 0)))
    cv2.rectangle(canvas, (x, y), (x + tag_width - 1, y + tag_height - 1), color, cv2.FILLED)
    _write(canvas, text, (x + 2, y + 1 + text_height), _DARK, font_scale)


def _write(canvas: np.ndarray, text: str, origin: tuple[int, int], color: Color, font_scale: float) -> None:
    cv2.putText(canvas, text, origin, _FONT, font_scale, color, 1, cv2.LINE_AA)


def _font_scale(height: int, width: int) -> float:
    """About 8 pixels high on a 320x192 image, and not larger than is needed on a large one."""
    return float(np.clip(min(height, width) / 900, 0.32, 1.0))
