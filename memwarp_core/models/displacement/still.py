"""Nothing moves: what a memory is worth without warping."""

import torch
from torch import Tensor

from memwarp_core.models.parts import Displacement


class Still(Displacement):
    """A displacement of zero everywhere."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        """Returns: (B, 2, H, W), zeros on the finest level."""
        return images.new_zeros(len(images), 2, images.shape[-2] // self.stride, images.shape[-1] // self.stride)

    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        return torch.zeros_like(current)
