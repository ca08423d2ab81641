"""Plays a recording as if it were a live camera: images with the time at which they are published."""

import argparse
import array
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from memwarp_core.data.clips import Clip
from memwarp_core.data.open_clip import frame_rate_of, open_clip
from memwarp_core.errors import MemwarpError
from memwarp_ros import demo_topics
from memwarp_ros.conversions import rgb_to_image

_FRAME_ID = "camera"
_JPEG_QUALITY = 92


class Player(Node):
    """Publishes the frames of a clip at camera rate, once somebody listens to both image topics.

    Reliable publishers suit every subscriber: one that asks for best effort gets just that.
    """

    def __init__(self, clip: Clip, rate_hz: float, frames: int) -> None:
        super().__init__("demo_camera")
        self._clip = clip
        self._frames = frames
        self._period_s = 1 / rate_hz
        qos = QoSProfile(depth=5)
        self._images = self.create_publisher(Image, demo_topics.IMAGE, qos)
        self._compressed = self.create_publisher(CompressedImage, demo_topics.IMAGE_COMPRESSED, QoSProfile(depth=100))
        self._camera_info = self.create_publisher(CameraInfo, demo_topics.CAMERA_INFO, QoSProfile(depth=100))
        self.published: list[dict[str, int]] = []
        """Per frame: its index and stamp in the clip, and the stamp with which it was published."""
        self._timer = self.create_timer(0.02, self._start_when_heard)

    @property
    def is_finished(self) -> bool:
        return len(self.published) == self._frames

    def wait_until_received(self) -> None:
        """Wait, for a few seconds at most, until the reliable subscribers have everything."""
        for publisher in (self._compressed, self._camera_info):
            publisher.wait_for_all_acked(Duration(seconds=5))

    def _start_when_heard(self) -> None:
        publishers = (self._images, self._compressed, self._camera_info)
        if all(publisher.get_subscription_count() > 0 for publisher in publishers):
            self._timer.cancel()
            self._timer = self.create_timer(self._period_s, self._publish_next)

    def _publish_next(self) -> None:
        index = len(self.published)
        frame = self._clip[index]
        image, compressed = rgb_to_image(frame.image, Header()), _to_jpeg(frame.image)
        info = CameraInfo(height=image.height, width=image.width)  # K of zeros: uncalibrated
        now = self.get_clock().now()
        for message in (image, compressed, info):
            message.header = Header(stamp=now.to_msg(), frame_id=_FRAME_ID)
        self._images.publish(image)
        self._compressed.publish(compressed)
        self._camera_info.publish(info)
        stamps = {"index": index, "clip_stamp_ns": frame.stamp_ns, "stamp_ns": now.nanoseconds}
        self.published.append(stamps)
        if self.is_finished:
            self._timer.cancel()


def _to_jpeg(image_rgb: np.ndarray) -> CompressedImage:
    """The message, still without a header, for an image (H, W, 3), uint8, RGB."""
    _, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    compressed = CompressedImage(format="rgb8; jpeg compressed bgr8")
    compressed.data = array.array("B", jpeg.tobytes())
    return compressed


def main() -> int:
    """Play a clip to its end, then print one JSON line with what was published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="bag, video file or folder of images")
    parser.add_argument("--rate", type=float, help="frames per second; the recording's own if not given")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds of the recording")
    arguments = parser.parse_args()
    try:
        clip = open_clip(arguments.source)
        own_rate_hz = frame_rate_of(clip)
        frames = len(clip)
        if arguments.seconds is not None:
            frames = min(frames, max(1, round(arguments.seconds * own_rate_hz)))
    except MemwarpError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    rclpy.init()
    player = Player(clip, arguments.rate or own_rate_hz, frames)
    try:
        while not player.is_finished:
            rclpy.spin_once(player)
        player.wait_until_received()
        print(json.dumps({"event": "played", "published": player.published}), flush=True)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        player.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
