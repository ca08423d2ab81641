"""Time per frame of several systems side by side, in one process and one run."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.progress import track

from memwarp_core.evaluation.benchmark_parts import PartMeter, Roof, measure_roof
from memwarp_core.models import build_detector
from memwarp_core.models.config import DetectorConfig, FGFAConfig
from memwarp_core.models.systems import find_system
from memwarp_core.streaming import Backend, VideoDetector, run_detector
from memwarp_core.streaming.video_detector import Precision

_FRAME_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class Runs:
    """How systems are run; see load_detector."""

    device: str = "auto"
    precision: Precision = "auto"
    backends: tuple[Backend, ...] = ("torch",)
    """Those of PyTorch; every system runs with each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Of a system's frame; medians."""

    name: str
    median_ms: float
    flops: float
    bytes: float
    """Read and written by its operators, as if nothing stayed in a cache."""
    of_roof: float
    """The share of its time that this work would take at the device's best; 1 would be all there is to get."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Of one system."""

    name: str
    median_ms: float
    """Per frame, from the image to its boxes."""
    spread_ms: float
    """Between the first and the third quartile."""
    p95_ms: float
    ratio: float
    """To the first system's median."""
    parts: tuple[Part, ...]
    """Measured in frames of their own, since on a GPU that slows them down; what is left is a frame's "other"."""


_EAGER = Runs()


def benchmark(
    names: Sequence[str], size: tuple[int, int], frames: int, runs: Runs = _EAGER, roof: Roof | None = None
) -> list[Timing]:
    """Run systems with random weights in turns, one frame each, so that a disturbance hits all of them alike.

    Every memory has its full length when the timing begins. The score threshold is 0.05 for all, since random scores
    above a lower one would keep non-maximum suppression busier than a trained head does.

    Args:
        names: of `memwarp models`; the first is what the others are compared with.
        size: (height, width) that the images have in the first system's network, before padding; in systems of another
            resolution, in proportion.
        frames: how many are timed per system.
        runs: with several backends, each system runs with all of them, and its name says with which.
        roof: what to compare the parts with; measured if not given.
    Raises: ConfigError for an unknown system, or one that a backend cannot run.
    """
    configs = [find_system(name).config for name in names for _ in runs.backends]
    backends = list(runs.backends) * len(names)
    if len(runs.backends) > 1:
        names = [f"{config.name}, {backend}" for config, backend in zip(configs, backends, strict=True)]
    scales = [config.short_side / configs[0].short_side for config in configs]
    sizes = [(round(size[0] * scale), round(size[1] * scale)) for scale in scales]
    detectors = [
        random_detector(config, of_system, replace(runs, backends=(backend,)))
        for config, of_system, backend in zip(configs, sizes, backends, strict=True)
    ]
    roof = roof or measure_roof(detectors[0].device)
    meters = [PartMeter(detector) for detector in detectors]
    streams = [_stream(detector, of_system) for detector, of_system in zip(detectors, sizes, strict=True)]
    for stream in streams:  # fills the memory
        next(stream)
    times: list[list[float]] = [[] for _ in names]
    parts: list[list[dict[str, float]]] = [[] for _ in names]
    for _ in track(range(frames), description="timing", transient=True):
        for stream, of_system in zip(streams, times, strict=True):
            of_system.append(_frame_ms(stream))
        for stream, meter, of_parts in zip(streams, meters, parts, strict=True):
            with meter.milliseconds() as spent:
                whole = _frame_ms(stream)
            own = {name: float(one[0]) for name, one in spent.items()}
            of_parts.append({**own, "other": whole - sum(own.values())})
    first = float(np.median(times[0]))
    return [
        _timing(name, of_system, of_parts, _work(meter, stream), roof, first)
        for name, of_system, of_parts, meter, stream in zip(names, times, parts, meters, streams, strict=True)
    ]


def random_detector(config: DetectorConfig, size: tuple[int, int], runs: Runs) -> VideoDetector:
    """With weights that are the same in every run, and the first of the backends."""
    torch.manual_seed(0)
    head = config.head.model_copy(update={"score_threshold": 0.05})
    detector = build_detector(config.model_copy(update={"fixed_size": size, "head": head})).eval()
    return run_detector(detector, runs.device, runs.precision, runs.backends[0])


def _stream(detector: VideoDetector, size: tuple[int, int]) -> Iterator[None]:
    """Advances by one frame with each item; the first one comes when the memory is full."""
    detections = detector.detect_clip(moving_images(size))
    for _ in range(_frames_until_full(detector.config)):
        next(detections)
    for of_frame in detections:
        of_frame.cpu()
        yield


def _frame_ms(stream: Iterator[None]) -> float:
    started = time.perf_counter()
    next(stream)
    return 1e3 * (time.perf_counter() - started)


def _work(meter: PartMeter, stream: Iterator[None]) -> dict[str, np.ndarray]:
    with meter.work() as spent:
        next(stream)
    return spent


def _timing(
    name: str,
    times: Sequence[float],
    parts: Sequence[dict[str, float]],
    work: dict[str, np.ndarray],
    roof: Roof,
    first_ms: float,
) -> Timing:
    low, median, high, p95 = (float(value) for value in np.percentile(times, [25, 50, 75, 95]))
    of_parts = []
    for part in parts[0]:
        ms = float(np.median([of_frame.get(part, 0.0) for of_frame in parts]))
        flops, moved = (float(value) for value in work.get(part, np.zeros(2)))
        of_roof = roof.least_ms(flops, moved) / ms if ms > 0 else 0.0
        of_parts.append(Part(name=part, median_ms=ms, flops=flops, bytes=moved, of_roof=of_roof))
    ratio = median / first_ms
    return Timing(name=name, median_ms=median, spread_ms=high - low, p95_ms=p95, ratio=ratio, parts=tuple(of_parts))


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
