import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memwarp_core.geometry import psroi_pool


@pytest.fixture(autouse=True, scope="module", params=[True, False], ids=["training", "running"])
def with_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is only run is pooled in another way."""
    with torch.set_grad_enabled(request.param):
        yield


def plain_psroi_pool(features: Tensor, rois: Tensor, bins: int, spatial_scale: float) -> Tensor:
    """R-FCN's operator, one output value at a time, its coordinates in the precision of the rois."""
    real = rois.numpy().dtype.type
    height, width = features.shape[-2:]
    depth = features.shape[1] // bins**2
    pooled = torch.zeros(len(rois), depth, bins, bins, dtype=features.dtype)

    def c_round(value: float) -> float:
        return math.copysign(math.floor(abs(value) + 0.5), value)

    def cells(start: float, end: float, i: int, size: int) -> range:
        first = real(c_round(start)) * real(spatial_scale)
        last = real(c_round(end) + 1) * real(spatial_scale)
        step = max(last - first, real(0.1)) / real(bins)
        low = math.floor(real(i) * step + first)
        high = math.ceil(real(i + 1) * step + first)
        return range(min(max(low, 0), size), min(max(high, 0), size))

    for n, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for d in range(depth):
            for row in range(bins):
                for column in range(bins):
                    channel = (d * bins + row) * bins + column
                    values = [
                        features[int(image), channel, y, x].item()
                        for y in cells(y1, y2, row, height)
                        for x in cells(x1, x2, column, width)
                    ]
                    pooled[n, d, row, column] = float(np.mean(values)) if values else 0.0
    return pooled


coordinates = st.one_of(
    st.floats(-60, 140, width=32),
    st.integers(-120, 280).map(lambda halves: halves / 2),  # exactly on a half, where C and Python round apart
)
regions = st.tuples(st.integers(0, 1), coordinates, coordinates, coordinates, coordinates)  # also empty or inverted


@settings(max_examples=60)
@given(
    rois=st.lists(regions, min_size=1, max_size=6),
    bins=st.integers(1, 4),
    stride=st.sampled_from([4, 8, 16]),
    seed=st.integers(0, 99),
)
def test_pooling_is_what_r_fcn_computes_bin_by_bin(rois: list, bins: int, stride: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 2 * bins**2, 6, 9, generator=generator)
    boxes = torch.tensor(rois)
    expected = plain_psroi_pool(features, boxes, bins, 1 / stride)
    torch.testing.assert_close(psroi_pool(features, boxes, bins, 1 / stride), expected, rtol=1e-6, atol=1e-6)


def test_convention_of_bin_edges_on_a_literal_case() -> None:
    """x: round(7.5) / 4 = 2 to (round(16.4) + 1) / 4 = 4.25, bins of 1.125 cells: 2..4 and 3..5.

    y: round(0.4) / 4 = 0 to (round(10.5) + 1) / 4 = 3, bins of 1.5 cells: 0..2 and 1..3. Bins share cells.
    """
    ramp = torch.arange(5.0)[:, None] * 10 + torch.arange(6.0)  # value is 10 * y + x
    features = ramp.expand(1, 4, 5, 6)
    pooled = psroi_pool(features, torch.tensor([[0, 7.5, 0.4, 16.4, 10.5]]), 2, 0.25)
    expected = [[[[0.5 * 10 + 2.5, 0.5 * 10 + 3.5], [1.5 * 10 + 2.5, 1.5 * 10 + 3.5]]]]
    torch.testing.assert_close(pooled, torch.tensor(expected))


def test_halves_are_rounded_away_from_zero() -> None:
    features = torch.arange(8.0).view(1, 1, 1, 8)
    # 2.5 becomes 3 and not 2, the even neighbour: the single bin is cells 3..4 of stride 1.
    assert psroi_pool(features, torch.tensor([[0, 2.5, 0, 2.5, 0]]), 1, 1.0).item() == 3.0
    # -0.5 becomes -1: with the end at round(-0.5) + 1 = 0, nothing of the map is inside.
    assert psroi_pool(features + 1, torch.tensor([[0, -0.5, 0, -0.5, 0]]), 1, 1.0).item() == 0.0


