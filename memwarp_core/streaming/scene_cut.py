"""Whether a stream has jumped to another scene: two images compared by where they are bright, and by nothing else."""

import cv2
import numpy as np

_WIDTH, _HEIGHT = 16, 9
_LEAST_CORRELATION = 0.15
"""Neighbouring images of a stream correlate better, mostly far better; images of two scenes mostly do not."""
_LEAST_CONTRAST = 1.0
"""Root mean square, in grey levels: less is noise, of which nothing can be said."""


def layout(image: np.ndarray) -> np.ndarray:
    """A thumbnail of brightness, with the mean of each row taken off: bright skies over dark floors are everywhere.

    Args:
        image: (H, W, 3), uint8, RGB.
    Returns: (9, 16), float32.
    """
    small = cv2.resize(image, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return grey - grey.mean(1, keepdims=True)


def is_cut(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether two neighbouring images show different scenes, by the correlation of their layouts.

    Brightness and contrast do not matter, so that changes of exposure, darkness and blur are none. Heavy noise and
    very fast turns of the camera may be taken for a cut, and scenes that are laid out alike for one scene.

    Args:
        before, now: what `layout` says of them.
    """
    contrasts = [float(np.sqrt(np.square(of_image).mean())) for of_image in (before, now)]
    if min(contrasts) < _LEAST_CONTRAST:
        return False
    return float((before * now).mean()) < _LEAST_CORRELATION * contrasts[0] * contrasts[1]
