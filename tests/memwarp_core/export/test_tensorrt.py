"""What can be said of TensorRT where it is not installed: clear errors, and whether it could take the graphs."""

import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from memwarp_core.errors import ConfigError, ExportError
from memwarp_core.export.tensorrt_engine import check_types, need_tensorrt
from memwarp_core.streaming import load_detector


def test_without_tensorrt_the_error_has_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConfigError, match=r"pip install 'memwarp\[tensorrt\]'"):
        load_detector(tmp_path, backend="tensorrt")


def test_a_library_that_tensorrt_misses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"libnvinfer.so.10.*pip install"):
        need_tensorrt()


def graph_with(kind: int) -> bytes:
    """A graph that computes in another type on its way."""
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=kind),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xz"]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:])).SerializeToString()


def test_tensors_of_types_that_tensorrt_lacks_are_named() -> None:
    with pytest.raises(
        ExportError, match=r"step.onnx: expected .*, got y \(DOUBLE\); run this file with the backend onnx"
    ):
        check_types(graph_with(TensorProto.DOUBLE), Path("step.onnx"))
    assert check_types(graph_with(TensorProto.INT64), Path("step.onnx")) == frozenset()
    assert check_types(graph_with(TensorProto.FLOAT16), Path("step.onnx")) == {"y"}
