"""FlowNetS: displacements from images, by a network of its own."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import FlowNetConfig
from memwarp_core.models.displacement.grid import fit_to_grid, grid_of_halved, halve
from memwarp_core.models.parts import Displacement

PIXELS_PER_UNIT = 20.0
"""FlowNet is trained on flow divided by 20, in pixels of its input."""
PIXEL_MEAN = (123.15, 115.90, 103.06)
"""R, G, B means that the published code of deep feature flow and FGFA subtracts."""
OUTPUT_STRIDE = 8
"""Image pixels per cell of the finest flow: images are halved, and the flow has a quarter of that resolution."""


class FlowNet(Displacement):
    """FlowNetS (Dosovitskiy et al., "FlowNet", ICCV 2015, Fig. 2 and 3) on images of half the resolution.

    As deep feature flow and FGFA use it: for feature maps coarser than the flow, the last decoder map is averaged
    before the flow is read from it, and the flow is scaled to cells once (their factor 2.5 is 20 * 2 / 16).
    Decoder maps are cropped to their encoder maps, so that images of any size will do. Without batch normalisation.
    """

    mean: Tensor

    def __init__(self, stride: int, config: FlowNetConfig) -> None:
        """
        Args:
            stride: of the finest feature map, 4 or more, a power of 2.
        """
        super().__init__()
        self.stride = stride
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN)[:, None, None], persistent=False)
        c1, c2, c3, c4, c5, c6 = (_scaled(channels, config.width) for channels in (64, 128, 256, 512, 512, 1024))
        self.conv1 = _convolution(6, c1, kernel=7, stride=2)
        self.conv2 = _convolution(c1, c2, kernel=5, stride=2)
        self.conv3 = _convolution(c2, c3, kernel=5, stride=2)
        self.conv3_1 = _convolution(c3, c3)
        self.conv4 = _convolution(c3, c4, stride=2)
        self.conv4_1 = _convolution(c4, c4)
        self.conv5 = _convolution(c4, c5, stride=2)
        self.conv5_1 = _convolution(c5, c5)
        self.conv6 = _convolution(c5, c6, stride=2)
        self.conv6_1 = _convolution(c6, c6)

        # What each refinement hands on: the encoder's map, the map from below, and the flow from below.
        m5, m4, m3, m2 = c5 + c5 + 2, c4 + c3 + 2, c3 + c2 + 2, c2 + c1 + 2
        self.deconv5 = _deconvolution(c6, c5)
        self.deconv4 = _deconvolution(m5, c3)
        self.deconv3 = _deconvolution(m4, c2)
        self.deconv2 = _deconvolution(m3, c1)
        self.predict_flow6 = nn.Conv2d(c6, 2, 3, padding=1)
        self.predict_flow5 = nn.Conv2d(m5, 2, 3, padding=1)
        self.predict_flow4 = nn.Conv2d(m4, 2, 3, padding=1)
        self.predict_flow3 = nn.Conv2d(m3, 2, 3, padding=1)
        self.predict_flow2 = nn.Conv2d(m2, 2, 3, padding=1)
        self.upsampled_flow6_to_5 = nn.ConvTranspose2d(2, 2, 4, 2, 1)
        self.upsampled_flow5_to_4 = nn.ConvTranspose2d(2, 2, 4, 2, 1)
        self.upsampled_flow4_to_3 = nn.ConvTranspose2d(2, 2, 4, 2, 1)
        self.upsampled_flow3_to_2 = nn.ConvTranspose2d(2, 2, 4, 2, 1)
        self.scale = nn.Conv2d(m2, 1, 1) if config.scale_map else None
        self._initialise()

    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        """Returns: (B, 3, ceil(H / 2), ceil(W / 2)), zero-mean, images of half the resolution."""
        return halve((images - self.mean) / 255)

    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        decoded = self._decode(torch.cat((current, past), dim=1))
        averaged = max(self.stride // OUTPUT_STRIDE, 1)
        if averaged > 1:
            decoded = F.avg_pool2d(decoded, averaged, ceil_mode=True)
        cell = OUTPUT_STRIDE * averaged
        flow = self.predict_flow2(decoded) * (PIXELS_PER_UNIT * 2 / cell)
        if self.scale is not None:
            flow = torch.cat((flow, 1 + self.scale(decoded)), dim=1)
        return fit_to_grid(flow, cell, self.stride, grid_of_halved(current, self.stride))

    def _decode(self, pair: Tensor) -> Tensor:
        """(B, 6, h, w) -> (B, m2, ceil(h / 4), ceil(w / 4)), the map that the finest flow is read from."""
        conv2 = self.conv2(self.conv1(pair))
        conv3 = self.conv3_1(self.conv3(conv2))
        conv4 = self.conv4_1(self.conv4(conv3))
        conv5 = self.conv5_1(self.conv5(conv4))
        conv6 = self.conv6_1(self.conv6(conv5))
        merged = _merge(conv5, self.deconv5(conv6), self.upsampled_flow6_to_5(self.predict_flow6(conv6)))
        merged = _merge(conv4, self.deconv4(merged), self.upsampled_flow5_to_4(self.predict_flow5(merged)))
        merged = _merge(conv3, self.deconv3(merged), self.upsampled_flow4_to_3(self.predict_flow4(merged)))
        return _merge(conv2, self.deconv2(merged), self.upsampled_flow3_to_2(self.predict_flow3(merged)))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, 0.1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        # An untrained network should hardly move a memory.
        nn.init.normal_(self.predict_flow2.weight, std=1e-3)
        if self.scale is not None:
            nn.init.zeros_(self.scale.weight)


def load_flownet(flownet: FlowNet, path: Path) -> None:
    """Load published weights; see `from_published` for what is understood.

    Raises: ConfigError if the file is not a safetensors file, or the weights are not those of a FlowNetS of this
        width.
    """
    try:
        published = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path}: expected a safetensors file, got one that cannot be read as such ({error}). Pickled weights "
            "(.pth, .tar, .params) are never loaded: convert them where you trust them, with "
            "safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state_dict.items()}, path)."
        ) from error
    weights = from_published(published)
    expected = flownet.state_dict()
    unfit = [key for key, value in weights.items() if value.shape != expected[key].shape]
    if unfit:
        key = unfit[0]
        raise ConfigError(
            f"{path}: {key} must be {tuple(expected[key].shape)}, got {tuple(weights[key].shape)}; published weights "
            "need a FlowNet of width 1."
        )
    # A scale map is not among published weights and stays as it is.
    flownet.load_state_dict(weights, strict=False)


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a published FlowNetS to those of `FlowNet`.

    | here | FlowNetPytorch | deep feature flow, FGFA (MXNet) and mega.pytorch |
    | --- | --- | --- |
    | conv1.0 | conv1.0 | flow_conv1 |
    | conv2.0 ... conv6_1.0 | conv2.0 ... conv6_1.0 | conv2 ... conv6_1 |
    | deconv5.0 ... deconv2.0 | deconv5.0 ... deconv2.0 | deconv5 ... deconv2 |
    | predict_flow6 ... predict_flow2 | the same | Convolution1 ... Convolution5 |
    | upsampled_flow6_to_5 ... upsampled_flow3_to_2 | the same | upsample_flow6to5 ... upsample_flow3to2 |

    Each is followed by `.weight` and `.bias` (`_weight` and `_bias` in MXNet). The prefixes `arg:` of MXNet's files,
    `module.` and `flownet.` of mega.pytorch's are dropped, and names that are in no row are passed over, so that the
    weights of a whole detector will do. FlowNetPytorch has no biases behind its encoder: they are zero. Not taken is
    deep feature flow's `Convolution5_scale`, which has a factor per channel where `FlowNet` has one per position.

    Weights converted from Caffe's FlowNetS are for B, G, R, as FlowNetPytorch's notes say; deep feature flow and FGFA
    have tuned them on R, G, B.

    Raises: ConfigError for a variant with batch normalisation, or if layers are missing.
    """
    ours = {_plain_name(key): value for key, value in weights.items()}
    if any(key.endswith("running_mean") and key.removesuffix(".1.running_mean") in _ENCODER for key in ours):
        raise ConfigError("expected a FlowNetS without batch normalisation, got one with it; use the plain variant.")
    missing = [layer for layer in _LAYERS.values() if f"{layer}.weight" not in ours]
    if missing:
        raise ConfigError(
            f"expected the weights of a FlowNetS as FlowNetPytorch, deep feature flow, FGFA or mega.pytorch name them; "
            f"missing: {', '.join(missing)}."
        )
    renamed = {}
    for layer in _LAYERS.values():
        weight = ours[f"{layer}.weight"]
        outputs = weight.shape[1 if _is_transposed(layer) else 0]
        renamed[f"{layer}.weight"] = weight
        renamed[f"{layer}.bias"] = ours.get(f"{layer}.bias", weight.new_zeros(outputs))
    return renamed


