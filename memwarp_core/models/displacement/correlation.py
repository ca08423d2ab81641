"""Displacements from the detector's own early features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memwarp_core.models.config import CorrelationConfig
from memwarp_core.models.parts import Displacement


class CorrelationDisplacement(Displacement):
    """Correlation of the current with the past frame, soft-argmax, and a few convolutions.

    Early features are embedded at the stride of the memory; each cell is compared with the cells around it in the
    past frame, the expected offset under a softmax of the similarities (soft-argmax) is a first estimate,
    and a few convolutions refine it. A plain network on the correlations learns far more slowly, and a separate
    displacement network would cost more than the rest of a tiny detector.
    """

    reads_early = True

    def __init__(self, early_channels: int, config: CorrelationConfig) -> None:
        super().__init__()
        self.radius = config.radius
        # No ReLU after the embedding: centred features tell "different" from "unrelated".
        self.embed = nn.Sequential(
            nn.Conv2d(early_channels, config.channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(config.channels),
        )
        self.log_temperature = nn.Parameter(torch.tensor(2.0))
        self.refine = nn.Sequential(
            nn.Conv2d(2 * config.channels + 4, 48, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(48, 48, 3, padding=2, dilation=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(48, 2, 3, padding=1),
        )
        nn.init.zeros_(self.refine[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.refine[-1].bias)  # type: ignore[arg-type]

    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        """Returns: (B, C, H, W), the embedding on the grid of the displacements."""
        return self.embed(early)

    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        height, width = current.shape[-2:]
        places = _places(height, width, current)
        # All pairs in one product, and a window by a mask, is faster than gathering windows on maps of this size.
        offsets = (places[:, None] - places[None]).abs().amax(dim=2)
        similarity = F.normalize(current, dim=1).flatten(2).transpose(1, 2) @ F.normalize(past, dim=1).flatten(2)
        similarity = similarity * self.log_temperature.exp()
        weights = similarity.masked_fill(offsets > self.radius, float("-inf")).softmax(dim=2)
        expected = weights @ places
        variance = (weights @ places.square() - expected.square()).clamp(min=0)
        first = (expected - places).transpose(1, 2).unflatten(2, (height, width))
        spread = variance.transpose(1, 2).unflatten(2, (height, width))
        return first + self.refine(torch.cat((current, past, first, spread), dim=1))


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(H * W, 2), x then y of each cell."""
    ys, xs = torch.meshgrid(
        torch.arange(height, device=like.device, dtype=like.dtype),
        torch.arange(width, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack((xs.flatten(), ys.flatten()), dim=1)
