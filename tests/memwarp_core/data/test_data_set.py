import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.bags import BagWriter
from memwarp_core.data.coco_vid import ClipAnnotations, frame_annotations, write_coco_vid
from memwarp_core.data.data_set import fingerprint, open_data_set
from memwarp_core.errors import DataError
from memwarp_core.types import Frame

Box = tuple[float, float, float, float]
BOX: Box = (4.0, 2.0, 20.0, 18.0)


def write_image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full((24, 32, 3), 90, np.uint8))


def write_coco(folder: Path, box: Box = BOX) -> None:
    write_image(folder / "images" / "0.jpg")
    x0, y0, x1, y1 = box
    frame = Frame(
        image=np.zeros((24, 32, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=np.array([BOX, (x0, y0, x1, y1)], np.float32),
        labels=np.array([0, 0]),
        track_ids=np.array([1, 2]),
    )
    write_coco_vid(folder, [ClipAnnotations(name="walk", frames=(frame_annotations(frame, "0.jpg"),))], ["cup"])


def write_yolo(folder: Path, box: Box = BOX) -> None:
    write_image(folder / "walk" / "0.jpg")
    (folder / "classes.txt").write_text("cup\n")
    lines = []
    for x0, y0, x1, y1 in (BOX, box):
        lines.append(f"0 {(x0 + x1) / 64} {(y0 + y1) / 48} {(x1 - x0) / 32} {(y1 - y0) / 24}\n")
    (folder / "walk" / "0.txt").write_text("".join(lines))


def write_imagenet(folder: Path, box: Box = BOX) -> None:
    write_image(folder / "Data" / "VID" / "walk" / "000000.JPEG")
    objects = "".join(
        f"<object><trackid>0</trackid><name>n02084071</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1 - 1}</xmax><ymax>{y1 - 1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in (BOX, box)
    )
    annotation = folder / "Annotations" / "VID" / "walk" / "000000.xml"
    annotation.parent.mkdir(parents=True)
    annotation.write_text(f"<annotation><size><width>32</width><height>24</height></size>{objects}</annotation>")
    (folder / "ImageSets").mkdir()
    (folder / "ImageSets" / "VID_train_15frames.txt").write_text("walk 1 0 1\n")


def write_bag(folder: Path, box: Box = BOX, names: tuple[str, str] = ("cup", "cup")) -> None:
    with BagWriter(folder) as bag:
        bag.write_compressed_image(np.full((24, 32, 3), 90, np.uint8), 5)
        bag.write_detections(np.array([BOX, box]), names, 5)


FORMATS = [write_coco, write_yolo, write_imagenet, write_bag]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_is_recognised(tmp_path: Path, write) -> None:
    write(tmp_path / "set")
    (clip,) = open_data_set(tmp_path / "set")
    frame = clip[0]
    assert len(clip) == 1
    assert frame.image.shape == (24, 32, 3)
    np.testing.assert_allclose(frame.boxes_xyxy, [BOX, BOX], atol=1e-5)
    assert clip.class_names[frame.labels[0]] in ("cup", "dog")


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("box", [(40.0, 2.0, 50.0, 18.0), (8.0, 6.0, 8.0, 18.0)])
def test_a_box_outside_of_its_image_or_without_size_is_refused_or_left_out(
    tmp_path: Path, write, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "set", box)
    with pytest.raises(DataError, match="image"):
        open_data_set(tmp_path / "set")
    (clip,) = open_data_set(tmp_path / "set", skip_bad=True)
    np.testing.assert_allclose(clip[0].boxes_xyxy, [BOX], atol=1e-5)
    assert [record.getMessage().count("1 bad boxes or frames") for record in caplog.records] == [1]


@pytest.mark.parametrize("write", FORMATS)
def test_the_fingerprint_changes_with_the_data_set_alone(tmp_path: Path, write) -> None:
    write(tmp_path / "set")
    before = fingerprint(tmp_path / "set")
    assert fingerprint(tmp_path / "set") == before
    labels = next(file for file in (tmp_path / "set").rglob("*") if file.suffix in (".json", ".txt", ".xml", ".mcap"))
    labels.write_bytes(labels.read_bytes() + b"\n")
    os.utime(labels, ns=(1, 1))
    assert fingerprint(tmp_path / "set") != before


def test_a_folder_of_bags_has_the_classes_of_all(tmp_path: Path) -> None:
    write_bag(tmp_path / "first", names=("cup", "cup"))
    write_bag(tmp_path / "second", names=("ball", "cup"))
    clips = open_data_set(tmp_path)
    assert [clip.class_names for clip in clips] == [("cup", "ball")] * 2
    assert [clip[0].labels.tolist() for clip in clips] == [[0, 0], [1, 0]]


def test_images_of_a_bag_without_ground_truth_are_left_out(tmp_path: Path) -> None:
    image = np.full((24, 32, 3), 90, np.uint8)
    with BagWriter(tmp_path / "bag") as bag:
        for stamp_ns in range(5):
            bag.write_compressed_image(image, stamp_ns)
        bag.write_detections(np.array([BOX]), ["cup"], 1)
        bag.write_detections(np.zeros((0, 4)), [], 3)
    (clip,) = open_data_set(tmp_path / "bag")
    assert [clip[index].stamp_ns for index in range(len(clip))] == [1, 3]
    assert [len(clip[index].labels) for index in range(len(clip))] == [1, 0]


def test_a_bag_without_ground_truth_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_compressed_image(np.full((24, 32, 3), 90, np.uint8), 5)
    with pytest.raises(DataError, match="bag: expected ground truth"):
        open_data_set(tmp_path)


@pytest.mark.parametrize("name", ["", "not-there"])
def test_what_is_understood_is_listed(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"CocoVID.*ILSVRC.*YOLO.*bag"):
        open_data_set(tmp_path / name)
