"""Names and files become detectors that run."""

from pathlib import Path

from memwarp_core.models import Detector, load_weights
from memwarp_core.streaming.split_detector import SplitVideoDetector
from memwarp_core.streaming.video_detector import Precision, VideoDetector


def load_detector(
    name_or_path: str | Path = "memnet-tiny", device: str = "auto", precision: Precision = "auto"
) -> VideoDetector:
    """A shipped model by name, or one's own by the path of its weights file, ready to run.

    Args:
        name_or_path: one of `available_models()`; a .safetensors file that `save_weights` wrote; or a detector of
            torchvision with a memory, such as "fasterrcnn_resnet50_fpn+memnet" (its published weights are downloaded).
        device: "auto" (the first GPU, else the CPU) or a torch device such as "cpu" or "cuda:1".
        precision: "auto" is fp16 on a GPU and fp32 on a CPU.
    Raises: ConfigError for an unknown model, device or precision, or a file that does not fit.
    """
    return run_detector(load_weights(name_or_path), device, precision)


def run_detector(detector: Detector, device: str = "auto", precision: Precision = "auto") -> VideoDetector:
    """A detector that was built or trained here, ready to run; see load_detector."""
    kind = SplitVideoDetector if detector.config.split else VideoDetector
    return kind(detector, device, precision)
