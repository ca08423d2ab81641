"""What runs live: one detector per process, one state per camera."""

from memwarp_core.streaming.video_detector import DetectorState, VideoDetector, load_detector

__all__ = ["DetectorState", "VideoDetector", "load_detector"]
