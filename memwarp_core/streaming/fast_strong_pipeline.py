"""A light detector on every frame that borrows the features of a heavy one, which comes when it can (section 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch

from memwarp_core.errors import ConfigError
from memwarp_core.models import FastStrong
from memwarp_core.models.fast_strong import FastStrongState
from memwarp_core.streaming.strong_worker import Loan, Look, StrongWorker, WorkerReport
from memwarp_core.streaming.video_detector import DetectorState, Precision, VideoDetector
from memwarp_core.types import Detections

_NUMBERS = count()
_IMPOSED_PATIENCE_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Boost:
    """Of a frame that was detected with borrowed features: which they were."""

    stamp_ns: int
    """Stamp of the frame that the strong detector saw."""
    lag_frames: int
    """Frames between that one and this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stream:
    """What is remembered of a camera beside the common part."""

    number: int
    """By which the strong detector knows it; a new memory is another stream."""
    frame: int = 0
    """Number of the next frame."""
    fast: FastStrongState | None = None
    boost: Boost | None = None
    """Of the newest frame."""
    held: tuple[Look, ...] = ()
    """Frames that are not handed to the strong detector yet, where the lag is imposed."""


class FastStrongPipeline(VideoDetector):
    """Runs the fast detector on every frame here, and the strong one beside it, on the newest frame when it is free.

    A step takes the newest strong memory that is there, warps it over the measured displacement between its frame and
    the current one, and averages it with the fast features; where there is none, or it is too old, the fast features
    stand alone. No step ever waits for the strong detector, which is in a process of its own: it may be slow, hang or
    die; see StrongWorker.

    Use it as a context manager, or call `close`.

    Args:
        detector: a pair; its strong detector is taken out of it.
        devices: of the fast and of the strong detector; see load_detector. "auto" takes the second GPU for the strong
            one where there are two.
        max_lag_frames, max_lag_s: a strong memory further behind than either is not borrowed.
        lag_frames: impose this lag instead of taking what is there, and wait for the strong detector in every step:
            all runs are alike then, and like those of the pair in step.
        strong_threads, patience_s: see StrongWorker.
    Raises: ConfigError if the detector is not a pair, or for a device or a precision that is not there.
    """

    def __init__(
        self,
        detector: FastStrong,
        devices: tuple[str, str] = ("auto", "auto"),
        precision: Precision = "auto",
        *,
        max_lag_frames: int = 12,
        max_lag_s: float = 1.0,
        lag_frames: int | None = None,
        strong_threads: int = 0,
        patience_s: float = 10.0,
    ) -> None:
        if not isinstance(detector, FastStrong) or detector.config.strong is None:
            raise ConfigError(
                f"{detector.config.name}: expected a fast detector that borrows from a strong one, such as "
                "rfcn-nano+clocknet-tiny-featprop."
            )
        if lag_frames is not None and lag_frames < 1:
            raise ConfigError(f"lag_frames must be positive, got {lag_frames}.")
        strong = detector.take_strong()
        super().__init__(detector, devices[0], precision)
        self._max_lag_frames, self._max_lag_ns = max_lag_frames, round(max_lag_s * 1e9)
        self._lag_frames = lag_frames
        strong_device = devices[1]
        if strong_device == "auto" and torch.cuda.device_count() > 1:
            strong_device = "cuda:1"
        self._worker = StrongWorker(
            strong,
            detector.config.strong.source,
            device=strong_device,
            precision=precision,
            to=self.device,
            threads=strong_threads,
            patience_s=patience_s,
        )

    def __enter__(self) -> "FastStrongPipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the strong detector; steps go on without it."""
        self._worker.close()

    @property
    def report(self) -> WorkerReport:
        """How the strong detector is doing."""
        return self._worker.report

    def boost(self, state: DetectorState) -> Boost | None:
        """What the newest frame's detections have borrowed; None if the fast features stood alone."""
        return None if state.memory is None else state.memory.boost

    def _look(
        self, images: Sequence[np.ndarray], stamps_ns: Sequence[int], states: Sequence[DetectorState], withhold: bool
    ) -> list[tuple[Detections, DetectorState]]:
        streams = [_Stream(number=next(_NUMBERS)) if state.memory is None else state.memory for state in states]
        loans = [self._borrow(stream, stamp_ns) for stream, stamp_ns in zip(streams, stamps_ns, strict=True)]
        lent = [
            replace(state, memory=_lend(stream.fast, loan))
            for state, stream, loan in zip(states, streams, loans, strict=True)
        ]
        looked = super()._look(images, stamps_ns, lent, withhold)
        return [
            (found, replace(after, memory=self._hand_on(stream, loan, image, after)))
            for (found, after), stream, loan, image in zip(looked, streams, loans, images, strict=True)
        ]

    def _borrow(self, stream: _Stream, stamp_ns: int) -> Loan | None:
        """What the stream's next frame is detected with."""
        if self._lag_frames is None:
            loan = self._worker.newest(stream.number)
        elif len(stream.held) < self._lag_frames:
            return None
        else:
            self._worker.offer(stream.held[0])
            loan = self._worker.wait_for(stream.number, stream.held[0].frame, _IMPOSED_PATIENCE_S)
            if loan is None:
                raise RuntimeError(f"the strong detector did not answer: {self.report.last_failure or self.report}")
            return loan
        if loan is None or stream.frame - loan.frame > self._max_lag_frames:
            return None
        return loan if stamp_ns - loan.stamp_ns <= self._max_lag_ns else None

    def _hand_on(self, stream: _Stream, loan: Loan | None, image: np.ndarray, after: DetectorState) -> _Stream:
        """Give the frame to the strong detector, now or when its lag has passed; returns the stream after it."""
        fast: Any = after.memory
        assert after.newest_ns is not None
        frame = Look(
            stream=stream.number, frame=stream.frame, stamp_ns=after.newest_ns, image=image, motion=fast.motion
        )
        held: tuple[Look, ...] = ()
        if self._lag_frames is None:
            self._worker.offer(frame)
        else:
            held = (*stream.held, frame)[-self._lag_frames :]
        boost = None
        if loan is not None:
            boost = Boost(stamp_ns=loan.stamp_ns, lag_frames=stream.frame - loan.frame)
        return replace(stream, frame=stream.frame + 1, fast=fast, boost=boost, held=held)


def _lend(fast: FastStrongState | None, loan: Loan | None) -> FastStrongState | None:
    """Loans are of frames that the stream has seen, so a stream without a frame has none."""
    return fast if fast is None else replace(fast, borrowed=None if loan is None else loan.late)
