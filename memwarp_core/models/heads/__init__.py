"""Head parts: what turns feature maps into boxes."""

from memwarp_core.models.config import FCOSHeadConfig, HeadConfig, RFCNHeadConfig
from memwarp_core.models.heads.fcos import FCOSHead
from memwarp_core.models.heads.rfcn import RFCNHead
from memwarp_core.models.parts import Features, Head
from memwarp_core.models.torchvision_detectors import TorchvisionHead

__all__ = ["FCOSHead", "RFCNHead", "TorchvisionHead", "build_head"]


def build_head(features: Features, num_classes: int, config: HeadConfig) -> Head:
    """The head that a configuration describes, for the maps that `features.finish` returns."""
    if isinstance(config, FCOSHeadConfig):
        return FCOSHead(features.head_channels[0], features.head_strides[0], num_classes, config)
    if isinstance(config, RFCNHeadConfig):
        return RFCNHead(features.head_channels[0], features.head_strides[0], num_classes, config)
    return TorchvisionHead(features, num_classes, config)
