"""What is heard of a node becomes a run on the bag's time; and a bag that is played to a real node, and scored."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rclpy.serialization import serialize_message
from std_msgs.msg import Float64, Header

from memwarp_core import Detections
from memwarp_core.data.bags import BagWriter
from memwarp_core.evaluation.replay.kept import read_results
from memwarp_core.evaluation.replay.replay import ReplayConfig, replay
from memwarp_core.evaluation.replay.running import ANTICIPATED, NOTHING_MOVED
from memwarp_ros.conversions import ns_to_stamp
from memwarp_ros.replay_evaluation import Message, clock_offset, to_run
from memwarp_ros.serialization import serialize_anticipated, serialize_detection_array

MS = 1_000_000
ADDED_NS = 1_700_000_000 * 1000 * MS
"""Live stamps are so much later than the bag's."""
CLASS_NAMES = ("ball", "crate")
STAMPS_NS = [1000 * MS, 1100 * MS, 1200 * MS]


def said(stamp_ns: int, x: float = 10) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor([[x, 10, x + 20, 30]]),
        scores=torch.tensor([0.75]),
        labels=torch.tensor([1]),
        stamp_ns=stamp_ns + ADDED_NS,
    )


def header(stamp_ns: int) -> Header:
    return Header(stamp=ns_to_stamp(stamp_ns + ADDED_NS), frame_id="camera")


def heard_of(
    stamps_ns: list[int], *, taken_after_ms: int = 5, there_after_ms: int = 40, free_after_ms: int = 60
) -> dict[str, list[Message]]:
    """A node that takes each image a little after its stamp."""
    heard: dict[str, list[Message]] = {
        topic: []
        for topic in (
            "detections",
            "detections_now",
            "anticipated",
            "debug/processing_time_ms",
            "debug/pipeline_latency_ms",
        )
    }
    for stamp_ns in stamps_ns:
        begun_ns = stamp_ns + ADDED_NS + taken_after_ms * MS
        there_ns, free_ns = begun_ns + there_after_ms * MS, begun_ns + free_after_ms * MS
        now = said(stamp_ns + 45 * MS, x=14)
        later = [said(stamp_ns + 100 * MS, x=20)]
        heard["detections"].append(
            (there_ns - 10 * MS, serialize_detection_array(said(stamp_ns), CLASS_NAMES, header(stamp_ns)))
        )
        heard["detections_now"].append(
            (there_ns, serialize_detection_array(now, CLASS_NAMES, header(stamp_ns + 45 * MS)))
        )
        heard["anticipated"].append(
            (free_ns - MS, serialize_anticipated(later, CLASS_NAMES, header(stamp_ns), "memnet-tiny", "2.1"))
        )
        for topic, ms in (
            ("debug/processing_time_ms", free_after_ms),
            ("debug/pipeline_latency_ms", taken_after_ms + free_after_ms),
        ):
            heard[topic].append((free_ns, serialize_message(Float64(data=float(ms)))))
    return heard


def run_of(heard: dict[str, list[Message]]):
    return to_run(
        heard, STAMPS_NS, CLASS_NAMES, added_ns=ADDED_NS, to_bag_time=lambda received_ns: received_ns - ADDED_NS
    )


def test_what_was_heard_is_put_back_on_the_time_of_the_bag() -> None:
    found = run_of(heard_of(STAMPS_NS))
    run = found.run
    assert run.stamps_ns == tuple(STAMPS_NS)
    assert run.begun_ns == tuple(stamp_ns + 5 * MS for stamp_ns in STAMPS_NS)
    assert run.available_ns == tuple(stamp_ns + 45 * MS for stamp_ns in STAMPS_NS)
    assert [one.stamp_ns for one in run.now] == [stamp_ns + 45 * MS for stamp_ns in STAMPS_NS]
    assert run.now[0].boxes_xyxy.tolist() == [[14, 10, 34, 30]]
    assert [one.stamp_ns for one in run.anticipated[ANTICIPATED, 0.1]] == [one + 100 * MS for one in STAMPS_NS]
    assert run.anticipated[ANTICIPATED, 0.1][0].boxes_xyxy.tolist() == [[20, 10, 40, 30]]
    assert run.anticipated[NOTHING_MOVED, 0.1][0].boxes_xyxy.tolist() == [[10, 10, 30, 30]]
    assert found.latencies_ns == ((40 * MS, 60 * MS),) * 3
    assert found.model == "memnet-tiny 2.1"


def test_images_of_another_recording_are_left_out() -> None:
    assert run_of(heard_of([0, *STAMPS_NS[1:]])).run.stamps_ns == tuple(STAMPS_NS[1:])


def test_a_lost_message_is_not_replaced_by_that_of_another_image() -> None:
    heard = heard_of(STAMPS_NS)
    for topic in ("detections_now", "anticipated", "debug/processing_time_ms"):
        del heard[topic][1]
    found = run_of(heard)
    assert [one.stamp_ns for one in found.run.now] == [1045 * MS, 1100 * MS, 1245 * MS]
    assert found.run.now[1].boxes_xyxy.equal(found.run.detections[1].boxes_xyxy)
    assert [len(one) for one in found.run.anticipated[ANTICIPATED, 0.1]] == [1, 0, 1]
    assert len(found.latencies_ns) == 2 and found.run.begun_ns[1] == STAMPS_NS[1]


