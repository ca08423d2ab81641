"""Video files and folders of images, written here and read back."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.video import VideoClip, VideoWriter
from memwarp_core.errors import DataError


def shade(index: int) -> int:
    return 20 + 15 * index


def write_video(path: Path, count: int = 8, rate_hz: float = 10.0) -> Path:
    with VideoWriter(path, rate_hz) as writer:
        for index in range(count):
            writer.write(np.full((48, 64, 3), shade(index), np.uint8))
    return path


def test_video_file_gives_frames_in_order_with_stamps_from_its_rate(tmp_path: Path) -> None:
    clip = VideoClip(write_video(tmp_path / "tiny.mp4"))
    frames = list(clip)
    assert (len(clip), len(frames), clip.name) == (8, 8, "tiny")
    assert [frame.stamp_ns for frame in frames] == [index * 100_000_000 for index in range(8)]
    assert [abs(frame.image.mean() - shade(index)) < 4 for index, frame in enumerate(frames)] == [True] * 8
    assert frames[0].image.shape == (48, 64, 3) and len(frames[0].boxes_xyxy) == 0


def test_video_file_can_be_read_in_any_order(tmp_path: Path) -> None:
    clip = VideoClip(write_video(tmp_path / "tiny.mp4"))
    for index in (5, 1, 6, 6, 0, -1):
        assert abs(clip[index].image.mean() - shade(index % 8)) < 4
    with pytest.raises(IndexError):
        clip[8]


def test_folder_of_images_is_read_by_name_as_rgb(tmp_path: Path) -> None:
    for name, blue in (("b.png", 200), ("a.JPG", 100)):
        image = np.zeros((16, 16, 3), np.uint8)
        image[..., 0] = blue  # OpenCV writes blue first
        cv2.imwrite(str(tmp_path / name), image)
    (tmp_path / "notes.txt").write_text("not an image")
    clip = VideoClip(tmp_path, frame_rate_hz=25)
    assert [frame.stamp_ns for frame in clip] == [0, 40_000_000]
    assert abs(int(clip[0].image[8, 8, 2]) - 100) < 4
    assert clip[1].image[8, 8].tolist() == [0, 0, 200]


@pytest.mark.parametrize("kind", ["missing", "empty folder", "text file", "no rate"])
def test_what_is_not_a_video_is_refused(tmp_path: Path, kind: str) -> None:
    path = {"missing": tmp_path / "none.mp4", "empty folder": tmp_path}.get(kind, tmp_path / "a.mp4")
    if kind == "text file":
        path.write_text("hello")
    if kind == "no rate":
        write_video(path)
    with pytest.raises(DataError, match=path.name):
        VideoClip(path, frame_rate_hz=0 if kind == "no rate" else None)


def test_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="broken.png"):
        VideoClip(tmp_path)[0]


def test_interrupted_video_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 10) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_changing_frame_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="crop or pad"), VideoWriter(tmp_path / "a.mp4", 10) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.write(np.zeros((48, 66, 3), np.uint8))
