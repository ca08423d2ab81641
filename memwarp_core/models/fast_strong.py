"""A fast detector that borrows the features of a strong one, which are late (the paper, section 4.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memwarp_core.geometry import propagate_boxes
from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.detector import Detector, Step
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
    """What the strong detector knows of one frame, and will have said `lag` frames later."""

    motion: Tensor
    """The fast detector's description of the frame."""
    features: Levels | None
    """The strong memory, if features are what is borrowed, ..."""
    boxes: list[dict[str, Tensor]] | None
    """... or what the strong head found in it, per entry of the batch."""


@dataclass(frozen=True, slots=True)
class FastStrongState:
    strong: Any
    frame: int
    """Frames seen."""
    late: tuple[Late, ...]
    """Of the last frames, oldest first, at most `lag`."""


class FastStrong(Detector):
    """Both detectors in step, with a fixed lag in frames: the deterministic form, for training and evaluation.

    With the features of frame t - lag, M_t = (F_t + warp(strong M_(t-lag), D_(t,t-lag))) / 2, and the fast head
    reads it; while there are none yet, M_t = F_t. The strong detector is fixed, only the fast one learns.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        assert config.strong is not None
        self._borrow = config.strong
        self.strong = Detector(config.strong.detector).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FastStrong":
        super().train(mode)
        self.strong.eval()
        return self

    def observe(self, images: Tensor, *, withhold: bool = False) -> FastStrongEvidence:  # type: ignore[override]
        """See Detector.observe."""
        return FastStrongEvidence(super().observe(images, withhold=withhold), images)

    def step_streams(  # type: ignore[override]
        self, states: Sequence[FastStrongState | None], evidence: Sequence[FastStrongEvidence]
    ) -> list[Step]:
        """See Detector.step_streams; both detectors see images of the same size."""
        lag = self._borrow.lag
        # The frame before, for anticipation, and the one that the strong detector has just finished.
        known = [() if state is None else state.late for state in states]
        pairs = []
        for of_stream, new in zip(known, evidence, strict=True):
            assert new.fast.motion is not None
            compared = (*of_stream[-1:], *(of_stream[:1] if len(of_stream) == lag else ()))
            pairs += [(new.fast.motion, late.motion) for late in compared]
        fields = iter(self._compare(pairs))
        return [
            self._step(state, new, of_stream, fields)
            for state, new, of_stream in zip(states, evidence, known, strict=True)
        ]

    def _step(
        self,
        state: FastStrongState | None,
        evidence: FastStrongEvidence,
        known: tuple[Late, ...],
        fields: Iterator[Tensor],
    ) -> Step:
        memory = evidence.fast.features
        assert memory is not None and evidence.fast.motion is not None
        newest = next(fields) if known else None
        boxes = None
        if len(known) == self._borrow.lag:
            over_lag, oldest = next(fields), known[0]
            if oldest.features is not None:
                warped = warp_levels(oldest.features, over_lag)
                memory = tuple((fast + strong) / 2 for fast, strong in zip(memory, warped, strict=True))
            if oldest.boxes is not None:
                stride = self.features.strides[0]
                boxes = [
                    {**of_image, "boxes": propagate_boxes(of_image["boxes"], field[:2], stride)}
                    for of_image, field in zip(oldest.boxes, over_lag, strict=True)
                ]
        late, strong_state = self._step_strong(state, evidence)
        known = (*known, late)[-self._borrow.lag :]
        after = FastStrongState(strong_state, 1 if state is None else state.frame + 1, known)
        displacement = None if newest is None else newest[:, :2]
        return Step(memory, after, displacement, late=boxes)

    @torch.no_grad()
    def _step_strong(self, state: FastStrongState | None, evidence: FastStrongEvidence) -> tuple[Late, Any]:
        every = self._borrow.detector.propagation.every
        withhold = state is not None and state.frame % every != 0
        observed = self.strong.observe(evidence.images, withhold=withhold)
        stepped = self.strong.step(None if state is None else state.strong, observed)
        assert stepped.memory is not None and evidence.fast.motion is not None
        late = Late(evidence.fast.motion, stepped.memory, None)
        if self._borrow.source == "boxes":
            size = (evidence.images.shape[-2], evidence.images.shape[-1])
            late = replace(late, features=None, boxes=self.strong.detect(stepped.memory, size))
        else:
            late = replace(late, features=self.strong.features.finish(stepped.memory))
        return late, stepped.state
