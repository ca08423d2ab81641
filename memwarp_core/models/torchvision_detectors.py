"""Detectors from torchvision.models.detection, split behind our borders: their backbones and what follows them.

A torchvision detector is one network; here its backbone (with its feature pyramid) is the features part and the rest is
the head part, so that a memory fits in between. Where torchvision's classes begin with a background, it is added and
removed inside: at our borders labels start at 0.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.models.optical_flow import Raft_Small_Weights
from torchvision.ops import FrozenBatchNorm2d, box_iou

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import (
    ClockNetConfig,
    DetectorConfig,
    DisplacementConfig,
    MemNetConfig,
    MemoryConfig,
    NoDisplacementConfig,
    NoMemoryConfig,
    RaftConfig,
    TorchvisionFeaturesConfig,
    TorchvisionHeadConfig,
)
from memwarp_core.models.parts import Features, Head, Levels

if TYPE_CHECKING:
    from memwarp_core.models.detector import Detector

TORCHVISION_DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssdlite320_mobilenet_v3_large",
)
"""Those that find boxes and nothing else. SSD300 is left out: its maps do not tile its 300 pixels."""

_MEMORIES: dict[str, MemoryConfig] = {
    "none": NoMemoryConfig(),
    "memnet": MemNetConfig(aggregation="average"),
    "clocknet": ClockNetConfig(aggregation="average"),
}

# What torchvision freezes where it starts from published weights, which it does not tell a model built without them.
_LIVE_NORMS = ("fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large")
_NORMS_WITHOUT_EPS = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
_FROZEN_STAGES = {"conv1", "bn1", "layer1", "0", "1", "2", "3", "4", "5", "6"}
"""Children of a backbone's body: the first two stages of ResNet, the first three of MobileNetV3."""

_Model = Any
"""FasterRCNN, RetinaNet, FCOS or SSD: torchvision has no types."""


