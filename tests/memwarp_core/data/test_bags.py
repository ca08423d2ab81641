from pathlib import Path

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability

from memwarp_core.data.bags import BagWriter, read_bag
from memwarp_core.errors import DataError
from memwarp_core.types import Frame

CLASS_NAMES = ("ball", "crate", "cone")
START_NS = 1_000_000_000


def write_bag(path: Path, frames: list[Frame], *, compressed: bool, ground_truth: bool = True) -> Path:
    with BagWriter(path) as bag:
        if ground_truth:
            bag.write_label_info(CLASS_NAMES, START_NS)
        for frame in frames:
            stamp_ns = START_NS + frame.stamp_ns
            if compressed:
                bag.write_compressed_image(frame.image, stamp_ns)
            else:
                bag.write_image(frame.image, stamp_ns)
            bag.write_camera_info(64, 48, 50.0, stamp_ns)
            if ground_truth:
                names = [CLASS_NAMES[label] for label in frame.labels]
                bag.write_detections(frame.boxes_xyxy, names, stamp_ns, track_ids=list(frame.track_ids))
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_what_was_written_is_read_again(tmp_path: Path, frames: list[Frame], compressed: bool) -> None:
    clip = read_bag(write_bag(tmp_path / "walk", frames, compressed=compressed))
    assert (clip.name, clip.class_names, clip.has_ground_truth) == ("walk", CLASS_NAMES, True)
    assert len(clip) == len(frames)
    for index in (3, 0, 2, 1):
        read, frame = clip[index], frames[index]
        assert read.stamp_ns == START_NS + frame.stamp_ns
        np.testing.assert_array_equal(read.boxes_xyxy, frame.boxes_xyxy)
        np.testing.assert_array_equal(read.labels, frame.labels)
        np.testing.assert_array_equal(read.track_ids, frame.track_ids)
        # JPEG at quality 92 changes smooth content by a few grey levels.
        error = np.abs(read.image.astype(int) - frame.image.astype(int)).mean()
        assert error < 4 if compressed else error == 0
    clip.close()


def test_the_independent_mcap_reader_finds_topics_types_and_stamps(tmp_path: Path, frames: list[Frame]) -> None:
    path = write_bag(tmp_path / "walk", frames, compressed=True)
    assert sorted(file.name for file in path.iterdir()) == ["metadata.yaml", "walk.mcap"]
    with (path / "walk.mcap").open("rb") as stream:
        reader = make_reader(stream)
        types = {channel.topic: schema.name for schema, channel, _ in reader.iter_messages()}
        images = [(m.log_time, m.data) for _, _, m in reader.iter_messages(["/camera/image_raw/compressed"])]
    assert types == {
        "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
        "/ground_truth": "vision_msgs/msg/Detection2DArray",
        "/ground_truth/label_info": "vision_msgs/msg/LabelInfo",
    }
    assert [time for time, _ in images] == [START_NS + frame.stamp_ns for frame in frames]
    content = images[1][1]
    # CDR: four bytes of header, then the stamp as int32 seconds and uint32 nanoseconds, little endian.
    assert np.frombuffer(content[4:12], "<u4").tolist() == [1, 50_000_000]
    jpeg = np.frombuffer(content[content.index(b"\xff\xd8\xff") :], np.uint8)
    assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (48, 64, 3)


@pytest.mark.parametrize("part", ["", "walk.mcap"])
def test_ros2_bag_play_shows_the_classes_to_late_subscribers(tmp_path: Path, frames: list[Frame], part: str) -> None:
    path = write_bag(tmp_path / "walk", frames, compressed=True)
    with AnyReader([path / part]) as reader:
        offered = {one.topic: one.ext.offered_qos_profiles for one in reader.connections}
    assert len(offered) == 4
    for topic, (qos,) in offered.items():
        assert qos.reliability == QosReliability.RELIABLE
        is_latched = topic == "/ground_truth/label_info"
        assert qos.durability == (QosDurability.TRANSIENT_LOCAL if is_latched else QosDurability.VOLATILE)


def test_a_bag_without_ground_truth_has_frames_without_boxes(tmp_path: Path, frames: list[Frame]) -> None:
    clip = read_bag(write_bag(tmp_path / "plain", frames, compressed=True, ground_truth=False))
    assert (clip.has_ground_truth, clip.class_names) == (False, ())
    assert clip[0].boxes_xyxy.shape == (0, 4)


def test_an_mcap_file_alone_can_be_read(tmp_path: Path, frames: list[Frame]) -> None:
    path = write_bag(tmp_path / "walk", frames, compressed=True)
    assert len(read_bag(path / "walk.mcap")) == len(frames)


def test_the_caller_may_choose_the_order_of_the_classes(tmp_path: Path, frames: list[Frame]) -> None:
    path = write_bag(tmp_path / "walk", frames, compressed=True)
    clip = read_bag(path, class_names=("cone", "crate", "ball"))
    assert clip[0].labels.tolist() == [2, 1]
    with pytest.raises(DataError, match="class 'ball', which is not among cone, crate"):
        read_bag(path, class_names=("cone", "crate"))


def test_a_bag_appears_whole_or_not_at_all(tmp_path: Path, frames: list[Frame]) -> None:
    with pytest.raises(RuntimeError, match="stop"), BagWriter(tmp_path / "walk") as bag:
        bag.write_compressed_image(frames[0].image, START_NS)
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bag_is_not_overwritten(tmp_path: Path, frames: list[Frame]) -> None:
    write_bag(tmp_path / "walk", frames, compressed=True)
    with pytest.raises(DataError, match="it exists"):
        BagWriter(tmp_path / "walk")


def test_a_wrong_topic_is_answered_with_those_that_are_there(tmp_path: Path, frames: list[Frame]) -> None:
    path = write_bag(tmp_path / "walk", frames, compressed=True)
    with pytest.raises(DataError, match=r"topic /front .* got .*/camera/image_raw/compressed \(sensor_msgs"):
        read_bag(path, "/front")


def test_two_image_topics_ask_for_a_choice(tmp_path: Path, frames: list[Frame]) -> None:
    with BagWriter(tmp_path / "two") as bag:
        for frame in frames:
            bag.write_image(frame.image, START_NS + frame.stamp_ns)
            bag.write_image(frame.image, START_NS + frame.stamp_ns, topic="/rear/image_raw")
    with pytest.raises(DataError, match=r"got 2 \(/camera/image_raw, /rear/image_raw\); name the one"):
        read_bag(tmp_path / "two")
    assert len(read_bag(tmp_path / "two", "/rear/image_raw")) == len(frames)


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no such file"):
        read_bag(tmp_path / "missing")
    (tmp_path / "notes.mcap").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as a ROS 2 bag"):
        read_bag(tmp_path / "notes.mcap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read as a ROS 2 bag"):
        read_bag(tmp_path / "empty")


def test_a_broken_jpeg_is_named_with_topic_and_stamp(tmp_path: Path, frames: list[Frame]) -> None:
    path = write_bag(tmp_path / "walk", frames[:1], compressed=True)
    file = path / "walk.mcap"
    content = file.read_bytes()
    place = content.index(b"\xff\xd8\xff")
    file.write_bytes(content[:place] + b"\x00\x00\x00" + content[place + 3 :])
    with pytest.raises(DataError, match="/camera/image_raw/compressed at 1000000000 ns: expected a JPEG"):
        read_bag(path)[0]
