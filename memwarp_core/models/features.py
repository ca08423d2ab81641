"""The features part: an image becomes the evidence for the memory and the motion features to compare frames with."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from memwarp_core.models.config import FeaturesConfig

STRIDE = 8
"""Image pixels per cell of the feature map."""
SIZE_MULTIPLE = 16
"""Image sides must be multiples of this, the stride of the coarsest stage."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one image contributes."""

    features: Tensor
    """(B, C, H/8, W/8), what the memory keeps and the head reads."""
    motion: Tensor
    """(B, C', H/4, W/4), early features in which one place looks alike in neighbouring frames."""


class TinyFeatures(nn.Module):
    """A small residual network at stride 8 that also sees the context of a stride-16 stage."""

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        stem, quarter, eighth, sixteenth = config.widths
        self.motion_channels = quarter
        self.out_channels = config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
        )
        self.quarter = _Residual(stem, quarter, stride=2)
        self.eighth = nn.Sequential(_Residual(quarter, eighth, stride=2), _Residual(eighth, eighth))
        self.sixteenth = nn.Sequential(_Residual(eighth, sixteenth, stride=2), _Residual(sixteenth, sixteenth))
        self.lateral = nn.Conv2d(eighth, config.channels, 1)
        self.context = nn.Conv2d(sixteenth, config.channels, 1)
        self.merge = nn.Conv2d(config.channels, config.channels, 3, padding=1)

    def forward(self, images: Tensor) -> Evidence:
        """
        Args:
            images: (B, 3, H, W), RGB in [0, 255]; H and W multiples of 16.
        """
        motion = self.quarter(self.stem((images - 127.5) / 64))
        eighth = self.eighth(motion)
        context = F.interpolate(self.context(self.sixteenth(eighth)), scale_factor=2.0, mode="nearest")
        return Evidence(F.relu(self.merge(F.relu(self.lateral(eighth) + context))), motion)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, as in ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))
