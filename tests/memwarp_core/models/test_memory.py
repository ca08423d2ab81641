import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memwarp_core.geometry import warp
from memwarp_core.models.config import MemoryConfig
from memwarp_core.models.memory import LearnedWeights, MemNet, NoMemory, build_memory

AVERAGE = MemoryConfig(aggregation="average")


def maps(count: int, channels: int = 32) -> list[torch.Tensor]:
    torch.manual_seed(count)
    return [torch.randn(1, channels, 4, 5) for _ in range(count)]


def test_the_first_memory_is_the_first_evidence() -> None:
    (evidence,) = maps(1)
    features, state = MemNet(32, AVERAGE).step(None, evidence, None)
    assert features is evidence and state.features is evidence


@given(st.integers(1, 6))
def test_without_motion_the_average_decays_exponentially(frames: int) -> None:
    evidence = maps(frames)
    memory, state, still = MemNet(32, AVERAGE), None, torch.zeros(1, 2, 4, 5)
    for one in evidence:
        features, state = memory.step(state, one, still)
    weights = [0.5 ** (frames - max(t, 1)) for t in range(frames)]
    torch.testing.assert_close(features, sum(w * e for w, e in zip(weights, evidence, strict=True)))


def test_without_evidence_the_memory_is_only_warped() -> None:
    first, _ = maps(2)
    memory, displacement = MemNet(32, AVERAGE), torch.full((1, 2, 4, 5), 0.5)
    _, state = memory.step(None, first, None)
    features, _ = memory.step(state, None, displacement)
    torch.testing.assert_close(features, warp(first, displacement))


def test_learned_weights_start_as_the_average_and_add_up_to_one() -> None:
    memory, evidence = maps(2)
    aggregate = LearnedWeights(32)
    torch.testing.assert_close(aggregate(memory, evidence), (memory + evidence) / 2)
    torch.nn.init.normal_(aggregate.of_memory[-1].weight)
    torch.testing.assert_close(aggregate(evidence, evidence), evidence)


def test_gradients_reach_the_first_frame_and_the_displacements() -> None:
    evidence = [one.requires_grad_() for one in maps(3)]
    displacement = torch.full((1, 2, 4, 5), 0.3, requires_grad=True)
    memory, state = MemNet(32, AVERAGE), None
    for t, one in enumerate(evidence):
        features, state = memory.step(state, one if t == 0 else None, displacement)
    features.square().sum().backward()
    assert evidence[0].grad is not None and evidence[0].grad.any()
    assert displacement.grad is not None and displacement.grad.any()


def test_no_memory_sees_the_current_frame_alone() -> None:
    first, second = maps(2)
    memory = build_memory(32, MemoryConfig(kind="none"))
    assert isinstance(memory, NoMemory)
    _, state = memory.step(None, first, None)
    features, _ = memory.step(state, second, torch.zeros(1, 2, 4, 5))
    assert features is second


@pytest.mark.parametrize("kind", ["none", "memnet"])
def test_a_stream_cannot_begin_without_evidence(kind: str) -> None:
    with pytest.raises(ValueError, match="first frame needs evidence"):
        build_memory(32, MemoryConfig(kind=kind)).step(None, None, None)  # type: ignore[arg-type]


def test_an_older_memory_needs_a_displacement() -> None:
    first, second = maps(2)
    memory = MemNet(32, AVERAGE)
    _, state = memory.step(None, first, None)
    with pytest.raises(ValueError, match="needs the displacement"):
        memory.step(state, second, None)
