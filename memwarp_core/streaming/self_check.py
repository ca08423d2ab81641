"""A detector that checks its own anticipations, without any ground truth, while it runs.

What was said of an instant is kept until that instant has been seen, and is then held against what was found there,
beside the boxes of the source frame: what would have been said if nothing moved. An anticipation that is worse than
those does harm. Only what was looked at is compared; nothing is interpolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from memwarp_core.geometry import match_boxes
from memwarp_core.timeline import half_interval_ns
from memwarp_core.types import Detections

_INTERVALS = 10
"""Of the last frames, whose median says how far a frame may be from the instant that was spoken of."""
_HIT_IOU = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfCheckConfig:
    """How long the memory and the patience are."""

    window: int = 100
    """So many comparisons of frames are averaged, the last ones, per horizon."""
    patience_s: float = 5.0
    """A gain that was negative for so long is reported as harm."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1 comparison, got {self.window}.")
        if not self.patience_s >= 0:
            raise ValueError(f"patience_s must not be negative, got {self.patience_s}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was found in one frame, N objects, against what had been said of it."""

    labels: Tensor
    """(N,), int64."""
    ious: Tensor
    """(2, N), of each object with what was anticipated for it, 0 where nothing was; and with its box in the source
    frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    """In one frame, of one later instant."""

    anticipated: Detections
    unmoved: Detections


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfCheckState:
    """Of one camera; a new one forgets. It holds what the longest horizon and the window need, and no more."""

    waiting: tuple[tuple[_Said, ...], ...] = ()
    """Per horizon, what was said of instants that have not passed, oldest first."""
    compared: tuple[tuple[Comparison, ...], ...] = ()
    """Per horizon, the last comparisons, oldest first."""
    negative_since_ns: tuple[int | None, ...] = ()
    """Per horizon, since which frame the gain has been negative all the time; None where it is not."""
    last_found: Detections | None = None
    stamps_ns: tuple[int, ...] = ()
    """Of the last few frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How well anticipations of one horizon, of one class or of all, agreed with what was then found."""

    objects: int
    """Found objects that were compared; without any, the figures are 0."""
    hit_rate: float
    """Share of them that were anticipated with an IoU of 0.5 or more."""
    mean_iou: float
    mean_iou_unmoved: float
    """As if nothing had moved."""

    @property
    def gain(self) -> float:
        """Mean IoU that anticipating brings; below 0 it does harm."""
        return self.mean_iou - self.mean_iou_unmoved


@dataclass(frozen=True, kw_only=True, slots=True)
class HorizonCheck:
    """The last comparisons of one horizon."""

    all_classes: Agreement
    per_class: dict[int, Agreement]
    """By label; classes of which nothing was found are not there."""
    negative_for_s: float
    """How long the gain over all classes has been negative."""
    is_harmful: bool
    """It has been so for the patience of the configuration, so standing boxes would be better."""


class SelfCheck:
    """Compares past anticipations with what was later found; it keeps nothing between calls, a camera is a state."""

    def __init__(self, horizons_s: Sequence[float], config: SelfCheckConfig | None = None) -> None:
        self.horizons_s = tuple(horizons_s)
        self.config = config or SelfCheckConfig()

    def start(self) -> SelfCheckState:
        """The state of a camera of which nothing was compared, also after its memory began anew."""
        nothing: tuple[tuple[()], ...] = ((),) * len(self.horizons_s)
        return SelfCheckState(waiting=nothing, compared=nothing, negative_since_ns=(None,) * len(self.horizons_s))

    def step(self, found: Detections, anticipated: Sequence[Detections], state: SelfCheckState) -> SelfCheckState:
        """Compare what was said of the instants up to this frame, and keep what is said now.

        The frame that is nearest to an instant counts; one that is further away than half a median frame interval
        does not, as after dropped frames.

        Args:
            found: in the newest frame, those that would be published; stamps of a stream increase.
            anticipated: from that frame, per horizon, chosen in the same way; or empty, if nothing was anticipated.
            state: what `start` or the last call returned.
        Raises: ValueError if the stamp is not newer than the last one, or the number of horizons is another.
        """
        if state.stamps_ns and found.stamp_ns <= state.stamps_ns[-1]:
            raise ValueError(
                f"stamp {found.stamp_ns} ns is not after the last one, {state.stamps_ns[-1]} ns; go on from start() "
                "when a recording begins again."
            )
        if anticipated and len(anticipated) != len(self.horizons_s):
            raise ValueError(f"expected anticipations of {len(self.horizons_s)} horizons, got {len(anticipated)}.")
        found = found.cpu()
        stamps_ns = (*state.stamps_ns[-_INTERVALS:], found.stamp_ns)
        frames = [found] if state.last_found is None else [state.last_found, found]
        tolerance_ns = half_interval_ns(stamps_ns)
        waiting, compared, negative_since_ns = [], [], []
        for index in range(len(self.horizons_s)):
            due = [said for said in state.waiting[index] if said.anticipated.stamp_ns <= found.stamp_ns]
            later = list(state.waiting[index][len(due) :])
            if anticipated:
                later.append(_Said(anticipated=anticipated[index].cpu(), unmoved=found))
            new = [one for said in due if (one := _compare(said, frames, tolerance_ns)) is not None]
            window = (*state.compared[index], *new)[-self.config.window :]
            since_ns = state.negative_since_ns[index]
            if new:
                is_negative = _agreement(window).gain < 0
                since_ns = (found.stamp_ns if since_ns is None else since_ns) if is_negative else None
            waiting.append(tuple(later))
            compared.append(window)
            negative_since_ns.append(since_ns)
        return replace(
            state,
            waiting=tuple(waiting),
            compared=tuple(compared),
            negative_since_ns=tuple(negative_since_ns),
            last_found=found,
            stamps_ns=stamps_ns,
        )

    def forget(self, state: SelfCheckState) -> SelfCheckState:
        """When the stream begins anew: what waits is never seen, what was compared stays."""
        return replace(self.start(), compared=state.compared)

    def report(self, state: SelfCheckState) -> list[HorizonCheck]:
        """What the last comparisons say, per horizon."""
        checks = []
        for comparisons, since_ns in zip(state.compared, state.negative_since_ns, strict=True):
            labels = sorted(set(chain.from_iterable(one.labels.tolist() for one in comparisons)))
            negative_for_s = 0.0 if since_ns is None else (state.stamps_ns[-1] - since_ns) / 1e9
            checks.append(
                HorizonCheck(
                    all_classes=_agreement(comparisons),
                    per_class={label: _agreement(comparisons, label) for label in labels},
                    negative_for_s=negative_for_s,
                    is_harmful=since_ns is not None and negative_for_s >= self.config.patience_s,
                )
            )
        return checks


def _compare(said: _Said, frames: Sequence[Detections], tolerance_ns: int) -> Comparison | None:
    """With the nearest of the frames around the instant; None if even that one is too far away."""
    seen = min(frames, key=lambda frame: abs(frame.stamp_ns - said.anticipated.stamp_ns))
    if abs(seen.stamp_ns - said.anticipated.stamp_ns) > tolerance_ns:
        return None
    ious = [
        match_boxes(seen.boxes_xyxy, seen.labels, of.boxes_xyxy, of.labels)[1]
        for of in (said.anticipated, said.unmoved)
    ]
    return Comparison(labels=seen.labels, ious=torch.stack(ious))


def _agreement(comparisons: Sequence[Comparison], label: int | None = None) -> Agreement:
    """Over the objects of all comparisons, or those of one class."""
    ious = torch.cat([torch.zeros(2, 0), *(one.ious for one in comparisons)], dim=1)
    if label is not None:
        ious = ious[:, torch.cat([one.labels for one in comparisons]) == label]
    objects = ious.shape[1]
    count = max(objects, 1)
    total, total_unmoved = ious.sum(dim=1).tolist()
    return Agreement(
        objects=objects,
        hit_rate=int((ious[0] >= _HIT_IOU).sum()) / count,
        mean_iou=total / count,
        mean_iou_unmoved=total_unmoved / count,
    )
