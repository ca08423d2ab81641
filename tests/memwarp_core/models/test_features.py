from functools import lru_cache
from itertools import product

import pytest
import torch
from torch import Tensor
from torchvision.models import get_model, get_model_weights
from torchvision.ops import FrozenBatchNorm2d

from memwarp_core.models.config import ResNetFeaturesConfig, Stage, TinyFeaturesConfig, TorchvisionFeaturesConfig
from memwarp_core.models.features import ResNetFeatures, StagedFeatures, TinyFeatures, build_features
from memwarp_core.models.torchvision_detectors import TorchvisionFeatures

MEMORY_AT: list[tuple[Stage, ...]] = [("conv3",), ("conv4",), ("conv5",), ("conv4", "conv5"), ("conv3", "conv5")]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


def build(kind: str, memory_at: tuple[Stage, ...] = ("conv5",)) -> StagedFeatures:
    """The tiny network, or the ResNet of a depth, with the same weights wherever the memory is."""
    torch.manual_seed(0)
    if kind == "tiny":
        return TinyFeatures(TinyFeaturesConfig(memory_at=memory_at)).eval()
    return ResNetFeatures(ResNetFeaturesConfig(depth=int(kind), channels=64, memory_at=memory_at)).eval()


shared = lru_cache(build)
"""For tests that leave the weights as they are."""


def test_each_kind_of_configuration_builds_its_part() -> None:
    assert isinstance(build_features(TinyFeaturesConfig()), TinyFeatures)
    assert isinstance(build_features(ResNetFeaturesConfig(depth=18, channels=32)), ResNetFeatures)
    ssd = TorchvisionFeaturesConfig(detector="ssdlite320_mobilenet_v3_large")
    assert isinstance(build_features(ssd), TorchvisionFeatures)


