"""R-FCN's head in operators that other runtimes have, with shapes that do not depend on what is in an image."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

from memwarp_core.geometry.psroi_pool import bin_edges
from memwarp_core.models.heads.rfcn import LEAST_SIDE, RFCNHead

_MOST_AT_ONCE = 3840
"""TensorRT's TopK gives no more."""


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
        best = _places_of_largest(objectness.flatten(), count)
        boxes = clip_boxes_to_image(self.rpn.box_coder.decode_single(deltas[best], anchors[0][best]), image_size)
        thin = ((boxes[:, 2:] - boxes[:, :2]) < LEAST_SIDE).any(1)
        boxes = torch.where(thin[:, None], torch.zeros_like(boxes), boxes)  # which overlap no others
        places = torch.arange(count, device=boxes.device)
        kept = nms(boxes, (count - places).float(), self.config.rpn_nms_threshold)
        # Only the image knows how many are kept. Flags of all boxes have a fixed size, which TensorRT wants of results.
        dropped = torch.ones(count, device=boxes.device).scatter(0, kept, 0.0).bool() | thin
        boxes = torch.where(dropped[:, None], torch.zeros_like(boxes), boxes)
        missing = max(0, self.config.proposals - count)
        order = F.pad((places + count * dropped).float(), (0, missing), value=2 * count)
        first = order.topk(self.config.proposals, largest=False).indices
        return F.pad(boxes, (0, 0, 0, missing))[first][None]

    def _pool(self, maps: Tensor, rois: Tensor) -> Tensor:
        return psroi_pool_by_products(maps, rois, self.config.bins, self.spatial_scale)


def _places_of_largest(scores: Tensor, count: int) -> Tensor:
    """(count,), where the largest of the scores (N,) are, in their order."""
    places = scores.topk(min(count, _MOST_AT_ONCE)).indices
    if count <= _MOST_AT_ONCE:
        return places
    rest = _places_of_largest(scores.scatter(0, places, -torch.inf), count - _MOST_AT_ONCE)
    return torch.cat((places, rest))


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
