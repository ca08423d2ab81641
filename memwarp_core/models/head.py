"""The head part: what turns a feature map into boxes; here torchvision's FCOS, a dense one-stage detector."""

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList

from memwarp_core.models.config import HeadConfig
from memwarp_core.models.features import STRIDE

REFERENCE_SIZE = 32
"""Side in pixels of the reference box at each place: distances to box edges are predicted in units of it."""


class DenseHead(nn.Module):
    """Class scores, centredness and distances to the four box edges at every cell of one feature map.

    Targets, losses, decoding and non-maximum suppression are torchvision's; only one level is used, and a cell is
    positive within 1.5 strides of an object's centre.
    """

    def __init__(self, channels: int, num_classes: int, config: HeadConfig) -> None:
        super().__init__()
        head = FCOSHead(channels, 1, num_classes, config.convolutions)
        # Distances pass a ReLU: starting at half an object's size, no place starts dead.
        nn.init.constant_(head.regression_head.bbox_reg.bias, 0.6)
        features = nn.Identity()
        features.out_channels = channels  # type: ignore[assignment]
        self.fcos = FCOS(
            features,
            num_classes,
            anchor_generator=AnchorGenerator(((REFERENCE_SIZE,),), ((1.0,),)),
            head=head,
            center_sampling_radius=1.5 * STRIDE / REFERENCE_SIZE,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections_per_image,
            topk_candidates=300,
        )

    def losses(self, features: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """
        Args:
            features: (B, C, H, W).
            targets: per image "boxes" (N, 4), xyxy in network pixels, and "labels" (N,), int64.
        Returns: "classification", "bbox_regression", "bbox_ctrness", scalars to be summed.
        """
        anchors = self._anchors(features)
        return self.fcos.compute_loss(targets, self.fcos.head([features]), anchors, [len(anchors[0])])

    def detect(self, features: Tensor) -> list[dict[str, Tensor]]:
        """
        Args:
            features: (B, C, H, W).
        Returns: per image "boxes" (N, 4), xyxy in network pixels and inside the image; "scores" (N,), highest
            first; "labels" (N,).
        """
        outputs = {key: [value] for key, value in self.fcos.head([features]).items()}
        anchors = [[of_image] for of_image in self._anchors(features)]
        height, width = (side * STRIDE for side in features.shape[-2:])
        return self.fcos.postprocess_detections(outputs, anchors, [(height, width)] * len(features))

    def _anchors(self, features: Tensor) -> list[Tensor]:
        """One (H*W, 4) tensor per image; torchvision takes the image's size from an image list."""
        batch, _, height, width = features.shape
        size = (height * STRIDE, width * STRIDE)
        images = ImageList(torch.empty((batch, 0, *size), device=features.device), [size] * batch)
        return self.fcos.anchor_generator(images, [features])
