"""A detector is its parts: features x displacement x memory x head."""

from torch import Tensor, nn

from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.displacement import CorrelationDisplacement
from memwarp_core.models.features import TinyFeatures
from memwarp_core.models.head import DenseHead
from memwarp_core.models.memory import build_memory


class Detector(nn.Module):
    """The parts of one detector, built from its configuration. It holds weights and no stream state."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.features = TinyFeatures(config.features)
        channels = self.features.out_channels
        self.displacement = CorrelationDisplacement(self.features.motion_channels, config.displacement)
        self.memory = build_memory(channels, config.memory)
        self.head = DenseHead(channels, len(config.class_names), config.head)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detect in single images, without memory: what step sees in a stream's first frame.

        Args:
            images: (B, 3, H, W), RGB in [0, 255].
        """
        return self.head.detect(self.features(images).features)
