"""A detector is its parts: features x displacement x memory x head."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.displacement import build_displacement
from memwarp_core.models.features import build_features
from memwarp_core.models.folding import fold_batch_norms
from memwarp_core.models.heads import build_head
from memwarp_core.models.memory import build_memory
from memwarp_core.models.parts import Evidence, Levels


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame of one stream (or of a batch of streams) leads to."""

    memory: Levels | None
    """M_t; None while a memory that looks ahead has not seen enough."""
    state: Any
    """For the next step."""
    displacement: Tensor | None
    """D_(t,t-1) on the finest level, (B, 2, H, W); None in a stream's first frame, or if frames are not compared."""
    late: list[dict[str, Tensor]] | None = None
    """Per entry of the batch, boxes of a strong detector to be merged with those of this memory; see fast_strong.py."""
    found: list[dict[str, Tensor]] | None = None
    """Per entry of the batch, what Detector.detect finds in this memory, where the step has already looked."""


class Detector(nn.Module):
    """The parts of one detector, built from its configuration. It holds weights and no stream state."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.features = build_features(config.features)
        self.displacement = build_displacement(self.features, config.displacement)
        self.memory = build_memory(self.features.channels, config.memory)
        self.head = build_head(self.features, len(config.class_names), config.head)

    def for_inference(self) -> "Detector":
        """A copy in eval mode that is faster and cannot be trained; see fold_batch_norms."""
        copied = deepcopy(self).eval()
        fold_batch_norms(copied)
        return copied

    def observe(self, images: Tensor, *, withhold: bool = False) -> Evidence:
        """Everything of a frame that does not depend on other frames.

        Args:
            images: (B, 3, H, W), RGB in [0, 255]; sides are multiples of features.size_multiple.
            withhold: leave the features out, and do not compute them.
        """
        compares = self.displacement is not None
        early = None
        if not withhold or (self.displacement is not None and self.displacement.reads_early):
            early = self.features.early(images)
        motion = self.displacement.describe(images, early) if compares else None  # type: ignore[union-attr]
        features = None if withhold or early is None else self.features.levels(early)
        return Evidence(features, motion)

    def step(self, state: Any | None, evidence: Evidence | None) -> Step:
        """Advance one stream, or a batch of streams that run in step; see Memory.step."""
        return self.step_streams([state], [evidence])[0]

    def step_streams(self, states: Sequence[Any | None], evidence: Sequence[Evidence | None]) -> list[Step]:
        """Advance several streams by one frame each; all their displacements are measured in one call."""
        pairs = [self.memory.pairs(s, e) for s, e in zip(states, evidence, strict=True)]
        fields = iter(self._compare([pair for of_stream in pairs for pair in of_stream]))
        steps = []
        for state, new, of_stream in zip(states, evidence, pairs, strict=True):
            displacements = [next(fields) for _ in of_stream]
            memory, state = self.memory.step(state, new, displacements)
            first = displacements[0][:, :2] if displacements and self.memory.lookahead == 0 else None
            steps.append(Step(memory, state, first))
        return steps

    def remember(self, evidence: Sequence[Evidence]) -> tuple[Levels, Tensor | None]:
        """Run the memory over whole sequences, for training.

        Args:
            evidence: of each frame of B sequences, oldest first; see Evidence.in_time.
        Returns: M of all frames, (B * T, C, H, W) per level, entry sequence * T + frame; and the displacements from
            each frame to the one before it, (B, T - 1, 2, H, W), None if they are not measured.
        """
        state, memories, displacements = None, [], []
        # None after the last frame, for what a memory that looks ahead still owes.
        for new in (*evidence, *[None] * self.memory.lookahead):
            step = self.step(state, new)
            state = step.state
            memories += [step.memory] if step.memory is not None else []
            displacements += [step.displacement] if step.displacement is not None else []
        together = tuple(torch.stack(level, dim=1).flatten(0, 1) for level in zip(*memories, strict=True))
        return together, torch.stack(displacements, dim=1) if displacements else None

    def detect(self, memory: Levels, image_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """Boxes from a memory; see Head.detect."""
        return self.head.detect(self.features.finish(memory), image_size)

    def detect_moved(
        self, memory: Levels, displacement: Tensor, proposals: Tensor, image_size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        """Boxes from one stream's memory, as each of T fields moves what the head reads; see Head.detect_moved."""
        return self.head.detect_moved(self.features.finish(memory), displacement, proposals, image_size)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detect in single images, without memory: what a stream's first frame sees.

        Args:
            images: (B, 3, H, W), RGB in [0, 255].
        """
        levels = self.features.levels(self.features.early(images))
        return self.detect(levels, (images.shape[-2], images.shape[-1]))

    def _compare(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        if not pairs:
            return []
        assert self.displacement is not None
        current, past = (torch.cat(frames) for frames in zip(*pairs, strict=True))
        # Coordinates need more than half precision; and x and y, which are computed with by themselves, lie apart.
        fields = self.displacement(current, past).float().contiguous()
        return list(fields.split([len(pair[0]) for pair in pairs]))


def merge_boxes(found: Sequence[dict[str, Tensor]], nms_threshold: float) -> dict[str, Tensor]:
    """Put together what several looks at one image found; the best of overlapping boxes of a class stays.

    Args:
        found: as from Head.detect, all in the same pixels.
        nms_threshold: overlap (IoU) from which two boxes are one object.
    """
    together = {key: torch.cat([one[key] for one in found]) for key in ("boxes", "scores", "labels")}
    keep = batched_nms(together["boxes"].float(), together["scores"].float(), together["labels"], nms_threshold)
    return {key: value[keep] for key, value in together.items()}
