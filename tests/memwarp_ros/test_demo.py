"""The demo's parts: watching processes, the numbers it reports, and one short real run over DDS."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ament_index_python.packages import get_package_share_directory
from mcap.reader import make_reader
from pytest import approx
from rosbags.highlevel import AnyReader

from memwarp_core.data.video import VideoClip, VideoWriter
from memwarp_core.types import Detections, Frame
from memwarp_ros.demo import DemoError, Processes
from memwarp_ros.demo_report import Published, Recording, summarize

FRAME_NS = 50_000_000


def child(*lines: str) -> list[str]:
    """A command that runs these lines of Python."""
    return [sys.executable, "-c", "\n".join(lines)]


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(os.environ, tmp_path / "logs")


def test_reports_of_a_child_are_received_and_other_output_is_kept(processes: Processes, tmp_path: Path) -> None:
    with processes:
        processes.start("singer", child("print('la la')", 'print(\'{"event": "sung", "songs": 2}\')'))
        assert processes.wait_for("singer", "sung", 30) == {"event": "sung", "songs": 2}
    # The block may end the child before it ends by itself, and then it says that, too.
    assert "la la\n" in (tmp_path / "logs" / "singer.log").read_text()


def test_a_child_that_fails_is_named_with_its_last_output(processes: Processes) -> None:
    with processes:
        processes.start("patient", child("input()"))
        processes.start("node", child("import sys", "print('no weights', file=sys.stderr)", "sys.exit(3)"))
        with pytest.raises(DemoError, match=r"(?s)the node ended with exit code 3.*no weights"):
            processes.wait_for("patient", "done", 30)


def test_a_child_that_leaves_without_its_report_is_an_error(processes: Processes) -> None:
    with processes:
        processes.start("player", child("pass"))
        with pytest.raises(DemoError, match="the player ended with exit code 0"):
            processes.wait_for("player", "played", 30)


def test_waiting_ends(processes: Processes) -> None:
    with processes:
        processes.start("sleeper", child("input()"))
        with pytest.raises(DemoError, match="did not report 'awake' within"):
            processes.wait_for("sleeper", "awake", 0.2)


def test_children_end_with_the_block_even_when_they_do_not_want_to(processes: Processes, monkeypatch) -> None:
    monkeypatch.setattr("memwarp_ros.demo.PATIENCE_S", 0.2)
    stubborn = child(
        "import signal",
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)",
        'print(\'{"event": "ready"}\', flush=True)',
        "while True: signal.pause()",
    )
    with pytest.raises(KeyboardInterrupt), processes:
        processes.start("stubborn", stubborn)
        processes.wait_for("stubborn", "ready", 30)
        raise KeyboardInterrupt
    assert processes.exit_code("stubborn") == -signal.SIGKILL


class Balls:
    """A clip of a ball that moves by ten pixels per frame, with ground truth."""

    name = "balls"
    class_names = ("ball",)

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Frame:
        return Frame(
            image=np.zeros((64, 320, 3), np.uint8),
            stamp_ns=index * FRAME_NS,
            boxes_xyxy=np.array([box_at(index)], np.float32),
            labels=np.array([0]),
            track_ids=np.array([1]),
        )


def box_at(index: int) -> list[float]:
    return [10.0 * index, 10.0, 10.0 * index + 30.0, 50.0]


def said(index: int, stamp_ns: int) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor([box_at(index)]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([1]),  # the detector's second class is the clip's first
        stamp_ns=stamp_ns,
    )


def test_summary_counts_drops_and_scores_every_horizon_at_its_time() -> None:
    start_ns = 1_700_000_000_000_000_000
    published = [
        Published(index=index, clip_stamp_ns=index * FRAME_NS, stamp_ns=start_ns + index * FRAME_NS)
        for index in range(20)
    ]
    recording = Recording(class_names=("crate", "ball"), model="oracle 1", score_threshold=0.5, horizons_s=(0.1,))
    for one in published[::2]:  # every other frame is dropped
        recording.detections[one.stamp_ns] = said(one.index, one.stamp_ns)
        recording.anticipated[one.stamp_ns] = [said(one.index + 2, one.stamp_ns + 100_000_000)]
        recording.received_ns[one.stamp_ns] = one.stamp_ns + 30_000_000
    summary = summarize(recording, Balls(), published, 20.0)
    assert summary["frames"] == {"published": 20, "processed": 10, "dropped": 10}
    assert summary["latency_ms"] == {"p50": 30.0, "p95": 30.0, "p99": 30.0}
    assert summary["map50"] == approx(1.0)
    (later,) = summary["anticipated"]
    assert later["horizon_s"] == 0.1
    assert later["map50"] == approx(1.0)
    assert later["map50_nothing_moved"] == 0.0


def test_demo_with_no_recording_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "memwarp_ros.demo", "--video", str(tmp_path / "none.mp4"), "--output"]
    result = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "none.mp4: no such file or folder" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.slow
def test_demo_tells_why_the_node_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "memwarp_ros.demo", "--model", "nonsense", "--output", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 1
    assert "the node ended with exit code 1" in result.stdout
    assert "neither a file nor a model that ships with memwarp" in result.stdout
    assert not (tmp_path / "demo" / "detections.mcap").exists()


@pytest.mark.slow
def test_short_demo_over_dds_leaves_its_files(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    command = [sys.executable, "-m", "memwarp_ros.demo", "--seconds", "3", "--output", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    logs = "\n".join(log.read_text() for log in output.glob("logs/*.log"))
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{logs}"
    files = {file.name for file in output.iterdir()}
    assert files == {"detections.mcap", "overlay.mp4", "overview.png", "summary.json", "logs"}

    summary = json.loads((output / "summary.json").read_text())
    frames = summary["frames"]
    assert frames["published"] == 60 and 0 < frames["processed"] <= 60
    assert frames["dropped"] == frames["published"] - frames["processed"]
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"] <= summary["latency_ms"]["p99"]
    assert summary["score_threshold"] == 0.1
    assert 0 <= summary["map50"] <= 1
    assert [one["horizon_s"] for one in summary["anticipated"]] == [0.05, 0.1, 0.2]
    for one in summary["anticipated"]:
        assert 0 <= one["map50"] <= 1 and 0 <= one["map50_nothing_moved"] <= 1
    assert len(VideoClip(output / "overlay.mp4")) == 60

    with (output / "detections.mcap").open("rb") as file:
        recorded = make_reader(file).get_summary()
    assert recorded is not None and recorded.statistics is not None
    types = {channel.topic: recorded.schemas[channel.schema_id].name for channel in recorded.channels.values()}
    counts = recorded.statistics.channel_message_counts
    assert types == {
        "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
        "/detector/detections": "vision_msgs/msg/Detection2DArray",
        "/detector/detections_now": "vision_msgs/msg/Detection2DArray",
        "/detector/anticipated": "memwarp_ros/msg/AnticipatedDetections",
        "/detector/anticipated/h100ms": "vision_msgs/msg/Detection2DArray",
        "/detector/anticipated/h200ms": "vision_msgs/msg/Detection2DArray",
        "/detector/anticipated/h50ms": "vision_msgs/msg/Detection2DArray",
        "/detector/label_info": "vision_msgs/msg/LabelInfo",
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    }
    by_topic = {channel.topic: counts[channel.id] for channel in recorded.channels.values()}
    assert by_topic["/detector/label_info"] == 1
    assert by_topic["/camera/image_raw/compressed"] == by_topic["/camera/camera_info"] == 60
    for topic in types:
        if topic.startswith(("/detector/detections", "/detector/anticipated")):
            # The node may answer the first image before it knows of every subscription of the recorder.
            assert frames["processed"] - 1 <= by_topic[topic] <= frames["processed"]

    with AnyReader([output / "detections.mcap"]) as reader:
        connections = [c for c in reader.connections if c.topic == "/detector/anticipated"]
        for connection, _, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection.msgtype)
            source_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            for one in message.horizons:
                target_ns = one.target_stamp.sec * 10**9 + one.target_stamp.nanosec
                assert target_ns - source_ns == one.horizon.sec * 10**9 + one.horizon.nanosec


@pytest.mark.slow
def test_demo_with_a_video_has_no_map(tmp_path: Path) -> None:
    video = tmp_path / "tiny.mp4"
    with VideoWriter(video, 10) as writer:
        for index in range(10):
            writer.write(np.full((120, 160, 3), 10 * index, np.uint8))
    output = tmp_path / "demo"
    command = [sys.executable, "-m", "memwarp_ros.demo", "--video", str(video), "--output", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames"]["published"] == 10 and summary["map50"] is None
    assert summary["anticipated"][0]["map50"] is None
    assert (output / "overview.png").stat().st_size > 0


def test_sample_is_small_and_installed() -> None:
    files = list(Path(get_package_share_directory("memwarp_ros"), "sample").rglob("*"))
    assert any(file.suffix == ".mcap" for file in files)
    assert sum(file.stat().st_size for file in files if file.is_file()) < 5_000_000
