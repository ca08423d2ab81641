"""memwarp_core: video object detection with a feature memory that moves with the scene. No ROS in here.

Names are imported when they are first used: torch takes seconds to load, and `memwarp --help` does not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memwarp_core.errors import ConfigError, DataError, MemwarpError, StaleFrameError

if TYPE_CHECKING:
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

_HOMES = {"DetectorState": "streaming", "VideoDetector": "streaming", "load_detector": "streaming"}
_HOMES |= {"Detections": "types", "Frame": "types"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
