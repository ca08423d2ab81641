#!/usr/bin/env python3
"""Follow an object with a pan-tilt head or a mobile base: the consumer of detector_node that a robot can start from.

    python3 examples/follow_object.py --ros-args -p class_name:=rover -p source:=anticipated

It takes the largest, and so most likely the nearest, object of a class; where ids are published (tracking: true at the
detector), it stays with one object as long as that is there. Where the object is at the instant of a command comes from
one of three sources:

    detections       where it was in the newest image: the command is late by all that detecting took
    detections_now   where it is expected to have been when the detector published: late by what has passed since
    anticipated      where it is expected at this very instant, between the two horizons around it

Topics:  in   detector/<source>, camera_info (without it, the image's size and field of view are parameters)
         out  pan_tilt (sensor_msgs/JointState, radians from the optical axis: pan to the left, tilt up)
              cmd_vel (geometry_msgs/Twist, turns towards the object), with velocity_gain above 0
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, radians, tan
from typing import Any

MIN_SCORE = 0.5
"""A robot should not turn to what is more likely not there, whatever the detector publishes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """An object in the image at an instant."""

    stamp_ns: int
    x: float
    """Of its centre, pixels to the right."""
    y: float
    """Of its centre, pixels down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """A pinhole camera, lengths in pixels."""

    focal: float
    centre_x: float
    centre_y: float

    @classmethod
    def from_field_of_view(cls, width: int, height: int, horizontal_deg: float) -> "Camera":
        focal = width / 2 / tan(radians(horizontal_deg) / 2)
        return cls(focal=focal, centre_x=width / 2, centre_y=height / 2)

    def pan_tilt(self, sight: Sight) -> tuple[float, float]:
        """Radians from the optical axis to an object: to the left, and up."""
        to_left, up = self.centre_x - sight.x, self.centre_y - sight.y
        return atan2(to_left, self.focal), atan2(up, (self.focal**2 + to_left**2) ** 0.5)


def choose(detections: Sequence[Any], class_name: str, track_id: str = "") -> Any | None:
    """The vision_msgs/Detection2D to follow: of its class the one with that id, or without one the largest, or None."""
    candidates = [
        one
        for one in detections
        if one.results
        and one.results[0].hypothesis.class_id == class_name
        and one.results[0].hypothesis.score >= MIN_SCORE
        and track_id in ("", one.id)
    ]
    return max(candidates, key=lambda one: one.bbox.size_x * one.bbox.size_y, default=None)


def sights_of(arrays: Sequence[Any], class_name: str, track_id: str = "") -> tuple[list[Sight], str]:
    """The chosen object in each vision_msgs/Detection2DArray that has it, and its id; arrays are oldest first."""
    sights = []
    for array in arrays:
        chosen = choose(array.detections, class_name, track_id)
        if chosen is not None:
            track_id = chosen.id
            centre = chosen.bbox.center.position
            stamp_ns = array.header.stamp.sec * 1_000_000_000 + array.header.stamp.nanosec
            sights.append(Sight(stamp_ns=stamp_ns, x=centre.x, y=centre.y))
    return sights, track_id


def sight_at(sights: Sequence[Sight], now_ns: int) -> Sight:
    """Between the two sights around an instant; before the first and after the last, that one.

    Args:
        sights: at least one, oldest first.
    """
    for before, after in zip(sights, sights[1:], strict=False):
        if before.stamp_ns <= now_ns < after.stamp_ns:
            share = (now_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
            x, y = before.x + share * (after.x - before.x), before.y + share * (after.y - before.y)
            return Sight(stamp_ns=now_ns, x=x, y=y)
    return sights[0] if now_ns < sights[0].stamp_ns else sights[-1]


def main() -> int:
    import rclpy  # the functions above are used without ROS as well
    from geometry_msgs.msg import Twist
    from rclpy.executors import ExternalShutdownException
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, JointState
    from vision_msgs.msg import Detection2DArray

    from memwarp_ros.msg import AnticipatedDetections

    class Follower(Node):
        """Points at the object at a fixed rate, between messages as well; silent while it is lost."""

        def __init__(self) -> None:
            super().__init__("follow_object")
            read = {
                name: self.declare_parameter(name, default).value
                for name, default in {
                    "class_name": "rover",
                    "source": "anticipated",
                    "rate_hz": 50.0,
                    "lost_after_s": 0.5,
                    "velocity_gain": 0.0,
                    "image_width": 320,
                    "image_height": 192,
                    "horizontal_fov_deg": 65.0,
                }.items()
            }
            self._class_name, self._source = read["class_name"], read["source"]
            if self._source not in ("detections", "detections_now", "anticipated"):
                raise ValueError(f"source must be detections, detections_now or anticipated, got {self._source!r}.")
            self._lost_after_ns = round(read["lost_after_s"] * 1e9)
            self._velocity_gain = read["velocity_gain"]
            self._camera = Camera.from_field_of_view(
                read["image_width"], read["image_height"], read["horizontal_fov_deg"]
            )
            self._sights: list[Sight] = []
            self._track_id = ""
            kind = AnticipatedDetections if self._source == "anticipated" else Detection2DArray
            self.create_subscription(kind, f"detector/{self._source}", self._on_detections, 10)
            self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, qos_profile_sensor_data)
            self._pan_tilt = self.create_publisher(JointState, "pan_tilt", 10)
            self._cmd_vel = self.create_publisher(Twist, "cmd_vel", 10)
            self.create_timer(1 / read["rate_hz"], self._point)

        def _on_detections(self, message: Any) -> None:
            arrays = [message]
            if self._source == "anticipated":
                arrays = [at_horizon.detections for at_horizon in message.horizons]
            sights, track_id = sights_of(arrays, self._class_name, self._track_id)
            if sights:
                self._sights, self._track_id = sights, track_id

        def _on_camera_info(self, message: CameraInfo) -> None:
            if message.k[0] > 0:  # uncalibrated cameras say 0
                self._camera = Camera(focal=message.k[0], centre_x=message.k[2], centre_y=message.k[5])

        def _point(self) -> None:
            now = self.get_clock().now()
            if not self._sights or now.nanoseconds - self._sights[-1].stamp_ns > self._lost_after_ns:
                self._track_id = ""
                return
            pan, tilt = self._camera.pan_tilt(sight_at(self._sights, now.nanoseconds))
            command = JointState(name=["pan", "tilt"], position=[pan, tilt])
            command.header.stamp = now.to_msg()
            self._pan_tilt.publish(command)
            if self._velocity_gain > 0:
                turn = Twist()
                turn.angular.z = self._velocity_gain * pan
                self._cmd_vel.publish(turn)

    rclpy.init()
    try:
        rclpy.spin(Follower())
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
