"""Published weights of torchvision, put into our parts. Nothing is ever unpickled."""

from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

from memwarp_core.errors import ConfigError
from memwarp_core.models.features import ResNetFeatures

_NOT_PUBLISHED = {"reduce.weight", "reduce.bias"}
"""What ResNetFeatures has and a classifier has not."""


def load_imagenet(features: ResNetFeatures, source: str | Path) -> None:
    """Put the weights of a classifier that was trained on ImageNet into a backbone, in place.

    Args:
        source: the name of torchvision's weights for this depth, such as IMAGENET1K_V1, to be downloaded; or a
            .safetensors file with torchvision's keys. The classifier's last layer (fc) is left out.
    Raises: ConfigError for a name or file that does not fit, a pickle, or a download that fails.
    """
    weights = {key: value for key, value in _imagenet_weights(features, source).items() if not key.startswith("fc.")}
    try:
        missing, unexpected = features.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ConfigError(f"{source}: expected the weights of resnet{features.depth}: {error}") from error
    missing = sorted(set(missing) - _NOT_PUBLISHED)
    if missing or unexpected:
        raise ConfigError(
            f"{source}: expected the weights of resnet{features.depth} under torchvision's keys; "
            f"missing {_some(missing)}, unknown {_some(unexpected)}."
        )


def download(weights: WeightsEnum) -> dict[str, Tensor]:
    """Weights from torch's cache or from where torchvision publishes them, with their hash checked.

    torchvision publishes pickles; torch reads only tensors from them (weights_only).

    Raises: ConfigError if that fails, which says where the file can be put by hand.
    """
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)
        raise ConfigError(
            f"{weights}: {weights.url} could not be downloaded ({error}); try again when online, or put that file at "
            f"{place}."
        ) from error


def _imagenet_weights(features: ResNetFeatures, source: str | Path) -> dict[str, Tensor]:
    if Path(source).suffix == ".safetensors":
        try:
            return load_file(source)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{source}: expected a safetensors file that can be read: {error}.") from error
    published = get_model_weights(f"resnet{features.depth}").__members__
    if source not in published:
        raise ConfigError(
            f"ImageNet weights {str(source)!r}: expected one of {', '.join(published)}, or the path of a .safetensors "
            "file; pickled checkpoints (.pt, .pth) are never loaded, convert them first."
        )
    return download(published[str(source)])


def _some(keys: list[str]) -> str:
    """At most three of them."""
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") or "none"
