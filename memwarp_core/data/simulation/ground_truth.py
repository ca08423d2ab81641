"""Exact ground truth from rendered buffers: boxes from the segmentation image, displacement from depth and poses."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The geometry of one rendered frame."""

    depth: np.ndarray
    """(H, W) float32, metres along the optical axis."""
    body: np.ndarray
    """(H, W) int32, the body seen in each pixel, 0 for the world, -1 for the sky."""
    camera_position: np.ndarray
    """(3,) in the world."""
    camera_rotation: np.ndarray
    """(3, 3) from camera (x right, y up, looking along -z) to world."""
    body_positions: np.ndarray
    """(bodies, 3)."""
    body_rotations: np.ndarray
    """(bodies, 3, 3)."""


SKY_DEPTH_M = 1.0e4
"""The sky is so far away that only rotation moves it."""


def box_of_mask(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Continuous xyxy around the true pixels of (H, W), where pixel (column c, row r) covers (c, r) to (c+1, r+1).

    Returns None for an empty mask.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if len(columns) == 0:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def displacement_between(previous: View, current: View, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """The backward displacement field from the current frame to the previous one.

    Convention: out(p) = in(p + d(p)); x right, y down, pixels of the image. The surface seen at pixel p of the
    current frame was at p + d(p) in the previous one.

    Returns: displacement (H, W, 2) float32, and validity (H, W) bool: true where that surface was seen by the
        previous frame too (inside the image and not hidden).
    """
    height, width = current.depth.shape
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    depth = np.where(current.body < 0, np.float32(SKY_DEPTH_M), current.depth)
    right = (column - (width - 1) / 2.0) / focal
    up = ((height - 1) / 2.0 - row) / focal
    ray = np.stack([right * depth, up * depth, -depth], axis=-1).astype(np.float32)
    matrix, offset = _camera_to_previous_camera(previous, current)
    body = np.maximum(current.body, 0)
    # Most pixels belong to the world (body 0): all are moved with it, then those of the other bodies again.
    moved = ray @ matrix[0].T + offset[0]
    for index in np.flatnonzero(np.bincount(body.ravel())):
        if index == 0:
            continue
        seen = body == index
        moved[seen] = ray[seen] @ matrix[index].T + offset[index]
    old_depth = -moved[..., 2]
    safe = np.maximum(old_depth, 1e-3)
    old_column = moved[..., 0] / safe * focal + (width - 1) / 2.0
    old_row = -moved[..., 1] / safe * focal + (height - 1) / 2.0
    displacement = np.stack([old_column - column, old_row - row], axis=-1).astype(np.float32)

    inside = (old_depth > 1e-2) & (old_column >= 0) & (old_column <= width - 1)
    inside &= (old_row >= 0) & (old_row <= height - 1)
    c = np.clip(np.rint(old_column), 0, width - 1).astype(np.int32)
    r = np.clip(np.rint(old_row), 0, height - 1).astype(np.int32)
    seen_depth = np.where(previous.body < 0, np.float32(SKY_DEPTH_M), previous.depth)[r, c]
    same_body = np.maximum(previous.body, 0)[r, c] == body
    # 4 %: neighbouring pixels of a surface seen at a grazing angle differ by that much in depth.
    visible = same_body & (np.abs(old_depth - seen_depth) < 0.04 * np.maximum(old_depth, seen_depth) + 0.01)
    return displacement, inside & visible


def _camera_to_previous_camera(previous: View, current: View) -> tuple[np.ndarray, np.ndarray]:
    """For each body, the rotation (bodies, 3, 3) and offset (bodies, 3) that take a point of it from the current
    camera's coordinates to where it was in the previous camera's."""
    turn = previous.body_rotations @ current.body_rotations.transpose(0, 2, 1)
    shift = previous.body_positions - np.einsum("bij,bj->bi", turn, current.body_positions)
    to_previous = previous.camera_rotation.T
    matrix = to_previous @ turn @ current.camera_rotation
    world = np.einsum("bij,j->bi", turn, current.camera_position) + shift - previous.camera_position
    return matrix.astype(np.float32), (world @ to_previous.T).astype(np.float32)
