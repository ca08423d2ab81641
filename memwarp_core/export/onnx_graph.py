"""Exported files run by onnxruntime, on the CPU."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memwarp_core.errors import ConfigError
from memwarp_core.export.graph_detector import GraphDetector, Graphs, need_file, read_config, read_precision
from memwarp_core.export.onnx_file import ANTICIPATION_FILE, STEP_FILE, need_packages

_DTYPES = {"tensor(int64)": torch.int64, "tensor(float)": torch.float32}


class OnnxGraph:
    """See Graph."""

    def __init__(self, path: Path) -> None:
        self.session = _session(path)

    def zeros(self) -> dict[str, Tensor]:
        return {one.name: torch.zeros(one.shape, dtype=_DTYPES[one.type]) for one in self.session.get_inputs()}

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
        names = [one.name for one in self.session.get_outputs()]
        outputs = self.session.run(names, arrays)
        return {name: torch.from_numpy(value) for name, value in zip(names, outputs, strict=True)}


def load_onnx(folder: Path, precision: str = "auto") -> GraphDetector:
    """The detector of a folder that `export_onnx` wrote, for a VideoDetector on the CPU.

    Raises: ConfigError if there are no such files in it, or of another precision, or onnxruntime is missing.
    """
    need_packages("onnxruntime")
    step, anticipation = OnnxGraph(folder / STEP_FILE), OnnxGraph(folder / ANTICIPATION_FILE)
    metadata = step.session.get_modelmeta().custom_metadata_map
    precision = read_precision(metadata, precision, folder / STEP_FILE)
    graphs = Graphs(step, anticipation)
    return GraphDetector(read_config(metadata, folder / STEP_FILE), precision, lambda size: graphs)


def _session(path: Path) -> Any:
    import onnxruntime

    need_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each way to fail, and no common one
        raise ConfigError(f"{path}: onnxruntime cannot read it ({error}); run `memwarp export` again.") from error
