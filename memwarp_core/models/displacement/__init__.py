"""Displacement parts: where each cell of the current feature map was in a past frame."""

from memwarp_core.models.config import CorrelationConfig, DisplacementConfig, FlowNetConfig, RaftConfig, StillConfig
from memwarp_core.models.displacement.correlation import CorrelationDisplacement
from memwarp_core.models.displacement.flownet import FlowNet, load_flownet
from memwarp_core.models.displacement.raft import Raft
from memwarp_core.models.displacement.still import Still
from memwarp_core.models.parts import Displacement, Features

__all__ = ["CorrelationDisplacement", "FlowNet", "Raft", "Still", "build_displacement", "load_flownet"]


def build_displacement(features: Features, config: DisplacementConfig) -> Displacement | None:
    """None for a detector that does not compare frames."""
    if isinstance(config, CorrelationConfig):
        return CorrelationDisplacement(features, config)
    if isinstance(config, FlowNetConfig):
        return FlowNet(features.strides[0], config)
    if isinstance(config, RaftConfig):
        return Raft(features.strides[0], config)
    if isinstance(config, StillConfig):
        return Still(features.strides[0])
    return None
