"""How long a robot's computer takes for an image: times to draw from, given or measured."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memwarp_core.data.clips import Clip
from memwarp_core.data.coco_json import read_json
from memwarp_core.errors import ConfigError
from memwarp_core.streaming import VideoDetector

MEASURED = "measured"
"""As --latency: time the model on this computer."""
_MEASURED_FRAMES = 40
_WARM_UP_FRAMES = 5
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Times from taking an image to having published its detections, and to being free for the next image."""

    samples_ns: tuple[tuple[int, int], ...]
    """Pairs; one for a constant time."""
    seed: int = 0

    def draws(self) -> Iterator[tuple[int, int]]:
        """Endless pairs, each one of the samples; the same ones at every call."""
        random = np.random.default_rng(self.seed)
        while True:
            yield self.samples_ns[random.integers(len(self.samples_ns))]


def read_latency(given: str, seed: int = 0) -> Latency:
    """
    Args:
        given: a time such as 40ms or 0.04s, or a JSON file with a list to draw from: of milliseconds, or of pairs of
            them, until the detections are there and until the detector is free.
        seed: of the draws.
    Raises: ConfigError if it is neither; DataError if the file cannot be read.
    """
    if match := _TIME.fullmatch(given.strip()):
        samples_ms: Any = [float(match[1]) * (1e3 if match[2] == "s" else 1)]
    elif Path(given).is_file():
        samples_ms = read_json(Path(given))
        if not isinstance(samples_ms, list):
            raise ConfigError(
                f"{given}: expected a JSON list of milliseconds, or of pairs of them, got something else."
            )
    else:
        raise ConfigError(
            f"latency {given!r}: expected a time such as 40ms or 0.04s, {MEASURED}, or a JSON file with a list of "
            "milliseconds."
        )
    pairs_ms = [one if isinstance(one, list) else [one, one] for one in samples_ms]
    if not pairs_ms or not all(len(pair) == 2 and all(map(_is_time_ms, pair)) for pair in pairs_ms):
        raise ConfigError(
            f"latency {given!r}: expected times from 0 to 1000 s, or pairs of them, at least one; got {samples_ms[:5]}."
        )
    return Latency(samples_ns=tuple((round(1e6 * there), round(1e6 * free)) for there, free in pairs_ms), seed=seed)


def as_json(latency: Latency) -> list[Any]:
    """What read_latency reads of a JSON file: milliseconds, and pairs where being free is another time."""
    return [there / 1e6 if there == free else [there / 1e6, free / 1e6] for there, free in latency.samples_ns]


def _is_time_ms(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e6


def measure_latency(detector: VideoDetector, clip: Clip, horizons_s: Sequence[float], seed: int = 0) -> Latency:
    """Time a model on the first images of a clip: detections, and what is anticipated beside them."""
    state, times_ns = detector.start(), []
    for index in range(min(len(clip), _WARM_UP_FRAMES + _MEASURED_FRAMES)):
        frame = clip[index]
        began_ns = time.perf_counter_ns()
        found, state = detector.step(frame.image, frame.stamp_ns, state)
        for said in (found, *detector.anticipate(state, [0.0, *horizons_s])):
            said.cpu()
        times_ns.append(time.perf_counter_ns() - began_ns)
    return Latency(samples_ns=tuple((one, one) for one in times_ns[_WARM_UP_FRAMES:] or times_ns), seed=seed)
