from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from memwarp_core.geometry import warp
from memwarp_core.models.config import MemNetConfig
from memwarp_core.models.parts import Evidence


@given(frames=st.integers(1, 6))
def test_without_motion_the_average_decays_exponentially(build: Any, frames_at: Any, drive: Any, frames: int) -> None:
    stream = frames_at([(0, 0)] * frames)
    outputs, _ = drive(build(MemNetConfig()), stream)
    weights = [0.5 ** (frames - max(t, 1)) for t in range(frames)]
    expected = sum(weight * frame.features[0] for weight, frame in zip(weights, stream, strict=True))
    torch.testing.assert_close(outputs[-1][0], expected)


def test_the_memory_is_warped_before_evidence_is_added(build: Any, drive: Any) -> None:
    """The camera moves by one cell to the right, so the content moves by one cell to the left."""
    first = Evidence((torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]),), torch.tensor([[0.0, 0.0]]))
    second = Evidence((torch.tensor([[[[10.0, 10.0, 10.0, 10.0]]]]),), torch.tensor([[1.0, 0.0]]))
    outputs, _ = drive(build(MemNetConfig(), (1,)), [first, second], size=(1, 4))
    torch.testing.assert_close(outputs[1][0], torch.tensor([[[[6.0, 6.5, 7.0, 5.0]]]]))


def test_without_evidence_the_memory_is_only_warped(build: Any, frames_at: Any, drive: Any) -> None:
    first, withheld = frames_at([(0, 0), (0.5, 0.25)], [True, False])
    for kind in ("average", "weights", "adaptive", "adascan"):
        outputs, _ = drive(build(MemNetConfig(aggregation=kind)), [first, withheld])
        field = torch.tensor([0.5, 0.25])[None, :, None, None].expand(1, 2, 4, 5)
        torch.testing.assert_close(outputs[1][0], warp(first.features[0], field))


def test_the_new_frame_is_compared_with_the_frame_before(build: Any, frames_at: Any, drive: Any) -> None:
    memory, (first, withheld, new) = build(MemNetConfig()), frames_at([(0, 0), (1, 0), (2, 0)], [True, False, True])
    assert memory.pairs(None, first) == []
    _, state = drive(memory, [first, withheld])
    ((current, past),) = memory.pairs(state, new)
    assert current is new.motion and past is withheld.motion


def test_a_displacements_factors_scale_what_is_warped(build: Any, frames_at: Any, drive: Any) -> None:
    """Of a displacement network with a scale map; with AdaScan, the memory's importance is scaled with it."""
    frames = frames_at([(0, 0), (0, 0), (0, 0)], [True, False, True])

    def halve(current: torch.Tensor, past: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return torch.cat((torch.zeros(1, 2, *size), torch.full((1, 1, *size), 0.5)), dim=1)

    for kind in ("average", "weights", "adaptive", "adascan"):
        outputs, _ = drive(build(MemNetConfig(aggregation=kind)), frames, displace=halve)
        torch.testing.assert_close(outputs[1][0], frames[0].features[0] / 2)
        assert outputs[2][0].isfinite().all()
