"""Names and files become detectors that run."""

from pathlib import Path
from typing import Literal, get_args

from memwarp_core.errors import ConfigError
from memwarp_core.models import Detector, load_weights
from memwarp_core.streaming.split_detector import SplitVideoDetector
from memwarp_core.streaming.video_detector import Precision, VideoDetector

Backend = Literal["torch", "onnx"]
"""What runs a detector: PyTorch, or onnxruntime what `memwarp export` wrote."""
BACKENDS: tuple[str, ...] = get_args(Backend)


def load_detector(
    name_or_path: str | Path = "memnet-tiny",
    device: str = "auto",
    precision: Precision = "auto",
    backend: Backend = "torch",
) -> VideoDetector:
    """A shipped model by name, or one's own by the path of its weights file, ready to run.

    Args:
        name_or_path: one of `available_models()`; a .safetensors file that `save_weights` wrote; or a detector of
            torchvision with a memory, such as "fasterrcnn_resnet50_fpn+memnet" (its published weights are downloaded).
        device: "auto" (the first GPU, else the CPU) or a torch device such as "cpu" or "cuda:1".
        precision: "auto" is fp16 on a GPU and fp32 on a CPU.
        backend: with "onnx", name_or_path is a folder that `memwarp export` wrote; onnxruntime runs it, on the CPU.
    Raises: ConfigError for an unknown model, device or precision, or a file that does not fit.
    """
    if backend == "onnx":
        if device not in ("auto", "cpu") or precision not in ("auto", "fp32"):
            raise ConfigError(f"backend onnx: expected device cpu and precision fp32, got {device} and {precision}.")
        from memwarp_core.export.onnx_graph import load_onnx  # needs packages that most do without

        return VideoDetector(load_onnx(Path(name_or_path)), "cpu", "fp32")
    if backend != "torch":
        raise ConfigError(f"backend {backend!r}: expected {' or '.join(BACKENDS)}.")
    return run_detector(load_weights(name_or_path), device, precision)


def run_detector(detector: Detector, device: str = "auto", precision: Precision = "auto") -> VideoDetector:
    """A detector that was built or trained here, ready to run; see load_detector."""
    kind = SplitVideoDetector if detector.config.split else VideoDetector
    return kind(detector, device, precision)
