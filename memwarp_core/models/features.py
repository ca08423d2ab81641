"""The features part: backbones whose memory may sit at several stages."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

from memwarp_core.models.config import (
    FeaturesConfig,
    ResNetFeaturesConfig,
    Stage,
    TinyFeaturesConfig,
    TorchvisionFeaturesConfig,
)
from memwarp_core.models.parts import Features, Levels
from memwarp_core.models.torchvision_detectors import TorchvisionFeatures

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


class ResNetFeatures(StagedFeatures):
    """torchvision's ResNet, under torchvision's key names, with the paper's changes for detection (section 5).

    conv3 and conv4 are layer2 at stride 8 and layer3 at stride 16. conv5 is layer4 kept at stride 16, then a 3x3
    convolution of dilation 6 and a ReLU: the map F. Normalisation layers are frozen, and so are the stem and layer1.
    """

    size_multiple = 16
    early_stride = 4
    mean: Tensor
    std: Tensor

    def __init__(self, config: ResNetFeaturesConfig) -> None:
        expansion = 1 if config.depth < 50 else 4
        super().__init__(
            config.memory_at,
            {"conv3": 8, "conv4": 16, "conv5": 16},
            {"conv3": 128 * expansion, "conv4": 256 * expansion, "conv5": config.channels},
        )
        self.depth = config.depth
        self.early_channels = 64 * expansion
        network = get_model(f"resnet{config.depth}", weights=None, norm_layer=FrozenBatchNorm2d)
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = network.relu, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        for layer in (self.conv1, self.layer1):
            layer.requires_grad_(False)
        # Frozen norms do not normalise: undamped, the activations of random weights overflow half precision.
        for name, norm in self.named_modules():
            if name.endswith(".bn2" if expansion == 1 else ".bn3"):
                norm.weight.fill_(0.2)
        _exchange_stride_for_dilation(self.layer4)
        self.reduce = nn.Conv2d(512 * expansion, config.channels, 3, padding=6, dilation=6)
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="relu")
        nn.init.zeros_(self.reduce.bias)  # type: ignore[arg-type]
        # The mean and the spread of ImageNet's images.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def early(self, images: Tensor) -> Tensor:
        images = (images / 255 - self.mean) / self.std
        return self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))

    def stage(self, name: Stage, x: Tensor) -> Tensor:
        if name == "conv3":
            return self.layer2(x)
        if name == "conv4":
            return self.layer3(x)
        return F.relu(self.reduce(self.layer4(x)))


def _exchange_stride_for_dilation(layer: nn.Module) -> None:
    """Let a ResNet layer keep its input's resolution and see the same surroundings, with weights trained at stride 2.

    Every second place of the result is what it was before. So the convolution that had the stride keeps dilation 1, and
    all 3x3 convolutions behind it get dilation 2. (R-FCN and FGFA dilate all of them, since their ResNet has
    the stride in the 1x1 convolution before the first.) torchvision has this for Bottleneck, and not for BasicBlock.
    """
    for convolution in layer.modules():
        if not isinstance(convolution, nn.Conv2d):
            continue
        if convolution.stride == (2, 2):
            convolution.stride = (1, 1)
        elif convolution.kernel_size == (3, 3):
            convolution.dilation = convolution.padding = (2, 2)


def build_features(config: FeaturesConfig) -> Features:
    if isinstance(config, ResNetFeaturesConfig):
        return ResNetFeatures(config)
    if isinstance(config, TorchvisionFeaturesConfig):
        return TorchvisionFeatures(config)
    return TinyFeatures(config)
