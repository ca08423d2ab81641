import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.imagenet_vid import CLASSES, read_imagenet_vid
from memwarp_core.errors import DataError
from memwarp_core.models.systems import find_system

DOG, CAR, PERSON = "n02084071", "n02958343", "n00007846"
TRAIN = "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
VAL = "val/ILSVRC2015_val_00000000"
STILL = "train/ILSVRC2013_train/n02084071/n02084071_10"


def annotation(*objects: tuple[str, tuple[int, int, int, int]], track: str = "<trackid>3</trackid>") -> str:
    """VOC XML of a 32x24 image; boxes are xmin, ymin, xmax, ymax, inclusive."""
    text = "".join(
        f"<object>{track}<name>{name}</name><bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin><ymax>{y1}</ymax>"
        f"<ymin>{y0}</ymin></bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    return f"<annotation><size><width>32</width><height>24</height></size>{text}</annotation>"


def write_frame(root: Path, kind: str, entry: str, xml: str) -> None:
    image, text = root / "Data" / kind / f"{entry}.JPEG", root / "Annotations" / kind / f"{entry}.xml"
    for file in (image, text):
        file.parent.mkdir(parents=True, exist_ok=True)
    content = cv2.imencode(".jpg", np.full((24, 32, 3), (20, 40, 200), np.uint8))[1]
    image.write_bytes(content.tobytes())
    text.write_text(xml)


def write_list(root: Path, name: str, *lines: str) -> Path:
    file = root / "ImageSets" / "VID" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A training clip with two listed frames of four, a still image, and a validation clip of two frames."""
    for number in range(4):
        write_frame(tmp_path, "VID", f"{TRAIN}/{number:06d}", annotation((DOG, (2 + number, 3, 11 + number, 20))))
    for number in range(2):
        write_frame(tmp_path, "VID", f"{VAL}/{number:06d}", annotation((CAR, (0, 0, 31, 23))))
    xml = annotation((PERSON, (0, 0, 5, 5)), (DOG, (4, 4, 30, 20)), track="")
    write_frame(tmp_path, "DET", STILL, xml)
    write_list(tmp_path, "VID_train_15frames", f"{TRAIN} 1 3 4", f"{TRAIN} 1 1 4")
    write_list(tmp_path, "DET_train_30classes", f"{STILL} 1")
    write_list(tmp_path, "VID_val_videos", f"{VAL} 1 0 2")
    write_list(tmp_path, "VID_val_frames", f"{VAL}/000000 1", f"{VAL}/000001 2")
    return tmp_path


def break_annotation(root: Path, xml: str) -> None:
    (root / "Annotations" / "VID" / TRAIN / "000001.xml").write_text(xml)


def test_classes_are_in_the_order_of_the_paper() -> None:
    assert tuple(CLASSES.values()) == find_system("rfcn-101").config.class_names


def test_training_takes_the_listed_frames_of_vid_and_the_still_images_of_det(root: Path) -> None:
    clip, still = read_imagenet_vid(root)
    assert (clip.name, len(clip)) == (TRAIN, 2)
    assert [clip[index].stamp_ns for index in range(2)] == [33_333_333, 100_000_000]
    assert (still.name, len(still)) == (STILL, 1)
    frame = clip[1]
    assert frame.image.shape == (24, 32, 3)
    np.testing.assert_allclose(frame.image[0, 0], (200, 40, 20), atol=6)
    assert frame.labels.tolist() == [list(CLASSES).index(DOG)]
    assert frame.track_ids.tolist() == [3]


def test_the_last_row_and_column_belong_to_a_box(root: Path) -> None:
    clip, still = read_imagenet_vid(root)
    assert clip[0].boxes_xyxy.tolist() == [[3, 3, 13, 21]]
    whole = read_imagenet_vid(root / "ImageSets" / "VID" / "VID_val_videos.txt")[0][0]
    assert whole.boxes_xyxy.tolist() == [[0, 0, 32, 24]]


def test_other_classes_of_det_are_left_out(root: Path) -> None:
    frame = read_imagenet_vid(root)[1][0]
    assert frame.boxes_xyxy.tolist() == [[4, 4, 31, 21]]
    assert frame.track_ids.tolist() == [-1]


@pytest.mark.parametrize("name", ["VID_val_videos", "VID_val_frames"])
def test_both_validation_lists_give_whole_clips(root: Path, name: str) -> None:
    (clip,) = read_imagenet_vid(root / "ImageSets" / "VID" / f"{name}.txt")
    assert (clip.name, len(clip)) == (VAL, 2)
    assert clip[1].stamp_ns == 33_333_333


def test_boxes_are_cut_at_the_border_of_the_image(root: Path) -> None:
    break_annotation(root, annotation((DOG, (-3, 2, 32, 24))))
    assert read_imagenet_vid(root)[0][0].boxes_xyxy.tolist() == [[0, 2, 32, 24]]


BROKEN = [
    (annotation((DOG, (40, 2, 50, 20))), r"000001\.xml: object 1: box .* in its image of 32x24"),
    (annotation((DOG, (1, 1, 4, 4)), (DOG, (8, 2, 7, 20))), r"000001\.xml: object 2: box .* have a size"),
    (annotation((PERSON, (1, 2, 7, 20))), r"000001\.xml: object 1 has the class 'n00007846'"),
    (annotation((DOG, (1, 2, 7, "far"))), r"000001\.xml: expected a number in <bndbox/ymax>, got 'far'"),
    ("<annotation>", r"000001\.xml: expected XML.*line 1"),
    ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', r"000001\.xml: expected XML without entities"),
]


@pytest.mark.parametrize(("xml", "message"), BROKEN)
def test_a_bad_annotation_is_named(root: Path, xml: str, message: str) -> None:
    break_annotation(root, xml)
    with pytest.raises(DataError, match=message):
        read_imagenet_vid(root)


@pytest.mark.parametrize(("xml", "message"), BROKEN)
def test_bad_annotations_can_be_left_out_and_are_counted(
    root: Path, xml: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    break_annotation(root, xml)
    with caplog.at_level(logging.WARNING):
        clips = read_imagenet_vid(root, skip_bad=True)
    assert len(clips) == 2
    assert "1 bad boxes or frames were left out" in caplog.text
    assert len(caplog.records) == 1


def test_a_missing_annotation_and_a_missing_image_are_named(root: Path) -> None:
    (root / "Data" / "VID" / TRAIN / "000001.JPEG").unlink()
    clip = read_imagenet_vid(root)[0]
    with pytest.raises(DataError, match=r"000001\.JPEG: .* does not exist"):
        clip[0]
    (root / "Annotations" / "VID" / TRAIN / "000001.xml").unlink()
    with pytest.raises(DataError, match=r"000001\.xml: expected the annotation"):
        read_imagenet_vid(root)


@pytest.mark.parametrize("line", ["only-a-folder", f"{TRAIN} 1 x 4", f"{TRAIN} 1 2 3 4"])
def test_a_bad_line_of_a_list_is_named(root: Path, line: str) -> None:
    write_list(root, "VID_train_15frames", f"{TRAIN} 1 1 4", line)
    with pytest.raises(DataError, match=r"VID_train_15frames\.txt, line 2: expected"):
        read_imagenet_vid(root)


def test_a_missing_training_list_is_answered_with_the_lists_there(root: Path) -> None:
    (root / "ImageSets" / "VID" / "VID_train_15frames.txt").unlink()
    with pytest.raises(DataError, match=r"expected the list VID_train_15frames\.txt.*VID_val_videos\.txt"):
        read_imagenet_vid(root)
