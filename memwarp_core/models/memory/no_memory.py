"""No memory: every frame by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memwarp_core.models.memory.checks import check_displacements, check_start
from memwarp_core.models.parts import Evidence, Levels, Memory


@dataclass(frozen=True, slots=True)
class NoMemoryState:
    features: Levels
    """F_t of the newest frame, for its shapes."""
    motion: Tensor | None


class NoMemory(Memory):
    """The per-frame detector: M_t = F_t. Frames are compared only for those who want to know the motion."""

    def pairs(self, state: NoMemoryState | None, evidence: Evidence | None) -> list[tuple[Tensor, Tensor]]:
        if state is None or state.motion is None or evidence is None or evidence.motion is None:
            return []
        return [(evidence.motion, state.motion)]

    def step(
        self, state: NoMemoryState | None, evidence: Evidence | None, displacements: Sequence[Tensor]
    ) -> tuple[Levels, NoMemoryState]:
        """See Memory.step; where evidence is withheld nothing is known, and the maps are zero."""
        check_displacements(displacements, len(self.pairs(state, evidence)))
        if evidence is None:
            raise ValueError("a step needs the evidence of a new frame, got None; without memory nothing is owed.")
        features = evidence.features
        if state is None:
            features = check_start(features)
        elif features is None:
            features = tuple(torch.zeros_like(level) for level in state.features)
        return features, NoMemoryState(features, evidence.motion)
