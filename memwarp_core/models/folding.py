"""Batch normalisation as a part of the convolution before it, once nothing is learned any more."""

from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d


def fold_batch_norms(module: nn.Module) -> None:
    """Put the normalisations that follow convolutions into their weights; in eval mode, what is computed is the same.

    A convolution and a normalisation belong together if they are neighbours among the children of one module, in the
    order in which that lists them, and their channels agree. This is so in our parts and in torchvision's.
    """
    for parent in list(module.modules()):
        for (_, layer), (name, norm) in pairwise(list(parent.named_children())):
            if not isinstance(layer, nn.Conv2d) or not isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
                continue
            statistics: Any = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            if len(statistics[0]) == layer.out_channels:
                layer.weight, layer.bias = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics)
                setattr(parent, name, nn.Identity())
