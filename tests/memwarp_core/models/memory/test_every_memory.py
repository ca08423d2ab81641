"""What holds for all memories."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memwarp_core.geometry import compose, warp
from memwarp_core.models.config import ClockNetConfig, FGFAConfig, MemNetConfig, MemoryConfig, NoMemoryConfig
from memwarp_core.models.parts import Evidence, Memory

few = settings(max_examples=6)
walks = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9)
"""Camera positions, frame by frame; jumps are what a camera that drops frames looks like."""


def flush(memory: Memory) -> list[None]:
    return [None] * memory.lookahead


def pattern(draw: st.DataObject, frames: int) -> list[bool]:
    """Which frames have features; the first always has."""
    return [True, *draw.draw(st.lists(st.booleans(), min_size=frames - 1, max_size=frames - 1))]


def test_the_first_memory_is_the_first_evidence(causal: Memory, frames_at: Any, drive: Any) -> None:
    (frame,) = frames_at([(0, 0)])
    (first,), _ = drive(causal, [frame])
    assert torch.equal(first[0], frame.features[0])


@few
@given(walk=walks, data=st.data())
def test_a_still_world_is_remembered_as_it_is_seen(
    memory: Memory, views_from: Any, drive: Any, walk: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever moves the camera, drops frames or withholds evidence: all that is remembered of a place agrees."""
    size = (12, 13)
    views = views_from(walk, size)
    keep = pattern(data, len(walk))
    frames = [view if kept else replace(view, features=None) for view, kept in zip(views, keep, strict=True)]
    outputs, _ = drive(memory, frames + flush(memory), size=size)
    for view, levels in zip(views, outputs[memory.lookahead :], strict=True):
        # Three cells on each side may have been out of view, a fourth is where their embedding sees that.
        inside = (..., slice(4, -4), slice(4, -4))
        torch.testing.assert_close(levels[0][inside], view.features[0][inside], atol=1e-4, rtol=1e-4)


@few
@given(walk=walks, data=st.data())
def test_splitting_a_stream_changes_nothing(
    memory: Memory, frames_at: Any, drive: Any, walk: list[tuple[int, int]], data: st.DataObject
) -> None:
    frames = frames_at(walk, pattern(data, len(walk)))
    cut = data.draw(st.integers(1, len(walk) - 1))
    whole, _ = drive(memory, frames + flush(memory))
    before, state = drive(memory, frames[:cut])
    after, _ = drive(memory, frames[cut:] + flush(memory), state)
    for one, other in zip(whole, before + after, strict=True):
        assert (one is None and other is None) or torch.equal(one[0], other[0])


def test_the_order_of_a_batch_does_not_matter(memory: Memory, frames_at: Any, drive: Any) -> None:
    positions = torch.rand((6, 3, 2), generator=torch.Generator().manual_seed(1)) * 3
    frames = frames_at(positions, [True, True, False, True, False, True], batch=3)
    order = [2, 0, 1]
    shuffled = [
        Evidence(None if f.features is None else (f.features[0][order],), f.motion[order])  # type: ignore[index]
        for f in frames
    ]
    outputs, _ = drive(memory, frames + flush(memory))
    others, _ = drive(memory, shuffled + flush(memory))
    for one, other in zip(outputs, others, strict=True):
        if one is not None:
            torch.testing.assert_close(one[0][order], other[0])


def test_a_causal_memory_does_not_change_with_the_future(causal: Memory, frames_at: Any, drive: Any) -> None:
    frames = frames_at([(t, 0) for t in range(7)])
    changed = frames[:4] + frames_at([(5, 5), (6, 6), (7, 7)], seed=1)
    outputs, _ = drive(causal, frames)
    others, _ = drive(causal, changed)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(outputs[:4], others[:4], strict=True))
    assert not torch.equal(outputs[4][0], others[4][0])


def test_fgfa_changes_with_the_future(build: Any, frames_at: Any, drive: Any) -> None:
    memory = build(FGFAConfig(past=2, future=2))
    frames = frames_at([(0, 0)] * 4)
    changed = frames[:3] + frames_at([(0, 0)], seed=1)
    outputs, _ = drive(memory, frames)
    others, _ = drive(memory, changed)
    assert torch.equal(outputs[2][0], others[2][0])
    assert not torch.equal(outputs[3][0], others[3][0])


