import torch
from hypothesis import given
from hypothesis import strategies as st

from memwarp_core.geometry import compose, resize_displacement, scale_displacement


def field(x: float, y: float, size: tuple[int, int] = (4, 6)) -> torch.Tensor:
    return torch.tensor([x, y])[None, :, None, None].expand(1, 2, *size).clone()


def test_scaling_to_the_feature_map_divides_by_the_stride_once() -> None:
    scaled = scale_displacement(field(16.0, -8.0, (16, 32)), stride=8)
    torch.testing.assert_close(scaled, field(2.0, -1.0, (2, 4)))


SIDES = st.integers(1, 12)


def test_a_field_on_its_own_map_stays_as_it_is() -> None:
    original = torch.randn(2, 2, 3, 5)
    assert resize_displacement(original, (3, 5)).equal(original)


def test_half_the_resolution_halves_means_of_cells() -> None:
    original = torch.zeros(1, 2, 2, 4)
    original[0, 0] = torch.tensor([[0.0, 4.0, 8.0, 8.0], [4.0, 8.0, 8.0, 8.0]])
    assert resize_displacement(original, (1, 2))[0, 0].tolist() == [[2.0, 4.0]]


def test_twice_the_resolution_doubles_and_interpolates_between_centres() -> None:
    original = torch.zeros(1, 2, 1, 2)
    original[0, 1] = torch.tensor([[0.0, 4.0]])
    assert resize_displacement(original, (2, 4))[0, 1].tolist() == [[0.0, 2.0, 6.0, 8.0]] * 2


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_constant_motion_is_the_same_share_of_every_map(height: int, width: int, rows: int, columns: int) -> None:
    resized = resize_displacement(field(0.5 * width, -0.25 * height, (height, width)), (rows, columns))
    torch.testing.assert_close(resized, field(0.5 * columns, -0.25 * rows, (rows, columns)))


@given(SIDES, SIDES)
def test_further_channels_are_resized_and_not_scaled(rows: int, columns: int) -> None:
    with_factor = torch.cat((field(1.0, 1.0, (5, 7)), torch.full((1, 1, 5, 7), 3.0)), dim=1)
    factor = resize_displacement(with_factor, (rows, columns))[:, 2:]
    torch.testing.assert_close(factor, torch.full((1, 1, rows, columns), 3.0))


def test_resizing_is_differentiable() -> None:
    original = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    for size in ((2, 2), (5, 8), (2, 8)):
        assert torch.autograd.gradcheck(lambda x, size=size: resize_displacement(x, size), original)


def test_constant_fields_add_up_when_chained() -> None:
    torch.testing.assert_close(compose(field(1.0, 0.5), field(-2.0, 1.0)), field(-1.0, 1.5))


def test_the_older_field_is_read_where_the_newer_one_points() -> None:
    newer = field(1.0, 0.0, (1, 4))
    older = torch.zeros(1, 2, 1, 4)
    older[0, 0, 0] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    assert compose(newer, older)[0, 0, 0].tolist() == [21.0, 31.0, 41.0, 41.0]
