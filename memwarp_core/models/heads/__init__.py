"""Head parts: what turns feature maps into boxes."""

from memwarp_core.models.config import FCOSHeadConfig, HeadConfig
from memwarp_core.models.heads.fcos import FCOSHead
from memwarp_core.models.parts import Features, Head

__all__ = ["FCOSHead", "build_head"]


def build_head(features: Features, num_classes: int, config: HeadConfig) -> Head:
    assert isinstance(config, FCOSHeadConfig)
    return FCOSHead(features.head_channels[0], features.head_strides[0], num_classes, config)
