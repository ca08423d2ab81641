"""A detector that needs no weights, and bags in which it is always right."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from memwarp_core.data.bags import BagWriter
from memwarp_core.evaluation.replay import replay as replaying
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.types import Detections

CLASS_NAMES = ("ball", "crate")
INTERVAL_NS = 100_000_000
START_NS = 1_000_000_000
SPEED = 4.0
"""Pixels that the only object moves to the right from a frame to the next."""


def box_at(frame: float) -> list[float]:
    return [4 + SPEED * frame, 10, 16 + SPEED * frame, 22]


def says(frame: float, stamp_ns: int) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor([box_at(frame)]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        stamp_ns=stamp_ns,
    )


@dataclass(frozen=True)
class _Config:
    anticipation: AnticipationConfig = AnticipationConfig()


class ReadsNumbers:
    """Finds the ball by the frame's number, which is the image's grey value; knows its speed after two frames."""

    name, version = "reads numbers", "1"
    class_names = CLASS_NAMES
    config = _Config()
    lookahead = 0

    def start(self) -> tuple[int, ...]:
        return ()

    def step(self, image: np.ndarray, stamp_ns: int, state: tuple[int, ...]) -> tuple[Detections, tuple[int, ...]]:
        return says(round(float(image.mean())), stamp_ns), (*state, stamp_ns)

    def detect_clip(self, frames: Iterable[tuple[np.ndarray, int]]) -> Iterator[Detections]:
        for image, stamp_ns in frames:
            yield self.step(image, stamp_ns, ())[0]

    def anticipate(
        self, state: tuple[int, ...], horizons_s: Sequence[float], how: AnticipationConfig | None = None
    ) -> list[Detections]:
        moves = len(state) > 1 and (how is None or how.motion != "still")
        frame = (state[-1] - START_NS) / INTERVAL_NS
        return [says(frame + (1e9 * h / INTERVAL_NS if moves else 0), state[-1] + round(1e9 * h)) for h in horizons_s]


@pytest.fixture(scope="session")
def use_detector() -> Callable[[pytest.MonkeyPatch], ReadsNumbers]:
    """Makes every model this one, whatever its name."""

    def use(monkeypatch: pytest.MonkeyPatch) -> ReadsNumbers:
        one = ReadsNumbers()
        monkeypatch.setattr(replaying, "_load", lambda name, device: one)
        monkeypatch.setattr(replaying, "fingerprint", lambda detector, settings: settings)
        return one

    return use


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, use_detector: Callable[..., ReadsNumbers]) -> ReadsNumbers:
    return use_detector(monkeypatch)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take longer than all else."""
    monkeypatch.setattr(replaying, "write_page", lambda *_: None)


def _write_bag(
    path: Path,
    frames: int = 8,
    *,
    stamps_ns: Sequence[int] | None = None,
    truth_offset_ns: int | None = 0,
    topics: Sequence[str] = ("/camera/image_raw",),
) -> Path:
    """A ball that moves to the right in raw images; without ground truth if its offset is None."""
    with BagWriter(path) as bag:
        for frame in range(frames):
            stamp_ns = START_NS + frame * INTERVAL_NS if stamps_ns is None else stamps_ns[frame]
            for topic in topics:
                bag.write_image(np.full((48, 64, 3), frame, np.uint8), stamp_ns, topic=topic)
            if truth_offset_ns is not None:
                box = np.array([box_at(frame)], np.float32)
                bag.write_detections(box, ["ball"], stamp_ns + truth_offset_ns, track_ids=[1])
    return path


@pytest.fixture(scope="session")
def write_bag() -> Callable[..., Path]:
    """See _write_bag; a fixture, since tests cannot import this file."""
    return _write_bag
