import math

import pytest
import torch
from torch import Tensor

from memwarp_core.geometry import splat, warp


def constant_field(x: float, y: float, size: tuple[int, int] = (4, 5), dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([x, y], dtype=dtype)[None, :, None, None].expand(1, 2, *size).clone()


def warp_by_loops(features: Tensor, displacement: Tensor) -> Tensor:
    """Bilinear sampling, one value at a time."""
    out = torch.zeros_like(features)
    batch, channels, height, width = features.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                sx, sy = x + float(displacement[b, 0, y, x]), y + float(displacement[b, 1, y, x])
                for cx in (math.floor(sx), math.floor(sx) + 1):
                    for cy in (math.floor(sy), math.floor(sy) + 1):
                        if 0 <= cx < width and 0 <= cy < height:
                            share = (1 - abs(sx - cx)) * (1 - abs(sy - cy))
                            out[b, :, y, x] += share * features[b, :, cy, cx]
    return out


def test_zero_displacement_returns_input() -> None:
    features = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(warp(features, torch.zeros(2, 2, 4, 5)), features)


def test_convention_displacement_points_from_the_current_place_to_the_past_one() -> None:
    features = torch.arange(20.0).reshape(1, 1, 4, 5)
    warped = warp(features, constant_field(1, 2))
    assert warped[0, 0, 0, 0] == features[0, 0, 2, 1]


def test_one_pixel_shift_brings_zeros_in_from_outside() -> None:
    features = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert warp(features, constant_field(-1, 0, (1, 3))).tolist() == [[[[0.0, 1.0, 2.0]]]]


def test_border_padding_repeats_the_edge() -> None:
    features = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert warp(features, constant_field(-1, 0, (1, 3)), padding="border").tolist() == [[[[1.0, 1.0, 2.0]]]]


def test_warp_agrees_with_loops() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    displacement = 2 * torch.randn(2, 2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(warp(features, displacement), warp_by_loops(features, displacement))


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("maps", [1, 3])
def test_maps_in_channels_last_are_warped_alike_and_stay_so(padding: str, maps: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(maps, 8, 5, 6)
    displacement = 3 * torch.randn(3, 2, 5, 6)
    displacement[0] = displacement[0].round()
    with torch.inference_mode():
        rows = features.contiguous(memory_format=torch.channels_last).expand(3, -1, -1, -1)
        warped = warp(rows, displacement, padding)
    features = features.expand(3, -1, -1, -1)
    torch.testing.assert_close(warped, warp(features, displacement, padding), rtol=0, atol=1e-5)
    assert warped.is_contiguous(memory_format=torch.channels_last)


def test_gradients_of_features_and_displacement() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    displacement = (0.3 * torch.randn(1, 2, 3, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(warp, (features, displacement))


def test_a_field_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"displacement must be \(1, 2, 4, 5\)"):
        warp(torch.zeros(1, 3, 4, 5), torch.zeros(1, 2, 8, 10))


def test_splat_of_a_constant_field_is_the_field() -> None:
    field = constant_field(1.5, -0.5)
    torch.testing.assert_close(splat(field), field)


def test_splat_carries_a_moving_pixel_to_where_it_will_be() -> None:
    field = torch.zeros(1, 2, 1, 7)
    field[0, 0, 0, 1] = -3.0  # moves 3 to the right
    moved = splat(field)
    assert moved[0, 0, 0].tolist() == [0.0, -3.0, 0.0, 0.0, -3.0, 0.0, 0.0]


def test_memory_of_a_moving_object_arrives_at_its_future_place() -> None:
    memory = torch.zeros(1, 1, 1, 9)
    memory[0, 0, 0, 2] = 1.0
    field = torch.zeros(1, 2, 1, 9)
    field[0, 0, 0, 2] = -4.0
    assert warp(memory, splat(field))[0, 0, 0, 6] == 1.0


def test_what_moves_against_the_camera_covers_the_background() -> None:
    field = constant_field(-2.0, 0.0, (1, 9))  # the camera turns: all moves 2 to the right
    field[0, 0, 0, 5] = 0.0  # but one object stays
    moved = splat(field)
    assert moved[0, 0, 0, 5] == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_half_precision_are_sampled_at_exact_places(dtype: torch.dtype) -> None:
    ramp = torch.arange(64.0).expand(1, 1, 4, 64)
    displacement = torch.full((1, 2, 4, 64), 0.25) * torch.tensor([1.0, 0.0])[:, None, None]
    warped = warp(ramp.to(dtype), displacement)
    assert warped.dtype == dtype
    expected = (ramp + 0.25)[..., :-1]
    torch.testing.assert_close(warped[..., :-1], expected.to(dtype), rtol=0, atol=0)
