"""FGFA: the features of a window of frames, warped to the current one and averaged with adaptive weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn

from memwarp_core.geometry import compose
from memwarp_core.models.config import FGFAConfig
from memwarp_core.models.memory.aggregation import AdaptiveWeights
from memwarp_core.models.memory.checks import check_displacements, check_sizes, check_start, contents
from memwarp_core.models.parts import Evidence, Levels, Memory, warp_levels


@dataclass(frozen=True, slots=True)
class WindowFrame:
    motion: Tensor
    features: Levels | None
    """F_t per level; None where withheld."""
    embeddings: Levels = ()
    """Per level."""
    chained: Tensor | None = None
    """Displacement from the newest frame to this one; None in the newest, and where it is measured or not needed."""


Frames = tuple[WindowFrame | None, ...]
"""Oldest first; None for each step after the stream's end."""


@dataclass(frozen=True, slots=True)
class FGFAState:
    frames: Frames


class FGFA(Memory):
    """Flow-guided feature aggregation (Zhu et al. 2017), the paper's main baseline; it carries no memory on.

    The output of a step belongs to the *centre*, the frame `future` frames before the newest. Every frame of the
    window, up to `past` frames before the centre and `future` after it, is warped to the centre and weighs by how much
    its embedding is like the centre's, at each place. Embeddings are computed once per frame and warped like features.

    - The first `future` steps return None. After the stream's last frame, `future` steps without evidence return what
      is owed, so that T frames have T outputs; another frame or step after that is refused.
    - At a stream's start and end the window has fewer frames.
    - A frame whose evidence was withheld is left out. If it is the centre, the others are compared with the nearest
      frame before it that has evidence, warped. If the window has none before the centre, the newest older one stays in
      the window, however old, so that propagation never runs dry.
    - With `future` 0 (causal FGFA) the displacements of all frames are measured anew in each step, in one batch. With
      `composed` (causal FGFA*) only D_(t,t-1) is measured, and each frame's displacement is chained from step to step.
    - The window counts frames that were seen: where a camera drops some, it reaches further back.
    """

    def __init__(self, channels: tuple[int, ...], config: FGFAConfig) -> None:
        super().__init__()
        self.lookahead = config.future
        self.composed = config.composed
        self.size = config.past + 1 + config.future
        self.aggregate = nn.ModuleList(AdaptiveWeights(of_level) for of_level in channels)

    def pairs(self, state: FGFAState | None, evidence: Evidence | None) -> list[tuple[Tensor, Tensor]]:
        """The centre with other frames: past ones first, newest first, then future ones."""
        frames = self._slide(state, evidence)
        centre = self._centre(frames)
        return [] if centre is None else [(centre.motion, other.motion) for other in self._compared(frames)]

    def step(
        self, state: FGFAState | None, evidence: Evidence | None, displacements: Sequence[Tensor]
    ) -> tuple[Levels | None, FGFAState]:
        """See Memory.step; None for the centres that a stream has not yet."""
        frames = self._slide(state, evidence)
        check_displacements(displacements, len(self._compared(frames)))
        frames = (*frames[:-1], self._embed(frames[-1]))
        centre = self._centre(frames)
        if centre is None:
            return None, FGFAState(frames)
        if self.composed and displacements:
            frames = _chain(frames, displacements[0])
            fields = [(other, other.chained) for other in self._others(frames)]
        else:
            fields = list(zip(self._compared(frames), displacements, strict=True))
        window = [] if centre.features is None else [centre.features + centre.embeddings]
        for other, field in fields:
            if other.features is not None and field is not None:
                window.append(warp_levels(other.features + other.embeddings, field))
        return self._combine(window), FGFAState(frames)

    def _slide(self, state: FGFAState | None, evidence: Evidence | None) -> Frames:
        """The window with the new frame, or with None for it after the stream's end; its embeddings are not known yet.

        Raises: ValueError if a stream begins without features, goes on after its end, or ended `future` steps ago.
        """
        frames = () if state is None else state.frames
        if evidence is None and frames and self.lookahead:
            if frames.count(None) == self.lookahead:
                raise ValueError(f"nothing is owed any more: the stream's end was {self.lookahead} steps ago.")
            return self._trim((*frames, None))
        features, motion = contents(evidence)
        if not frames:
            check_start(features)
        elif frames[-1] is None:
            raise ValueError("a frame came after the stream's end; start a new stream.")
        elif features is not None:
            kept = next(frame.features for frame in frames if frame is not None and frame.features is not None)
            check_sizes(kept, features)
        return self._trim((*frames, WindowFrame(motion, features)))

    def _trim(self, frames: Frames) -> Frames:
        """The newest frames, and before them the newest that has features if none does from there to the centre."""
        start = max(len(frames) - self.size, 0)
        until_centre = frames[: max(len(frames) - self.lookahead, 1)]
        known = [index for index, frame in enumerate(until_centre) if frame is not None and frame.features is not None]
        fallback = frames[known[-1] : known[-1] + 1] if known[-1] < start else ()
        return (*fallback, *frames[start:])

    def _centre(self, frames: Frames) -> WindowFrame | None:
        return frames[-1 - self.lookahead] if len(frames) > self.lookahead else None

    def _others(self, frames: Frames) -> list[WindowFrame]:
        """All frames but the centre: past ones first, newest first, then future ones."""
        centre = len(frames) - 1 - self.lookahead
        return [frame for frame in (*frames[:centre][::-1], *frames[centre + 1 :]) if frame is not None]

    def _compared(self, frames: Frames) -> list[WindowFrame]:
        """The frames that displacements are measured to; in a causal memory always the frame before."""
        if self._centre(frames) is None:
            return []
        others = self._others(frames)
        first = 0 if self.lookahead else 1
        if self.composed:
            return others[:first]
        return others[:first] + [frame for frame in others[first:] if frame.features is not None]

    def _embed(self, frame: WindowFrame | None) -> WindowFrame | None:
        if frame is None or frame.features is None:
            return frame
        return replace(
            frame, embeddings=tuple(rule.embed(level) for rule, level in zip(self._rules, frame.features, strict=True))
        )

    def _combine(self, window: Sequence[Levels]) -> Levels:
        """
        Args:
            window: per frame, the features and then the embeddings of each level, on the centre's grid; the first
                frame is what the others are compared with.
        """
        levels = len(self.aggregate)
        by_level = list(zip(*window, strict=True))
        return tuple(
            rule.combine(features, embeddings)
            for rule, features, embeddings in zip(self._rules, by_level[:levels], by_level[levels:], strict=True)
        )

    @property
    def _rules(self) -> Iterable[AdaptiveWeights]:
        return cast(Iterable[AdaptiveWeights], self.aggregate)


def _chain(frames: Frames, newest: Tensor) -> Frames:
    """Extend the displacements of past frames by D_(t,t-1)."""
    chained = []
    for frame in frames[:-1]:
        if frame is not None and frame.features is not None:
            frame = replace(frame, chained=newest if frame.chained is None else compose(newest, frame.chained))
        chained.append(frame)
    return (*chained, frames[-1])
