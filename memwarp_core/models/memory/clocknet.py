"""ClockNet: several memories that take evidence at different rates, averaged at every frame (section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from memwarp_core.geometry import compose
from memwarp_core.models.config import ClockNetConfig
from memwarp_core.models.memory.aggregation import AggregateLevels
from memwarp_core.models.memory.checks import check_displacements, check_sizes, check_start, contents
from memwarp_core.models.parts import Evidence, Levels, Memory, warp_levels


@dataclass(frozen=True, slots=True)
class Axis:
    """One memory, as it was at its last tick."""

    maps: Levels
    """Per level, as the aggregation keeps them."""
    motion: Tensor
    """Of the frame of the last tick."""
    age: int
    """Frames from the last tick to the newest frame."""
    chained: Tensor | None
    """Displacement from the newest frame to the last tick's; None where it is measured, or the two are the same."""


@dataclass(frozen=True, slots=True)
class ClockNetState:
    axes: tuple[Axis, ...]
    """One per stride."""
    motion: Tensor
    """Of the newest frame."""


class ClockNet(Memory):
    """M_t is the mean over the axes k of M_t^k; the axis of stride s ticks in a stream's frames 0, s, 2s, ...

    Every frame, each axis is warped from the frame of its own last tick, over up to s frames at once. In between ticks
    that is M_t^k, and the axis stays what it was, so that nothing is interpolated twice. On its tick the axis also
    takes the frame's evidence, or moves on to the warped map where evidence is withheld; evidence of frames in between
    is not used by this axis. Axes share the weights of their aggregation.

    Displacements are measured in one batch: one per frame that axes ticked last in, and always the one to the frame
    before, which anticipation needs. With `composed` only that one is measured, and the longer ones are chained from
    it, which is cheaper and adds up errors.

    Strides count the frames that were seen: where a camera drops some, displacements span the gap and ticks come later.
    """

    def __init__(self, channels: tuple[int, ...], config: ClockNetConfig) -> None:
        super().__init__()
        self.strides = config.strides
        self.composed = config.composed
        self.aggregate = AggregateLevels(channels, config.aggregation)

    def pairs(self, state: ClockNetState | None, evidence: Evidence | None) -> list[tuple[Tensor, Tensor]]:
        """The new frame with the frame before it, then with the frames that axes ticked last in."""
        _, motion = contents(evidence)
        return [(motion, past) for past in self._compared(state).values()]

    def step(
        self, state: ClockNetState | None, evidence: Evidence | None, displacements: Sequence[Tensor]
    ) -> tuple[Levels, ClockNetState]:
        """See Memory.step; a stream's first frame is a tick of every axis."""
        features, motion = contents(evidence)
        check_displacements(displacements, len(self._compared(state)))
        if state is None:
            started = Axis(self.aggregate.start(check_start(features)), motion, age=0, chained=None)
            return self.aggregate.read(started.maps), ClockNetState((started,) * len(self.strides), motion)
        if features is not None:
            check_sizes(state.axes[0].maps, features)
        fields = self._fields(state, displacements)
        axes, memories = [], []
        for stride, axis in zip(self.strides, state.axes, strict=True):
            field = fields[axis.age]
            maps = warp_levels(axis.maps, field)
            if axis.age + 1 < stride:
                axis = Axis(axis.maps, axis.motion, axis.age + 1, field if self.composed else None)
            else:
                if features is not None:
                    maps = self.aggregate(maps, features)
                axis = Axis(maps, motion, age=0, chained=None)
            axes.append(axis)
            memories.append(self.aggregate.read(maps))
        mean = tuple(sum(level[1:], level[0]) / len(level) for level in zip(*memories, strict=True))
        return mean, ClockNetState(tuple(axes), motion)

    def _compared(self, state: ClockNetState | None) -> dict[int, Tensor]:
        """What the new frame is compared with, by the number of frames that it lies before the newest known one."""
        if state is None:
            return {}
        past = {0: state.motion}
        if not self.composed:
            past |= {axis.age: axis.motion for axis in state.axes}
        return past

    def _fields(self, state: ClockNetState, displacements: Sequence[Tensor]) -> dict[int, Tensor]:
        """The displacement from the new frame to each axis's last tick, by the axis's age."""
        fields = dict(zip(self._compared(state), displacements, strict=True))
        for axis in state.axes:
            if axis.age not in fields:
                assert axis.chained is not None
                fields[axis.age] = compose(fields[0], axis.chained)
        return fields
