"""The borders between the parts of a detector: what a new backbone, displacement, memory or head has to fill.

    images -> Features.early -> Features.levels -> Memory.step -> Features.finish -> Head.detect
          \\-> Displacement.describe -> Displacement (current frame, past frame) -/

Parts hold weights and no stream state. All tensors are batched; a batch holds streams that run in step.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memwarp_core.geometry import resize_displacement, warp

Levels = tuple[Tensor, ...]
"""Feature maps of one frame, (B, C_l, H_l, W_l), finest first; most detectors have one."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one frame contributes to a memory."""

    features: Levels | None
    """F_t per level; None where it is withheld, so that the memory is only propagated."""
    motion: Tensor | None
    """What other frames are compared with, from Displacement.describe; None if frames are not compared."""

    def split(self) -> list["Evidence"]:
        """One per entry of the batch: each camera's own."""
        batch = self.motion if self.features is None else self.features[0]
        assert batch is not None
        return [
            Evidence(
                None if self.features is None else tuple(level[index : index + 1] for level in self.features),
                None if self.motion is None else self.motion[index : index + 1],
            )
            for index in range(len(batch))
        ]

    def in_time(self, frames: int) -> list["Evidence"]:
        """One per frame of a batch of sequences, whose entries are ordered as sequence * frames + frame."""
        return [
            Evidence(
                None if self.features is None else tuple(level[t::frames] for level in self.features),
                None if self.motion is None else self.motion[t::frames],
            )
            for t in range(frames)
        ]


class Features(nn.Module):
    """An image becomes feature maps."""

    size_multiple: int
    """Image sides must be multiples of this."""
    early_channels: int
    early_stride: int
    strides: tuple[int, ...]
    """Image pixels per cell, per level of the memory."""
    channels: tuple[int, ...]
    """Per level of the memory."""
    head_strides: tuple[int, ...]
    head_channels: tuple[int, ...]
    """Of what `finish` returns."""

    @abstractmethod
    def early(self, images: Tensor) -> Tensor:
        """The first layers, in which one place looks alike in neighbouring frames.

        Args:
            images: (B, 3, H, W), float, RGB in [0, 255].
        Returns: (B, early_channels, H / early_stride, W / early_stride).
        """

    @abstractmethod
    def levels(self, early: Tensor) -> Levels:
        """What the memory keeps, computed from the early features."""

    def finish(self, memory: Levels) -> Levels:
        """What follows the memory in the backbone; the result goes to the head."""
        return memory


class Displacement(nn.Module):
    """Where each cell of the current frame's finest level was in a past frame."""

    reads_early: bool = False
    """Whether `describe` needs the early features, or only the images."""

    @abstractmethod
    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        """What is remembered of a frame to compare others with it, computed once per frame.

        Args:
            images: (B, 3, H, W), float, RGB in [0, 255].
            early: of the same images; may be None unless reads_early.
        """

    @abstractmethod
    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        """
        Args:
            current, past: what `describe` returned for two batches of frames.
        Returns: (B, 2, H, W), x then y, backward, in cells of the finest level; or (B, 3, H, W), where the third
            channel is a factor for the warped features.
        """


class Memory(nn.Module):
    """What is carried from frame to frame, and how evidence enters it.

    A step has two halves, so that all displacements of all streams are measured in one call in between:
    `pairs` says which frames have to be compared, `step` takes the displacements between them.
    A state is a frozen dataclass of the memory's own; a stream starts with None.
    """

    lookahead: int = 0
    """Frames by which the features returned are older than the newest frame; 0 is causal."""

    @abstractmethod
    def pairs(self, state: Any | None, evidence: Evidence | None) -> list[tuple[Tensor, Tensor]]:
        """What the coming step compares: (current, past), each from Displacement.describe.

        In a causal memory, the first pair is the new frame and the frame before it.
        """

    @abstractmethod
    def step(
        self, state: Any | None, evidence: Evidence | None, displacements: Sequence[Tensor]
    ) -> tuple[Levels | None, Any]:
        """Advance by one frame.

        Args:
            state: of the frame before, or None for a stream's first frame, which needs features.
            evidence: of the new frame; None after a stream's last one, to get what a lookahead still owes.
            displacements: one field per entry of `pairs`, on the finest level.
        Returns: M for the head, None while a memory with lookahead has not seen enough; and the next state.
        Raises: ValueError if a stream begins without features, or the number of displacements is wrong.
        """


class Head(nn.Module):
    """Feature maps become boxes."""

    @abstractmethod
    def losses(
        self, levels: Levels, targets: list[dict[str, Tensor]], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """
        Args:
            levels: from Features.finish.
            targets: per image "boxes" (N, 4), xyxy in network pixels, and "labels" (N,), int64, from 0.
            image_size: (height, width) of the network's input.
        Returns: scalars to be summed, by name.
        """

    @abstractmethod
    def detect(self, levels: Levels, image_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """
        Returns: per image "boxes" (N, 4), xyxy in network pixels and inside the image; "scores" (N,), highest
            first; "labels" (N,), int64, from 0.
        """

    def detect_moved(
        self, levels: Levels, displacement: Tensor, proposals: Tensor, image_size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        """`detect` in the maps of one image as each of T fields warps them, where only some places are of interest.

        A head of one stage looks everywhere.

        Args:
            levels: from Features.finish, (1, C_l, H_l, W_l).
            displacement: (T, 2, H, W), cells.
            proposals: (T, N, 4), xyxy in network pixels, best first; they may leave the image.
        Returns: per field, as from `detect`.
        """
        return self.detect(warp_levels(repeat(levels, len(displacement)), displacement), image_size)


def keep_weights_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights that torch.autocast would convert in every pass; what is computed stays the same."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.weight.data = layer.weight.data.to(dtype)


def repeat(levels: Levels, times: int) -> Levels:
    """The maps of one image for a batch of as many, without a copy."""
    return tuple(level.expand(times, -1, -1, -1) for level in levels)


def warp_levels(levels: Levels, displacement: Tensor) -> Levels:
    """Warp every level by one field of the finest level (Eq. 1), times the field's factors if it has any.

    Args:
        displacement: (B, 2, H, W) or (B, 3, H, W), as Displacement returns it.
    """
    warped = []
    for level in levels:
        field = resize_displacement(displacement, (level.shape[-2], level.shape[-1]))
        moved = warp(level, field[:, :2])
        warped.append(moved * field[:, 2:] if field.shape[1] > 2 else moved)
    return tuple(warped)
