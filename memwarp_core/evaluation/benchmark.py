"""Time per frame of several systems side by side, in one process and one run."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track

from memwarp_core.models import build_detector
from memwarp_core.models.config import DetectorConfig, FGFAConfig
from memwarp_core.models.systems import find_system
from memwarp_core.streaming import run_detector

_FRAME_NS = 50_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Of one system."""

    name: str
    median_ms: float
    """Per frame, from the image to its boxes."""
    spread_ms: float
    """Between the first and the third quartile."""
    ratio: float
    """To the first system's median."""


def benchmark(names: Sequence[str], size: tuple[int, int], frames: int, device: str = "auto") -> list[Timing]:
    """Run systems with random weights in turns, one frame each, so that a disturbance hits all of them alike.

    Every memory has its full length when the timing begins. The score threshold is 0.05 for all, since random scores
    above a lower one would keep non-maximum suppression busier than a trained head does.

    Args:
        names: of `memwarp models`; the first is what the others are compared with.
        size: (height, width) that the images have in the first system's network, before padding; in systems of another
            resolution, in proportion.
        frames: how many are timed per system.
    Raises: ConfigError for an unknown system.
    """
    configs = [find_system(name).config for name in names]
    scales = [config.short_side / configs[0].short_side for config in configs]
    sizes = [(round(size[0] * scale), round(size[1] * scale)) for scale in scales]
    streams = [_stream(config, of_system, device) for config, of_system in zip(configs, sizes, strict=True)]
    for stream in streams:  # builds the detector and fills its memory
        next(stream)
    times: list[list[float]] = [[] for _ in names]
    for _ in track(range(frames), description="timing", transient=True):
        for stream, of_system in zip(streams, times, strict=True):
            started = time.perf_counter()
            next(stream)
            of_system.append(1e3 * (time.perf_counter() - started))
    medians = [float(np.median(of_system)) for of_system in times]
    quartiles = [np.percentile(of_system, [25, 75]) for of_system in times]
    return [
        Timing(name=name, median_ms=median, spread_ms=float(high - low), ratio=median / medians[0])
        for name, median, (low, high) in zip(names, medians, quartiles, strict=True)
    ]


def _stream(config: DetectorConfig, size: tuple[int, int], device: str) -> Iterator[None]:
    """Advances by one frame with each item; the first one comes when the memory is full."""
    torch.manual_seed(0)
    head = config.head.model_copy(update={"score_threshold": 0.05})
    detector = run_detector(build_detector(config.model_copy(update={"fixed_size": size, "head": head})), device)
    detections = detector.detect_clip(moving_images(size))
    for _ in range(_frames_until_full(config)):
        next(detections)
    for of_frame in detections:
        of_frame.cpu()
        yield


def moving_images(size: tuple[int, int]) -> Iterator[tuple[np.ndarray, int]]:
    """A window that moves over noise, for ever."""
    height, width = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width + 64, 3), dtype=np.uint8)
    index = 0
    while True:
        left = 2 * index % 64
        yield noise[:, left : left + width], index * _FRAME_NS
        index += 1


def _frames_until_full(config: DetectorConfig) -> int:
    memory = config.memory
    if isinstance(memory, FGFAConfig):
        return memory.past + 1
    return max(getattr(memory, "strides", (1,))) + 1
