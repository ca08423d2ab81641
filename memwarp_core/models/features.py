"""The features part: backbones whose memory may sit at several stages."""

import torch.nn.functional as F
from torch import Tensor, nn

from memwarp_core.models.config import FeaturesConfig, Stage, TinyFeaturesConfig
from memwarp_core.models.parts import Features, Levels

STAGES: tuple[Stage, ...] = ("conv3", "conv4", "conv5")


class StagedFeatures(Features):
    """A backbone of three stages behind its early layers, with a memory behind any of them.

    The stages after a memory run on the memory; the maps that follow from several memories are averaged.
    """

    def __init__(self, memory_at: tuple[Stage, ...], strides: dict[Stage, int], channels: dict[Stage, int]) -> None:
        super().__init__()
        self.memory_at = tuple(stage for stage in STAGES if stage in memory_at)
        self.strides = tuple(strides[stage] for stage in self.memory_at)
        self.channels = tuple(channels[stage] for stage in self.memory_at)
        self.head_strides = (strides["conv5"],)
        self.head_channels = (channels["conv5"],)

    def stage(self, name: Stage, x: Tensor) -> Tensor:
        """Run one stage on what the stage before it returned; conv3 follows the early layers."""
        raise NotImplementedError

    def levels(self, early: Tensor) -> Levels:
        kept, x = [], early
        for name in STAGES[: STAGES.index(self.memory_at[-1]) + 1]:
            x = self.stage(name, x)
            if name in self.memory_at:
                kept.append(x)
        return tuple(kept)

    def finish(self, memory: Levels) -> Levels:
        finished = []
        for name, x in zip(self.memory_at, memory, strict=True):
            for later in STAGES[STAGES.index(name) + 1 :]:
                x = self.stage(later, x)
            finished.append(x)
        return (sum(finished[1:], finished[0]) / len(finished),)


class TinyFeatures(StagedFeatures):
    """A small residual network; conv5 is at stride 8 and also sees the context of a stage at stride 16."""

    size_multiple = 16
    early_stride = 4

    def __init__(self, config: TinyFeaturesConfig) -> None:
        stem, quarter, eighth, sixteenth = config.widths
        super().__init__(
            config.memory_at,
            {"conv3": 4, "conv4": 8, "conv5": 8},
            {"conv3": quarter, "conv4": eighth, "conv5": config.channels},
        )
        self.early_channels = quarter
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

    def early(self, images: Tensor) -> Tensor:
        return self.quarter(self.stem((images - 127.5) / 64))

    def stage(self, name: Stage, x: Tensor) -> Tensor:
        if name == "conv3":
            return x
        if name == "conv4":
            return self.eighth(x)
        context = F.interpolate(self.context(self.sixteenth(x)), scale_factor=2.0, mode="nearest")
        return F.relu(self.merge(F.relu(self.lateral(x) + context)))


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


def build_features(config: FeaturesConfig) -> Features:
    assert isinstance(config, TinyFeaturesConfig)
    return TinyFeatures(config)
