"""Names and files become detectors that run."""

from pathlib import Path
from typing import Literal, get_args

from memwarp_core.errors import ConfigError
from memwarp_core.models import Detector, load_weights
from memwarp_core.streaming.split_detector import SplitVideoDetector
from memwarp_core.streaming.video_detector import Precision, VideoDetector, choose_device, choose_dtype

Backend = Literal["torch", "cuda_graph", "compiled", "onnx", "tensorrt"]
"""What runs a detector: PyTorch, kernel by kernel, by CUDA graphs, or by what torch.compile makes; or onnxruntime or
TensorRT, what `memwarp export` wrote."""
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
        precision: "auto" is fp16 on a GPU and fp32 on a CPU; with "onnx" and "tensorrt", the exported files' own.
        backend: "cuda_graph" and "compiled" record a step when the first image of a size comes (see
            captured_graph.py), the latter compiling first, for up to minutes. With "onnx" and "tensorrt", name_or_path
            is a folder that `memwarp export` wrote; onnxruntime runs it on the CPU, TensorRT on a GPU, by engines that
            are built when there are none yet (see engine_cache.py).
    Raises:
        ConfigError: an unknown model, device or precision, a file that does not fit, or a package that is missing.
        ExportError: TensorRT cannot make an engine of a file.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend {backend!r}: expected {' or '.join(BACKENDS)}.")
    if backend == "onnx":
        if device not in ("auto", "cpu"):
            raise ConfigError(f"backend onnx: expected device cpu, got {device}.")
        from memwarp_core.export.onnx_graph import load_onnx  # needs packages that most do without

        return VideoDetector(load_onnx(Path(name_or_path), precision), "cpu", "fp32")
    if backend == "tensorrt":
        from memwarp_core.export.tensorrt_graph import load_tensorrt

        return VideoDetector(load_tensorrt(Path(name_or_path), device, precision), device, "fp32")
    return run_detector(load_weights(name_or_path), device, precision, backend)


def run_detector(
    detector: Detector, device: str = "auto", precision: Precision = "auto", backend: Backend = "torch"
) -> VideoDetector:
    """A detector that was built or trained here, ready to run; see load_detector. The backend is one of PyTorch's."""
    if backend in ("cuda_graph", "compiled"):
        from memwarp_core.export.captured_graph import load_captured  # which runs detectors of this package

        chosen = choose_device(device)
        dtype = choose_dtype(precision, chosen)
        captured = load_captured(detector, chosen, dtype, compiled=backend == "compiled")
        return VideoDetector(captured, device, "fp32")
    if backend != "torch":
        raise ConfigError(f"backend {backend!r}: it runs exported files; expected torch, cuda_graph or compiled.")
    kind = SplitVideoDetector if detector.config.split else VideoDetector
    return kind(detector, device, precision)
