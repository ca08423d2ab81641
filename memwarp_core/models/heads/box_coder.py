"""Boxes as offsets from others."""

import torch
from torch import Tensor
from torchvision.models.detection import _utils


class BoxCoder(_utils.BoxCoder):
    """torchvision's, whose decoding copies a constant to the device in every call; a GPU would be waited for."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """
        Args:
            rel_codes: (N, 4), of centres and logarithms of sizes, x before y.
            boxes: (N, 4), xyxy, what they are relative to.
        Returns: (N, 4), xyxy.
        """
        of_centre_x, of_centre_y, of_width, of_height = self.weights
        assert of_centre_x == of_centre_y and of_width == of_height
        sizes = boxes[:, 2:] - boxes[:, :2]
        centres = boxes[:, :2] + 0.5 * sizes
        centres = rel_codes[:, :2] / of_centre_x * sizes + centres
        half = 0.5 * ((rel_codes[:, 2:] / of_width).clamp(max=self.bbox_xform_clip).exp() * sizes)
        return torch.cat((centres - half, centres + half), 1)
