"""The memory part: what is carried from frame to frame, and how new evidence enters it.

A memory is a module without stream state: `step` takes the state of one stream (or a batch of streams) and returns
the next one. The first step of a stream takes no state.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memwarp_core.geometry import warp
from memwarp_core.models.config import MemoryConfig


@dataclass(frozen=True, slots=True)
class MemoryState:
    """The memory of a batch of streams."""

    features: Tensor
    """(B, C, H, W), M_t."""


class NoMemory(nn.Module):
    """The per-frame detector: M_t = F_t."""

    def step(
        self, state: MemoryState | None, evidence: Tensor | None, displacement: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        """See MemNet.step; without evidence nothing is known, and the map is zero."""
        if evidence is None:
            if state is None:
                raise ValueError("the first frame needs evidence; got none.")
            evidence = torch.zeros_like(state.features)
        return evidence, MemoryState(evidence)


class MemNet(nn.Module):
    """One map, warped from frame to frame and updated with every frame's evidence (the paper, section 3.1)."""

    def __init__(self, channels: int, config: MemoryConfig) -> None:
        super().__init__()
        self.aggregate: nn.Module = Average() if config.aggregation == "average" else LearnedWeights(channels)

    def step(
        self, state: MemoryState | None, evidence: Tensor | None, displacement: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        """Advance by one frame (Eqs. 1 and 2).

        Args:
            state: of the frame before, or None for a stream's first frame, where M_1 = F_1.
            evidence: (B, C, H, W), F_t, or None to propagate only: M_t is then the warped memory.
            displacement: (B, 2, H, W), D_(t,t-1) in feature pixels; needed whenever there is a state.
        Returns: the features for the head, (B, C, H, W), and the next state.
        Raises: ValueError if there is neither a state nor evidence, or a state but no displacement.
        """
        if state is None:
            if evidence is None:
                raise ValueError("the first frame needs evidence; got none.")
            return evidence, MemoryState(evidence)
        if displacement is None:
            raise ValueError("a memory of an earlier frame needs the displacement to it; got none.")
        features = warp(state.features, displacement)
        if evidence is not None:
            features = self.aggregate(features, evidence)
        return features, MemoryState(features)


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


def build_memory(channels: int, config: MemoryConfig) -> NoMemory | MemNet:
    return NoMemory() if config.kind == "none" else MemNet(channels, config)
