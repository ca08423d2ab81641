"""What runs live: one detector per process, one state per camera."""

from memwarp_core.streaming.fast_strong_pipeline import Boost, FastStrongPipeline
from memwarp_core.streaming.load import BACKENDS, Backend, load_detector, run_detector
from memwarp_core.streaming.scene_cut import is_cut, layout
from memwarp_core.streaming.self_check import Agreement, HorizonCheck, SelfCheck, SelfCheckConfig, SelfCheckState
from memwarp_core.streaming.split_detector import SplitVideoDetector
from memwarp_core.streaming.strong_worker import WorkerReport
from memwarp_core.streaming.tracker import Tracker, TrackerConfig, Tracks
from memwarp_core.streaming.video_detector import DetectorState, VideoDetector

__all__ = [
    "BACKENDS",
    "Agreement",
    "Backend",
    "Boost",
    "DetectorState",
    "FastStrongPipeline",
    "HorizonCheck",
    "SelfCheck",
    "SelfCheckConfig",
    "SelfCheckState",
    "SplitVideoDetector",
    "Tracker",
    "TrackerConfig",
    "Tracks",
    "VideoDetector",
    "WorkerReport",
    "is_cut",
    "layout",
    "load_detector",
    "run_detector",
]