@pytest.mark.parametrize(
    "config", [ClockNetConfig(strides=(5,), composed=True), FGFAConfig(past=5, future=0, composed=True)]
)
def test_chained_displacements_follow_the_content(config: MemoryConfig, build: Any, frames_at: Any, drive: Any) -> None:
    """Where motion differs from place to place: the older field is looked up where the newer one points to."""
    fields = torch.rand((4, 1, 2, 4, 5), generator=torch.Generator().manual_seed(0)) * 2 - 1

    def displace(current: torch.Tensor, past: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return fields[int(current[0, 0])]

    frames = frames_at([(t, 0) for t in range(4)], [True, False, False, False])
    outputs, _ = drive(build(config), frames, displace=displace)
    chained = fields[1]
    for field, levels in zip(fields[2:], outputs[2:], strict=True):
        chained = compose(field, chained)
        torch.testing.assert_close(levels[0], warp(frames[0].features[0], chained))


@pytest.mark.parametrize("withhold", [False, True])
def test_a_state_does_not_grow_with_the_stream(
    memory: Memory, withhold: bool, frames_at: Any, drive: Any, numbers_in: Callable[[Any], int]
) -> None:
    known = [t == 0 or not withhold or t % 5 == 0 for t in range(36)]
    state, sizes = None, []
    for frame in frames_at([(t % 3, 0) for t in range(36)], known):
        _, state = drive(memory, [frame], state)
        sizes.append(numbers_in(state))
    assert max(sizes[18:]) <= max(sizes[:18])


@pytest.mark.parametrize("known", [[True, True, True], [True, False, False]])
def test_gradients_reach_the_first_frame_and_the_displacements(
    memory: Memory, known: list[bool], frames_at: Any, drive: Any
) -> None:
    frames = frames_at([(0.3 * t, 0.2 * t) for t in range(3)], known)
    frames[0].features[0].requires_grad_()
    fields: list[torch.Tensor] = []

    def displace(current: torch.Tensor, past: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        fields.append((current - past)[:, :, None, None].expand(-1, -1, *size).clone().requires_grad_())
        return fields[-1]

    outputs, _ = drive(memory, frames + flush(memory), displace=displace)
    outputs[-1][0].square().sum().backward()
    assert frames[0].features[0].grad.any()
    assert fields[-1].grad is not None and fields[-1].grad.any()


@pytest.mark.parametrize(
    "config",
    [
        MemNetConfig(),
        ClockNetConfig(strides=(1, 3)),
        ClockNetConfig(strides=(2, 3), composed=True),
        FGFAConfig(past=2, future=0),
        FGFAConfig(past=2, future=0, composed=True),
        FGFAConfig(past=2, future=1),
    ],
)
def test_each_level_is_a_memory_of_its_own(config: MemoryConfig, build: Any, frames_at: Any, drive: Any) -> None:
    """On a map of half the size, the same field counts half as many cells."""
    both = build(config, (8, 8))
    frames = frames_at(
        [(0, 0), (1, 2), (3, 1), (2, 2), (0, 3)], [True, True, False, True, True], sizes=[(8, 10), (4, 5)]
    )
    outputs, _ = drive(both, frames + flush(both), size=(8, 10))
    coarse = build(config)
    coarse.load_state_dict({k: both.state_dict()[k.replace("aggregate.0", "aggregate.1")] for k in coarse.state_dict()})
    halved = [Evidence(f.features and f.features[1:], f.motion / 2) for f in frames]
    alone, _ = drive(coarse, halved + flush(coarse))
    for one, other in zip(outputs, alone, strict=True):
        if one is not None:
            assert one[0].shape == (1, 8, 8, 10)
            torch.testing.assert_close(one[1], other[0])


def test_half_precision_and_channels_last_stay_close(memory: Memory, frames_at: Any, drive: Any) -> None:
    # Nothing is a whole cell out of view: there, adaptive weights jump with the last bit of the coordinates.
    frames = frames_at([(0, 0), (0.75, 0.5), (1.25, 0.25), (0.5, 0.5)], [True, True, False, True])
    exact, _ = drive(memory, frames + flush(memory))
    rounded = [
        Evidence(f.features and (f.features[0].bfloat16().contiguous(memory_format=torch.channels_last),), f.motion)
        for f in frames
    ]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = drive(memory, rounded + flush(memory))
    for one, other in zip(exact, outputs, strict=True):
        if one is not None:
            # A bfloat16 has 8 bits, and a few roundings add up.
            torch.testing.assert_close(other[0].float(), one[0], atol=0.1, rtol=0.05)


@pytest.mark.parametrize("frame", [None, Evidence(None, torch.zeros(1, 2))])
def test_a_stream_cannot_begin_without_features(config: MemoryConfig, frame: Evidence | None, build: Any) -> None:
    with pytest.raises(ValueError, match="got [Nn]one"):
        build(config).step(None, frame, [])


def test_a_causal_memory_owes_nothing_after_the_last_frame(causal: Memory, frames_at: Any, drive: Any) -> None:
    _, state = drive(causal, frames_at([(0, 0)]))
    with pytest.raises(ValueError, match="owes nothing"):
        causal.step(state, None, [])


def test_frames_that_cannot_be_compared_are_refused(memory: Memory, frames_at: Any) -> None:
    (frame,) = frames_at([(0, 0)])
    with pytest.raises(ValueError, match="no motion"):
        memory.step(None, replace(frame, motion=None), [])


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_wrong_number_of_displacements_is_refused(
    config: MemoryConfig, wrong: int, build: Any, frames_at: Any, drive: Any
) -> None:
    memory = build(config)
    *frames, last = frames_at([(0, 0)] * 6)
    _, state = drive(memory, frames)
    expected = len(memory.pairs(state, last))
    with pytest.raises(ValueError, match=f"expected {expected} displacements.*got {expected + wrong}"):
        memory.step(state, last, [torch.zeros(1, 2, 4, 5)] * (expected + wrong))


def test_another_resolution_needs_a_new_stream(memory: Memory, frames_at: Any, drive: Any) -> None:
    _, state = drive(memory, frames_at([(0, 0)] * 3))
    (larger,) = frames_at([(0, 0)], sizes=[(6, 5)])
    with pytest.raises(ValueError, match="start a new stream"):
        drive(memory, [larger], state)


def test_without_memory_a_frame_is_seen_alone(build: Any, frames_at: Any, drive: Any) -> None:
    first, second, withheld = frames_at([(0, 0), (1, 0), (2, 0)], [True, True, False])
    outputs, state = drive(build(NoMemoryConfig()), [first, second, withheld])
    assert outputs[0] is first.features and outputs[1] is second.features
    assert not outputs[2][0].any()
    assert [past is withheld.motion for _, past in build(NoMemoryConfig()).pairs(state, first)] == [True]