_ENCODER = ("conv1", "conv2", "conv3", "conv3_1", "conv4", "conv4_1", "conv5", "conv5_1", "conv6", "conv6_1")
_LAYERS = {
    "flow_conv1": "conv1.0",
    **{name: f"{name}.0" for name in _ENCODER[1:]},
    **{f"deconv{level}": f"deconv{level}.0" for level in (5, 4, 3, 2)},
    **{f"Convolution{7 - level}": f"predict_flow{level}" for level in (6, 5, 4, 3, 2)},
    **{f"upsample_flow{level}to{level - 1}": f"upsampled_flow{level}_to_{level - 1}" for level in (6, 5, 4, 3)},
}
"""Deep feature flow's name of each layer to ours."""


def _plain_name(key: str) -> str:
    """A published key in our naming, if it is one of FlowNetS."""
    for prefix in ("arg:", "module.", "flownet."):
        key = key.removeprefix(prefix)
    for kind in ("weight", "bias"):
        layer = key.removesuffix(f"_{kind}").removesuffix(f".{kind}")
        if layer != key and layer in _LAYERS:
            return f"{_LAYERS[layer]}.{kind}"
    return key


def _is_transposed(layer: str) -> bool:
    return layer.startswith(("deconv", "upsampled"))


def _scaled(channels: int, width: float) -> int:
    """Narrow layers keep multiples of 16, which channels_last convolutions want."""
    return -(-round(channels * width) // 16) * 16


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.LeakyReLU(0.1, inplace=True)
    )


def _deconvolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.1, inplace=True))


def _merge(encoded: Tensor, *from_below: Tensor) -> Tensor:
    """What comes from below has twice the cells of a map that was rounded up: cropped to fit."""
    height, width = encoded.shape[-2:]
    return torch.cat((encoded, *(x[..., :height, :width] for x in from_below)), dim=1)
