"""Anchors of torchvision's generator on the maps that a head reads."""

from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from memwarp_core.models.parts import Levels
from memwarp_core.models.torchvision_detectors import image_list


def anchors_on(generator: AnchorGenerator, levels: Levels, image_size: tuple[int, int]) -> list[Tensor]:
    """Anchors of each image, all alike.

    They are float32 whatever the maps are: half precision does not hold image coordinates.

    Args:
        levels: (B, C_l, H_l, W_l).
        image_size: (height, width) in pixels.
    Returns: per image (A, 4), xyxy in pixels, cell by cell in the order of rows.
    """
    # torchvision takes the image's size from an image list, and dtype and size of the maps from the maps.
    return generator(image_list(levels, image_size), [level[:0].float() for level in levels])
