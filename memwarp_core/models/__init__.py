"""Detectors: the parts (features, displacement, memory, head), their configuration and the named models."""

from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.detector import Detector
from memwarp_core.models.zoo import available_models, load_weights, save_weights

__all__ = ["Detector", "DetectorConfig", "available_models", "load_weights", "save_weights"]
