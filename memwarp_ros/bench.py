"""What the node costs beside its model: to take an image, to make an array of it, to publish detections.

    memwarp bench ros [--frames N] [--size 1280x720] [--output FILE.json]     # which runs python -m memwarp_ros.bench

A camera sends 30 images per second, first raw and then as JPEG, to one process after the other: `memwarp` does with
them what detector_node does, `plain` what a straightforward rclpy node does. Neither has a model; both publish the same
detections to one subscriber.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
import torch
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from memwarp_core import Detections
from memwarp_core.big_buffers import keep_big_buffers
from memwarp_ros.conversions import image_to_rgb, ns_to_stamp, rgb_to_image, stamp_to_ns, to_detection_array
from memwarp_ros.local_domain import local_domain
from memwarp_ros.message_info import with_message_info
from memwarp_ros.serialization import serialize_detection_array

SIZES = ("640x480", "1280x720", "1920x1080")
COUNTS = (10, 100, 300)
WAYS = ("memwarp", "plain")
TOPICS = {"raw": (Image, "bench/image"), "compressed": (CompressedImage, "bench/image/compressed")}
"""By transport."""
_RATE_HZ = 30.0
_WARM_UP = 30
"""Images, and messages of detections, that are not counted."""
_PUBLISHED = 200
"""Messages per count of detections."""
_PER_IMAGE = 10
"""Detections that answer an image."""
_IMAGE_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
_CLASS_NAMES = ("ball", "crate", "barrel")
_PATIENCE_S = 60.0


class Receiver(Node):
    """Answers images with detections and notes what that took."""

    def __init__(self, way: str) -> None:
        super().__init__("bench_receiver")
        self._is_plain = way == "plain"
        self._publisher = self.create_publisher(Detection2DArray, "bench/detections", 10)
        self._answer = _detections(_PER_IMAGE)
        self._latencies_ns: list[int] = []
        self._callbacks_ns: list[int] = []

    def publish(self, detections: Detections, header: Header) -> None:
        if self._is_plain:
            self._publisher.publish(to_detection_array(detections, _CLASS_NAMES, header))
        else:
            self._publisher.publish(serialize_detection_array(detections, _CLASS_NAMES, header))

    def wait_for_subscriber(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._publisher.get_subscription_count() and time.monotonic() < deadline:
            rclpy.spin_once(self, timeout_sec=0.1)

    def measure(self, transport: str, frames: int) -> dict[str, Any]:
        """Answer so many images; returns what an answer takes, in milliseconds.

        "latency_ms" is from the instant at which the camera's middleware began to send the image (with rclpy of Humble,
        at which the camera did), to the end of the callback that answers it; "callback_ms" is that callback, without
        what the middleware and rclpy do before; "cpu_ms" is the whole process.
        """
        on_image = self._on_compressed_image if transport == "compressed" else self._on_image
        subscription = self.create_subscription(*TOPICS[transport], with_message_info(on_image), _IMAGE_QOS)
        self._latencies_ns.clear()
        self._callbacks_ns.clear()
        self._receive(_WARM_UP)
        began_s, counted_from = time.process_time(), len(self._latencies_ns)
        self._receive(counted_from + frames)
        cpu_ms = (time.process_time() - began_s) * 1000 / (len(self._latencies_ns) - counted_from)
        self.destroy_subscription(subscription)
        return {
            "latency_ms": _percentiles(self._latencies_ns[counted_from:]),
            "callback_ms": _percentiles(self._callbacks_ns[counted_from:]),
            "cpu_ms": cpu_ms,
        }

    def _receive(self, count: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while len(self._latencies_ns) < count:
            known = len(self._latencies_ns)
            rclpy.spin_once(self, timeout_sec=1.0)
            if len(self._latencies_ns) > known:
                deadline = time.monotonic() + _PATIENCE_S
            elif time.monotonic() > deadline:  # the camera has gone
                raise TimeoutError(f"expected images, got none for {_PATIENCE_S:.0f} s; was the camera ended?")

    def _on_image(self, message: Image, info: dict[str, int]) -> None:
        began_ns = time.perf_counter_ns()
        if self._is_plain:  # as imgmsg_to_cv2(message, "rgb8") of cv_bridge does it
            bgr = np.ndarray((message.height, message.width, 3), np.uint8, message.data, strides=(message.step, 3, 1))
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        else:
            image_to_rgb(message)
        self._respond(message.header, info, began_ns)

    def _on_compressed_image(self, message: CompressedImage, info: dict[str, int]) -> None:
        began_ns = time.perf_counter_ns()
        if self._is_plain:  # as compressed_imgmsg_to_cv2(message, "rgb8") does it
            bgr = cv2.imdecode(np.ndarray((1, len(message.data)), np.uint8, message.data), cv2.IMREAD_COLOR)
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        else:
            image_to_rgb(message)
        self._respond(message.header, info, began_ns)

    def _respond(self, header: Header, info: dict[str, int], began_ns: int) -> None:
        self.publish(self._answer, header)
        self._callbacks_ns.append(time.perf_counter_ns() - began_ns)
        self._latencies_ns.append(time.time_ns() - info.get("source_timestamp", stamp_to_ns(header.stamp)))


def receive(way: str, frames: int) -> dict[str, Any]:
    """Be one of the receivers until so many images of each transport were counted; runs in a process of its own.

    Returns: what Receiver.measure() says, by transport, and the time to publish some counts of detections, in ms.
    """
    if way == "memwarp":
        keep_big_buffers()
    rclpy.init()
    receiver = Receiver(way)
    receiver.wait_for_subscriber()
    result: dict[str, Any] = {transport: receiver.measure(transport, frames) for transport in TOPICS}
    result["publish_ms"] = {str(count): _percentiles(_publishing_ns(receiver, _detections(count))) for count in COUNTS}
    receiver.destroy_node()
    rclpy.shutdown()
    return result


def measure(way: str, size: str, frames: int) -> dict[str, Any]:
    """Be the camera of one receiver, and the subscriber of its detections; returns what it says."""
    width, height = map(int, size.split("x"))
    image = _picture(width, height)
    raw = rgb_to_image(image, Header(frame_id="camera"))
    raw.encoding = "bgr8"  # as cameras send it; the colours do not matter
    _, jpeg = cv2.imencode(".jpg", image)
    compressed = CompressedImage(
        header=raw.header, format="bgr8; jpeg compressed bgr8", data=array("B", jpeg.tobytes())
    )
    node = rclpy.create_node("bench_camera")
    publishers = [node.create_publisher(*TOPICS[transport], _IMAGE_QOS) for transport in ("raw", "compressed")]
    node.create_subscription(Detection2DArray, "bench/detections", lambda _: None, 10, raw=True)

    def send() -> None:
        for publisher, message in zip(publishers, (raw, compressed), strict=True):
            if publisher.get_subscription_count():
                message.header.stamp = ns_to_stamp(time.time_ns())
                publisher.publish(message)

    node.create_timer(1 / _RATE_HZ, send)
    command = [sys.executable, "-m", "memwarp_ros.bench", "--receive", way, "--frames", str(frames)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        while receiver.poll() is None:
            rclpy.spin_once(node, timeout_sec=0.1)
        output = receiver.stdout.read() if receiver.stdout else ""
    node.destroy_node()
    if receiver.returncode:
        raise RuntimeError(f"the receiver must end with status 0, got {receiver.returncode}; its error is above.")
    return json.loads(output)


def _picture(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: blots with some noise, to be compressed about as well as what a camera sees."""
    generator = np.random.default_rng(0)
    blots = cv2.resize(generator.integers(0, 256, (height // 32, width // 32, 3), np.uint8), (width, height))
    return cv2.add(blots, generator.integers(0, 12, (height, width, 3), np.uint8))


def _publishing_ns(receiver: Receiver, detections: Detections) -> list[int]:
    took_ns = []
    for index in range(_WARM_UP + _PUBLISHED):
        header = Header(frame_id="camera")
        began_ns = time.perf_counter_ns()
        receiver.publish(detections, header)
        if index >= _WARM_UP:
            took_ns.append(time.perf_counter_ns() - began_ns)
    return took_ns


def _detections(count: int) -> Detections:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=generator) * 400
    return Detections(
        boxes_xyxy=torch.cat([corners, corners + 80], dim=1),
        scores=torch.linspace(1, 0, count),
        labels=torch.arange(count) % len(_CLASS_NAMES),
        stamp_ns=0,
    )


def _percentiles(times_ns: list[int]) -> dict[str, float]:
    return {"p50": float(np.percentile(times_ns, 50)) / 1e6, "p95": float(np.percentile(times_ns, 95)) / 1e6}


def _show(results: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table("", *WAYS, "ratio", title="per image, and per message of detections, in ms")

    def row(name: str, values: list[float]) -> None:
        table.add_row(name, *(f"{value:.2f}" for value in values), f"{values[0] / values[1]:.2f}")

    for size, by_way in results.items():
        for transport in TOPICS:
            measured = [by_way[way][transport] for way in WAYS]
            for percentile in ("p50", "p95"):
                row(f"{size} {transport}: latency {percentile}", [of["latency_ms"][percentile] for of in measured])
            row(f"{size} {transport}: callback p50", [of["callback_ms"]["p50"] for of in measured])
            row(f"{size} {transport}: CPU", [of["cpu_ms"] for of in measured])
    last = results[list(results)[-1]]
    for count in COUNTS:
        row(f"publish {count}, p50", [last[way]["publish_ms"][str(count)]["p50"] for way in WAYS])
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="memwarp_ros.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300, help="images that are counted, per size, transport and way")
    parser.add_argument("--size", action="append", help="WIDTHxHEIGHT of the images; repeat it for several")
    parser.add_argument("--output", type=Path, help="JSON file with all figures")
    parser.add_argument("--receive", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        print(json.dumps(receive(arguments.receive, arguments.frames)))
        return 0
    os.environ.update(local_domain())
    rclpy.init()
    results = {size: {way: measure(way, size, arguments.frames) for way in WAYS} for size in arguments.size or SIZES}
    rclpy.shutdown()
    _show(results, Console())
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
