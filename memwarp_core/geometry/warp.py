"""Moving feature maps along displacement fields (the paper's Eq. 1) and scattering fields forward in time."""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(features: Tensor, displacement: Tensor, padding: str = "zeros") -> Tensor:
    """Sample past features at the places the displacement points to (backward warp, Eq. 1).

    Convention: out(p) = in(p + d(p)), bilinear, pixel centres at integers (align_corners=True).

    Args:
        features: (B, C, H, W), float, from the past frame.
        displacement: (B, 2, H, W), x then y, pixels of this map, from the current frame to the past one.
        padding: what lies outside the map: "zeros", or "border" to repeat the edge.
    Returns: (B, C, H, W) on the current frame's grid, dtype of features.
    Raises: ValueError if batch or map sizes differ.
    """
    _check_field(displacement, features)
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling() and features.device.type == "cpu":
        both_float32 = features.dtype == displacement.dtype == torch.float32
        if both_float32 and features[:1].movedim(1, -1).is_contiguous():
            return _warp_rows(features, displacement, padding)
    # Places to sample need more than half precision, which is up to a twentieth of a cell off on a map of 64 cells.
    grid = _sampling_grid(displacement)
    sampled = F.grid_sample(features.to(grid.dtype), grid, mode="bilinear", padding_mode=padding, align_corners=True)
    return sampled.to(features.dtype)


def _warp_rows(features: Tensor, displacement: Tensor, padding: str) -> Tensor:
    """`warp` where the channels of a cell lie side by side, in memory and then in the result: sums of four rows each.

    On a CPU that is faster than grid_sample, which goes through the map channel by channel.
    """
    batch, channels, height, width = features.shape
    ys, xs = _pixel_centres(displacement)
    at = []  # per axis the two cells around each place and what they weigh, (2, B, H, W)
    for place, cells in ((ys + displacement[:, 1], height), (xs + displacement[:, 0], width)):
        if padding == "border":
            place = place.clamp(0, cells - 1)
        low = place.floor()
        around = torch.stack((low, low + 1))
        weight = (1 - (place - around).abs()) * ((around >= 0) & (around < cells))
        at.append((around.clamp(0, cells - 1).long(), weight))
    (row, of_row), (column, of_column) = at
    corners = (row[:, None] * width + column).flatten(0, 1)  # (4, B, H, W)
    if features.stride(0):
        corners += torch.arange(0, batch * height * width, height * width)[:, None, None]
    else:  # the same map several times, of which one is enough
        features = features[:1]
    weights = (of_row[:, None] * of_column).flatten(0, 1)
    table = features.movedim(1, -1).flatten(0, 2)
    moved = F.embedding_bag(
        corners.flatten(1).T.contiguous(), table, per_sample_weights=weights.flatten(1).T.contiguous(), mode="sum"
    )
    return moved.view(batch, height, width, channels).movedim(-1, 1)


def splat(displacement: Tensor) -> Tensor:
    """Carry a backward displacement along its own motion, onto the grid of the frame that it leads to.

    A total displacement d that is indexed by the pixels q of the newest frame says that what is at q now will be at
    q - d(q). The returned field holds d at that place, so that a moving object takes its motion with it and covers
    what it moves over. Where several pixels land on one, the fastest relative to the map's median motion wins, because
    the background that objects move over is what moves with the camera. Places that nothing reaches keep the value of
    `displacement` there.

    Args:
        displacement: (B, 2, H, W), total backward displacement of one horizon, indexed by the newest frame.
    Returns: (B, 2, H, W), indexed by the future frame; use it with `warp`.
    """
    batch, _, height, width = displacement.shape
    ys, xs = _pixel_centres(displacement)
    flat = displacement.flatten(2)
    median = flat.median(dim=2, keepdim=True).values
    order = (flat - median).square().sum(1).argsort(dim=1)
    x = (xs - displacement[:, 0]).round().flatten(1).gather(1, order)
    y = (ys - displacement[:, 1]).round().flatten(1).gather(1, order)
    values = flat.gather(2, order[:, None].expand_as(flat))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    target = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
    rank = torch.arange(height * width, device=flat.device).expand(batch, -1)
    winner = torch.full_like(target, -1)
    winner.scatter_reduce_(1, target, torch.where(inside, rank, -1), reduce="amax")
    moved = values.gather(2, winner.clamp(min=0)[:, None].expand(-1, 2, -1))
    return torch.where(winner[:, None] >= 0, moved, flat).view_as(displacement)


def _sampling_grid(displacement: Tensor) -> Tensor:
    """(B, H, W, 2) places to sample in grid_sample's coordinates, (x, y) from -1 to 1 between the outer centres."""
    height, width = displacement.shape[-2:]
    ys, xs = _pixel_centres(displacement)
    x = (xs + displacement[:, 0]) * (2 / max(width - 1, 1)) - 1
    y = (ys + displacement[:, 1]) * (2 / max(height - 1, 1)) - 1
    return torch.stack((x, y), dim=-1)


def _pixel_centres(field: Tensor) -> tuple[Tensor, Tensor]:
    """The y and x coordinates of a map's pixels, (H, 1) and (1, W)."""
    height, width = field.shape[-2:]
    ys = torch.arange(height, device=field.device, dtype=field.dtype)[:, None]
    xs = torch.arange(width, device=field.device, dtype=field.dtype)[None, :]
    return ys, xs


def _check_field(displacement: Tensor, features: Tensor) -> None:
    expected = (features.shape[0], 2, *features.shape[-2:])
    if tuple(displacement.shape) != expected:
        raise ValueError(
            f"displacement must be {expected} to match features, got {tuple(displacement.shape)}; "
            "predict it on the feature map, not the image."
        )
