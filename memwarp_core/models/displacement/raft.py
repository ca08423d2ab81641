"""RAFT: torchvision's optical flow network as a displacement part."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.models.optical_flow import raft_small

from memwarp_core.models.config import RaftConfig
from memwarp_core.models.displacement.grid import fit_to_grid, grid_of_halved, halve
from memwarp_core.models.parts import Displacement

SMALLEST_SIDE = 128
"""Below, RAFT's coarsest correlation would be a single cell."""
MULTIPLE = 8
"""RAFT wants sides that are multiples of its stride."""


class Raft(Displacement):
    """RAFT-small (Teed and Deng, ECCV 2020) on images of half the resolution.

    `raft` is torchvision's module, so that its published weights load into it by name. RAFT's flow goes from its first
    image to its second: from the current frame to the past one, as displacements do.
    """

    def __init__(self, stride: int, config: RaftConfig) -> None:
        """
        Args:
            stride: of the finest feature map, a power of 2.
        """
        super().__init__()
        self.stride = stride
        self.updates = config.updates
        self.raft = raft_small(weights=None)

    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        """Returns: (B, 3, ceil(H / 2), ceil(W / 2)) in [-1, 1], images of half the resolution."""
        return halve(images / 127.5 - 1)

    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        flow = self.raft(self._pad(current), self._pad(past), num_flow_updates=self.updates)[-1]
        return fit_to_grid(flow, 2, self.stride, grid_of_halved(current, self.stride))

    def _pad(self, halved: Tensor) -> Tensor:
        """Repeat the last row and column up to a size that RAFT takes and that holds whole cells."""
        multiple = max(MULTIPLE, self.stride // 2)
        height, width = (max(-(-side // multiple) * multiple, SMALLEST_SIDE) for side in halved.shape[-2:])
        return F.pad(halved, (0, width - halved.shape[-1], 0, height - halved.shape[-2]), mode="replicate")
