"""Detectors: the parts (features, displacement, memory, head), their configuration and the named models."""

from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.detector import Detector
from memwarp_core.models.fast_strong import FastStrong
from memwarp_core.models.zoo import available_models, build_detector, load_weights, save_weights

__all__ = [
    "Detector",
    "DetectorConfig",
    "FastStrong",
    "available_models",
    "build_detector",
    "load_weights",
    "save_weights",
]
