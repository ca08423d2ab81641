"""Records what a detector says, and the images it was shown, into one MCAP file; messages go through as they came."""

import argparse
import json
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from sensor_msgs.msg import CameraInfo, CompressedImage
from vision_msgs.msg import Detection2DArray, LabelInfo

from memwarp_core.data.bags import offered_qos
from memwarp_ros import demo_topics
from memwarp_ros.msg import AnticipatedDetections
from memwarp_ros.parameters import horizon_name
from memwarp_ros.serialization import stamp_of


class Recorder(Node):
    """Writes every message of its topics, with the time at which it was received."""

    def __init__(self, writer: Writer, horizons_s: Sequence[float]) -> None:
        super().__init__("demo_recorder")
        self._writer = writer
        self._types = _known_types()
        self._newest_stamp_ns = {demo_topics.DETECTIONS: 0, demo_topics.ANTICIPATED: 0}
        detector_topics = {
            demo_topics.DETECTIONS: Detection2DArray,
            demo_topics.DETECTIONS_NOW: Detection2DArray,
            demo_topics.ANTICIPATED: AnticipatedDetections,
            demo_topics.LABEL_INFO: LabelInfo,
            demo_topics.DIAGNOSTICS: DiagnosticArray,
        }
        for horizon_s in horizons_s:
            detector_topics[f"{demo_topics.ANTICIPATED}/{horizon_name(horizon_s)}"] = Detection2DArray
        self._from_detector = [self._record(topic, kind) for topic, kind in detector_topics.items()]
        self._record(demo_topics.IMAGE_COMPRESSED, CompressedImage)
        self._record(demo_topics.CAMERA_INFO, CameraInfo)

    @property
    def hears_detector(self) -> bool:
        """All topics of the detector have a publisher that this recorder is connected to."""
        return all(subscription.get_publisher_count() > 0 for subscription in self._from_detector)

    def has_results_of(self, stamp_ns: int) -> bool:
        """Detections and anticipated detections of that image, or of a newer one, were received."""
        return min(self._newest_stamp_ns.values()) >= stamp_ns

    def _record(self, topic: str, kind: Any) -> Any:
        is_latched = kind is LabelInfo
        connection = self._writer.add_connection(
            topic,
            f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}",
            typestore=self._types,
            offered_qos_profiles=[offered_qos(is_latched)],
        )

        def write(message: bytes, info: dict[str, int]) -> None:
            self._writer.write(connection, info["received_timestamp"], message)
            if topic in self._newest_stamp_ns:
                self._newest_stamp_ns[topic] = stamp_of(message)

        durability = DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=200, durability=durability)
        return self.create_subscription(kind, topic, write, qos, raw=True)


def _known_types() -> Typestore:
    """Definitions for the file: rosbags' own of the common types, and the installed ones of the others."""
    types = get_typestore(Stores.ROS2_JAZZY)
    for package in ("vision_msgs", "memwarp_ros"):
        definitions: dict[str, Any] = {}
        for file in Path(get_package_share_directory(package), "msg").glob("*.msg"):
            definitions |= get_types_from_msg(file.read_text(), f"{package}/msg/{file.stem}")
        types.register(definitions)
    return types


class _Orders:
    """What the process that started this one says, a line at a time: the stamp of the last image.

    When that process ends, however it does, the pipe ends, and the recording with it.
    """

    def __init__(self) -> None:
        self.last_stamp_ns: int | None = None
        self.is_abandoned = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.last_stamp_ns = int(line)
        self.is_abandoned = self.last_stamp_ns is None


def record(output: Path, horizons_s: Sequence[float]) -> int:
    """Record until the results of the last image are there; print a JSON line when the detector is connected."""
    orders = _Orders()
    folder = output.with_name(f".{output.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            recorder = Recorder(writer, horizons_s)
            spin_until(recorder, lambda: recorder.hears_detector or orders.is_abandoned)
            print(json.dumps({"event": "connected"}), flush=True)
            spin_until(
                recorder,
                lambda: (
                    orders.is_abandoned
                    or (orders.last_stamp_ns is not None and recorder.has_results_of(orders.last_stamp_ns))
                ),
            )
            recorder.destroy_node()
        if orders.is_abandoned:
            return 1
        # rosbag2 keeps a folder with a metadata.yaml; one file with everything is easier to hand on.
        next(folder.glob("*.mcap")).replace(output)
        print(json.dumps({"event": "recorded"}), flush=True)
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def spin_until(node: Node, is_done: Callable[[], bool]) -> None:
    while not is_done():
        rclpy.spin_once(node, timeout_sec=0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the .mcap file")
    parser.add_argument("--horizon", type=float, action="append", default=[], help="seconds; repeat for several")
    arguments = parser.parse_args()
    rclpy.init()
    try:
        return record(arguments.output, arguments.horizon)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
