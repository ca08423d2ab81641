from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memwarp_core.models.config import ClockNetConfig, MemNetConfig

few = settings(max_examples=6)
strides = st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
patterns = st.lists(st.booleans(), max_size=9).map(lambda rest: [True, *rest])
"""Which frames have features."""


@settings(max_examples=30)
@given(strides=strides, known=patterns)
def test_without_motion_axes_are_averages_over_their_ticks(
    build: Any, frames_at: Any, drive: Any, strides: tuple[int, ...], known: list[bool]
) -> None:
    frames = frames_at([(0, 0)] * len(known), known)
    outputs, state = drive(build(ClockNetConfig(strides=strides)), frames)
    axes = [frames[0].features[0]] * len(strides)
    for t, frame in enumerate(frames):
        for k, stride in enumerate(strides):
            if t > 0 and t % stride == 0 and frame.features is not None:
                axes[k] = (axes[k] + frame.features[0]) / 2
        torch.testing.assert_close(outputs[t][0], torch.stack(axes).mean(0))
    for axis, expected in zip(state.axes, axes, strict=True):
        torch.testing.assert_close(axis.maps[0], expected)


@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("aggregation", ["average", "weights", "adaptive", "adascan"])
@few
@given(known=patterns, seed=st.integers(0, 99))
def test_with_one_axis_of_stride_one_it_is_memnet(
    build: Any, frames_at: Any, drive: Any, aggregation: Any, composed: bool, known: list[bool], seed: int
) -> None:
    walk = torch.rand((len(known), 2), generator=torch.Generator().manual_seed(seed)) * 3
    frames = frames_at(walk, known, seed=seed)
    clocknet = build(ClockNetConfig(strides=(1,), aggregation=aggregation, composed=composed))
    memnet = build(MemNetConfig(aggregation=aggregation))
    memnet.load_state_dict(clocknet.state_dict())
    for one, other in zip(drive(clocknet, frames)[0], drive(memnet, frames)[0], strict=True):
        assert torch.equal(one[0], other[0])


@few
@given(
    strides=strides,
    walk=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=10),
    data=st.data(),
)
def test_chained_displacements_are_the_measured_ones_where_motion_is_exact(
    build: Any, frames_at: Any, drive: Any, strides: tuple[int, ...], walk: list[tuple[int, int]], data: st.DataObject
) -> None:
    known = [True, *data.draw(st.lists(st.booleans(), min_size=len(walk) - 1, max_size=len(walk) - 1))]
    frames = frames_at(walk, known, sizes=[(12, 13)])
    measured, _ = drive(build(ClockNetConfig(strides=strides)), frames, size=(12, 13))
    composed, _ = drive(build(ClockNetConfig(strides=strides, composed=True)), frames, size=(12, 13))
    for one, other in zip(measured, composed, strict=True):
        # Motion is the same everywhere, so that the border, which chaining repeats, is right as well.
        torch.testing.assert_close(one[0], other[0], atol=1e-4, rtol=1e-4)


def compared(memory: Any, frames: list[Any], drive: Any, frame: int) -> list[int]:
    """The numbers of the frames that `frame` is compared with, which its camera's position tells."""
    _, state = drive(memory, frames[:frame])
    pairs = memory.pairs(state, frames[frame])
    assert all(current is frames[frame].motion for current, _ in pairs)
    return [int(past[0, 0]) for _, past in pairs]


def test_each_axis_is_compared_with_the_frame_of_its_last_tick(build: Any, frames_at: Any, drive: Any) -> None:
    frames = frames_at([(t, 0) for t in range(20)])
    memory = build(ClockNetConfig(strides=(1, 4, 8)))
    assert compared(memory, frames, drive, 0) == []
    assert compared(memory, frames, drive, 1) == [0]
    assert compared(memory, frames, drive, 4) == [3, 0]
    assert compared(memory, frames, drive, 5) == [4, 0]
    assert compared(memory, frames, drive, 7) == [6, 4, 0]
    assert compared(memory, frames, drive, 8) == [7, 4, 0]
    assert compared(memory, frames, drive, 9) == [8]
    assert compared(memory, frames, drive, 15) == [14, 12, 8]


def test_the_frame_before_comes_first_whatever_the_strides(build: Any, frames_at: Any, drive: Any) -> None:
    frames = frames_at([(t, 0) for t in range(10)], [t == 0 for t in range(10)])
    assert compared(build(ClockNetConfig(strides=(3,))), frames, drive, 5) == [4, 3]
    assert compared(build(ClockNetConfig(strides=(3,), composed=True)), frames, drive, 5) == [4]
    assert compared(build(ClockNetConfig(strides=(1, 4, 8), composed=True)), frames, drive, 7) == [6]


def test_axes_share_their_weights_under_memnets_names(build: Any) -> None:
    names = build(ClockNetConfig(strides=(1, 4, 8), aggregation="weights")).state_dict().keys()
    assert names == build(MemNetConfig(aggregation="weights")).state_dict().keys()
    assert "aggregate.0.of_memory.0.weight" in names
