"""Displacements from the detector's own early features."""

from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memwarp_core.models.config import CorrelationConfig
from memwarp_core.models.displacement.grid import fit_to_grid
from memwarp_core.models.parts import Displacement, Features

FINEST_STRIDE = 8
"""Comparing all pairs at stride 4 would cost 16 times as much; fields for such levels are made at 8 and resized."""
MOST_CELLS = 4096
"""Larger maps are compared at a coarser resolution, since the number of pairs grows with the square."""
_LOOKED_UP = 3
"""Similarities up to so many cells from the first estimate are looked at again."""
_BLOCK = (24, 8)
"""Rows and columns compared at a time, so that their similarities stay in the cache of a CPU core."""


class CorrelationDisplacement(Displacement):
    """Correlation of the current with the past frame, soft-argmax, and a few convolutions.

    Early features are embedded at the stride of the memory, each cell with what is around it. A cell is compared with
    those around it in the past frame, and the expected offset under a softmax of the similarities (soft-argmax) is a
    first estimate. A few convolutions refine it by the similarities close to where it points, looked up between the
    cells as RAFT does. A plain network on the correlations learns far more slowly, and a separate displacement network
    would cost more than the rest of a tiny detector.
    """

    reads_early = True

    def __init__(self, features: Features, config: CorrelationConfig) -> None:
        """
        Args:
            features: for the channels and strides of its early features and the stride of its finest level.
        """
        super().__init__()
        self.radius = config.radius
        self.stride = features.strides[0]
        self.cell = max(self.stride, features.early_stride, FINEST_STRIDE)
        reduction = self.cell // features.early_stride
        # A 3x3 convolution of stride 2 sees every early feature; one of stride 4 would step over some.
        convolution_stride = min(reduction, 2)
        self.averaged = reduction // convolution_stride
        channels = config.channels
        self.embed = nn.Sequential(
            nn.Conv2d(features.early_channels, channels, 3, convolution_stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        # No ReLU at its end: centred features tell "different" from "unrelated".
        self.context = nn.Sequential(
            *_convolution(channels, dilation=1),
            nn.ReLU(inplace=True),
            *_convolution(channels, dilation=2),
            nn.ReLU(inplace=True),
            *_convolution(channels, dilation=1),
        )
        self.log_temperature = nn.Parameter(torch.tensor(2.0))
        self.refine = nn.Sequential(
            nn.Conv2d(channels + (2 * _LOOKED_UP + 1) ** 2 + 4, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 48, 3, padding=2, dilation=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(48, 48, 3, padding=4, dilation=4),
            nn.ReLU(inplace=True),
            nn.Conv2d(48, 2, 3, padding=1),
        )
        nn.init.zeros_(self.refine[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.refine[-1].bias)  # type: ignore[arg-type]

    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        """Returns: (B, C, H, W), the embedding at the stride of the finest level, or at 8 if that is finer."""
        assert early is not None
        x = self.embed(early if self.averaged == 1 else F.avg_pool2d(early, self.averaged, ceil_mode=True))
        return x + self.context(x)

    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        height, width = current.shape[-2:]
        coarser = 1
        while -(-height // coarser) * -(-width // coarser) > MOST_CELLS:
            coarser *= 2
        if coarser > 1:
            current, past = (F.avg_pool2d(embedding, coarser, ceil_mode=True) for embedding in (current, past))
        size = (height * self.cell // self.stride, width * self.cell // self.stride)
        return fit_to_grid(self._compare(current, past), self.cell * coarser, self.stride, size)

    def _compare(self, current: Tensor, past: Tensor) -> Tensor:
        """Displacements (B, 2, H, W) in cells of the embeddings' own map."""
        query, key = F.normalize(current, dim=1) * self.log_temperature.exp(), F.normalize(past, dim=1)
        in_blocks = current.device.type == "cpu" and current.dtype == torch.float32 and not torch.is_grad_enabled()
        if in_blocks and not torch.compiler.is_compiling():
            first, spread, near = _match_blocks(query, key, self.radius)
        else:
            first, spread, near = _match_all(query, key, self.radius)
        return first + self.refine(torch.cat((current, near, first, spread), dim=1))


def _convolution(channels: int, dilation: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
    return convolution, nn.BatchNorm2d(channels)


_Match = tuple[Tensor, Tensor, Tensor]
"""Expected offsets in cells, x then y, (B, 2, H, W); their variances, (B, 2, H, W); and the similarities around the
places that they lead to, (B, (2 * _LOOKED_UP + 1)^2, H, W), row by row."""


def _match_all(query: Tensor, past: Tensor, radius: int) -> _Match:
    """
    Args:
        query: (B, C, H, W), of the current frame, of the length of the softmax's inverse temperature.
        past: (B, C, H, W), of length 1.
        radius: largest offset, in cells.
    """
    height, width = query.shape[-2:]
    # All pairs in one product, and a window by a mask, is faster than gathering windows on maps of this size.
    similarity = query.flatten(2).transpose(1, 2) @ past.flatten(2)
    # Under autocast, half precision would round the coordinates.
    with torch.autocast(query.device.type, enabled=False):
        similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
        # What is recorded has to hold all that it reads.
        on_gpu = similarity.device.type == "cuda"
        records = torch.compiler.is_compiling() or (on_gpu and torch.cuda.is_current_stream_capturing())
        window = (_window if records else _kept_window)(
            (0, height, 0, height), (0, width, 0, width), radius, similarity.dtype, similarity.device
        )
        weights = (similarity + window).softmax(dim=2)
        places = _places(height, width, similarity)
        expected, second_moment = (weights @ torch.cat((places, places.square()), dim=1)).chunk(2, dim=2)
        variance = (second_moment - expected.square()).clamp(min=0)
        near = _look_up(similarity.flatten(0, 1).unflatten(1, (height, width)), expected.flatten(0, 1))
    first = (expected - places).transpose(1, 2).unflatten(2, (height, width))
    spread = variance.transpose(1, 2).unflatten(2, (height, width))
    return first, spread, near.view(-1, height, width, near.shape[1]).permute(0, 3, 1, 2)


def _match_blocks(query: Tensor, past: Tensor, radius: int) -> _Match:
    """What `_match_all` returns, faster on a CPU: by blocks that fit into its cache, and only with cells within reach.

    Args: as for `_match_all`; float32.
    """
    batch, channels, height, width = query.shape
    query, past = query.permute(0, 2, 3, 1), past.permute(0, 2, 3, 1)
    found = query.new_empty(batch, height, width, 4 + (2 * _LOOKED_UP + 1) ** 2)
    for rows, columns in product(_strips(height, _BLOCK[0], radius), _strips(width, _BLOCK[1], radius)):
        (top, bottom, first_row, end_row), (left, right, first_column, end_column) = rows, columns
        size, reach = (bottom - top, right - left), (end_row - first_row, end_column - first_column)
        window, places, powers_of_x, powers_of_y = _kept_block(
            _from_zero(rows), _from_zero(columns), radius, query.dtype
        )
        for index in range(batch):
            block = query[index, top:bottom, left:right].reshape(-1, channels)
            similarity = block @ past[index, first_row:end_row, first_column:end_column].reshape(-1, channels).T
            weights = (similarity + window).softmax(dim=1).unflatten(1, reach)
            moments = torch.stack((weights.sum(1) @ powers_of_x, weights.sum(2) @ powers_of_y), dim=2)
            expected, second_moment = moments.unbind(1)
            variance = (second_moment - expected.square()).clamp(min=0)
            near = _look_up(similarity.unflatten(1, reach), expected)
            of_block = torch.cat((expected - places, variance, near), dim=1)
            found[index, top:bottom, left:right] = of_block.unflatten(0, size)
    first, spread, near = found.permute(0, 3, 1, 2).split((2, 2, found.shape[-1] - 4), dim=1)
    return first, spread, near


def _look_up(similarity: Tensor, places: Tensor) -> Tensor:
    """The similarities around a place of each cell, bilinear, 0 outside the map.

    Args:
        similarity: (N, H, W), of each cell of the current frame to cells of the past one.
        places: (N, 2), x then y in cells of the past frame.
    Returns: (N, (2 * _LOOKED_UP + 1)^2), row by row.
    """
    height, width = similarity.shape[-2:]
    offsets = torch.arange(-_LOOKED_UP, _LOOKED_UP + 1, device=places.device, dtype=places.dtype)
    # grid_sample counts from -1, the centre of the first cell, to 1, that of the last.
    x = (places[:, :1, None] + offsets) * (2 / max(width - 1, 1)) - 1
    y = (places[:, 1:, None] + offsets[:, None]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1)
    return F.grid_sample(similarity[:, None], grid, align_corners=True).flatten(1)


_Strip = tuple[int, int, int, int]
"""Of rows or columns, the first and the one after the last in the current frame, and then those in the past one."""


def _strips(cells: int, most: int, radius: int) -> list[_Strip]:
    """Split the cells of an axis; similarities are looked up a little further away than the radius."""
    reach = radius + _LOOKED_UP
    firsts = range(0, cells, most)
    ends = [min(first + most, cells) for first in firsts]
    return [
        (first, end, max(first - reach, 0), min(end + reach, cells)) for first, end in zip(firsts, ends, strict=True)
    ]


def _from_zero(strip: _Strip) -> _Strip:
    """The same strip where its past cells begin at 0: most blocks of a map have the same window."""
    first, end, first_past, end_past = strip
    return first - first_past, end - first_past, 0, end_past - first_past


def _window(rows: _Strip, columns: _Strip, radius: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What to add to similarities, -inf for cells that are more than the radius apart in x or in y.

    Returns: (cells of the current frame, cells of the past one).
    """

    def of_axis(strip: _Strip) -> Tensor:
        current, past = torch.arange(*strip[:2], device=device), torch.arange(*strip[2:], device=device)
        far = (current[:, None] - past).abs() > radius
        return torch.zeros(far.shape, dtype=dtype, device=device).masked_fill(far, float("-inf"))

    # Per axis first: differences of all pairs of cells would cost more than the correlation itself.
    return (of_axis(rows)[:, None, :, None] + of_axis(columns)[None, :, None, :]).flatten(2).flatten(0, 1)


_kept_window = lru_cache(maxsize=2)(_window)
"""Up to 64 MiB each; in every frame anew, it would cost as much as the rest of the comparison."""


@lru_cache(maxsize=32)
def _kept_block(
    rows: _Strip, columns: _Strip, radius: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All of a block that does not depend on images, up to 2 MiB: its window; the places of its cells (N, 2), x then y;
    and the first and second power of the coordinates that it can be compared with, (columns, 2) and (rows, 2)."""
    window = _window(rows, columns, radius, dtype, torch.device("cpu"))
    (top, bottom, _, height), (left, right, _, width) = rows, columns
    places = _places(bottom - top, right - left, window) + window.new_tensor((left, top))
    x, y = (torch.arange(cells, dtype=dtype) for cells in (width, height))
    return window, places, torch.stack((x, x.square()), dim=1), torch.stack((y, y.square()), dim=1)


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(H * W, 2), x then y of each cell."""
    ys, xs = torch.meshgrid(
        torch.arange(height, device=like.device, dtype=like.dtype),
        torch.arange(width, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack((xs.flatten(), ys.flatten()), dim=1)
