"""MemNet: one memory, warped from frame to frame and updated with every frame's evidence (section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from memwarp_core.models.config import MemNetConfig
from memwarp_core.models.memory.aggregation import AggregateLevels
from memwarp_core.models.memory.checks import check_displacements, check_sizes, check_start, contents
from memwarp_core.models.parts import Evidence, Levels, Memory, warp_levels


@dataclass(frozen=True, slots=True)
class MemNetState:
    maps: Levels
    """M_t per level, as its aggregation keeps it."""
    motion: Tensor
    """Of the newest frame."""


class MemNet(Memory):
    """M_t = aggregate(warp(M_(t-1), D_(t,t-1)), F_t); M_1 = F_1; without evidence, the warped M_(t-1) itself.

    Frames are those that were seen: where a camera drops some, the displacement spans the gap.
    """

    def __init__(self, channels: tuple[int, ...], config: MemNetConfig) -> None:
        super().__init__()
        self.aggregate = AggregateLevels(channels, config.aggregation)

    def pairs(self, state: MemNetState | None, evidence: Evidence | None) -> list[tuple[Tensor, Tensor]]:
        if state is None:
            return []
        _, motion = contents(evidence)
        return [(motion, state.motion)]

    def step(
        self, state: MemNetState | None, evidence: Evidence | None, displacements: Sequence[Tensor]
    ) -> tuple[Levels, MemNetState]:
        """See Memory.step (Eqs. 1 and 2)."""
        features, motion = contents(evidence)
        check_displacements(displacements, 0 if state is None else 1)
        if state is None:
            maps = self.aggregate.start(check_start(features))
        else:
            maps = warp_levels(state.maps, displacements[0])
            if features is not None:
                check_sizes(state.maps, features)
                maps = self.aggregate(maps, features)
        return self.aggregate.read(maps), MemNetState(maps, motion)
