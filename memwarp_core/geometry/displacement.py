"""The algebra of displacement fields: bring them to another map, chain them, carry them into the future."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from memwarp_core.geometry.warp import warp

Motion = Literal["constant_acceleration", "constant_velocity", "still"]
"""How displacements go on after the newest frame; "still" is the baseline in which nothing moves."""


def scale_displacement(displacement: Tensor, stride: int) -> Tensor:
    """Bring a field in image pixels to a feature map that is `stride` times smaller, in pixels of that map.

    Args:
        displacement: (B, 2, H * stride, W * stride), image pixels.
    Returns: (B, 2, H, W), the mean of each cell divided by the stride, once.
    """
    return F.avg_pool2d(displacement, stride) / stride


def resize_displacement(displacement: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a field to a map of another resolution of the same frame, in pixels of that map.

    Args:
        displacement: (B, 2, H, W), pixels of its own map; further channels are resized and not scaled.
        size: (height, width) of the other map.
    Returns: (B, 2, *size); means over cells where the map gets smaller, bilinear where it gets larger.
    """
    height, width = displacement.shape[-2:]
    if (height, width) == size:
        return displacement
    if size[0] <= height and size[1] <= width:
        resized = F.interpolate(displacement, size, mode="area")
    else:
        resized = F.interpolate(displacement, size, mode="bilinear", align_corners=False)
    factors = [size[1] / width, size[0] / height] + [1.0] * (displacement.shape[1] - 2)
    return resized * resized.new_tensor(factors)[:, None, None]


def compose(newer: Tensor, older: Tensor) -> Tensor:
    """Chain D_(t,t-1) and D_(t-1,t-2) to D_(t,t-2).

    Args:
        newer, older: (B, 2, H, W), backward displacements of neighbouring intervals.
    """
    return newer + warp(older, newer, padding="border")


def extrapolate(
    previous: Tensor, current: Tensor, steps: Sequence[float], motion: Motion = "constant_acceleration"
) -> list[Tensor]:
    """Total displacement from future frames to the newest one (the paper, section 4.3).

    With D the current field and A = D_t(p) - D_(t-1)(p + D_t(p)) its acceleration, k frames ahead are
    k D + k (k + 1) / 2 A. The alignment repeats the border, since zeros would invent acceleration there.

    Convention: indexed by the pixels of the newest frame t and used directly as D_(t+k,t); `splat` carries such a
    field to the pixels of the future frame.

    Args:
        previous: (B, 2, H, W), D_(t-1,t-2).
        current: (B, 2, H, W), D_(t,t-1), over an interval of the same length.
        steps: how many frame intervals to look ahead, real numbers.
        motion: the motion model.
    Returns: one (B, 2, H, W) field per step.
    """
    if motion == "still":
        return [current * 0 for _ in steps]
    if motion == "constant_velocity":
        return [current * k for k in steps]
    if motion != "constant_acceleration":
        raise ValueError(f"motion must be constant_acceleration, constant_velocity or still, got {motion!r}.")
    acceleration = current - warp(previous, current, padding="border")
    return [current * k + acceleration * (k * (k + 1) / 2) for k in steps]
