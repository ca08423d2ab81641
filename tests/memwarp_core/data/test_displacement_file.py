from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.displacement_file import read_displacement, write_displacement
from memwarp_core.errors import DataError


def test_a_field_comes_back_to_a_64th_of_a_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    field = rng.uniform(-400, 400, (5, 7, 2)).astype(np.float32)
    valid = rng.uniform(size=(5, 7)) < 0.7
    write_displacement(tmp_path / "clip" / "field.png", field, valid)
    read, read_valid = read_displacement(tmp_path / "clip" / "field.png")
    np.testing.assert_array_equal(read_valid, valid)
    np.testing.assert_allclose(read[valid], field[valid], atol=0.5 / 64 + 1e-4)
    assert not read[~valid].any()


def test_convention_of_the_kitti_format(tmp_path: Path) -> None:
    field = np.zeros((1, 2, 2), np.float32)
    field[0, 1] = (1.5, -2.0)
    write_displacement(tmp_path / "field.png", field, np.array([[True, True]]))
    rgb = cv2.imread(str(tmp_path / "field.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert rgb.dtype == np.uint16
    assert rgb[0, 1].tolist() == [1.5 * 64 + 2**15, -2.0 * 64 + 2**15, 1]


def test_a_value_beyond_the_format_is_not_valid(tmp_path: Path) -> None:
    field = np.array([[[600.0, 0.0], [0.0, 0.0]]], np.float32)
    write_displacement(tmp_path / "field.png", field, np.array([[True, True]]))
    assert read_displacement(tmp_path / "field.png")[1].tolist() == [[False, True]]


def test_nothing_but_the_file_is_left_behind(tmp_path: Path) -> None:
    write_displacement(tmp_path / "field.png", np.zeros((2, 2, 2), np.float32), np.ones((2, 2), bool))
    assert [file.name for file in tmp_path.iterdir()] == ["field.png"]


def test_other_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no readable image"):
        read_displacement(tmp_path / "missing.png")
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"16-bit PNG with three channels, got uint8"):
        read_displacement(tmp_path / "picture.png")
