from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.yolo_video import read_yolo_video
from memwarp_core.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One clip of two 32x24 images; the second has no labels."""
    (tmp_path / "classes.txt").write_text("cup\nball\n")
    (tmp_path / "walk").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "walk" / f"{number}.jpg"), np.full((24, 32, 3), 90, np.uint8))
    (tmp_path / "walk" / "0.txt").write_text("1 0.5 0.5 0.25 0.5 7\n0 0.125 0.25 0.25 0.5\n")
    return tmp_path


def test_fractions_become_pixels(folder: Path) -> None:
    (clip,) = read_yolo_video(folder)
    frame, empty = clip[0], clip[1]
    assert (clip.name, clip.class_names, len(clip)) == ("walk", ("cup", "ball"), 2)
    assert frame.boxes_xyxy.tolist() == [[12, 6, 20, 18], [0, 0, 8, 12]]
    assert (frame.labels.tolist(), frame.track_ids.tolist()) == ([1, 0], [7, -1])
    assert (empty.stamp_ns, len(empty.labels)) == (50_000_000, 0)


@pytest.mark.parametrize("text", ["names: [cup, ball]", "names: {0: cup, 1: ball}"])
def test_names_can_come_from_data_yaml(folder: Path, text: str) -> None:
    (folder / "classes.txt").unlink()
    (folder / "data.yaml").write_text(text)
    assert read_yolo_video(folder)[0].class_names == ("cup", "ball")


BROKEN = [
    ("2 0.5 0.5 0.25 0.5", "expected a class from 0 to 1"),
    ("0 0.9 0.5 0.25 0.5", "lies in the image"),
    ("0 0.5 0.5 0 0.5", "has a size"),
    ("0 0.5 0.5 nan 0.5", "lies in the image"),
    ("0 0.5 0.5", "expected class, centre"),
    ("cup 0.5 0.5 0.25 0.5", "invalid literal"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_bad_lines_are_named_or_left_out(
    folder: Path, line: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "walk" / "1.txt").write_text(f"0 0.5 0.5 0.25 0.5\n{line}\n")
    with pytest.raises(DataError, match=rf"1\.txt, line 2: .*{message}"):
        read_yolo_video(folder)
    assert read_yolo_video(folder, skip_bad=True)[0].labels[1].tolist() == [0]
    assert "1 bad boxes or frames were left out" in caplog.text


def test_labels_without_an_image_are_named(folder: Path) -> None:
    (folder / "walk" / "9.txt").write_text("")
    with pytest.raises(DataError, match=r"9\.txt: there is no image"):
        read_yolo_video(folder)


@pytest.mark.parametrize("text", ["names: 3", "[", "{}", "names: {1: cup}"])
def test_a_bad_data_yaml_is_named(folder: Path, text: str) -> None:
    (folder / "classes.txt").unlink()
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml: expected `names`"):
        read_yolo_video(folder)
