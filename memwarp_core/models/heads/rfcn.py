"""R-FCN (Dai et al., 2016), the head of the paper's detectors: region proposals and position-sensitive score maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import Conv2dNormActivation, batched_nms, box_iou, clip_boxes_to_image, nms, remove_small_boxes

from memwarp_core.geometry import psroi_pool
from memwarp_core.models.config import RFCNHeadConfig
from memwarp_core.models.heads.anchors import anchors_on
from memwarp_core.models.heads.box_coder import BoxCoder
from memwarp_core.models.parts import Head, Levels, repeat, warp_levels

FOREGROUND_IOU = 0.5
"""A proposal that overlaps an object by this much has to find it; any other is background."""
LEAST_SIDE = 1e-3
"""Pixels; torchvision's region proposal network drops what is thinner."""


class RFCNHead(Head):
    """Proposals from one half of the channels; their classes and boxes from position-sensitive maps of the other.

    As in FGFA's published R-FCN: the first half of the channels goes to the region proposal network and the second to
    the score maps; 1x1 convolutions give one score map per class and bin (channel (class*k + row)*k + column, class 0
    is the background) and one box map per coordinate and bin, for all classes; a proposal's score is the mean of its
    bins. (The published network has a second set of box maps, for the background, which nothing reads.) Proposals,
    anchors, box codes and non-maximum suppression are torchvision's.

    Every image has the same number of proposals: where fewer were found, the rest are empty boxes, which are neither
    learned from nor returned.
    """

    def __init__(self, channels: int, stride: int, num_classes: int, config: RFCNHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.spatial_scale = 1 / stride
        self.halves = (channels // 2, channels - channels // 2)
        anchor_generator = AnchorGenerator((config.anchor_sizes,), (config.aspect_ratios,))
        proposal_head = RPNHead(config.rpn_channels, anchor_generator.num_anchors_per_location()[0])
        proposal_head.conv = Conv2dNormActivation(self.halves[0], config.rpn_channels, 3, norm_layer=None)
        self.rpn = RegionProposalNetwork(
            anchor_generator,
            proposal_head,
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=dict.fromkeys(("training", "testing"), config.proposals_before_nms),
            post_nms_top_n=dict.fromkeys(("training", "testing"), config.proposals),
            nms_thresh=config.rpn_nms_threshold,
        )
        self.rpn.box_coder = BoxCoder(self.rpn.box_coder.weights)
        self.class_maps = nn.Conv2d(self.halves[1], (num_classes + 1) * config.bins**2, 1)
        self.box_maps = nn.Conv2d(self.halves[1], 4 * config.bins**2, 1)
        self.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def losses(
        self, levels: Levels, targets: list[dict[str, Tensor]], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """See Head.losses: "rpn_objectness", "rpn_box", "classification", "box".

        The last two learn from the hardest proposals of each image (OHEM): classes by cross entropy, boxes by smooth
        L1, both in the mean over all proposals learned from.
        """
        for_proposals, for_maps = levels[0].split(self.halves, 1)
        objectness, deltas = self._rate_anchors(for_proposals)
        anchors = anchors_on(self.rpn.anchor_generator, levels, image_size)
        anchor_labels, anchor_boxes = self.rpn.assign_targets_to_anchors(anchors, targets)
        anchor_codes = self.rpn.box_coder.encode(anchor_boxes, anchors)
        rpn_objectness, rpn_box = self.rpn.compute_loss(objectness, deltas, anchor_labels, anchor_codes)

        truths = pad_sequence([of_image["boxes"] for of_image in targets], batch_first=True)
        proposals = torch.cat((self._propose(objectness, deltas, anchors, image_size), truths), 1)
        logits, codes = self._vote(self._map_bins(for_maps), proposals)
        assigned = [assign(boxes, of_image) for boxes, of_image in zip(proposals, targets, strict=True)]
        labels, boxes = (torch.stack(of_images) for of_images in zip(*assigned, strict=True))
        positive = labels > 0
        wanted = self.box_coder.encode_single(boxes.flatten(0, 1), proposals.flatten(0, 1)).view_as(codes)
        # Codes of empty proposals are no numbers.
        wanted = torch.where(positive[..., None], wanted, 0.0)
        classification = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        box = F.smooth_l1_loss(codes, wanted, reduction="none").sum(-1) * positive
        real = (proposals[..., 2:] > proposals[..., :2]).all(-1)
        learned = hardest((classification + box).detach(), real, self.config.hard_examples)
        count = learned.sum().clamp(min=1)
        return {
            "rpn_objectness": rpn_objectness,
            "rpn_box": rpn_box,
            "classification": (classification * learned).sum() / count,
            "box": (box * learned).sum() / count,
        }

    def detect(self, levels: Levels, image_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """See Head.detect; non-maximum suppression is by class."""
        return [self.select(*of_image) for of_image in zip(*self.rate(levels, image_size), strict=True)]

    def detect_moved(
        self, levels: Levels, displacement: Tensor, proposals: Tensor, image_size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        """See Head.detect_moved; of more than config.proposals, the first ones are looked at."""
        rated = self.rate_moved(levels, displacement, proposals[:, : self.config.proposals], image_size)
        return [self.select(*of_image) for of_image in zip(*rated, strict=True)]

    def rate_moved(
        self, levels: Levels, displacement: Tensor, proposals: Tensor, image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """All of `detect_moved` whose result has the same size for every image.

        Returns: for each field and its N proposals boxes (T, N, 4) and scores (T, N, classes), as `rate` does.
        """
        proposals = clip_boxes_to_image(proposals, image_size)
        # A 1x1 convolution may as well come before the warp, but its bias is also where the warp brings zeros.
        _, bias = self._bin_weights()
        maps = self._map_bins(levels[0].split(self.halves, 1)[1]) - bias[:, None, None]
        (moved,) = warp_levels(repeat((maps,), len(displacement)), displacement)
        logits, codes = self._vote(moved, proposals)
        of_classes, of_boxes = bias.unflatten(0, (-1, self.config.bins**2)).mean(1).tensor_split([-4])
        return self._judge(logits + of_classes, codes + of_boxes, proposals, image_size)

    def rate(self, levels: Levels, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """All of `detect` whose result has the same size for every image.

        Args: as for Head.detect.
        Returns: for the N = config.proposals of each image boxes (B, N, 4), xyxy in network pixels, inside the image,
            and scores (B, N, classes), 0 for an empty box.
        """
        for_proposals, for_maps = levels[0].split(self.halves, 1)
        objectness, deltas = self._rate_anchors(for_proposals)
        anchors = anchors_on(self.rpn.anchor_generator, levels, image_size)
        proposals = self._propose(objectness, deltas, anchors, image_size)
        return self._judge(*self._vote(self._map_bins(for_maps), proposals), proposals, image_size)

    def _judge(
        self, logits: Tensor, codes: Tensor, proposals: Tensor, image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What becomes of proposals (B, N, 4) by their votes; see `rate`."""
        boxes = self.box_coder.decode_single(codes.flatten(0, 1), proposals.flatten(0, 1)).view_as(proposals)
        boxes = clip_boxes_to_image(boxes, image_size)
        real = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        return boxes, logits.softmax(-1)[..., 1:] * real[..., None]

    def _rate_anchors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B*A, 1) and box codes (B*A, 4) of all anchors."""
        objectness, deltas = concat_box_prediction_layers(*self.rpn.head([features]))
        # Codes become coordinates, which half precision does not hold.
        return objectness.float(), deltas.float()

    def _propose(
        self, objectness: Tensor, deltas: Tensor, anchors: list[Tensor], image_size: tuple[int, int]
    ) -> Tensor:
        """The best proposals of each image, (B, config.proposals, 4), filled up with empty boxes."""
        batch = len(anchors)
        scores = objectness.detach().view(batch, -1)
        best = scores.topk(min(self.config.proposals_before_nms, scores.shape[1]), 1).indices.sort(1).values
        # Of equal scores, as where a moved map shows nothing, the first is first with every device and runtime.
        scores, order = scores.gather(1, best).sort(dim=1, descending=True, stable=True)
        best = best.gather(1, order)
        codes = deltas.detach().view(batch, -1, 4).gather(1, best[..., None].expand(-1, -1, 4))
        boxes = self.rpn.box_coder.decode_single(codes.flatten(0, 1), anchors[0][best.flatten()])
        boxes = clip_boxes_to_image(boxes.view(batch, -1, 4), image_size)
        found = [self.choose_proposals(*of_image) for of_image in zip(boxes, scores, strict=True)]
        return torch.stack([F.pad(of_image, (0, 0, 0, self.config.proposals - len(of_image))) for of_image in found])

    def choose_proposals(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """
        Args:
            boxes, scores: (N, 4), xyxy, and (N,), of one image, best first.
        Returns: (config.proposals or fewer, 4), best first, none of which overlaps a better one too much.
        """
        wide_enough = remove_small_boxes(boxes, LEAST_SIDE)
        boxes, scores = boxes[wide_enough], scores[wide_enough]
        # What is kept of the best is kept of all. A CPU compares boxes one by one; elsewhere counting would wait.
        looked_at = 2 * self.config.proposals if boxes.device.type == "cpu" else len(boxes)
        while True:
            kept = nms(boxes[:looked_at], scores[:looked_at], self.config.rpn_nms_threshold)
            if len(kept) >= self.config.proposals or looked_at >= len(boxes):
                return boxes[kept[: self.config.proposals]]
            looked_at *= 2

    def _map_bins(self, features: Tensor) -> Tensor:
        """The score maps and, behind them, the box maps, (B, (classes + 1 + 4) * bins^2, H, W)."""
        weight, bias = self._bin_weights()
        if features.device.type != "cpu" or torch.compiler.is_compiling():
            return F.conv2d(features, weight, bias)
        # On a CPU, PyTorch runs small 1x1 convolutions image by image.
        return F.linear(features.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)

    def _bin_weights(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolutions that make the maps of all bins, as if they were one."""
        convolutions = (self.class_maps, self.box_maps)
        weight = torch.cat([convolution.weight for convolution in convolutions])
        return weight, torch.cat([convolution.bias for convolution in convolutions if convolution.bias is not None])

    def _vote(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, N, classes + 1) and box codes (B, N, 4) of boxes (B, N, 4): the means of their bins."""
        batch, count = boxes.shape[:2]
        image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).repeat_interleave(count)
        first, end = boxes.flatten(0, 1).split(2, 1)
        # R-FCN's pooling counts the last pixel in; our boxes end behind it.
        rois = torch.cat((image[:, None], first, end - 1), 1)
        votes = self._pool(maps, rois).float().mean((2, 3))
        return votes[:, :-4].unflatten(0, (batch, count)), votes[:, -4:].unflatten(0, (batch, count))

    def _pool(self, maps: Tensor, rois: Tensor) -> Tensor:
        return psroi_pool(maps, rois, self.config.bins, self.spatial_scale)

    def select(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """The detections of one image from boxes (N, 4) and their scores (N, classes), as `rate` returns them."""
        proposal, label = torch.where(scores > self.config.score_threshold)
        boxes, scores = boxes[proposal], scores[proposal, label]
        kept = batched_nms(boxes, scores, label, self.config.nms_threshold)[: self.config.detections_per_image]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": label[kept]}


def assign(boxes: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What each box of an image should become.

    Args:
        boxes: (N, 4), xyxy.
        target: as in Head.losses, of the same image.
    Returns: labels (N,), 0 for the background and the object's label + 1 else; and the objects' boxes (N, 4), without
        meaning for the background.
    """
    if len(target["boxes"]) == 0:
        return torch.zeros_like(boxes[:, 0], dtype=torch.int64), boxes
    overlap, nearest = box_iou(boxes, target["boxes"]).max(1)
    return torch.where(overlap >= FOREGROUND_IOU, target["labels"][nearest] + 1, 0), target["boxes"][nearest]


def hardest(losses: Tensor, real: Tensor, count: int) -> Tensor:
    """Online hard example mining: which proposals of each image to learn from.

    Args:
        losses: (B, N), not negative.
        real: (B, N), bool; what may be chosen.
        count: proposals per image; all that are real are chosen where there are fewer.
    Returns: (B, N), bool.
    """
    chosen = losses.masked_fill(~real, -1.0).topk(min(count, losses.shape[1]), 1).indices
    return torch.zeros_like(real).scatter(1, chosen, True) & real
