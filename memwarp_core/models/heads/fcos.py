"""torchvision's FCOS, a dense one-stage detector, on one feature map."""

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.fcos import FCOSHead as Towers

from memwarp_core.models.config import FCOSHeadConfig
from memwarp_core.models.heads.anchors import anchors_on
from memwarp_core.models.parts import Head, Levels

REFERENCE_SIZE = 32
"""Side in pixels of the reference box at each place: distances to box edges are predicted in units of it."""


class FCOSHead(Head):
    """Class scores, centredness and distances to the four box edges at every cell of one feature map.

    Targets, losses, decoding and non-maximum suppression are torchvision's; only one level is used, and a cell is
    positive within 1.5 strides of an object's centre.
    """

    def __init__(self, channels: int, stride: int, num_classes: int, config: FCOSHeadConfig) -> None:
        super().__init__()
        head = Towers(channels, 1, num_classes, config.convolutions)
        # Distances pass a ReLU: starting at half an object's size, no place starts dead.
        nn.init.constant_(head.regression_head.bbox_reg.bias, 0.6)
        features = nn.Identity()
        features.out_channels = channels  # type: ignore[assignment]
        self.fcos = FCOS(
            features,
            num_classes,
            anchor_generator=AnchorGenerator(((REFERENCE_SIZE,),), ((1.0,),)),
            head=head,
            center_sampling_radius=1.5 * stride / REFERENCE_SIZE,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections_per_image,
            topk_candidates=300,
        )

    def losses(
        self, levels: Levels, targets: list[dict[str, Tensor]], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """See Head.losses: "classification", "bbox_regression", "bbox_ctrness"."""
        anchors = anchors_on(self.fcos.anchor_generator, levels, image_size)
        return self.fcos.compute_loss(targets, self._predict(levels), anchors, [len(anchors[0])])

    def detect(self, levels: Levels, image_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        outputs = {key: [value] for key, value in self._predict(levels).items()}
        anchors = [[of_image] for of_image in anchors_on(self.fcos.anchor_generator, levels, image_size)]
        return self.fcos.postprocess_detections(outputs, anchors, [image_size] * len(levels[0]))

    def _predict(self, levels: Levels) -> dict[str, Tensor]:
        # Distances become coordinates, which half precision does not hold.
        return {key: value.float() for key, value in self.fcos.head(list(levels)).items()}
