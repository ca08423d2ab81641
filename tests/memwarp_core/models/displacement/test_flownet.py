from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import FlowNetConfig
from memwarp_core.models.displacement import FlowNet, load_flownet
from memwarp_core.models.displacement.flownet import from_published

NARROW = FlowNetConfig(width=0.1)


def halved(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@pytest.mark.parametrize("size", [(32, 48), (64, 128), (48, 80)])
def test_a_known_flow_becomes_its_number_of_cells(stride: int, size: tuple[int, int]) -> None:
    part = FlowNet(stride, NARROW).eval()
    torch.nn.init.zeros_(part.predict_flow2.weight)
    # FlowNet's unit is 20 pixels of its input, 40 of the image.
    part.predict_flow2.bias.data = torch.tensor([1.0, -0.5])
    with torch.inference_mode():
        field = part(halved(*size), halved(*size))
    expected = torch.tensor([40.0, -20.0])[None, :, None, None] / stride
    cells = (2 * size[0] // stride, 2 * size[1] // stride)
    torch.testing.assert_close(field, expected.expand(1, 2, *cells))


def test_the_factor_at_stride_16_is_that_of_deep_feature_flow() -> None:
    part = FlowNet(16, NARROW).eval()
    with torch.inference_mode():
        current, past = halved(64, 64), halved(64, 64)
        decoded = part._decode(torch.cat((current, past), dim=1))
        as_published = 2.5 * part.predict_flow2(torch.nn.functional.avg_pool2d(decoded, 2))
        torch.testing.assert_close(part(current, past), as_published)


@pytest.mark.parametrize("size", [(8, 8), (20, 36), (150, 130), (66, 98)])
def test_images_of_any_size_are_taken(size: tuple[int, int]) -> None:
    for stride in (4, 8, 16):
        part = FlowNet(stride, NARROW).eval()
        with torch.inference_mode():
            described = part.describe(torch.rand(1, 3, *size) * 255, None)
            field = part(described, described)
        assert field.shape == (1, 2, -(-size[0] // stride), -(-size[1] // stride))


def test_images_are_halved_and_centred() -> None:
    image = torch.tensor([123.15, 115.90, 103.06])[None, :, None, None].repeat(1, 1, 2, 4)
    image[..., 2:] += torch.tensor([0.0, 102.0])
    described = FlowNet(8, NARROW).describe(image, None)
    torch.testing.assert_close(described, torch.tensor([0.0, 0.2]).expand(1, 3, 1, 2), rtol=0, atol=1e-6)


def test_the_current_frame_is_the_first_of_the_pair() -> None:
    part = FlowNet(8, NARROW).eval()
    with torch.inference_mode():
        part.conv1[0].weight[:, 3:] = 0
        current = halved(32, 32)
        assert part(current, halved(32, 32)).equal(part(current, halved(32, 32)))
        assert not part(halved(32, 32), current).equal(part(current, current))


def test_the_scale_map_starts_at_one_and_is_not_scaled() -> None:
    for stride in (4, 8, 16):
        part = FlowNet(stride, FlowNetConfig(width=0.1, scale_map=True)).eval()
        with torch.inference_mode():
            factors = part(halved(32, 48), halved(32, 48))[:, 2]
        torch.testing.assert_close(factors, torch.ones(1, 64 // stride, 96 // stride))


def test_it_has_the_parameters_of_the_published_network() -> None:
    # Inputs, outputs and kernel of every layer of FlowNetS as in the public code of deep feature flow, each with
    # biases: 38.68 million, the size of FlowNetS in the literature.
    convolutions = [
        *((6, 64, 7), (64, 128, 5), (128, 256, 5), (256, 256, 3), (256, 512, 3), (512, 512, 3), (512, 512, 3)),
        *((512, 512, 3), (512, 1024, 3), (1024, 1024, 3)),
        *((1024, 512, 4), (1026, 256, 4), (770, 128, 4), (386, 64, 4)),
        *((1024, 2, 3), (1026, 2, 3), (770, 2, 3), (386, 2, 3), (194, 2, 3)),
        *((2, 2, 4), (2, 2, 4), (2, 2, 4), (2, 2, 4)),
    ]
    published = sum(inputs * outputs * kernel**2 + outputs for inputs, outputs, kernel in convolutions)
    with torch.device("meta"):
        part = FlowNet(16, FlowNetConfig())
    assert sum(p.numel() for p in part.parameters()) == published == 38_676_514


def test_narrow_channels_are_multiples_of_16() -> None:
    part = FlowNet(8, FlowNetConfig(width=0.2))
    outputs = [layer[0].out_channels for layer in (part.conv1, part.conv2, part.conv3, part.conv4, part.conv6)]
    assert outputs == [16, 32, 64, 112, 208]


# Names in deep feature flow, in its order.
OF_FEATURE_FLOW = {
    "conv1.0": "flow_conv1",
    "predict_flow6": "Convolution1",
    "predict_flow5": "Convolution2",
    "predict_flow4": "Convolution3",
    "predict_flow3": "Convolution4",
    "predict_flow2": "Convolution5",
    "upsampled_flow6_to_5": "upsample_flow6to5",
    "upsampled_flow5_to_4": "upsample_flow5to4",
    "upsampled_flow4_to_3": "upsample_flow4to3",
    "upsampled_flow3_to_2": "upsample_flow3to2",
}


def as_flownet_pytorch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Only the encoder has biases there."""
    return {key: value for key, value in weights.items() if key.endswith("weight") or key.startswith("conv")}


def as_feature_flow(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    published = {"arg:conv1_weight": torch.zeros(64, 3, 7, 7), "arg:Convolution5_scale_weight": torch.ones(1024, 194)}
    for key, value in weights.items():
        layer, kind = key.rsplit(".", 1)
        published[f"arg:{OF_FEATURE_FLOW.get(layer, layer.removesuffix('.0'))}_{kind}"] = value
    return published


def as_mega(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    published = {"module.backbone.body.conv2.weight": torch.zeros(3)}
    for key, value in weights.items():
        layer, kind = key.rsplit(".", 1)
        published[f"module.flownet.{OF_FEATURE_FLOW.get(layer, layer.removesuffix('.0'))}.{kind}"] = value
    return published


@pytest.mark.parametrize("publish", [as_flownet_pytorch, as_feature_flow, as_mega])
def test_weights_renamed_to_published_names_come_back(publish, tmp_path: Path) -> None:
    theirs = FlowNet(8, NARROW).eval()
    if publish is not as_flownet_pytorch:
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
    save_file(publish(theirs.state_dict()), tmp_path / "published.safetensors")
    ours = FlowNet(8, NARROW).eval()
    load_flownet(ours, tmp_path / "published.safetensors")
    pair = halved(32, 48), halved(32, 48)
    with torch.inference_mode():
        assert ours(*pair).equal(theirs(*pair))


def test_a_scale_map_is_kept_when_published_weights_come_in(tmp_path: Path) -> None:
    save_file(FlowNet(8, NARROW).state_dict(), tmp_path / "published.safetensors")
    part = FlowNet(8, FlowNetConfig(width=0.1, scale_map=True))
    torch.nn.init.constant_(part.scale.weight, 2.0)  # type: ignore[union-attr, arg-type]
    load_flownet(part, tmp_path / "published.safetensors")
    assert part.scale.weight.eq(2).all()  # type: ignore[union-attr]


def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    torch.save(FlowNet(8, NARROW).state_dict(), tmp_path / "flownets.pth")
    with pytest.raises(ConfigError, match="never loaded.*safetensors.torch.save_file"):
        load_flownet(FlowNet(8, NARROW), tmp_path / "flownets.pth")


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a safetensors file"):
        load_flownet(FlowNet(8, NARROW), tmp_path / "nowhere.safetensors")


def test_missing_layers_are_named() -> None:
    weights = FlowNet(8, NARROW).state_dict()
    del weights["deconv3.0.weight"]
    with pytest.raises(ConfigError, match=r"missing: deconv3\.0\."):
        from_published(weights)


def test_batch_normalisation_is_refused() -> None:
    weights = FlowNet(8, NARROW).state_dict()
    weights["conv1.1.running_mean"] = torch.zeros(16)
    with pytest.raises(ConfigError, match="without batch normalisation"):
        from_published(weights)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    save_file(FlowNet(8, FlowNetConfig(width=0.2)).state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(ConfigError, match=r"must be \(.*\), got \(.*width 1"):
        load_flownet(FlowNet(8, NARROW), tmp_path / "wide.safetensors")