@pytest.mark.parametrize(("kind", "memory_at"), [*product(["tiny", "18"], MEMORY_AT), ("101", ("conv4", "conv5"))])
def test_maps_have_the_strides_and_channels_that_they_promise(kind: str, memory_at: tuple[Stage, ...]) -> None:
    with torch.device("meta"):
        features = build(kind, memory_at)
        early = features.early(torch.rand(2, 3, 64, 96))
        levels = features.levels(early)
        (finished,) = features.finish(levels)
    assert early.shape == (2, features.early_channels, 64 // features.early_stride, 96 // features.early_stride)
    assert len(levels) == len(memory_at)
    for level, channels, stride in zip(levels, features.channels, features.strides, strict=True):
        assert level.shape == (2, channels, 64 // stride, 96 // stride)
    (channels,), (stride,) = features.head_channels, features.head_strides
    assert finished.shape == (2, channels, 64 // stride, 96 // stride)


def test_strides_and_channels_of_resnet_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        deep = ResNetFeatures(ResNetFeaturesConfig(depth=101, memory_at=("conv3", "conv4", "conv5")))
        shallow = ResNetFeatures(ResNetFeaturesConfig(depth=18, channels=32, memory_at=("conv3", "conv4", "conv5")))
    assert (deep.early_stride, deep.strides, deep.head_strides) == (4, (8, 16, 16), (16,))
    assert (deep.early_channels, deep.channels, deep.head_channels) == (256, (512, 1024, 1024), (1024,))
    assert (shallow.early_channels, shallow.channels) == (64, (128, 256, 32))


@pytest.mark.parametrize(("kind", "memory_at"), list(product(["tiny", "18"], MEMORY_AT)))
def test_a_memory_that_changes_nothing_leaves_the_result_of_conv5_alone(
    kind: str, memory_at: tuple[Stage, ...], images: Tensor
) -> None:
    alone, features = shared(kind), build(kind, memory_at)
    with torch.no_grad():
        expected = alone.levels(alone.early(images))[0]
        (finished,) = features.finish(features.levels(features.early(images)))
    torch.testing.assert_close(finished, expected)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_resnet_has_the_published_parameters_without_the_classifier(depth: int) -> None:
    with torch.device("meta"):
        features = ResNetFeatures(ResNetFeaturesConfig(depth=depth, channels=32))
    norms = [module for module in features.modules() if isinstance(module, FrozenBatchNorm2d)]
    count = sum(w.numel() for w in features.parameters()) + sum(2 * len(norm.weight) for norm in norms)
    count -= sum(w.numel() for w in features.reduce.parameters())
    last = 512 if depth < 50 else 2048
    published = get_model_weights(f"resnet{depth}")["IMAGENET1K_V1"].meta["num_params"]
    assert count == published - 1000 * (last + 1)


@pytest.mark.parametrize("depth", [18, 50])
def test_every_second_place_of_the_dilated_layer4_is_torchvisions(depth: int) -> None:
    torch.manual_seed(0)
    reference = get_model(f"resnet{depth}", norm_layer=FrozenBatchNorm2d).eval()
    features = ResNetFeatures(ResNetFeaturesConfig(depth=depth, channels=32))
    features.load_state_dict(reference.state_dict(), strict=False)
    conv4 = torch.rand(1, 256 if depth < 50 else 1024, 7, 10)
    with torch.no_grad():
        expected, dense = reference.layer4(conv4), features.layer4(conv4)
    assert dense.shape[-2:] == (7, 10)
    torch.testing.assert_close(dense[:, :, ::2, ::2], expected, rtol=1e-4, atol=1e-4)


def test_resnet_computes_what_torchvisions_does_up_to_conv4(images: Tensor) -> None:
    torch.manual_seed(0)
    reference = get_model("resnet18", norm_layer=FrozenBatchNorm2d).eval()
    features = ResNetFeatures(ResNetFeaturesConfig(depth=18, channels=32, memory_at=("conv4",)))
    features.load_state_dict(reference.state_dict(), strict=False)
    normalise = get_model_weights("resnet18").DEFAULT.transforms()
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalise.mean, normalise.std))
    with torch.no_grad():
        x = (images / 255 - mean) / std
        x = reference.layer1(reference.maxpool(reference.relu(reference.bn1(reference.conv1(x)))))
        expected = reference.layer3(reference.layer2(x))
        (conv4,) = features.levels(features.early(images))
    torch.testing.assert_close(conv4, expected)


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
def test_the_loss_reaches_all_but_the_stem_and_layer1(depth: int, images: Tensor) -> None:
    features = build(str(depth), ("conv4", "conv5")).train()
    (finished,) = features.finish(features.levels(features.early(images)))
    finished.square().mean().backward()
    silent = {name.split(".")[0] for name, w in features.named_parameters() if w.grad is None}
    assert silent == {"conv1", "layer1"}
    assert all(w.grad.abs().sum() > 0 for w in features.parameters() if w.grad is not None)


@pytest.mark.parametrize("kind", ["tiny", "18"])
def test_images_of_a_batch_do_not_influence_each_other(kind: str, images: Tensor) -> None:
    features = shared(kind)
    with torch.no_grad():
        together = features.levels(features.early(images))[0]
        alone = features.levels(features.early(images[1:]))[0]
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-4)


def test_training_does_not_change_the_normalisation(images: Tensor) -> None:
    features = shared("18")
    with torch.no_grad():
        in_eval = features.levels(features.early(images))[0]
        in_training = features.train().levels(features.early(images))[0]
    torch.testing.assert_close(in_training, in_eval)


@pytest.mark.parametrize("kind", ["tiny", "18"])
def test_channels_last_gives_the_same_maps(kind: str, images: Tensor) -> None:
    features = shared(kind)
    with torch.no_grad():
        expected = features.levels(features.early(images))[0]
        features = features.to(memory_format=torch.channels_last)
        maps = features.levels(features.early(images.to(memory_format=torch.channels_last)))[0]
    assert maps.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_close(images: Tensor) -> None:
    features = shared("18")
    with torch.no_grad():
        expected = features.levels(features.early(images))[0]
        with torch.autocast("cpu", torch.bfloat16):
            maps = features.levels(features.early(images))[0]
    assert maps.dtype == torch.bfloat16
    assert (maps.float() - expected).square().mean().sqrt() < 0.05 * expected.std()
