"""What runs live: one detector per process, one state per camera."""

from memwarp_core.streaming.load import load_detector, run_detector
from memwarp_core.streaming.split_detector import SplitVideoDetector
from memwarp_core.streaming.video_detector import DetectorState, VideoDetector

__all__ = ["DetectorState", "SplitVideoDetector", "VideoDetector", "load_detector", "run_detector"]
