"""Streams whose motion is known exactly, and a driver that sends any memory through them.

What a frame is compared by is the position of its camera, (B, 2), x then y, so that the displacement between any two
frames is the difference of two positions.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from memwarp_core.models.config import ClockNetConfig, FGFAConfig, MemNetConfig, MemoryConfig, NoMemoryConfig
from memwarp_core.models.memory import build_memory
from memwarp_core.models.parts import Evidence, Levels, Memory

CHANNELS = 8
CAUSAL: dict[str, MemoryConfig] = {
    "memnet": MemNetConfig(aggregation="average"),
    "memnet-weights": MemNetConfig(aggregation="weights"),
    "memnet-adaptive": MemNetConfig(aggregation="adaptive"),
    "memnet-adascan": MemNetConfig(aggregation="adascan"),
    "clocknet": ClockNetConfig(strides=(1, 2, 4)),
    "clocknet-without-1": ClockNetConfig(strides=(2, 3)),
    "clocknet-composed": ClockNetConfig(strides=(1, 4), composed=True),
    "clocknet-adascan": ClockNetConfig(strides=(1, 3), aggregation="adascan"),
    "causal-fgfa": FGFAConfig(past=3, future=0),
    "causal-fgfa-composed": FGFAConfig(past=3, future=0, composed=True),
}
ALL: dict[str, MemoryConfig] = {**CAUSAL, "fgfa": FGFAConfig(past=3, future=2)}


def _build(config: MemoryConfig, channels: tuple[int, ...] = (CHANNELS,)) -> Memory:
    memory = build_memory(channels, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return memory


def _frames_at(
    positions: Sequence[Any],
    known: Sequence[bool] | None = None,
    *,
    sizes: Sequence[tuple[int, int]] = ((4, 5),),
    batch: int = 1,
    seed: int = 0,
) -> list[Evidence]:
    generator = torch.Generator().manual_seed(seed)
    where = torch.as_tensor(positions, dtype=torch.float32)
    if where.ndim == 2:
        where = where[:, None].expand(-1, batch, -1)
    frames = []
    for t, position in enumerate(where):
        levels = tuple(torch.randn((batch, CHANNELS, *size), generator=generator) for size in sizes)
        frames.append(Evidence(levels if known is None or known[t] else None, position))
    return frames


def _views_from(positions: Sequence[tuple[int, int]], size: tuple[int, int]) -> list[Evidence]:
    world = torch.randn((1, CHANNELS, 64, 64), generator=torch.Generator().manual_seed(0))
    height, width = size
    return [
        Evidence((world[:, :, y : y + height, x : x + width],), torch.tensor([[float(x), float(y)]]))
        for x, y in positions
    ]


def _drive(
    memory: Memory,
    frames: Iterable[Evidence | None],
    state: Any = None,
    *,
    size: tuple[int, int] = (4, 5),
    displace: Callable[[Tensor, Tensor, tuple[int, int]], Tensor] | None = None,
) -> tuple[list[Levels | None], Any]:
    outputs = []
    for evidence in frames:
        pairs = memory.pairs(state, evidence)
        levels, state = memory.step(state, evidence, [(displace or _between)(*pair, size) for pair in pairs])
        outputs.append(levels)
    return outputs, state


def _between(current: Tensor, past: Tensor, size: tuple[int, int]) -> Tensor:
    return (current - past)[:, :, None, None].expand(-1, -1, *size)


def _numbers_in(state: Any) -> int:
    held: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            held[id(value)] = value.numel()
        elif isinstance(value, tuple):
            for item in value:
                visit(item)
        elif is_dataclass(value):
            for field in fields(value):
                visit(getattr(value, field.name))

    visit(state)
    return sum(held.values())


# Session-wide, because memories hold no stream state, and because Hypothesis asks for it.


@pytest.fixture(scope="session", params=ALL)
def memory(request: pytest.FixtureRequest) -> Memory:
    """Every kind of memory that frames are warped in."""
    return _build(ALL[request.param])


@pytest.fixture(scope="session", params=CAUSAL)
def causal(request: pytest.FixtureRequest) -> Memory:
    """Every kind of memory that sees no future."""
    return _build(CAUSAL[request.param])


@pytest.fixture(scope="session", params={**ALL, "none": NoMemoryConfig()})
def config(request: pytest.FixtureRequest) -> MemoryConfig:
    """Of every kind of memory."""
    return {**ALL, "none": NoMemoryConfig()}[request.param]


@pytest.fixture(scope="session")
def build() -> Callable[..., Memory]:
    """build(config, channels) -> a memory whose networks have random weights, in their last layers too."""
    return _build


@pytest.fixture(scope="session")
def frames_at() -> Callable[..., list[Evidence]]:
    """frames_at(positions, known) -> frames of random features that have nothing to do with each other.

    Positions are (T, 2) for all streams of the batch, or (T, B, 2); `known` says which frames have features.
    """
    return _frames_at


@pytest.fixture(scope="session")
def views_from() -> Callable[..., list[Evidence]]:
    """views_from(positions, size) -> frames of one still, flat world, seen from whole positions in 0..40."""
    return _views_from


@pytest.fixture(scope="session")
def drive() -> Callable[..., tuple[list[Levels | None], Any]]:
    """drive(memory, frames, state) -> what came out of each step, and the last state."""
    return _drive


@pytest.fixture(scope="session")
def numbers_in() -> Callable[[Any], int]:
    """numbers_in(state) -> how many numbers a state holds; a tensor that is held twice counts once."""
    return _numbers_in
