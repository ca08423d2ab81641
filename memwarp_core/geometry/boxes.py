"""Boxes moved by displacement fields: the paper's baseline for propagation and anticipation (section 5.2)."""

import torch
from torch import Tensor


def propagate_boxes(boxes_xyxy: Tensor, displacement: Tensor, stride: float) -> Tensor:
    """Move each box against the mean backward displacement of the map pixels inside it.

    A map pixel is inside if its centre is; a box thinner than a cell has the cell around its own centre. A box that
    is not on the map stays. Gradients reach the boxes and the displacement.

    Args:
        boxes_xyxy: (..., N, 4), image pixels, in the frame that the displacement is indexed by.
        displacement: (..., 2, H, W), x then y, backward, pixels of the map; a field per image or horizon.
        stride: image pixels per map pixel.
    Returns: (..., N, 4), the boxes where their contents came from moves on to: each shifted by minus the mean.
    """
    height, width = displacement.shape[-2:]
    x1, y1, x2, y2 = boxes_xyxy.detach().unbind(-1)
    inside = (_between(y1, y2, height, stride)[..., :, None] & _between(x1, x2, width, stride)[..., None, :]).float()
    count = inside.sum((-2, -1)).clamp(min=1)
    mean = (inside[..., None, :, :] * displacement[..., None, :, :, :]).sum((-2, -1)) / count[..., None]
    shift = mean * stride
    return boxes_xyxy - torch.cat((shift, shift), dim=-1)


def _between(low: Tensor, high: Tensor, cells: int, stride: float) -> Tensor:
    """(..., N, cells), which cells of one axis have their centre from `low` to `high`, (..., N), image pixels."""
    centres = (torch.arange(cells, device=low.device) + 0.5) * stride
    middle = (low + high) / 2
    low = torch.minimum(low, middle - stride / 2)[..., None]
    high = torch.maximum(high, middle + stride / 2)[..., None]
    return (centres >= low) & (centres < high)
