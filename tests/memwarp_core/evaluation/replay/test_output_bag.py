from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from memwarp_core.data.bags import read_bag, read_truths
from memwarp_core.evaluation.replay.replay import ReplayConfig, replay

pytestmark = pytest.mark.usefixtures("detector", "no_page")
START_NS, INTERVAL_NS = 1_000_000_000, 100_000_000
CLASS_NAMES = ("ball", "crate")
CONFIG = ReplayConfig(latency="150ms", horizons_s=(0.1, 0.3))


@pytest.fixture
def bag(tmp_path: Path, write_bag: Callable[..., Path]) -> Path:
    return write_bag(tmp_path / "walk", 6)


def saved(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "out" / "bags").iterdir()
    return path


def test_what_the_node_would_have_published_is_there_at_its_time(tmp_path: Path, bag: Path) -> None:
    replay([bag], CONFIG, tmp_path / "out", save="outputs")
    (file,) = saved(tmp_path).glob("*.mcap")
    with file.open("rb") as stream:
        logged = [(channel.topic, message.log_time) for _, channel, message in make_reader(stream).iter_messages()]
    of_image = {"detections", "detections_now", "anticipated", "anticipated/h100ms", "anticipated/h300ms"}
    # Images 0, 1, 3, 4 and 5, each 150 ms after the detector was free.
    expected = [START_NS + ms * 1_000_000 for ms in (150, 300, 450, 600, 750)]
    assert [time for topic, time in logged if topic == "/detector/detections_now"] == expected
    assert {topic for topic, _ in logged} == {f"/detector/{name}" for name in of_image} | {"/detector/label_info"}
    assert logged == sorted(logged, key=lambda entry: entry[1])


def test_stamps_are_the_instants_at_which_boxes_hold(tmp_path: Path, bag: Path) -> None:
    replay([bag], CONFIG, tmp_path / "out", save="outputs")
    stamps_ms = {}
    for name in ("detections", "detections_now", "anticipated/h300ms"):
        truths = read_truths(saved(tmp_path), f"/detector/{name}", CLASS_NAMES)
        assert truths is not None and all(len(truth.labels) == 1 for truth in truths)
        stamps_ms[name] = [(truth.stamp_ns - START_NS) // 1_000_000 for truth in truths]
    assert stamps_ms["detections"] == [0, 100, 300, 400, 500]
    assert stamps_ms["detections_now"] == [150, 300, 450, 600, 750]
    assert stamps_ms["anticipated/h300ms"] == [300, 400, 600, 700, 800]


def test_every_horizon_is_in_one_message(tmp_path: Path, bag: Path) -> None:
    replay([bag], CONFIG, tmp_path / "out", save="outputs")
    with AnyReader([saved(tmp_path)]) as reader:
        connections = [one for one in reader.connections if one.topic == "/detector/anticipated"]
        assert connections[0].msgtype == "memwarp_ros/msg/AnticipatedDetections"
        first = reader.deserialize(next(reader.messages(connections))[2], connections[0].msgtype)
    assert [(one.horizon.sec, one.horizon.nanosec) for one in first.horizons] == [(0, 100_000_000), (0, 300_000_000)]
    assert first.header.frame_id == first.horizons[0].detections.header.frame_id == "camera"


def test_all_has_the_images_beside_them(tmp_path: Path, bag: Path) -> None:
    replay([bag], CONFIG, tmp_path / "out", save="all")
    clip = read_bag(saved(tmp_path), ground_truth_topic="/detector/detections")
    assert len(clip) == 6 and clip[2].image.mean() == 2
    clip.close()
    with AnyReader([saved(tmp_path)]) as reader:
        counts = Counter(connection.topic for connection, _, _ in reader.messages())
    assert counts["/camera/image_raw"] == counts["/ground_truth"] == 6 and counts["/detector/detections"] == 5


def test_topics_of_several_cameras_have_their_names(tmp_path: Path, write_bag: Callable[..., Path]) -> None:
    topics = ("/front/image_raw", "/rear/image_raw")
    bag = write_bag(tmp_path / "walk", 4, topics=topics)
    replay([bag], ReplayConfig(topics=topics, latency="50ms", horizons_s=()), tmp_path / "out", save="outputs")
    with AnyReader([saved(tmp_path)]) as reader:
        there = {one.topic for one in reader.connections}
        (labels,) = [one for one in reader.connections if "label_info" in one.topic and "detector" in one.topic]
        ((_, _, message),) = reader.messages([labels])
        threshold = reader.deserialize(message, labels.msgtype).threshold
    assert {"/detector/front/detections", "/detector/rear/detections_now"} <= there
    assert (labels.topic, threshold) == ("/detector/label_info", 0.5)
