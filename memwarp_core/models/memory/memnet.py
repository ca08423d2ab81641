"""MemNet: one memory, warped from frame to frame and updated with every frame's evidence (section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memwarp_core.models.config import MemNetConfig
from memwarp_core.models.parts import Evidence, Levels, Memory, warp_levels


@dataclass(frozen=True, slots=True)
class MemNetState:
    features: Levels
    """M_t per level."""
    motion: Tensor
    """Of the newest frame."""


class MemNet(Memory):
    def __init__(self, channels: tuple[int, ...], config: MemNetConfig) -> None:
        super().__init__()
        self.aggregate = nn.ModuleList(
            Average() if config.aggregation == "average" else LearnedWeights(of_level) for of_level in channels
        )

    def pairs(self, state: MemNetState | None, evidence: Evidence | None) -> list[tuple[Tensor, Tensor]]:
        if state is None or evidence is None or evidence.motion is None:
            return []
        return [(evidence.motion, state.motion)]

    def step(
        self, state: MemNetState | None, evidence: Evidence | None, displacements: Sequence[Tensor]
    ) -> tuple[Levels, MemNetState]:
        """See Memory.step (Eqs. 1 and 2)."""
        if evidence is None or evidence.motion is None or (state is None and evidence.features is None):
            raise ValueError("the first frame needs evidence; got none.")
        features = evidence.features
        if state is not None:
            if len(displacements) != 1:
                raise ValueError(f"a memory needs the displacement to the frame before; got {len(displacements)}.")
            warped = warp_levels(state.features, displacements[0])
            if features is None:
                features = warped
            else:
                features = tuple(f(m, e) for f, m, e in zip(self.aggregate, warped, features, strict=True))
        assert features is not None
        return features, MemNetState(features, evidence.motion)


class Average(nn.Module):
    """Exponential decay: the mean of the warped memory and the evidence (Eq. 3)."""

    def forward(self, memory: Tensor, evidence: Tensor) -> Tensor:
        return (memory + evidence) / 2


class LearnedWeights(nn.Module):
    """A weight per place from two small networks and a softmax between them (Eq. 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_memory = _weight_network(channels)
        self.of_evidence = _weight_network(channels)

    def forward(self, memory: Tensor, evidence: Tensor) -> Tensor:
        # The softmax of two values is the sigmoid of their difference.
        weight = torch.sigmoid(self.of_memory(memory) - self.of_evidence(evidence))
        return weight * memory + (1 - weight) * evidence


def _weight_network(channels: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, 1, H, W); starts at zero, so that training starts from the average."""
    last = nn.Conv2d(32, 1, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(inplace=True), last)
