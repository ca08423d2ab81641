"""What every kind of displacement part promises."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from memwarp_core.models.config import CorrelationConfig, FlowNetConfig, NoDisplacementConfig, RaftConfig, StillConfig
from memwarp_core.models.displacement import build_displacement
from memwarp_core.models.parts import Displacement, Features

MakeFeatures = Callable[..., Features]
KINDS = [
    pytest.param(CorrelationConfig(channels=16, radius=3), id="correlation"),
    pytest.param(FlowNetConfig(width=0.1), id="flownet"),
    pytest.param(FlowNetConfig(width=0.1, scale_map=True), id="flownet with scale map"),
    pytest.param(RaftConfig(updates=2), id="raft"),
]


def build(features: Features, config: object) -> Displacement:
    part = build_displacement(features, config)  # type: ignore[arg-type]
    assert part is not None
    return part.eval()


def frames(height: int, width: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Images and early features of a batch of frames."""
    return torch.rand(batch, 3, height, width) * 255, torch.randn(batch, 16, height // 4, width // 4)


def measure(part: Displacement, current: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor]) -> Tensor:
    return part(part.describe(*current), part.describe(*past))


def move_off_zero(part: Displacement) -> None:
    """Last layers that start at zero let no gradient through."""
    for parameter in part.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)


def test_no_displacement_is_none(features: MakeFeatures) -> None:
    assert build_displacement(features(), NoDisplacementConfig()) is None


def test_a_still_displacement_is_zero_on_the_grid_of_the_finest_level(features: MakeFeatures) -> None:
    field = measure(build(features(16), StillConfig()), frames(64, 112), frames(64, 112))
    assert field.shape == (2, 2, 4, 7) and not field.any()


@pytest.mark.parametrize("config", KINDS)
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_fields_lie_on_the_grid_of_the_finest_level(features: MakeFeatures, config: object, stride: int) -> None:
    for height, width in ((48, 80), (64, 112)):
        field = measure(build(features(stride), config), frames(height, width), frames(height, width))
        assert field.shape == (2, 3 if getattr(config, "scale_map", False) else 2, height // stride, width // stride)


@pytest.mark.parametrize("config", KINDS)
def test_gradients_reach_every_parameter(features: MakeFeatures, config: object) -> None:
    torch.manual_seed(0)
    part = build(features(16), config)
    move_off_zero(part)
    measure(part, frames(64, 96), frames(64, 96)).square().sum().backward()
    for name, parameter in part.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("config", KINDS)
def test_the_order_of_a_batch_does_not_matter(features: MakeFeatures, config: object) -> None:
    part = build(features(), config)
    move_off_zero(part)
    current, past = frames(48, 64), frames(48, 64)
    with torch.inference_mode():
        field = measure(part, current, past)
        flipped = measure(part, tuple(x.flip(0) for x in current), tuple(x.flip(0) for x in past))  # type: ignore
    # Convolutions round differently from batch to batch.
    torch.testing.assert_close(flipped.flip(0), field, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", KINDS)
def test_channels_last_changes_nothing(features: MakeFeatures, config: object) -> None:
    part = build(features(), config)
    move_off_zero(part)
    current, past = frames(48, 64), frames(48, 64)
    with torch.inference_mode():
        field = measure(part, current, past)
        part = part.to(memory_format=torch.channels_last)
        current, past = (
            tuple(x.contiguous(memory_format=torch.channels_last) for x in frame)
            for frame in (current, past)  # type: ignore[assignment]
        )
        torch.testing.assert_close(measure(part, current, past), field, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", KINDS)
def test_half_precision_gives_nearly_the_same_field_in_float32(features: MakeFeatures, config: object) -> None:
    torch.manual_seed(0)
    part = build(features(), config)
    current, past = frames(48, 64), frames(48, 64)
    with torch.inference_mode():
        field = measure(part, current, past)
        with torch.autocast("cpu", torch.bfloat16):
            half = measure(part, current, past)
    assert half.dtype == torch.float32
    # bfloat16 keeps 8 bits.
    torch.testing.assert_close(half, field, rtol=0.05, atol=0.05 * field.abs().max().item() + 0.02)
