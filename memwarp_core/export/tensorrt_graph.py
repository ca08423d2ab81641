"""Exported files run by TensorRT, on an NVIDIA GPU."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memwarp_core.errors import ConfigError, ExportError
from memwarp_core.export.engine_cache import EngineKey, cache_folder, cached_engine
from memwarp_core.export.graph_detector import GraphDetector, Graphs, need_file, read_config, read_precision
from memwarp_core.export.onnx_file import ANTICIPATION_FILE, STEP_FILE, need_packages
from memwarp_core.export.tensorrt_engine import build_engine, need_tensorrt
from memwarp_core.models.config import DetectorConfig

_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}


class TensorrtGraph:
    """See Graph. It runs on a stream of its own, which waits for torch's and for which torch's waits."""

    def __init__(self, engine: bytes, device: torch.device) -> None:
        """
        Raises: ExportError if this TensorRT cannot load the engine on this GPU.
        """
        trt = need_tensorrt()
        self._device = device
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))  # must live as long as the engine
        with torch.cuda.device(device):
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            self._context: Any = None if self._engine is None else self._engine.create_execution_context()
        if self._context is None:
            raise ExportError(f"TensorRT {trt.__version__} cannot load it; its own messages say why")
        self._stream = torch.cuda.Stream(device)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._inputs = [name for name in names if is_input[name]]
        self._outputs = [name for name in names if not is_input[name]]

    def zeros(self) -> dict[str, Tensor]:
        return {name: self._empty(name).zero_() for name in self._inputs}

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors = {name: self._empty(name) for name in self._outputs}
        for name in self._inputs:
            dtype = _DTYPES[self._engine.get_tensor_dtype(name).name]
            tensors[name] = inputs[name].to(self._device, dtype).contiguous()
        for name, tensor in tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.device(self._device):
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError("TensorRT did not run the engine; its own messages say why.")
        current.wait_stream(self._stream)
        return {name: tensors[name] for name in self._outputs}

    def _empty(self, name: str) -> Tensor:
        dtype = _DTYPES[self._engine.get_tensor_dtype(name).name]
        return torch.empty(tuple(self._engine.get_tensor_shape(name)), dtype=dtype, device=self._device)


def load_tensorrt(folder: Path, device: str = "auto", precision: str = "auto") -> GraphDetector:
    """The detector of a folder that `export_onnx` wrote, for a VideoDetector on the GPU; see cached_engine.

    Args:
        device: "auto" (the first GPU) or a GPU as torch calls it, such as "cuda:1".
    Raises:
        ConfigError: TensorRT, a GPU or a file is missing, or the files have another precision.
        ExportError: TensorRT cannot make an engine of a file.
    """
    trt = need_tensorrt()
    need_packages("onnx")
    gpu = _gpu(device)
    metadata = _metadata(folder / STEP_FILE)
    config = read_config(metadata, folder / STEP_FILE)
    precision = read_precision(metadata, precision, folder / STEP_FILE)
    names = (STEP_FILE, ANTICIPATION_FILE)
    graphs = Graphs(*(_graph(folder / name, config, precision, trt.__version__, gpu) for name in names))
    return GraphDetector(config, precision, lambda size: graphs)


def _graph(path: Path, config: DetectorConfig, precision: str, version: str, gpu: torch.device) -> TensorrtGraph:
    need_file(path)
    properties: Any = torch.cuda.get_device_properties(gpu)
    assert config.fixed_size is not None  # export has set it
    key = EngineKey(
        name=f"{config.name}-{path.stem}",
        graph=hashlib.sha256(path.read_bytes()).hexdigest(),
        precision=precision,
        shape="x".join(map(str, (1, 3, *config.fixed_size))),
        tensorrt=version,
        gpu=f"{properties.name} {properties.major}.{properties.minor}",
    )

    def build() -> bytes:
        with torch.cuda.device(gpu):
            return build_engine(path)

    return cached_engine(key, cache_folder(), build, partial(TensorrtGraph, device=gpu))


def _metadata(path: Path) -> dict[str, str]:
    import onnx

    need_file(path)
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf has a class of its own for this in each of its implementations
        raise ConfigError(f"{path}: onnx cannot read it ({error}); run `memwarp export` again.") from error
    return {one.key: one.value for one in model.metadata_props}


def _gpu(device: str) -> torch.device:
    if not torch.cuda.is_available() or not (device == "auto" or device.startswith("cuda")):
        raise ConfigError(
            f"backend tensorrt: expected device auto or a GPU such as cuda:0, and one that torch can use, got {device} "
            f"and {torch.cuda.device_count()} GPUs."
        )
    index = torch.device("cuda" if device == "auto" else device).index
    return torch.device("cuda", torch.cuda.current_device() if index is None else index)
