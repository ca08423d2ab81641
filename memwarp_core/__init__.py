"""memwarp_core: video object detection with a feature memory that moves with the scene. No ROS in here."""

from memwarp_core.errors import ConfigError, DataError, MemwarpError, StaleFrameError
from memwarp_core.streaming import DetectorState, VideoDetector, load_detector
from memwarp_core.types import Detections, Frame

__all__ = [
    "ConfigError",
    "DataError",
    "DetectorState",
    "Detections",
    "Frame",
    "MemwarpError",
    "StaleFrameError",
    "VideoDetector",
    "load_detector",
]
