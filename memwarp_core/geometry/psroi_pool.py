"""R-FCN's position-sensitive pooling: every bin of a region reads its own group of channels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def psroi_pool(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Average each bin of each region over the cells it touches, in the channels of that bin (R-FCN, Eq. 1).

    Convention: exactly the rounding of R-FCN's published operator, in which boxes are inclusive pixels. A region spans
    round(x1) * spatial_scale to (round(x2) + 1) * spatial_scale, halves rounded away from zero, at least 0.1 cells;
    bin i of that span covers the cells floor(start + i * size) to ceil(start + (i + 1) * size), clipped to the map, so
    that bins may share cells. A bin outside the map is 0. torchvision's ps_roi_pool rounds to cells instead, and never
    reads the last row and column.

    Args:
        features: (B, D*k*k, H, W), float; channel (d*k + row)*k + column, with k = output_size.
        rois: (N, 5), index into the batch and xyxy in image pixels. Gradients do not flow into them.
        output_size: bins k in each direction.
        spatial_scale: cells per image pixel, 1 / stride.
    Returns: (N, D, k, k), dtype of features.
    Raises: ValueError if the channels are no multiple of k*k, or rois have no five columns.
    """
    channels, height, width = features.shape[1:]
    bins = output_size
    if channels % bins**2:
        raise ValueError(f"features must have a multiple of {bins}*{bins} channels, one group per bin; got {channels}")
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois must be (N, 5), batch index and xyxy; got {tuple(rois.shape)}")

    # Half precision does not hold image coordinates.
    rois = rois.detach().to(torch.promote_types(rois.dtype, torch.float32))
    left, right = bin_edges(rois[:, 1], rois[:, 3], bins, spatial_scale, width)
    top, bottom = bin_edges(rois[:, 2], rois[:, 4], bins, spatial_scale, height)

    in_cells = features.device.type == "cpu" and features.dtype == torch.float32 and not torch.is_grad_enabled()
    if in_cells and not torch.compiler.is_compiling():
        return _pool_cells(features, rois[:, 0].long(), (top, bottom), (left, right))

    # A bin's sum is four corners of its channels' integral image. They are differences of large sums, hence float64.
    # The D channels of a bin lie side by side, so that a corner is one row.
    maps = features.unflatten(1, (-1, bins, bins)).permute(0, 2, 3, 4, 5, 1)  # (B, k, k, H, W, D)
    integral = F.pad(maps, (0, 0, 1, 0, 1, 0)).cumsum(3, dtype=torch.float64).cumsum(4)
    bin_index = torch.arange(bins**2, device=rois.device).view(bins, bins)
    maps_of = rois[:, 0].long()[:, None, None] * bins**2 + bin_index  # (N, k, k)

    def corner(y: Tensor, x: Tensor) -> Tensor:
        return (maps_of * (height + 1) + y[:, :, None]) * (width + 1) + x[:, None, :]

    corners = torch.stack((corner(bottom, right), corner(top, left), corner(top, right), corner(bottom, left)))
    sums = integral.flatten(0, -2).index_select(0, corners.flatten()).unflatten(0, corners.shape)
    area = (bottom - top)[:, :, None] * (right - left)[:, None, :]
    mean = (sums[0] + sums[1] - sums[2] - sums[3]) / area.clamp(min=1)[..., None]
    return mean.permute(0, 3, 1, 2).to(features.dtype)


def _pool_cells(features: Tensor, image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """The mean of the cells of every bin, cell by cell, faster on a CPU than the integral image of a whole map.

    How many cells there are depends on the regions, for which a GPU would have to wait.

    Args:
        image: (N,), index into the batch.
        rows, columns: first, and after the last one, of every bin, (N, k) each.
    """
    height, width = features.shape[-2:]
    bins = rows[0].shape[1]
    # A cell's channels of one bin lie side by side: (B * H * W * k * k, D), where one row of cells is this long.
    table = features.unflatten(1, (-1, bins**2)).permute(0, 3, 4, 2, 1).flatten(0, 3)
    row_length = width * bins**2
    # Of every bin, (N * k * k,): its sides in cells, and where its first cell is in the table.
    tall = (rows[1] - rows[0])[:, :, None].expand(-1, -1, bins).flatten()
    wide = (columns[1] - columns[0])[:, None, :].expand(-1, bins, -1).flatten()
    first = ((image[:, None] * height + rows[0])[:, :, None] * width + columns[0][:, None, :]).flatten(1)
    first = (first * bins**2 + torch.arange(bins**2)).flatten()
    # Then of every row of cells in a bin, and of every cell.
    bin_of_row, row_in_bin = _spread(tall)
    row_of_cell, cell_in_row = _spread(wide[bin_of_row])
    cells = (first[bin_of_row] + row_in_bin * row_length)[row_of_cell] + cell_in_row * bins**2
    size = tall * wide
    pooled = F.embedding_bag(cells, table, size.cumsum(0) - size, mode="mean")
    return pooled.view(len(image), bins, bins, table.shape[1]).permute(0, 3, 1, 2)


def _spread(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For [2, 0, 3] the numbers [0, 0, 2, 2, 2], who each of a group belongs to, and [0, 1, 0, 1, 2], its place."""
    owner = torch.repeat_interleave(counts)
    return owner, torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]


def bin_edges(start: Tensor, end: Tensor, bins: int, spatial_scale: float, size: int) -> tuple[Tensor, Tensor]:
    """First cell, and the cell after the last one, of every bin along one axis, each (N, bins).

    Args:
        start, end: (N,), the regions' sides in image pixels.
        size: cells of the map.
    """
    start = _round(start) * spatial_scale
    end = (_round(end) + 1) * spatial_scale
    step = ((end - start).clamp(min=0.1) / bins)[:, None]
    edges = torch.arange(bins + 1, device=start.device, dtype=start.dtype) * step + start[:, None]
    return edges[:, :-1].floor().clamp(0, size).long(), edges[:, 1:].ceil().clamp(0, size).long()


def _round(x: Tensor) -> Tensor:
    """C's round: halves away from zero, where torch.round goes to the even neighbour."""
    whole = x.trunc()
    return whole + ((x - whole) * 2).trunc()
