import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.coco_vid import ClipAnnotations, frame_annotations, read_coco_vid, write_coco_vid
from memwarp_core.errors import DataError
from memwarp_core.types import Frame

CLASS_NAMES = ("ball", "crate", "cone")


@pytest.fixture
def data_set(tmp_path: Path, frames: list[Frame]) -> Path:
    """Two clips of the same frames."""
    clips = []
    for name in ("first", "second"):
        entries = []
        for index, frame in enumerate(frames):
            file = tmp_path / "images" / name / f"{index:06d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
            entries.append(frame_annotations(frame, f"{name}/{file.name}", np.full(len(frame.labels), 0.5)))
        clips.append(ClipAnnotations(name=name, frames=tuple(entries)))
    write_coco_vid(tmp_path, clips, CLASS_NAMES)
    return tmp_path


def change_annotations(folder: Path, change) -> None:
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_what_was_written_is_read_again(data_set: Path, frames: list[Frame]) -> None:
    clips = read_coco_vid(data_set)
    assert [clip.name for clip in clips] == ["first", "second"]
    for clip in clips:
        assert clip.class_names == CLASS_NAMES
        assert len(clip) == len(frames)
        for index, frame in enumerate(frames):
            read = clip[index]
            np.testing.assert_array_equal(read.image, frame.image)
            np.testing.assert_array_equal(read.boxes_xyxy, frame.boxes_xyxy)
            np.testing.assert_array_equal(read.labels, frame.labels)
            np.testing.assert_array_equal(read.track_ids, frame.track_ids)
            assert read.boxes_xyxy.dtype == np.float32
            assert (read.stamp_ns, read.degradation) == (frame.stamp_ns, frame.degradation)


def test_the_json_is_coco_as_pycocotools_reads_it(data_set: Path, frames: list[Frame]) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(data_set / "annotations.json"))
    image = coco.loadImgs(coco.getImgIds())[1]
    assert (image["video_id"], image["frame_id"], image["degradation"]) == (1, 1, "noise")
    annotation = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))[0]
    assert annotation["bbox"] == [1.0, 2.0, 12.5, 19.25]
    assert annotation["area"] == 12.5 * 19.25
    assert (annotation["iscrowd"], annotation["instance_id"], annotation["visible_fraction"]) == (0, 7, 0.5)
    assert coco.loadCats([annotation["category_id"]])[0]["name"] == "ball"


def test_frames_come_in_the_order_of_frame_id(data_set: Path, frames: list[Frame]) -> None:
    change_annotations(data_set, lambda content: content["images"].reverse())
    assert [clip[1].degradation for clip in read_coco_vid(data_set)] == ["noise", "noise"]


def test_missing_annotations_say_where_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"annotations\.json: expected .*memwarp simulate"):
        read_coco_vid(tmp_path)


def test_broken_json_is_refused(data_set: Path) -> None:
    (data_set / "annotations.json").write_text('{"images": [')
    with pytest.raises(DataError, match="expected JSON"):
        read_coco_vid(data_set)


def test_a_missing_image_is_named_when_it_is_read(data_set: Path) -> None:
    (data_set / "images" / "second" / "000001.png").unlink()
    clip = read_coco_vid(data_set)[1]
    clip[0]
    with pytest.raises(DataError, match=r"second/000001\.png: .* does not exist"):
        clip[1]


def test_an_image_that_cannot_be_decoded_is_named(data_set: Path) -> None:
    (data_set / "images" / "first" / "000000.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"first/000000\.png: .*cannot be decoded"):
        read_coco_vid(data_set)[0][0]


def test_an_image_of_another_size_is_refused(data_set: Path) -> None:
    cv2.imwrite(str(data_set / "images" / "first" / "000000.png"), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(DataError, match="expected 64x48 pixels.*got 20x10"):
        read_coco_vid(data_set)[0][0]


def _put_box_outside(content: dict) -> None:
    content["annotations"][0]["bbox"] = [60.0, 0.0, 12.0, 5.0]


def _make_box_empty(content: dict) -> None:
    content["annotations"][0]["bbox"] = [6.0, 1.0, 0.0, 5.0]


def _forget_width(content: dict) -> None:
    del content["images"][2]["width"]


def _use_unknown_category(content: dict) -> None:
    content["annotations"][1]["category_id"] = 9


def _use_unknown_image(content: dict) -> None:
    content["annotations"][1]["image_id"] = 99


def _use_unknown_video(content: dict) -> None:
    content["images"][0]["video_id"] = 5


def _repeat_image(content: dict) -> None:
    content["images"].append(content["images"][0])


def _stop_the_clock(content: dict) -> None:
    content["images"][1]["stamp_ns"] = 0


def _lose_images(content: dict) -> None:
    del content["images"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put_box_outside, r"annotation 1: box .* must lie in its image of 64x48"),
        (_make_box_empty, r"annotation 1: box .* and have a size"),
        (_forget_width, r"images\[2\] lacks width"),
        (_use_unknown_category, "annotation 2: its category_id 9"),
        (_use_unknown_image, "annotation 2: its image_id 99"),
        (_use_unknown_video, "video 5, which is not among"),
        (_repeat_image, "image id 1 is there twice"),
        (_stop_the_clock, "stamp_ns must grow"),
        (_lose_images, "expected a list named 'images'"),
    ],
)
def test_annotations_that_break_the_format_are_refused(data_set: Path, change, message: str) -> None:
    change_annotations(data_set, change)
    with pytest.raises(DataError, match=message):
        read_coco_vid(data_set)


def test_the_first_frame_has_no_displacement(data_set: Path) -> None:
    with pytest.raises(DataError, match="first frame of a clip has no displacement"):
        read_coco_vid(data_set)[0].displacement(0)
