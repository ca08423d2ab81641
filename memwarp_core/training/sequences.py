"""Short sequences cut from clips, augmented alike in all their frames, and put together to batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from memwarp_core.errors import ConfigError, DataError
from memwarp_core.geometry import compose, resize_displacement
from memwarp_core.models.config import PADDING_GREY
from memwarp_core.training.packed_clips import STRIDE, PackedClip


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """B sequences of T frames, oldest first. Frame t of sequence b is entry b * T + t of the lists."""

    images: Tensor
    """(B, T, 3, H, W), uint8, RGB."""
    displacement: Tensor
    """(B, T, 2, H/8, W/8), float32, from each frame to the sequence's frame before it, in cells."""
    valid: Tensor
    """(B, T, 1, H/8, W/8), bool."""
    boxes: list[Tensor]
    """B * T tensors (N, 4), float32, xyxy in pixels."""
    labels: list[Tensor]
    """B * T tensors (N,), int64."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SequenceBatch":
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return SequenceBatch(
            move(self.images),
            move(self.displacement),
            move(self.valid),
            [move(boxes) for boxes in self.boxes],
            [move(labels) for labels in self.labels],
        )


class Sequences(Dataset[SequenceBatch]):
    """Draws sequences: each item is a random cut of a random clip; longer clips are drawn more often.

    Each cut is scaled, cropped to a window (or padded, where it is smaller), mirrored half of the time, and may skip
    frames; the fields of skipped frames are chained, so that a detector that has to drop frames meets nothing new.
    A clip of one frame, a still image, gives that frame again and again.
    """

    def __init__(
        self,
        clips: Sequence[PackedClip],
        *,
        frames: int,
        first: int = 0,
        length: int,
        seed: int,
        crop: tuple[int, int] | None = None,
        size_multiple: int = 16,
        max_temporal_stride: int = 1,
        temporal_stride: int = 1,
        scales: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """
        Args:
            frames: T, frames per sequence; clips that are shorter are refused, but for still images.
            first: number of the first sequence, so that every epoch draws new ones.
            length: how many sequences there are.
            seed: item i depends on (seed, first + i) alone.
            crop: (height, width) of the window in pixels; None for one that the largest images fit in.
            size_multiple: sides of the window must be multiples of this.
            max_temporal_stride: neighbouring frames of a sequence are `temporal_stride` to this many frames apart.
            temporal_stride: the least of them; by itself a fixed stride.
            scales: (smallest, largest) factor by which a sequence is scaled before it is cropped.
        Raises: DataError if a clip is too short, ConfigError if the window does not fit.
        """
        shortest = min((len(clip.images) for clip in clips if len(clip.images) > 1), default=None)
        if shortest is not None and shortest < (frames - 1) * temporal_stride + 1:
            every = f", {temporal_stride} frames apart," if temporal_stride > 1 else ""
            raise DataError(f"sequences of {frames} frames{every} need clips at least as long, got one of {shortest}.")
        height, width = (max(clip.images.shape[axis] for clip in clips) for axis in (1, 2))
        self._window = crop or (height + -height % size_multiple, width + -width % size_multiple)
        if crop and (crop[0] > height or crop[1] > width or any(side % size_multiple for side in crop)):
            raise ConfigError(f"crop must be multiples of {size_multiple} within {(height, width)}, got {crop}.")
        if not 0 < scales[0] <= scales[1]:
            raise ValueError(f"scales must be a smallest and a largest factor above 0, got {scales}.")
        self._clips = clips
        self._frames_up_to = np.cumsum([len(clip.images) for clip in clips])
        self._scales = scales
        self._frames = frames
        self._first = first
        self._length = length
        self._seed = seed
        self._temporal_stride = temporal_stride
        self._max_temporal_stride = max(max_temporal_stride, temporal_stride)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> SequenceBatch:
        rng = np.random.default_rng((self._seed, self._first + index))
        drawn = int(rng.integers(self._frames_up_to[-1]))
        clip = self._clips[int(np.searchsorted(self._frames_up_to, drawn, side="right"))]
        stride, chosen = self._choose_frames(len(clip.images), rng)
        fields = [_chained_field(clip, index, stride if number else 0) for number, index in enumerate(chosen)]
        displacement = torch.stack([field for field, _ in fields])
        valid = torch.stack([known for _, known in fields])
        images = torch.from_numpy(np.stack([clip.images[index] for index in chosen])).permute(0, 3, 1, 2)
        boxes = [torch.from_numpy(clip.boxes_xyxy[index]) for index in chosen]
        labels = [torch.from_numpy(clip.labels[index]) for index in chosen]

        if self._scales != (1.0, 1.0):
            images, displacement, valid, boxes = _scale(
                images, displacement, valid, boxes, rng.uniform(self._scales[0], self._scales[1])
            )
        images, displacement, valid = _pad(images, displacement, valid, self._window)
        height, width = self._window
        top = STRIDE * int(rng.integers(0, (images.shape[2] - height) // STRIDE + 1))
        left = STRIDE * int(rng.integers(0, (images.shape[3] - width) // STRIDE + 1))
        images = images[:, :, top : top + height, left : left + width]
        cells = (slice(top // STRIDE, (top + height) // STRIDE), slice(left // STRIDE, (left + width) // STRIDE))
        displacement, valid = displacement[:, :, cells[0], cells[1]], valid[:, :, cells[0], cells[1]]
        boxes, labels = _crop_boxes(boxes, labels, left, top, width, height)
        if rng.random() < 0.5:
            images, valid = images.flip(3), valid.flip(3)
            displacement = displacement.flip(3) * displacement.new_tensor([-1, 1])[:, None, None]
            boxes = [torch.stack((width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]), dim=1) for b in boxes]
        return SequenceBatch(images[None], displacement[None], valid[None], boxes, labels)

    def _choose_frames(self, length: int, rng: np.random.Generator) -> tuple[int, list[int]]:
        """The temporal stride, 0 for a still image, and the T frames of a clip of so many."""
        if length == 1:
            return 0, [0] * self._frames
        longest = min(self._max_temporal_stride, (length - 1) // max(self._frames - 1, 1))
        stride = int(rng.integers(self._temporal_stride, max(longest, self._temporal_stride) + 1))
        first = int(rng.integers(0, length - (self._frames - 1) * stride))
        return stride, [first + number * stride for number in range(self._frames)]


def collate(sequences: list[SequenceBatch]) -> SequenceBatch:
    return SequenceBatch(
        torch.cat([sequence.images for sequence in sequences]),
        torch.cat([sequence.displacement for sequence in sequences]),
        torch.cat([sequence.valid for sequence in sequences]),
        [boxes for sequence in sequences for boxes in sequence.boxes],
        [labels for sequence in sequences for labels in sequence.labels],
    )


def photometric(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and colour cast, drawn per sequence and alike in all its frames.

    Args:
        images: (B, T, 3, H, W), float, in [0, 255].
    Returns: the same shape and range.
    """
    batch = images.shape[0]

    def draw(low: float, high: float, *shape: int) -> Tensor:
        value = torch.rand((batch, 1, *shape), generator=generator) * (high - low) + low
        return value.to(images.device)[..., None, None]

    mean = images.mean(dim=(1, 2, 3, 4), keepdim=True)
    contrast = (images - mean) * draw(0.8, 1.2, 1) + mean * draw(0.75, 1.25, 1)
    return (contrast * draw(0.9, 1.1, 3)).clamp(0, 255)


