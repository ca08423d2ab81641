"""What a live pair costs the fast detector: its time per frame with the strong one at work beside it, and without."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track

from memwarp_core.errors import ConfigError
from memwarp_core.evaluation.benchmark import moving_images
from memwarp_core.models import FastStrong, load_weights
from memwarp_core.streaming import Boost, DetectorState, FastStrongPipeline, VideoDetector

_BLOCKS = 5
"""Turns that each way takes, so that a disturbance of the machine hits both."""
_WARM_UP = 10
"""Frames of each turn that do not count."""
_REST_S = 0.5
"""In which the strong detector finishes what it had begun, before the fast one is alone."""
_START_S = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTiming:
    """Medians over all timed frames; "alone" is the fast detector with nothing to borrow and nobody beside it."""

    alone_ms: float
    alone_p95_ms: float
    beside_ms: float
    """While the strong detector works."""
    beside_p95_ms: float
    boosted: float
    """Share of frames that borrowed strong features."""
    lag_frames: float
    """Of these: frames between the borrowed one and the current one."""
    strong_ms: float
    """The strong detector's time per frame, moving its features included."""


def benchmark_pair(
    name: str, size: tuple[int, int], frames: int, devices: tuple[str, str] = ("auto", "auto"), threads: int = 0
) -> PairTiming:
    """Run the fast path as fast as it goes, in turns alone and with the strong detector beside it.

    Args:
        name: of a pair, or the path of its weights.
        size: (height, width) of the images.
        frames: how many are timed each way.
        devices: of the fast and the strong detector.
        threads: of torch for each of them on a CPU, 0 for its own choice. On a CPU of two cores, 1 gives each a core of
            its own, as a device of its own would.
    Raises: ConfigError if it is no pair, or its strong detector does not start.
    """
    if threads:
        torch.set_num_threads(threads)
    detector = load_weights(name)
    if not isinstance(detector, FastStrong):
        raise ConfigError(f"{name}: expected a pair, such as rfcn-nano+clocknet-tiny-featprop.")
    images = moving_images(size)
    of_block = max(frames // _BLOCKS, 1)
    alone_ms: list[float] = []
    beside_ms: list[float] = []
    boosts: list[Boost | None] = []
    with FastStrongPipeline(detector, devices, strong_threads=threads) as pipeline:
        alone = VideoDetector(pipeline.network, devices[0])
        _wait_until_running(pipeline)
        for _ in track(range(_BLOCKS), description="timing", transient=True):
            time.sleep(_REST_S)
            for _, took_ms in _run(alone, images, of_block):
                alone_ms.append(took_ms)
            for state, took_ms in _run(pipeline, images, of_block):
                beside_ms.append(took_ms)
                boosts.append(pipeline.boost(state))
        strong_ms = pipeline.report.look_ms
    lags = [boost.lag_frames for boost in boosts if boost is not None]
    return PairTiming(
        alone_ms=float(np.median(alone_ms)),
        alone_p95_ms=float(np.percentile(alone_ms, 95)),
        beside_ms=float(np.median(beside_ms)),
        beside_p95_ms=float(np.percentile(beside_ms, 95)),
        boosted=len(lags) / len(boosts),
        lag_frames=float(np.median(lags)) if lags else float("nan"),
        strong_ms=strong_ms,
    )


def _run(
    detector: VideoDetector, images: Iterator[tuple[np.ndarray, int]], frames: int
) -> Iterator[tuple[DetectorState, float]]:
    """The state after each frame of a new stream, and its milliseconds; what the first frames take does not count."""
    state = detector.start()
    for index in range(_WARM_UP + frames):
        began_s = time.perf_counter()
        found, state = detector.step(*next(images), state)
        found.cpu()
        if index >= _WARM_UP:
            yield state, 1e3 * (time.perf_counter() - began_s)


def _wait_until_running(pipeline: FastStrongPipeline) -> None:
    deadline_s = time.monotonic() + _START_S
    while pipeline.report.condition != "running":
        if pipeline.report.condition == "failed" or time.monotonic() > deadline_s:
            raise ConfigError(f"the strong detector does not start: {pipeline.report.last_failure or 'it takes long'}.")
        time.sleep(0.05)