def test_the_clock_of_a_bag_may_run_before_it_is_played_and_lose_ticks() -> None:
    waiting = [(ADDED_NS + ms * MS, ms * MS) for ms in range(0, 1800, 10)]
    # It begins again at 1800 ms; the first half second of it is lost, and some ticks come late.
    playing = [(ADDED_NS + (1800 + ms + ms % 3) * MS, ms * MS) for ms in range(500, 2000, 10)]
    assert clock_offset(waiting + playing) == -ADDED_NS - 1801 * MS
    assert clock_offset(playing[:1]) == -ADDED_NS - 1802 * MS


def write_bag(path: Path, frames: int = 20) -> Path:
    """Grey images with a box that does not move, 10 per second."""
    with BagWriter(path) as bag:
        for index in range(frames):
            stamp_ns = (10 + index) * 100 * MS
            bag.write_compressed_image(np.full((192, 320, 3), 100, np.uint8), stamp_ns)
            bag.write_detections(np.array([[40.0, 40.0, 90.0, 90.0]]), ["crate"], stamp_ns, track_ids=[1])
    return path


BAG_PLAY = f"""#!{sys.executable}
import sys, time
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from pathlib import Path
from memwarp_ros.conversions import ns_to_stamp

rclpy.init()
node = rclpy.create_node("rosbag2_player")
clock = node.create_publisher(Clock, "/clock", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
camera = node.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
while not camera.get_subscription_count():
    time.sleep(0.1)
with AnyReader([Path(sys.argv[-1])]) as reader:
    images = [one for one in reader.connections if one.topic == camera.topic_name]
    now_ns = reader.start_time
    for _, time_ns, message in reader.messages(images):
        while now_ns < time_ns + 10_000_000:
            clock.publish(Clock(clock=ns_to_stamp(now_ns)))
            time.sleep(0.01)
            now_ns += 10_000_000
        camera.publish(bytes(message))
time.sleep(1)
"""
"""Stands for the command ros2: rosbag2's player, whose /clock is best effort."""


def run_evaluation(*arguments: object, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run it; programs are looked for in the folder `path` first."""
    command = [sys.executable, "-m", "memwarp_ros.replay_evaluation", *map(str, arguments)]
    environment = {**os.environ, "PATH": path + os.pathsep + os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)


@pytest.mark.slow
def test_bags_are_played_to_a_real_node_and_scored(tmp_path: Path) -> None:
    for name in ("broken", "one", "two"):
        write_bag(tmp_path / "bags" / name)
    (tmp_path / "bags" / "broken" / "broken.mcap").write_bytes(b"no bag")
    output = tmp_path / "out"
    ended = run_evaluation(tmp_path / "bags", "--output", output, "--model", "rfcn-tiny")
    assert ended.returncode == 1, ended.stdout + ended.stderr  # one bag is broken
    assert (output / "report.json").is_file(), ended.stdout
    report = json.loads((output / "report.json").read_text())
    assert report["config"]["mode"] == "ros" and report["config"]["model"].startswith("rfcn-tiny")
    assert list(report["bags"]) == ["one", "two"] and list(report["failed"]) == ["broken"]
    figures = report["all"]
    assert figures["images"] == figures["instants"] == 40 and figures["processed"] > 2
    assert set(figures["streaming"]) == {"detections", "detections_now"}
    assert figures["horizons"].keys() == {ANTICIPATED, NOTHING_MOVED}
    assert (output / "report.html").is_file()
    for name in ("one", "two"):
        (result,) = read_results(output / "runs" / f"{name}-ros.safetensors")
        run = result.model
        assert set(run.stamps_ns) <= set(result.stamps_ns)
        assert all(begun >= stamp for begun, stamp in zip(run.begun_ns, run.stamps_ns, strict=True))
        assert all(there > begun for there, begun in zip(run.available_ns, run.begun_ns, strict=True))
    # What the node took is what a virtual clock takes.
    config = ReplayConfig(model="rfcn-tiny", baseline=None, latency=str(output / "latency.json"), horizons_s=())
    simulated = replay([tmp_path / "bags" / "one"], config, tmp_path / "simulated")
    assert simulated["all"]["processed"] == pytest.approx(report["bags"]["one"]["processed"], abs=4)


@pytest.mark.slow
def test_ros2_bag_play_may_play_them(tmp_path: Path) -> None:
    player = tmp_path / "bin" / "ros2"
    player.parent.mkdir()
    player.write_text(BAG_PLAY)
    player.chmod(0o755)
    bag, output = write_bag(tmp_path / "walk"), tmp_path / "out"
    # The launch file gives an empty ground truth where none is named.
    arguments = ("--player", "external", "--ground-truth", "", "--model", "rfcn-tiny")
    ended = run_evaluation(bag, "--output", output, *arguments, path=str(player.parent))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (figures,) = json.loads((output / "report.json").read_text())["bags"].values()
    assert figures["images"] == 20 and figures["processed"] > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no-such-model"], "the node ended with exit code 1"),
        (["--topic", "/nowhere"], "no bag could be used"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    ended = run_evaluation(write_bag(tmp_path / "walk", 3), "--output", tmp_path / "out", *arguments)
    assert ended.returncode == 1
    assert message in ended.stdout, ended.stdout + ended.stderr
