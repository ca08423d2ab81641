"""Detectors for other runtimes than PyTorch: one step of a stream as an ONNX graph."""

from memwarp_core.export.check import Difference, check_onnx
from memwarp_core.export.onnx_detector import OnnxDetector
from memwarp_core.export.onnx_file import ExportedDetector, export_onnx

__all__ = ["Difference", "ExportedDetector", "OnnxDetector", "check_onnx", "export_onnx"]