def test_the_last_row_and_column_are_pooled() -> None:
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 3, 3] = 1.0
    corner = torch.tensor([[0, 24.0, 24.0, 31.0, 31.0]])
    assert psroi_pool(features, corner, 1, 1 / 8).item() == 1.0


def test_a_bin_outside_the_map_is_zero_and_one_that_leaves_it_is_the_mean_of_what_is_inside() -> None:
    features = torch.full((1, 4, 4, 4), 2.0)
    rois = torch.tensor([[0, 100.0, 100.0, 200.0, 200.0], [0, -32.0, -32.0, 31.0, 31.0], [0, 24.0, 0.0, 55.0, 31.0]])
    expected = [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [2.0, 0.0]]]
    assert psroi_pool(features, rois, 2, 1 / 8)[:, 0].tolist() == expected


def test_convention_of_channels_is_class_then_row_then_column() -> None:
    features = torch.arange(12.0).view(1, 12, 1, 1).expand(1, 12, 8, 8)
    pooled = psroi_pool(features, torch.tensor([[0, 0.0, 0.0, 63.0, 63.0]]), 2, 1 / 8)
    assert pooled.tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]]


def test_each_region_is_read_from_its_own_image() -> None:
    features = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    rois = torch.tensor([[2, 0, 0, 9, 9], [0, 0, 0, 9, 9], [1, 0, 0, 9, 9], [2, 0, 0, 9, 9]])
    assert psroi_pool(features, rois, 1, 1 / 8).flatten().tolist() == [3.0, 1.0, 2.0, 3.0]


def test_no_regions_give_no_values() -> None:
    assert psroi_pool(torch.zeros(1, 18, 4, 4), torch.zeros(0, 5), 3, 1 / 8).shape == (0, 2, 3, 3)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 3, 2, 30, 25], [1, -9, 4, 12, 60], [1, 8, 8, 8, 8], [0, 90, 90, 99, 99]]).double()
    with torch.enable_grad():
        assert torch.autograd.gradcheck(lambda x: psroi_pool(x, rois, 2, 1 / 8), (features,))


def test_a_single_cell_is_exact_far_from_the_origin_of_a_map_of_the_published_size() -> None:
    """Differences of float32 sums over 63x38 cells of such values are off by 1e-3."""
    torch.manual_seed(0)
    features = torch.randn(1, 40, 38, 63) * 3 + 5
    last_cell = torch.tensor([[0, 62 * 16.0, 37 * 16.0, 62 * 16.0 + 15, 37 * 16.0 + 15]])
    pooled = psroi_pool(features, last_cell, 1, 1 / 16)
    torch.testing.assert_close(pooled.flatten(), features[0, :, 37, 62], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_rounds_only_the_result(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    features = (torch.randn(1, 18, 38, 63) * 3 + 5).to(dtype)
    rois = torch.tensor([[0, 401.0, 203.0, 987.0, 591.0]])
    pooled = psroi_pool(features, rois, 3, 1 / 16)
    assert pooled.dtype == dtype
    assert torch.equal(pooled, psroi_pool(features.float(), rois, 3, 1 / 16).to(dtype))


def test_autocast_and_memory_format_change_nothing() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 18, 12, 20)
    rois = torch.tensor([[0, 401.0, 203.0, 987.0, 591.0], [1, 3.0, 5.0, 99.0, 77.0]])
    expected = psroi_pool(features, rois, 3, 1 / 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(psroi_pool(features, rois, 3, 1 / 16), expected)
    channels_last = features.to(memory_format=torch.channels_last)
    assert torch.equal(psroi_pool(channels_last, rois, 3, 1 / 16), expected)


def test_channels_and_rois_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of 3\*3 channels.* got 10"):
        psroi_pool(torch.zeros(1, 10, 4, 4), torch.zeros(1, 5), 3, 1 / 8)
    with pytest.raises(ValueError, match=r"\(N, 5\), batch index and xyxy; got \(2, 4\)"):
        psroi_pool(torch.zeros(1, 9, 4, 4), torch.zeros(2, 4), 3, 1 / 8)
