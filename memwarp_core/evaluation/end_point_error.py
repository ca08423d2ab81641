"""How well a detector's displacements are measured, where the exact fields are known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from memwarp_core.data.coco_vid import CocoVidClip
from memwarp_core.errors import ConfigError
from memwarp_core.geometry import resize_displacement
from memwarp_core.models import Detector


@torch.inference_mode()
def end_point_error(detector: Detector, clips: Sequence[CocoVidClip]) -> dict[str, Any]:
    """Mean distance between measured and exact displacements from each frame to the frame before it.

    Images are compared at their own size, as in training, whatever the detector's short_side. The measured field is
    brought to every pixel, so that detectors of different strides can be compared.

    Args:
        detector: in eval mode.
        clips: with displacement fields.
    Returns: JSON-ready: "pairs" of frames; for "all" known pixels and those "inside_boxes" of the newer frame:
        "error" in image pixels, "zero_motion", the error of not moving at all, and "pixels"; the means are None where
        there are no pixels.
    Raises:
        ConfigError: the detector does not compare frames.
        DataError: a clip has no fields.
    """
    if detector.displacement is None:
        raise ConfigError(f"{detector.config.name} does not compare frames; expected a detector with a displacement.")
    pairs, of_all, of_boxes = 0, np.zeros(3), np.zeros(3)
    for clip in track(clips, description=f"displacements of {detector.config.name}", transient=True):
        past = None
        for index in range(len(clip)):
            frame = clip[index]
            current = _describe(detector, frame.image)
            if past is not None:
                exact, known = clip.displacement(index)
                measured = _in_pixels(detector, detector.displacement(current, past), exact.shape[:2])
                inside = known & _inside(frame.boxes_xyxy, exact.shape[:2])
                errors, speeds = np.linalg.norm(measured - exact, axis=2), np.linalg.norm(exact, axis=2)
                of_all += [errors[known].sum(), speeds[known].sum(), known.sum()]
                of_boxes += [errors[inside].sum(), speeds[inside].sum(), inside.sum()]
                pairs += 1
            past = current
    return {"pairs": pairs, "all": _means(of_all), "inside_boxes": _means(of_boxes)}


def _describe(detector: Detector, image: np.ndarray) -> Tensor:
    device = next(detector.parameters()).device
    tensor = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float()
    multiple = detector.features.size_multiple
    padding = (0, -tensor.shape[3] % multiple, 0, -tensor.shape[2] % multiple)
    motion = detector.observe(F.pad(tensor, padding, mode="replicate"), withhold=True).motion
    assert motion is not None
    return motion


def _in_pixels(detector: Detector, field: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """(1, 2 or more, h, w) in cells -> (H, W, 2) in image pixels."""
    stride = detector.features.strides[0]
    padded = (field.shape[2] * stride, field.shape[3] * stride)
    pixels = resize_displacement(field.float(), padded)[0, :2, : size[0], : size[1]]
    return pixels.permute(1, 2, 0).cpu().numpy()


def _inside(boxes_xyxy: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(H, W), bool, the pixels in any box."""
    inside = np.zeros(size, np.bool_)
    for left, top, right, bottom in boxes_xyxy.round().astype(int).clip(min=0):
        inside[top:bottom, left:right] = True
    return inside


def _means(sums: np.ndarray) -> dict[str, Any]:
    error, speed, pixels = (float(value) for value in sums)
    return {
        "error": error / pixels if pixels else None,
        "zero_motion": speed / pixels if pixels else None,
        "pixels": int(pixels),
    }
