"""Displacement parts: where each cell of the current feature map was in a past frame."""

from memwarp_core.models.config import CorrelationConfig, DisplacementConfig
from memwarp_core.models.displacement.correlation import CorrelationDisplacement
from memwarp_core.models.parts import Displacement, Features

__all__ = ["CorrelationDisplacement", "build_displacement"]


def build_displacement(features: Features, config: DisplacementConfig) -> Displacement | None:
    """None for a detector that does not compare frames."""
    if config.kind == "none":
        return None
    assert isinstance(config, CorrelationConfig)
    return CorrelationDisplacement(features.early_channels, config)
