"""Ground truth from hand-made views: no renderer is needed."""

import numpy as np
import pytest

from memwarp_core.data.simulation.ground_truth import View, box_of_mask, displacement_between

FOCAL = 20.0
SHAPE = (12, 16)


def view(
    depth: np.ndarray | float = 4.0,
    body: np.ndarray | int = 0,
    camera: tuple[float, float, float] = (0.0, 0.0, 0.0),
    rotation: np.ndarray | None = None,
    moved: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> View:
    """A camera at `camera` looking along -z, and a second body (number 1) at `moved`."""
    return View(
        depth=np.broadcast_to(np.asarray(depth, np.float32), SHAPE),
        body=np.broadcast_to(np.asarray(body, np.int32), SHAPE),
        camera_position=np.array(camera),
        camera_rotation=np.eye(3) if rotation is None else rotation,
        body_positions=np.array([(0.0, 0.0, 0.0), moved]),
        body_rotations=np.broadcast_to(np.eye(3), (2, 3, 3)),
    )


def test_box_covers_whole_pixels() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2, 3] = mask[6, 4] = True
    assert box_of_mask(mask) == (3.0, 2.0, 5.0, 7.0)


def test_box_of_the_corner_pixel() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    assert box_of_mask(mask) == (0.0, 0.0, 1.0, 1.0)


def test_empty_mask_has_no_box() -> None:
    assert box_of_mask(np.zeros((4, 4), bool)) is None


def test_nothing_moved_is_zero_displacement_and_valid_everywhere() -> None:
    field, valid = displacement_between(view(), view(), FOCAL)
    np.testing.assert_allclose(field, 0.0, atol=1e-5)
    assert valid.all()


def test_camera_to_the_right_points_to_where_the_wall_was_further_right() -> None:
    # 0.4 m to the right before a wall at 4 m: the wall moved 20 * 0.4 / 4 = 2 pixels to the left in the image.
    field, valid = displacement_between(view(), view(camera=(0.4, 0.0, 0.0)), FOCAL)
    np.testing.assert_allclose(field, np.broadcast_to([2.0, 0.0], (*SHAPE, 2)), atol=1e-4)
    assert valid[:, :-2].all() and not valid[:, -2:].any()


def test_camera_upwards_points_to_where_the_wall_was_further_up() -> None:
    # y counts downwards: the wall moved 2 pixels down in the image, so it was 2 rows higher.
    field, valid = displacement_between(view(), view(camera=(0.0, 0.4, 0.0)), FOCAL)
    np.testing.assert_allclose(field, np.broadcast_to([0.0, -2.0], (*SHAPE, 2)), atol=1e-4)
    assert valid[2:].all() and not valid[:2].any()


def test_a_moving_body_has_its_own_displacement_and_uncovers_what_was_behind() -> None:
    before, now = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    before[4:8, 4:8] = 1
    now[4:8, 6:10] = 1
    # 0.2 m to the right at 2 m: 2 pixels.
    old = view(np.where(before == 1, 2.0, 4.0), before)
    new = view(np.where(now == 1, 2.0, 4.0), now, moved=(0.2, 0.0, 0.0))
    field, valid = displacement_between(old, new, FOCAL)
    np.testing.assert_allclose(field[now == 1], np.broadcast_to([-2.0, 0.0], (16, 2)), atol=1e-4)
    np.testing.assert_allclose(field[now == 0], 0.0, atol=1e-4)
    uncovered = (before == 1) & (now == 0)
    assert uncovered.any()
    np.testing.assert_array_equal(valid, ~uncovered)


@pytest.mark.parametrize("angle", [-0.03, 0.05])
def test_the_sky_follows_rotation_alone(angle: float) -> None:
    # Positive angles turn the camera to the left (about y, which is up).
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    field, _ = displacement_between(view(body=-1), view(body=-1, camera=(0.3, 0.1, 0.0), rotation=turn), FOCAL)
    column = np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2
    expected = FOCAL * np.tan(np.arctan(column / FOCAL) - angle) - column
    middle = SHAPE[0] // 2
    np.testing.assert_allclose(field[middle, :, 0], expected, atol=2e-2)
