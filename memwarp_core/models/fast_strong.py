"""A fast detector that borrows the features of a strong one, which are late (the paper, section 4.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memwarp_core.geometry import propagate_boxes
from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.detector import Detector, Step
from memwarp_core.models.memory.aggregation import AggregateLevels
from memwarp_core.models.parts import Evidence, Levels, warp_levels


@dataclass(frozen=True, slots=True)
class FastStrongEvidence:
    """What one frame contributes."""

    fast: Evidence
    images: Tensor
    """(B, 3, H, W), for the strong detector, which looks in full at some frames only."""

    def split(self) -> list["FastStrongEvidence"]:
        return [
            FastStrongEvidence(fast, self.images[index : index + 1]) for index, fast in enumerate(self.fast.split())
        ]

    def in_time(self, frames: int) -> list["FastStrongEvidence"]:
        """See Evidence.in_time."""
        return [FastStrongEvidence(fast, self.images[t::frames]) for t, fast in enumerate(self.fast.in_time(frames))]


@dataclass(frozen=True, slots=True)
class Late:
    """What the strong detector says of a frame that the fast one has left behind."""

    motion: Tensor
    """The fast detector's description of the frame."""
    features: Levels | None
    """The strong memory, if features are what is borrowed, ..."""
    boxes: list[dict[str, Tensor]] | None
    """... or what the strong head found in it, per entry of the batch."""


@dataclass(frozen=True, slots=True)
class FastStrongState:
    motion: Tensor
    """The fast detector's description of the newest frame."""
    borrowed: Late | None = None
    """What the next frame borrows; None while there is nothing."""
    strong: Any = None
    """The strong detector's own state, if it runs in step; as is what follows."""
    frame: int = 0
    """Frames seen."""
    late: tuple[Late, ...] = ()
    """Of the last frames, oldest first, at most `lag`."""


class FastStrong(Detector):
    """A fast detector that borrows from a strong one: M_t = aggregate(warp(strong M_s, D_(t,s)), F_t), at s < t.

    The paper aggregates by the mean. The fast head reads M_t; while there is nothing to borrow, M_t = F_t. Both
    detectors run in step, with a fixed lag in frames (s = t - lag), for training and evaluation; after `take_strong`,
    the fast one runs by itself, and somebody else puts into the states what there is to borrow. The strong detector is
    fixed, only the fast one learns.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        assert config.strong is not None
        self._borrow = config.strong
        levels = self.features.channels if config.strong.source == "features" else ()
        self.aggregate = AggregateLevels(levels, config.strong.aggregation)
        self.strong: Detector | None = Detector(config.strong.detector).requires_grad_(False).eval()

    def take_strong(self) -> Detector:
        """Take the strong detector out, to run it elsewhere; from then on states come back without `borrowed`."""
        strong, self.strong = self.strong, None
        assert strong is not None
        return strong

    def train(self, mode: bool = True) -> "FastStrong":
        super().train(mode)
        if self.strong is not None:
            self.strong.eval()
        return self

    def observe(self, images: Tensor, *, withhold: bool = False) -> FastStrongEvidence:  # type: ignore[override]
        """See Detector.observe."""
        return FastStrongEvidence(super().observe(images, withhold=withhold), images)

    def step_streams(  # type: ignore[override]
        self, states: Sequence[FastStrongState | None], evidence: Sequence[FastStrongEvidence]
    ) -> list[Step]:
        """See Detector.step_streams; both detectors see images of the same size."""
        pairs = []
        for state, new in zip(states, evidence, strict=True):
            if state is None:
                continue
            assert new.fast.motion is not None
            # The frame before, for anticipation, and the one that is borrowed from.
            known = (state.motion, *((state.borrowed.motion,) if state.borrowed is not None else ()))
            pairs += [(new.fast.motion, past) for past in known]
        fields = iter(self._compare(pairs))
        return [self._step(state, new, fields) for state, new in zip(states, evidence, strict=True)]

    def _step(self, state: FastStrongState | None, evidence: FastStrongEvidence, fields: Iterator[Tensor]) -> Step:
        memory = evidence.fast.features
        assert memory is not None and evidence.fast.motion is not None
        displacement = None if state is None else next(fields)[:, :2]
        borrowed = None if state is None else state.borrowed
        boxes = None
        if borrowed is not None:
            over_lag = next(fields)
            if borrowed.features is not None:
                strong = self.aggregate.start(warp_levels(borrowed.features, over_lag))
                memory = self.aggregate.read(self.aggregate(strong, memory))
            if borrowed.boxes is not None:
                stride = self.features.strides[0]
                boxes = [
                    {**of_image, "boxes": propagate_boxes(of_image["boxes"], field[:2], stride)}
                    for of_image, field in zip(borrowed.boxes, over_lag, strict=True)
                ]
        after = FastStrongState(evidence.fast.motion)
        if self.strong is not None:
            after = self._step_strong(self.strong, state, evidence)
        return Step(memory, after, displacement, late=boxes)

    @torch.no_grad()
    def _step_strong(
        self, strong: Detector, state: FastStrongState | None, evidence: FastStrongEvidence
    ) -> FastStrongState:
        assert evidence.fast.motion is not None
        seen, known = (0, ()) if state is None else (state.frame, state.late)
        features, boxes, strong_state = look(
            strong, evidence.images, None if state is None else state.strong, seen, self._borrow.source
        )
        known = (*known, Late(evidence.fast.motion, features, boxes))[-self._borrow.lag :]
        borrowed = known[0] if len(known) == self._borrow.lag else None
        return FastStrongState(evidence.fast.motion, borrowed, strong_state, seen + 1, known)


def look(
    strong: Detector, images: Tensor, state: Any, seen: int, source: str
) -> tuple[Levels | None, list[dict[str, Tensor]] | None, Any]:
    """One step of the strong detector.

    Args:
        images: (B, 3, H, W), as for Detector.observe.
        state: what it returned for the frame before; None at first.
        seen: frames that it has seen before this one; it looks in full at every n-th of them, if it is so configured.
        source: StrongConfig.source.
    Returns: features and boxes as in Late, and the next state.
    """
    withhold = seen % strong.config.propagation.every != 0
    stepped = strong.step(state, strong.observe(images, withhold=withhold))
    assert stepped.memory is not None
    if source == "boxes":
        return None, strong.detect(stepped.memory, (images.shape[-2], images.shape[-1])), stepped.state
    return strong.features.finish(stepped.memory), None, stepped.state
