import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memwarp_core.models.config import CorrelationConfig
from memwarp_core.models.displacement import CorrelationDisplacement
from memwarp_core.models.parts import Features

MakeFeatures = Callable[..., Features]


def sharp(part: CorrelationDisplacement) -> CorrelationDisplacement:
    """So that soft-argmax is argmax."""
    torch.nn.init.constant_(part.log_temperature, 6.0)
    return part.eval()


@pytest.mark.parametrize(("stride", "cells"), [(4, -4.0), (8, -2.0), (16, -2.0)])
def test_what_moved_right_by_two_cells_came_from_the_left(features: MakeFeatures, stride: int, cells: float) -> None:
    part = sharp(CorrelationDisplacement(features(stride), CorrelationConfig(channels=16, radius=3)))
    past = torch.randn(1, 16, 12, 20)
    with torch.inference_mode():
        field = part(past.roll(2, dims=3), past)
    scale = max(8 // stride, 1)
    inside = field[:, :, :, 4 * scale : -4 * scale]
    torch.testing.assert_close(inside[:, 0], torch.full_like(inside[:, 0], cells), rtol=0, atol=1e-3)
    torch.testing.assert_close(inside[:, 1], torch.zeros_like(inside[:, 1]), rtol=0, atol=1e-3)


def test_large_maps_are_compared_at_half_the_resolution(features: MakeFeatures) -> None:
    part = sharp(CorrelationDisplacement(features(), CorrelationConfig(channels=16, radius=2)))
    past = torch.randn(1, 16, 38, 63).repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :75, :125]
    with torch.inference_mode():
        field = part(past.roll((2, -4), dims=(2, 3)), past)
    assert field.shape == (1, 2, 75, 125)
    inside = field[:, :, 8:-8, 8:-8]
    torch.testing.assert_close(inside[:, 0], torch.full_like(inside[:, 0], 4.0), rtol=0, atol=1e-2)
    torch.testing.assert_close(inside[:, 1], torch.full_like(inside[:, 1], -2.0), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("stride", "early_stride"), [(4, 4), (8, 4), (16, 4), (8, 8), (16, 8), (32, 4), (16, 16)])
def test_embeddings_are_at_the_stride_of_the_level_or_at_eight(
    features: MakeFeatures, stride: int, early_stride: int
) -> None:
    part = CorrelationDisplacement(features(stride, early_stride), CorrelationConfig(channels=16)).eval()
    early = torch.randn(1, 16, 64 // early_stride, 96 // early_stride)
    cell = max(stride, 8)
    assert part.describe(torch.zeros(1, 3, 64, 96), early).shape == (1, 16, 64 // cell, 96 // cell)


def test_every_early_feature_has_a_say(features: MakeFeatures) -> None:
    part = CorrelationDisplacement(features(16), CorrelationConfig(channels=16)).eval()
    early = torch.randn(1, 16, 16, 16, requires_grad=True)
    part.describe(torch.zeros(1, 3, 64, 64), early).square().sum().backward()
    assert early.grad is not None and early.grad.ne(0).all()


def by_loops(current: Tensor, past: Tensor, radius: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Expected offset and its variance of one pair of frames, one place after the other."""
    _, height, width = current.shape
    mean, spread = torch.zeros(2, height, width).double(), torch.zeros(2, height, width).double()
    for y in range(height):
        for x in range(width):
            places, scores = [], []
            for v in range(max(y - radius, 0), min(y + radius + 1, height)):
                for u in range(max(x - radius, 0), min(x + radius + 1, width)):
                    cosine = F.cosine_similarity(current[:, y, x], past[:, v, u], dim=0)
                    scores.append(math.exp(temperature * cosine.item()))
                    places.append((u - x, v - y))
            for axis in (0, 1):
                offsets = [place[axis] for place in places]
                mean[axis, y, x] = sum(s * o for s, o in zip(scores, offsets, strict=True)) / sum(scores)
                second = sum(s * o * o for s, o in zip(scores, offsets, strict=True)) / sum(scores)
                spread[axis, y, x] = second - mean[axis, y, x] ** 2
    return mean, spread


def test_the_first_estimate_is_a_soft_argmax_within_the_radius(features: MakeFeatures) -> None:
    part = CorrelationDisplacement(features(), CorrelationConfig(channels=16, radius=2)).double().eval()
    seen = []
    part.refine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    current, past = torch.randn(2, 2, 16, 5, 6).double()
    field = part(current, past)
    for item in range(2):
        mean, spread = by_loops(current[item], past[item], 2, math.exp(2.0))
        # The last layer starts at zero, so that the first estimate is what comes out.
        torch.testing.assert_close(field[item], mean)
        torch.testing.assert_close(seen[0][item, -2:], spread)


def test_it_looks_again_at_the_similarities_around_the_first_estimate(features: MakeFeatures) -> None:
    part = sharp(CorrelationDisplacement(features(), CorrelationConfig(channels=16, radius=3))).double()
    seen = []
    part.refine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    past = torch.randn(1, 16, 12, 14).double()
    current = past.roll((1, -2), dims=(2, 3))  # (7, 6) was at (6, 8)
    part(current, past)
    around = seen[0][0, 16:-4, 7, 6].view(7, 7)
    for row, column in ((3, 3), (3, 4), (2, 3), (0, 6), (6, 0)):
        there = past[0, :, 6 + row - 3, 8 + column - 3]
        expected = math.exp(6.0) * F.cosine_similarity(current[0, :, 7, 6], there, dim=0)
        torch.testing.assert_close(around[row, column], expected, rtol=1e-6, atol=1e-3)


def test_gradients_are_those_of_finite_differences(features: MakeFeatures) -> None:
    torch.manual_seed(0)
    part = CorrelationDisplacement(features(4), CorrelationConfig(channels=2, radius=1)).double().eval()
    torch.nn.init.normal_(part.refine[-1].weight)  # type: ignore[arg-type]
    current, past = torch.randn(2, 1, 2, 3, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(part, (current, past))


def test_it_learns_after_it_was_run(features: MakeFeatures) -> None:
    """What is kept of the size of a map from inference can be used in training."""
    part = CorrelationDisplacement(features(), CorrelationConfig(channels=16, radius=2))
    current, past = torch.randn(2, 1, 16, 7, 9)
    with torch.inference_mode():
        part(current, past)
    part(current, past.requires_grad_()).sum().backward()
    assert part.refine[-1].bias.grad.ne(0).all()


@pytest.mark.parametrize("size", [(30, 21), (24, 40), (5, 6)])
def test_where_it_is_only_run_it_finds_the_same_by_blocks(features: MakeFeatures, size: tuple[int, int]) -> None:
    part = CorrelationDisplacement(features(), CorrelationConfig(channels=16, radius=4)).eval()
    seen = []
    part.refine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    current, past = torch.randn(2, 2, 16, *size)
    part(current, past)
    with torch.inference_mode():
        part(current, past)
    # Float32's rounding, of squares of coordinates and times the slope of the similarities.
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=2e-3)
