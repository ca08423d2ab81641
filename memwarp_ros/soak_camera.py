"""The camera of the soak run: the sample recording at 30 Hz, over and over, with all that a camera can do to a node.

Every image says in its frame_id which one it is and when it was sent, so that each answer tells of which it is and how
old: headers come back untouched. The time of its stamps is on /clock, and goes back as that of a looping bag does.
"""

import sys
import time
from pathlib import Path

import cv2
import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from memwarp_core.data.bags import read_bag
from memwarp_ros.conversions import ns_to_stamp, rgb_to_image

TOPIC = "/camera/image_raw"
RATE_HZ = 30
BROKEN_EVERY = 100
"""Images; one of so many has an encoding that does not exist."""
RESIZED_EVERY = 200
"""Images; then the size changes from one to the other."""
LOOP = 300
"""Images; then the stamps begin again."""
_BEGIN_NS = 1_700_000_000_000_000_000
_LARGER = 1.5


def stamp_ns_of(index: int) -> int:
    """The stamp of an image."""
    return _BEGIN_NS + index % LOOP * 1_000_000_000 // RATE_HZ


def index_and_sent_ns(frame_id: str) -> tuple[int, int]:
    """Which image it was, and when it was sent, by the clock of this machine."""
    index, sent_ns = frame_id.split("@")
    return int(index), int(sent_ns)


class SoakCamera(Node):
    """Sends images until it is told to end."""

    def __init__(self) -> None:
        super().__init__("soak_camera")
        clip = read_bag(Path(get_package_share_directory("memwarp_ros"), "sample"))
        small = [clip[index].image for index in range(len(clip))]
        large = [cv2.resize(image, None, fx=_LARGER, fy=_LARGER) for image in small]
        self._messages = [[rgb_to_image(image, Header()) for image in images] for images in (small, large)]
        self._sent = 0
        self._time = self.create_publisher(Clock, "/clock", 1)
        qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._images = self.create_publisher(Image, TOPIC, qos)
        self.create_timer(1 / RATE_HZ, self._send)

    def _send(self) -> None:
        index = self._sent
        self._sent += 1
        messages = self._messages[index // RESIZED_EVERY % 2]
        message = messages[index % len(messages)]
        message.encoding = "no_such_encoding" if index % BROKEN_EVERY == BROKEN_EVERY - 1 else "rgb8"
        stamp = ns_to_stamp(stamp_ns_of(index))
        self._time.publish(Clock(clock=stamp))
        message.header = Header(stamp=stamp, frame_id=f"{index}@{time.time_ns()}")
        self._images.publish(message)


def main() -> int:
    """Send images until SIGINT or SIGTERM."""
    rclpy.init()
    try:
        rclpy.spin(SoakCamera())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
