"""Displacement fields as PNG files in the format of the KITTI flow benchmark.

Three channels of 16 bits: x and y as 64 * pixels + 32768, and 1 where the value holds. It keeps 1/64 pixel up to 512
pixels, and other tools read it.
"""

from pathlib import Path

import cv2
import numpy as np

from memwarp_core.errors import DataError
from memwarp_core.files import write_bytes_whole

STEPS_PER_PIXEL = 64.0
OFFSET = 32768.0


def write_displacement(path: Path, displacement: np.ndarray, valid: np.ndarray) -> None:
    """Write (H, W, 2) float32 (x right, y down, pixels of the image) and its validity (H, W) bool.

    A value too large for the format is written as not valid.
    """
    coded = np.rint(displacement.astype(np.float64) * STEPS_PER_PIXEL + OFFSET)
    holds = valid & (coded >= 0).all(axis=-1) & (coded <= 65535).all(axis=-1)
    image = np.zeros((*valid.shape, 3), np.uint16)
    # OpenCV keeps channels in the order blue, green, red; the file has x in red, y in green, validity in blue.
    image[..., 2] = np.where(holds, coded[..., 0], 0)
    image[..., 1] = np.where(holds, coded[..., 1], 0)
    image[..., 0] = holds
    written, content = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not written:
        raise DataError(f"{path}: the displacement field of shape {displacement.shape} could not be encoded.")
    write_bytes_whole(path, content.tobytes())


def read_displacement(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The displacement (H, W, 2) float32 (0 where it does not hold) and its validity (H, W) bool.

    Raises: DataError if the file is missing or is not a 16-bit PNG with three channels.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        came = "no readable image" if image is None else f"{image.dtype} of shape {image.shape}"
        raise DataError(
            f"{path}: expected a displacement field as a 16-bit PNG with three channels, got {came}; "
            "write one with `memwarp simulate --displacement`."
        )
    valid = image[..., 0] > 0
    field = (image[..., 2:0:-1].astype(np.float32) - OFFSET) / STEPS_PER_PIXEL
    return np.where(valid[..., None], field, np.float32(0.0)), valid
