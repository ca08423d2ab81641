"""R-FCN's head in operators that other runtimes have, with shapes that do not depend on what is in an image."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

from memwarp_core.geometry.psroi_pool import bin_edges
from memwarp_core.models.heads.rfcn import RFCNHead

_LEAST_SIDE = 1e-3
"""Pixels; torchvision's region proposal network drops what is thinner."""


class StaticRFCNHead(RFCNHead):
    """The same boxes as RFCNHead's, of one image at a time.

    Where the original drops boxes, this one keeps empty ones in their places; and it pools by matrix products, which
    ONNX has and half precision bears, where the original takes differences of sums in float64.
    """

    def _propose(
        self, objectness: Tensor, deltas: Tensor, anchors: list[Tensor], image_size: tuple[int, int]
    ) -> Tensor:
        """See RFCNHead._propose; (1, config.proposals, 4)."""
        count = min(self.config.proposals_before_nms, objectness.shape[0])
        scores, best = objectness.flatten().topk(count)
        boxes = clip_boxes_to_image(self.rpn.box_coder.decode_single(deltas[best], anchors[0][best]), image_size)
        thin = ((boxes[:, 2:] - boxes[:, :2]) < _LEAST_SIDE).any(1)
        # Least probable of all, thin boxes suppress no others.
        kept = nms(boxes, torch.where(thin, torch.zeros_like(scores), scores.sigmoid()), self.config.rpn_nms_threshold)
        # An empty box behind the others stands for those that are missing, whose number only the image knows.
        boxes = F.pad(torch.where(thin[:, None], torch.zeros_like(boxes), boxes), (0, 0, 0, 1))
        missing = torch.full((self.config.proposals,), count, device=kept.device)
        return boxes[torch.cat((kept, missing))[: self.config.proposals]][None]

    def _pool(self, maps: Tensor, rois: Tensor) -> Tensor:
        return psroi_pool_by_products(maps, rois, self.config.bins, self.spatial_scale)


def psroi_pool_by_products(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """`psroi_pool` of one image: every bin is the product of its rows' and its columns' shares with its channels.

    It does more work than psroi_pool on large maps, in operators that every runtime has.

    Args, Returns: as for psroi_pool, with features of a batch of 1.
    """
    height, width = features.shape[-2:]
    bins = output_size
    rows = _shares(*bin_edges(rois[:, 2], rois[:, 4], bins, spatial_scale, height), height)  # (N, k, H)
    columns = _shares(*bin_edges(rois[:, 1], rois[:, 3], bins, spatial_scale, width), width)  # (N, k, W)
    maps = features[0].unflatten(0, (-1, bins, bins)).to(rows.dtype)  # (D, k, k, H, W)
    by_row = maps.permute(1, 3, 0, 2, 4).flatten(2)  # (k, H, D * k * W)
    of_rows = (rows.transpose(0, 1) @ by_row).unflatten(2, (-1, bins, width))  # (k, N, D, k, W)
    return (of_rows * columns[None, :, None]).sum(-1).permute(1, 2, 0, 3).to(features.dtype)


def _shares(first: Tensor, end: Tensor, cells: int) -> Tensor:
    """(N, k, cells), the share that each cell has of each bin from `first` to before `end`, each (N, k)."""
    places = torch.arange(cells, device=first.device)
    inside = (places >= first[..., None]) & (places < end[..., None])
    return inside.float() / (end - first).clamp(min=1)[..., None]
