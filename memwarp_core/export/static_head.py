"""R-FCN's head in operators that other runtimes have, with shapes that do not depend on what is in an image."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from memwarp_core.geometry.psroi_pool import bin_edges
from memwarp_core.models.heads.rfcn import LEAST_SIDE, RFCNHead

_MOST_AT_ONCE = 3840
"""TensorRT's TopK gives no more."""
_ROUNDS = 32
"""The shipped models' 1000 boxes need up to 19 on the sample recording, half of its frames 10."""


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
        dropped = self._suppressed(boxes, self.config.rpn_nms_threshold) | thin
        boxes = torch.where(dropped[:, None], torch.zeros_like(boxes), boxes)
        missing = max(0, self.config.proposals - count)
        order = F.pad((places + count * dropped).float(), (0, missing), value=2 * count)
        first = order.topk(self.config.proposals, largest=False).indices
        return F.pad(boxes, (0, 0, 0, missing))[first][None]

    def _suppressed(self, boxes: Tensor, threshold: float) -> Tensor:
        """(N,), bool: which of the boxes (N, 4), best first, non-maximum suppression drops."""
        count = len(boxes)
        kept = nms(boxes, count - torch.arange(count, device=boxes.device).float(), threshold)
        # Only the image knows how many are kept. Flags of all boxes have a fixed size, which TensorRT wants of results.
        return torch.ones(count, device=boxes.device).scatter(0, kept, 0.0).bool()

    def _pool(self, maps: Tensor, rois: Tensor) -> Tensor:
        return psroi_pool_by_products(maps, rois, self.config.bins, self.spatial_scale)


class CapturableRFCNHead(StaticRFCNHead):
    """The same in PyTorch's operators alone, none of which makes the host wait for the device."""

    def _suppressed(self, boxes: Tensor, threshold: float) -> Tensor:
        return suppressed_in_rounds(boxes, threshold)

    def _pool(self, maps: Tensor, rois: Tensor) -> Tensor:
        return RFCNHead._pool(self, maps, rois)


def _places_of_largest(scores: Tensor, count: int) -> Tensor:
    """(count,), where the largest of the scores (N,) are, in their order."""
    places = scores.topk(min(count, _MOST_AT_ONCE)).indices
    if count <= _MOST_AT_ONCE:
        return places
    rest = _places_of_largest(scores.scatter(0, places, -torch.inf), count - _MOST_AT_ONCE)
    return torch.cat((places, rest))


def suppressed_in_rounds(boxes: Tensor, threshold: float, rounds: int = _ROUNDS) -> Tensor:
    """Non-maximum suppression as a fixed number of products of a matrix with a vector.

    A box is dropped if a kept one before it overlaps it too much. Starting with all of them kept, n rounds of this rule
    settle every box at the end of a chain of up to n boxes, each of which overlaps the one before; so the result is
    exact but for longer chains.

    Args:
        boxes: (N, 4), xyxy, best first; empty ones are never dropped.
        threshold: overlap (IoU) above which two boxes are one object.
    Returns: (N,), bool.
    """
    # Sums are only compared with zero, which half precision does as well, with half of the traffic.
    dtype = torch.float32 if boxes.device.type == "cpu" else torch.float16
    better = box_iou(boxes, boxes).gt(threshold).tril(-1).to(dtype)  # [n, m]: m comes before n and overlaps it
    kept = torch.ones(len(boxes), 1, dtype=dtype, device=boxes.device)
    for _ in range(rounds):
        kept = (better @ kept == 0).to(dtype)
    return kept[:, 0] == 0


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