class TorchvisionFeatures(Features):
    """The backbone of a torchvision detector, with its feature pyramid; one memory per level.

    There are no early features that a displacement could use: `early` is the normalised image. As torchvision does for
    published weights, normalisation layers are frozen and so are the first stages, except in SSDlite and in the
    detectors of version 2, whose normalisation layers (and, in SSDlite, all stages) are live.
    """

    size_multiple = 32
    early_channels = 3
    early_stride = 1
    mean: Tensor
    std: Tensor

    def __init__(self, config: TorchvisionFeaturesConfig) -> None:
        super().__init__()
        model = _build(config.detector)
        self.detector = config.detector
        self.backbone = model.backbone
        self.register_buffer("mean", torch.tensor(model.transform.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(model.transform.image_std)[:, None, None], persistent=False)
        self.level_names, self.strides, self.channels = _describe(model)
        self.head_strides, self.head_channels = self.strides, self.channels

    def early(self, images: Tensor) -> Tensor:
        """Returns: (B, 3, H, W), the images with torchvision's normalisation."""
        return (images / 255 - self.mean) / self.std

    def levels(self, early: Tensor) -> Levels:
        return tuple(self.backbone(early).values())


class TorchvisionHead(Head):
    """What follows the backbone in a torchvision detector: region proposals and box heads, or dense heads.

    The detector has one class more than ours, the background at 0: the published weights of all of them have it, even
    where the scores of classes are independent.
    """

    def __init__(self, features: Features, num_classes: int, config: TorchvisionHeadConfig) -> None:
        """
        Args:
            features: TorchvisionFeatures, which say the detector that this is the head of.
        """
        super().__init__()
        if not isinstance(features, TorchvisionFeatures):
            raise ConfigError(f"a torchvision head needs torchvision features, got {type(features).__name__}.")
        self.level_names = features.level_names
        self.detector = _build(features.detector, num_classes + 1)
        self.detector.backbone = nn.Identity()
        self.detector.transform = nn.Identity()
        if isinstance(self.detector, FasterRCNN):
            for stage in (self.detector.rpn, self.detector.roi_heads):
                stage.box_coder = _FullPrecisionCoder(stage.box_coder.weights)
        last = _last_part(self.detector)
        last.score_thresh = config.score_threshold
        last.nms_thresh = config.nms_threshold
        last.detections_per_img = config.detections_per_image

    def losses(
        self, levels: Levels, targets: list[dict[str, Tensor]], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """See Head.losses; names are torchvision's."""
        targets = [{"boxes": of_image["boxes"], "labels": of_image["labels"] + 1} for of_image in targets]
        if isinstance(self.detector, FasterRCNN):
            return self._second_stage(levels, image_size, targets)[1]
        outputs, anchors = self._dense(levels, image_size)
        if isinstance(self.detector, RetinaNet):
            return self.detector.compute_loss(targets, outputs, anchors)
        if isinstance(self.detector, FCOS):
            return self.detector.compute_loss(targets, outputs, anchors, _places(levels))
        return self.detector.compute_loss(targets, outputs, anchors, self._match(targets, anchors))

    def detect(self, levels: Levels, image_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        if isinstance(self.detector, FasterRCNN):
            found = self._second_stage(levels, image_size, None)[0]
        else:
            outputs, anchors = self._dense(levels, image_size)
            if not isinstance(self.detector, SSD):
                places = _places(levels)
                per_level = [n * (len(anchors[0]) // sum(places)) for n in places]
                outputs = {key: output.split(per_level, dim=1) for key, output in outputs.items()}
                anchors = [of_image.split(per_level) for of_image in anchors]
            found = self.detector.postprocess_detections(outputs, anchors, [image_size] * len(levels[0]))
        return [_without_background(of_image) for of_image in found]

    def _second_stage(
        self, levels: Levels, image_size: tuple[int, int], targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Proposals and their classification: detections, or losses if there are targets."""
        rpn, roi_heads = self.detector.rpn, self.detector.roi_heads
        # Torchvision's mode decides what these two compute; here the caller does, as with every other head.
        rpn.training = roi_heads.training = targets is not None
        images = image_list(levels, image_size)
        maps = OrderedDict(zip(self.level_names, _in_full_precision(levels), strict=True))
        proposals, rpn_losses = rpn(images, maps, targets)
        found, losses = roi_heads(maps, proposals, images.image_sizes, targets)
        return found, {**rpn_losses, **losses}

    def _dense(self, levels: Levels, image_size: tuple[int, int]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """What the head says at every anchor, (B, A, ...) by name, and the anchors, (A, 4) per image."""
        maps = _in_full_precision(levels)
        outputs = {key: output.float() for key, output in self.detector.head(maps).items()}
        return outputs, self.detector.anchor_generator(image_list(levels, image_size), maps)

    def _match(self, targets: list[dict[str, Tensor]], anchors: list[Tensor]) -> list[Tensor]:
        """SSD's target per anchor, (A,) per image, -1 for none; in torchvision this is part of `forward`."""
        return [
            self.detector.proposal_matcher(box_iou(of_image["boxes"], boxes))
            if len(of_image["boxes"])
            else torch.full_like(boxes[:, 0], -1, dtype=torch.int64)
            for of_image, boxes in zip(targets, anchors, strict=True)
        ]


class _FullPrecisionCoder(BoxCoder):
    """Decodes boxes in float32 whatever the precision of the convolutions before it."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        return super().decode_single(rel_codes.float(), boxes.float())


def is_of_torchvision(name: str) -> bool:
    """Whether a name is meant for `torchvision_config`, be it misspelled in one of its halves."""
    detector, plus, memory = name.partition("+")
    return bool(plus) and (detector in TORCHVISION_DETECTORS or memory in _MEMORIES)


def torchvision_config(name: str) -> DetectorConfig:
    """The configuration of a torchvision detector with its published classes, sizes and thresholds, and a memory.

    With a memory, displacements are RAFT-small's; without one, frames are not compared.

    Args:
        name: one of TORCHVISION_DETECTORS, then "+none", "+memnet" or "+clocknet".
    Raises: ConfigError for any other name.
    """
    detector, _, memory = name.partition("+")
    if detector not in TORCHVISION_DETECTORS or memory not in _MEMORIES:
        raise ConfigError(
            f"model {name!r}: expected one of {', '.join(TORCHVISION_DETECTORS)}, followed by one of "
            f"{', '.join('+' + kind for kind in _MEMORIES)}."
        )
    with torch.device("meta"):
        model = _build(detector)
    last, transform, weights = _last_part(model), model.transform, _published(detector)
    displacement: DisplacementConfig = NoDisplacementConfig() if memory == "none" else RaftConfig()
    return DetectorConfig(
        name=name,
        version=weights.name,
        class_names=tuple(weights.meta["categories"][1:]),
        short_side=transform.min_size[-1],
        long_side=transform.max_size,
        # Torchvision's order is width, height.
        fixed_size=transform.fixed_size and transform.fixed_size[::-1],
        features=TorchvisionFeaturesConfig(detector=detector),
        displacement=displacement,
        memory=_MEMORIES[memory],
        head=TorchvisionHeadConfig(
            score_threshold=last.score_thresh,
            nms_threshold=last.nms_thresh,
            detections_per_image=last.detections_per_img,
        ),
    )


def load_torchvision(name: str) -> "Detector":
    """A torchvision detector with a memory and all its published weights, in eval mode on the CPU.

    The weights of the detector go by `keys_from_torchvision`, those of RAFT-small from * to displacement.raft.*.

    Args:
        name: see `torchvision_config`.
    Raises: ConfigError for another name, or if the weights are neither in torch's cache nor can be downloaded.
    """
    # Detectors are made of this module's parts, so it cannot import these two from the beginning.
    from memwarp_core.models.detector import Detector
    from memwarp_core.models.pretrained import download

    config = torchvision_config(name)
    weights = keys_from_torchvision(download(_published(name.partition("+")[0])))
    if isinstance(config.displacement, RaftConfig):
        raft = download(Raft_Small_Weights.DEFAULT)
        weights |= {f"displacement.raft.{key}": value for key, value in raft.items()}
    detector = Detector(config)
    detector.load_state_dict(weights)
    return detector.eval()


def keys_from_torchvision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a torchvision detector under the names of our Detector.

    | torchvision | Detector |
    | --- | --- |
    | backbone.* | features.backbone.* |
    | all others: rpn.*, roi_heads.* or head.* | head.detector.* |
    """
    return {
        (f"features.{key}" if key.startswith("backbone.") else f"head.detector.{key}"): value
        for key, value in weights.items()
    }


def _published(detector: str) -> WeightsEnum:
    """The newest weights that torchvision has for one of TORCHVISION_DETECTORS."""
    return get_model_weights(detector).DEFAULT


def _build(detector: str, num_classes: int = 91) -> _Model:
    """torchvision's model with random weights, made as it makes those that get published weights.

    Args:
        num_classes: with the background; COCO's by default.
    """
    if detector not in TORCHVISION_DETECTORS:
        raise ConfigError(
            f"features.detector {detector!r}: expected one of {', '.join(TORCHVISION_DETECTORS)}, names of "
            "torchvision.models.detection."
        )
    model = get_model(detector, weights=None, weights_backbone=None, num_classes=num_classes)
    if detector not in _LIVE_NORMS:
        # The weights of these two were trained when frozen norms had no eps.
        _freeze_norms(model.backbone, eps=0.0 if detector in _NORMS_WITHOUT_EPS else 1e-5)
    if not isinstance(model, SSD):
        for name, stage in model.backbone.body.named_children():
            stage.requires_grad_(name not in _FROZEN_STAGES)
    return model


def _freeze_norms(module: nn.Module, eps: float) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps))
        else:
            _freeze_norms(child, eps)


def _last_part(model: _Model) -> Any:
    """The module with the thresholds of the final detections."""
    return model.roi_heads if isinstance(model, FasterRCNN) else model


@torch.no_grad()
def _describe(model: _Model) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    """Names, strides (rounded, for SSD's uneven last levels) and channels of the levels, from a trial run."""
    width, height = model.transform.fixed_size or (128, 128)
    backbone = model.backbone.eval()
    maps = backbone(torch.zeros(1, 3, height, width))
    backbone.train()
    strides = tuple(round(height / level.shape[-2]) for level in maps.values())
    return tuple(maps), strides, tuple(level.shape[1] for level in maps.values())


def image_list(levels: Levels, image_size: tuple[int, int]) -> ImageList:
    """Images without channels: torchvision only asks for their size."""
    batch = len(levels[0])
    return ImageList(torch.empty((batch, 0, *image_size), device=levels[0].device), [image_size] * batch)


def _in_full_precision(levels: Levels) -> list[Tensor]:
    """Anchors and boxes take their precision from the maps, and coordinates need more than half precision."""
    return [level.float() for level in levels]


def _places(levels: Levels) -> list[int]:
    return [level.shape[-2] * level.shape[-1] for level in levels]


def _without_background(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Only dense heads with a score per class can find the background; published weights never do."""
    keep = found["labels"] > 0
    return {
        "boxes": found["boxes"][keep],
        "scores": found["scores"][keep],
        "labels": found["labels"][keep] - 1,
    }
