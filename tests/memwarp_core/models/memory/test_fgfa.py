from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memwarp_core.geometry import warp
from memwarp_core.models.config import FGFAConfig

few = settings(max_examples=15)
patterns = st.lists(st.booleans(), max_size=9).map(lambda rest: [True, *rest])
"""Which frames have features."""


def window(memory: Any, frames: list[Any], drive: Any) -> tuple[int, list[int]]:
    """The centre and the frames that it is compared with after the last of `frames`, told by the camera's position."""
    *before, new = frames
    _, state = drive(memory, before)
    pairs = memory.pairs(state, new)
    assert len({int(current[0, 0]) for current, _ in pairs}) == 1
    return int(pairs[0][0][0, 0]), [int(past[0, 0]) for _, past in pairs]


@few
@given(frames=st.integers(1, 7), past=st.integers(1, 4), future=st.integers(1, 4))
def test_as_many_frames_come_out_as_went_in(
    build: Any, frames_at: Any, drive: Any, frames: int, past: int, future: int
) -> None:
    memory = build(FGFAConfig(past=past, future=future))
    stream = frames_at([(t, 0) for t in range(frames)])
    outputs, state = drive(memory, stream + [None] * future)
    assert memory.lookahead == future
    assert [output is None for output in outputs] == [True] * future + [False] * frames
    with pytest.raises(ValueError, match="nothing is owed"):
        drive(memory, [None], state)
    with pytest.raises(ValueError, match="start a new stream"):
        drive(memory, stream, state)


def test_the_window_is_shorter_where_the_stream_begins_and_ends(build: Any, frames_at: Any, drive: Any) -> None:
    frames = frames_at([(t, 0) for t in range(8)])
    memory = build(FGFAConfig(past=3, future=2))
    assert window(memory, frames[:3], drive) == (0, [1, 2])
    assert window(memory, frames[:4], drive) == (1, [0, 2, 3])
    assert window(memory, frames, drive) == (5, [4, 3, 2, 6, 7])
    assert window(memory, [*frames, None], drive) == (6, [5, 4, 3, 7])
    assert window(memory, [*frames, None, None], drive) == (7, [6, 5, 4])


def test_a_causal_window_has_only_the_past(build: Any, frames_at: Any, drive: Any) -> None:
    frames = frames_at([(t, 0) for t in range(15)])
    assert window(build(FGFAConfig(past=10, future=0)), frames, drive) == (14, list(range(13, 3, -1)))
    assert window(build(FGFAConfig(past=10, future=0)), frames[:3], drive) == (2, [1, 0])
    assert window(build(FGFAConfig(past=10, future=0, composed=True)), frames, drive) == (14, [13])


def test_frames_without_evidence_are_not_compared_but_for_the_frame_before(
    build: Any, frames_at: Any, drive: Any
) -> None:
    frames = frames_at([(t, 0) for t in range(8)], [True, True, False, True, False, True, False, True])
    assert window(build(FGFAConfig(past=6, future=0)), frames, drive) == (7, [6, 5, 3, 1])
    assert window(build(FGFAConfig(past=6, future=0)), frames[:7], drive) == (6, [5, 3, 1, 0])
    assert window(build(FGFAConfig(past=3, future=2)), frames, drive) == (5, [3, 7])


@pytest.mark.parametrize("composed", [False, True])
def test_a_frame_without_evidence_counts_for_nothing(build: Any, frames_at: Any, drive: Any, composed: bool) -> None:
    memory = build(FGFAConfig(past=4, future=0, composed=composed))
    frames = frames_at([(0, 0), (1, 0), (2, 1), (1, 1)], [True, True, False, True])
    outputs, _ = drive(memory, frames)
    others, _ = drive(memory, frames[:2] + frames[3:])
    torch.testing.assert_close(outputs[3][0], others[2][0])


@pytest.mark.parametrize("composed", [False, True])
def test_a_centre_without_evidence_is_compared_as_the_nearest_frame_before_it(
    build: Any, frames_at: Any, drive: Any, composed: bool
) -> None:
    memory = build(FGFAConfig(past=4, future=0, composed=composed))
    frames = frames_at([(0, 0), (0, 0), (0, 0)], [True, True, False])
    outputs, _ = drive(memory, frames)
    torch.testing.assert_close(outputs[2][0], outputs[1][0])


@pytest.mark.parametrize("config", [FGFAConfig(past=2, future=0), FGFAConfig(past=2, future=0, composed=True)])
def test_propagation_never_runs_dry(build: Any, frames_at: Any, drive: Any, config: FGFAConfig) -> None:
    """Far beyond the window, the newest frame with evidence is still there, and the next one takes its place."""
    frames = frames_at([(t / 4, 0) for t in range(8)], [True, True, *[False] * 5, True])
    memory = build(config)
    outputs, _ = drive(memory, frames)
    field = torch.tensor([5 / 4, 0])[None, :, None, None].expand(1, 2, 4, 5)
    torch.testing.assert_close(outputs[6][0], warp(frames[1].features[0], field))
    torch.testing.assert_close(outputs[7][0], frames[7].features[0])


def test_a_centre_without_evidence_keeps_its_own_past_where_the_future_has_some(
    build: Any, frames_at: Any, drive: Any
) -> None:
    frames = frames_at([(t, 0) for t in range(5)], [True, False, False, True, True])
    memory = build(FGFAConfig(past=1, future=1))
    assert window(memory, frames[:4], drive) == (2, [0, 3])
    assert window(memory, frames, drive) == (3, [4])


@few
@given(known=patterns, seed=st.integers(0, 99))
def test_chained_displacements_are_the_measured_ones_where_motion_is_exact(
    build: Any, frames_at: Any, drive: Any, known: list[bool], seed: int
) -> None:
    walk = torch.randint(0, 4, (len(known), 2), generator=torch.Generator().manual_seed(seed))
    frames = frames_at(walk, known, seed=seed)
    measured, _ = drive(build(FGFAConfig(past=3, future=0)), frames)
    composed, _ = drive(build(FGFAConfig(past=3, future=0, composed=True)), frames)
    for one, other in zip(measured, composed, strict=True):
        torch.testing.assert_close(one[0], other[0], atol=1e-4, rtol=1e-4)


def test_without_motion_the_output_is_the_adaptively_weighted_mean(build: Any, frames_at: Any, drive: Any) -> None:
    memory = build(FGFAConfig(past=2, future=1))
    frames = frames_at([(0, 0)] * 5)
    maps = [frame.features[0] for frame in frames]
    outputs, _ = drive(memory, frames)
    rule = memory.aggregate[0]
    window = [maps[3], maps[2], maps[1], maps[4]]
    weights = rule.weights([rule.embed(one) for one in window])
    torch.testing.assert_close(outputs[4][0], (weights * torch.stack(window)).sum(0))
