from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import ResNet18_Weights, get_model

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import ResNetFeaturesConfig
from memwarp_core.models.features import ResNetFeatures
from memwarp_core.models.pretrained import download, load_imagenet
from memwarp_core.models.torchvision_detectors import load_torchvision


@pytest.fixture
def features() -> ResNetFeatures:
    return ResNetFeatures(ResNetFeaturesConfig(depth=18, channels=32))


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """What torchvision publishes for resnet18, with other values."""
    torch.manual_seed(0)
    return get_model("resnet18").state_dict()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


def test_a_file_fills_everything_but_the_new_convolution(
    features: ResNetFeatures, published: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(published, tmp_path / "resnet18.safetensors")
    before = features.reduce.weight.clone()
    load_imagenet(features, tmp_path / "resnet18.safetensors")
    loaded = features.state_dict()
    for key in loaded.keys() - {"reduce.weight", "reduce.bias"}:
        assert torch.equal(loaded[key], published[key]), key
    assert torch.equal(features.reduce.weight, before)


def test_a_name_loads_the_published_weights_of_the_same_depth(
    features: ResNetFeatures, published: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def answer(url: str, **options: bool) -> dict[str, Tensor]:
        asked.update(options, url=url)
        return dict(published)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", answer)
    load_imagenet(features, "IMAGENET1K_V1")
    assert asked["url"] == ResNet18_Weights.IMAGENET1K_V1.url
    assert asked["weights_only"] and asked["check_hash"]
    assert torch.equal(features.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])


def test_an_unknown_name_is_answered_with_the_known_ones(features: ResNetFeatures) -> None:
    with pytest.raises(ConfigError, match="'IMAGENET22K': expected one of IMAGENET1K_V1, DEFAULT, or the path"):
        load_imagenet(features, "IMAGENET22K")


@pytest.mark.parametrize("name", ["resnet18.pt", "resnet18.pth"])
def test_a_pickle_is_refused(features: ResNetFeatures, published: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    torch.save(published, tmp_path / name)
    with pytest.raises(ConfigError, match="never loaded"):
        load_imagenet(features, tmp_path / name)


def test_a_pickle_under_another_name_is_refused(
    features: ResNetFeatures, published: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(published, tmp_path / "resnet18.safetensors")
    with pytest.raises(ConfigError, match="expected a safetensors file"):
        load_imagenet(features, tmp_path / "resnet18.safetensors")


def test_a_missing_file_is_named(features: ResNetFeatures, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent.safetensors"):
        load_imagenet(features, tmp_path / "absent.safetensors")


def test_weights_of_another_depth_are_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "resnet18.safetensors")
    deeper = ResNetFeatures(ResNetFeaturesConfig(depth=34, channels=32))
    with pytest.raises(ConfigError, match="the weights of resnet34 .* missing .* and [0-9]+ more, unknown none"):
        load_imagenet(deeper, tmp_path / "resnet18.safetensors")
    bottlenecks = ResNetFeatures(ResNetFeaturesConfig(depth=50, channels=32))
    with pytest.raises(ConfigError, match="(?s)the weights of resnet50: .*size mismatch"):
        load_imagenet(bottlenecks, tmp_path / "resnet18.safetensors")


def test_keys_that_are_not_torchvisions_are_refused(
    features: ResNetFeatures, published: dict[str, Tensor], tmp_path: Path
) -> None:
    renamed = {f"backbone.{key}": value for key, value in published.items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    with pytest.raises(ConfigError, match="unknown backbone"):
        load_imagenet(features, tmp_path / "renamed.safetensors")


@pytest.mark.usefixtures("offline")
def test_a_failed_download_says_what_was_tried_and_where_to_put_the_file(tmp_path: Path) -> None:
    weights = ResNet18_Weights.IMAGENET1K_V1
    with pytest.raises(ConfigError, match="no route to host") as raised:
        download(weights)
    assert weights.url in str(raised.value)
    assert str(tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1]) in str(raised.value)


@pytest.mark.usefixtures("offline")
def test_a_torchvision_detector_without_its_weights_is_an_error() -> None:
    with pytest.raises(ConfigError, match="ssdlite320_mobilenet_v3_large_coco-a79551df.pth could not be downloaded"):
        load_torchvision("ssdlite320_mobilenet_v3_large+none")
