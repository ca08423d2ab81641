"""Boxes moved by displacement fields: the paper's baseline for propagation and anticipation (section 5.2)."""

import torch
from torch import Tensor


def propagate_boxes(boxes_xyxy: Tensor, displacement: Tensor, stride: float) -> Tensor:
    """Move each box against the mean backward displacement of the map pixels inside it.

    Args:
        boxes_xyxy: (N, 4), image pixels, in the frame that the displacement is indexed by.
        displacement: (2, H, W), x then y, backward, pixels of the map.
        stride: image pixels per map pixel.
    Returns: (N, 4), the boxes where their contents came from moves on to: each shifted by minus the mean.
    """
    if len(boxes_xyxy) == 0:
        return boxes_xyxy.clone()
    height, width = displacement.shape[-2:]
    centres_x = (torch.arange(width, device=displacement.device) + 0.5) * stride
    centres_y = (torch.arange(height, device=displacement.device) + 0.5) * stride
    x1, y1, x2, y2 = boxes_xyxy.unbind(1)
    # A box thinner than a cell still has the cell that holds its centre.
    half = stride / 2
    inside_x = (centres_x >= torch.minimum(x1, (x1 + x2) / 2 - half)[:, None]) & (
        centres_x < torch.maximum(x2, (x1 + x2) / 2 + half)[:, None]
    )
    inside_y = (centres_y >= torch.minimum(y1, (y1 + y2) / 2 - half)[:, None]) & (
        centres_y < torch.maximum(y2, (y1 + y2) / 2 + half)[:, None]
    )
    inside = (inside_y[:, :, None] & inside_x[:, None, :]).to(displacement.dtype)
    count = inside.sum((1, 2)).clamp(min=1)
    mean = torch.einsum("nhw,chw->nc", inside, displacement) / count[:, None]
    return boxes_xyxy - (mean * stride).repeat(1, 2)