def _chained_field(clip: PackedClip, index: int, stride: int) -> tuple[Tensor, Tensor]:
    """Displacement from frame `index` to frame `index - stride` of a clip; unknown for stride 0."""
    field = torch.from_numpy(clip.displacement[index].astype(np.float32))
    known = torch.from_numpy(np.array(clip.valid[index]))
    if stride == 0:
        return torch.zeros_like(field), torch.zeros_like(known)
    for older in range(index - 1, index - stride, -1):
        older_field = torch.from_numpy(clip.displacement[older].astype(np.float32))
        field = compose(field[None], older_field[None])[0]
        known = known & torch.from_numpy(np.array(clip.valid[older]))
    return field, known


def _scale(
    images: Tensor, displacement: Tensor, valid: Tensor, boxes: list[Tensor], factor: float
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """All of a sequence at another size, of whole cells again."""
    height, width = images.shape[2:]
    cells = (max(round(height * factor / STRIDE), 1), max(round(width * factor / STRIDE), 1))
    size = (cells[0] * STRIDE, cells[1] * STRIDE)
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled = [cv2.resize(image, size[::-1], interpolation=how) for image in images.permute(0, 2, 3, 1).numpy()]
    # The share of known cells is resized with the field, so that what is unknown does not enter the mean.
    together = resize_displacement(torch.cat((displacement * valid, valid.float()), dim=1), cells)
    field, share = together[:, :2], together[:, 2:]
    ratio = torch.tensor([size[1] / width, size[0] / height] * 2)
    return (
        torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2),
        field / share.clamp(min=1e-6),
        share > 0.5,
        [of_frame * ratio for of_frame in boxes],
    )


def _pad(images: Tensor, displacement: Tensor, valid: Tensor, window: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Fill up with grey on the right and below where a sequence is smaller than (height, width) of a window."""
    below, right = (max(side - has, 0) for side, has in zip(window, images.shape[2:], strict=True))
    if not below and not right:
        return images, displacement, valid
    cells = (0, right // STRIDE, 0, below // STRIDE)
    return F.pad(images, (0, right, 0, below), value=PADDING_GREY), F.pad(displacement, cells), F.pad(valid, cells)


def _crop_boxes(
    boxes: list[Tensor], labels: list[Tensor], left: int, top: int, width: int, height: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes in a window; those of which less than a quarter is left, or under 6 pixels, are dropped."""
    kept_boxes, kept_labels = [], []
    limit = torch.tensor([width, height] * 2, dtype=torch.float32)
    for of_frame, labels_of_frame in zip(boxes, labels, strict=True):
        shifted = of_frame - torch.tensor([left, top] * 2, dtype=torch.float32)
        cut = torch.minimum(shifted.clamp(min=0), limit)
        sides = cut[:, 2:] - cut[:, :2]
        area = (shifted[:, 2:] - shifted[:, :2]).prod(dim=1)
        keep = (sides.clamp(min=0).prod(dim=1) > 0.25 * area) & (sides.amin(dim=1) >= 6)
        kept_boxes.append(cut[keep])
        kept_labels.append(labels_of_frame[keep])
    return kept_boxes, kept_labels
