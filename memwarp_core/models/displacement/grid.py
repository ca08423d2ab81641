"""What displacement networks share: images of half the resolution, and fields on the grid of the finest level."""

import torch
import torch.nn.functional as F
from torch import Tensor

from memwarp_core.geometry import resize_displacement


def halve(images: Tensor) -> Tensor:
    """Means of 2x2 pixels; (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))."""
    return F.avg_pool2d(images, 2, ceil_mode=True)


def fit_to_grid(field: Tensor, cell: int, stride: int, size: tuple[int, int]) -> Tensor:
    """Bring a network's output to the grid of the feature map, as displacements in its cells.

    Args:
        field: (B, 2 or more, h, w), x then y in its own cells; further channels are not scaled. It may reach beyond
            the feature map to the right and below, since networks round up.
        cell: image pixels per cell of `field`.
        stride: image pixels per cell of the feature map; h * cell and w * cell are multiples of it.
        size: (height, width) of the feature map.
    Returns: (B, 2 or more, *size), at least in float32, since coordinates need it.
    """
    field = field.to(torch.promote_types(field.dtype, torch.float32))
    height, width = field.shape[-2:]
    field = resize_displacement(field, (height * cell // stride, width * cell // stride))
    return field[..., : size[0], : size[1]]


def grid_of_halved(halved: Tensor, stride: int) -> tuple[int, int]:
    """(height, width) of the feature map of images that `halve` returned."""
    height, width = halved.shape[-2:]
    return -(-2 * height // stride), -(-2 * width // stride)
