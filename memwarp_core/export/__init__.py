"""Detectors for other runtimes than PyTorch: one step of a stream as an ONNX graph."""

from memwarp_core.export.check import Difference, check_onnx
from memwarp_core.export.graph_detector import GraphDetector
from memwarp_core.export.onnx_file import ExportedDetector, export_onnx
from memwarp_core.export.onnx_graph import load_onnx
from memwarp_core.export.tensorrt_graph import load_tensorrt

__all__ = ["Difference", "ExportedDetector", "GraphDetector", "check_onnx", "export_onnx", "load_onnx", "load_tensorrt"]
