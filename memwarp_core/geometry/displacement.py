"""The algebra of displacement fields: bring them to another map, chain them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from memwarp_core.geometry.warp import warp


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
    x, y, others = resized[:, :1], resized[:, 1:2], resized[:, 2:]
    # Plain numbers as factors: a tensor of them would have to travel to the device.
    return torch.cat((x * (size[1] / width), y * (size[0] / height), others), dim=1)


def compose(newer: Tensor, older: Tensor) -> Tensor:
    """Chain D_(t,t-1) and D_(t-1,t-2) to D_(t,t-2).

    Args:
        newer, older: (B, 2, H, W), backward displacements of neighbouring intervals.
    """
    return newer + warp(older, newer, padding="border")
