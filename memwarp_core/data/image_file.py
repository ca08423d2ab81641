"""Reading one image of a data set."""

from pathlib import Path

import cv2
import numpy as np

from memwarp_core.errors import DataError


def read_image(
    path: Path, size: tuple[int, int] | None = None, *, named_in: str, as_stored: bool = False
) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Args:
        size: (height, width) that it should have, if that is known.
        named_in: where the data set says that there is this image, for the messages.
        as_stored: do not turn the image as its EXIF data say; for data sets whose boxes were drawn without that.
    Raises: DataError if the image is missing, broken or of another size.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: this image is named in {named_in} but does not exist; copy it there, or make the data set again."
        )
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0))
    if image is None:
        raise DataError(f"{path}: expected a JPEG or PNG image, got a file that cannot be decoded.")
    if size is not None and image.shape[:2] != size:
        raise DataError(
            f"{path}: expected {size[1]}x{size[0]} pixels as {named_in} says, got {image.shape[1]}x{image.shape[0]}."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
