"""Boxes paired, and moved by displacement fields, the paper's baseline for propagation and anticipation (5.2)."""

import torch
from torch import Tensor
from torchvision.ops import box_iou


def propagate_boxes(boxes_xyxy: Tensor, displacement: Tensor, stride: float) -> Tensor:
    """Move each box against the mean backward displacement of the map pixels inside it.

    A map pixel is inside if its centre is; a box thinner than a cell has the cell around its own centre. A box that
    is not on the map stays. Gradients reach the boxes and the displacement.

    Args:
        boxes_xyxy: (..., N, 4), image pixels, in the frame that the displacement is indexed by.
        displacement: (..., 2, H, W), x then y, backward, pixels of the map; a field per image or horizon. Leading
            dimensions of the two are broadcast.
        stride: image pixels per map pixel.
    Returns: (..., N, 4), the boxes where their contents came from moves on to: each shifted by minus the mean.
    """
    height, width = displacement.shape[-2:]
    x1, y1, x2, y2 = boxes_xyxy.detach().unbind(-1)
    rows = _between(y1, y2, height, stride).to(displacement.dtype)  # (..., N, H)
    columns = _between(x1, x2, width, stride).to(displacement.dtype)  # (..., N, W)
    # Sums over rows are one product for all boxes, which half precision would round.
    with torch.autocast(displacement.device.type, enabled=False):
        of_rows = (rows @ displacement.movedim(-3, -2).flatten(-2)).unflatten(-1, (2, width))
    count = (rows.sum(-1) * columns.sum(-1)).clamp(min=1)
    mean = (of_rows * columns[..., None, :]).sum(-1) / count[..., None]
    shift = mean * stride
    return boxes_xyxy - torch.cat((shift, shift), dim=-1)


def follow_boxes(boxes_xyxy: Tensor, displacement: Tensor, stride: float) -> Tensor:
    """Move boxes of the past frame to the current one, by a displacement that is indexed by the current frame.

    The map pixels whose contents came from inside a box say where it went, wherever they are. Some of them are what
    an object has uncovered, which came from there as well; so the median of them counts. A box thinner than a cell is
    taken to be as wide as one. A box that nothing came from stays.

    Args:
        boxes_xyxy: (N, 4), image pixels, in the past frame.
        displacement: (2, H, W), x then y, from the current frame to the past one, pixels of the map.
        stride: image pixels per map pixel.
    Returns: (N, 4), in the current frame.
    """
    height, width = displacement.shape[-2:]
    centres_x, centres_y = (
        (torch.arange(cells, device=displacement.device) + 0.5) * stride for cells in (width, height)
    )
    from_x, from_y = centres_x + displacement[0] * stride, centres_y[:, None] + displacement[1] * stride
    x1, y1, x2, y2 = boxes_xyxy[:, :, None, None].unbind(1)
    inside = _is_between(from_x, x1, x2, stride) & _is_between(from_y, y1, y2, stride)
    shifts = torch.where(inside[:, None], displacement, torch.nan).flatten(2)
    shift = shifts.nanmedian(dim=2).values.nan_to_num(0.0) * stride
    return boxes_xyxy - torch.cat((shift, shift), dim=1)


def match_boxes(
    boxes_xyxy: Tensor, labels: Tensor, others_xyxy: Tensor, other_labels: Tensor, min_iou: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Pair boxes one to one with others of the same class, those that overlap most first.

    Args:
        boxes_xyxy, labels: (N, 4) and (N,).
        others_xyxy, other_labels: (M, 4) and (M,).
        min_iou: pairs overlap by at least this, and by more than nothing.
    Returns: in host memory, (N,), int64, index of each box's partner, -1 without one; and (N,), their IoU, else 0.
    """
    overlaps = (box_iou(boxes_xyxy, others_xyxy) * (labels[:, None] == other_labels)).cpu()
    partners = torch.full((len(boxes_xyxy),), -1)
    ious = torch.zeros(len(boxes_xyxy))
    rows, columns = ((overlaps >= min_iou) & (overlaps > 0)).nonzero(as_tuple=True)
    order = overlaps[rows, columns].argsort(descending=True, stable=True)
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if partners[row] < 0 and column not in taken:
            taken.add(column)
            partners[row], ious[row] = column, overlaps[row, column]
    return partners, ious


def _between(low: Tensor, high: Tensor, cells: int, stride: float) -> Tensor:
    """(..., N, cells), which cells of one axis have their centre from `low` to `high`, (..., N), image pixels."""
    centres = (torch.arange(cells, device=low.device) + 0.5) * stride
    return _is_between(centres, low[..., None], high[..., None], stride)


def _is_between(places: Tensor, low: Tensor, high: Tensor, stride: float) -> Tensor:
    """Which places on one axis are from `low` to `high`, or at most half a cell from their middle."""
    middle = (low + high) / 2
    return (places >= torch.minimum(low, middle - stride / 2)) & (places < torch.maximum(high, middle + stride / 2))
