import pytest
import torch
from pydantic import ValidationError

from memwarp_core.models import DetectorConfig, FastStrong, build_detector
from memwarp_core.models.detector import merge_boxes

SIZE = (64, 96)


def config(source: str = "features", lag: int = 2, aggregation: str = "average", **changes: object) -> DetectorConfig:
    strong = {"name": "strong", "class_names": ["ball", "crate"], "memory": {"kind": "clocknet"}}
    fast = {
        "name": "fast",
        "class_names": ["ball", "crate"],
        "features": {"kind": "tiny", "widths": [16, 32, 48, 64]},
        "memory": {"kind": "none"},
        "head": {"kind": "fcos", "score_threshold": 0.0},
        "strong": {"detector": strong, "lag": lag, "source": source, "aggregation": aggregation},
    }
    return DetectorConfig.model_validate({**fast, **changes})


def build(source: str = "features", lag: int = 2, aggregation: str = "average") -> FastStrong:
    torch.manual_seed(0)
    detector = build_detector(config(source, lag, aggregation))
    assert isinstance(detector, FastStrong)
    return detector.eval()


def images(count: int) -> list[torch.Tensor]:
    torch.manual_seed(count)
    return [torch.rand(1, 3, *SIZE) * 255 for _ in range(count)]


@torch.no_grad()
def run(detector: FastStrong, frames: list[torch.Tensor]):  # type: ignore[no-untyped-def]
    state, steps = None, []
    for image in frames:
        steps.append(detector.step(state, detector.observe(image)))
        state = steps[-1].state
    return steps


def test_without_strong_features_yet_the_fast_ones_stand_alone() -> None:
    detector, frames = build(lag=2), images(3)
    steps = run(detector, frames)
    for index in (0, 1):
        torch.testing.assert_close(steps[index].memory, detector.observe(frames[index]).fast.features)
    assert not torch.allclose(steps[2].memory[0], detector.observe(frames[2]).fast.features[0])


def test_strong_features_come_exactly_one_lag_later() -> None:
    detector, frames = build(lag=2), images(4)
    expected = run(detector, frames)[-1].memory[0]
    for index, reaches in ((0, True), (1, True), (2, False)):
        # The strong detector's memory at frame 1 holds frames 0 and 1; what it says of frame 2 is not there yet.
        other = run_with_strong_image(detector, frames, index)
        assert torch.allclose(other, expected) is not reaches


@torch.no_grad()
def run_with_strong_image(detector: FastStrong, frames: list[torch.Tensor], changed: int) -> torch.Tensor:
    """M of the last frame when the strong detector alone sees another image in one frame."""
    state = None
    for index, image in enumerate(frames):
        evidence = detector.observe(image)
        if index == changed:
            evidence = type(evidence)(evidence.fast, image.flip(3))
        step = detector.step(state, evidence)
        state = step.state
    return step.memory[0]


def test_boxes_of_the_strong_detector_are_handed_on_one_lag_later() -> None:
    detector = build("boxes", lag=1)
    steps = run(detector, images(2))
    assert steps[0].late is None
    (late,) = steps[1].late
    assert len(late["boxes"]) == len(late["scores"]) > 0


def test_only_the_fast_detector_learns() -> None:
    detector = build(lag=1).train()
    assert not detector.strong.training
    evidence = detector.observe(torch.cat(images(3)))
    memory, displacement = detector.remember(evidence.in_time(3))
    memory[0].square().sum().backward()
    assert displacement is not None
    assert all(w.grad is None and not w.requires_grad for w in detector.strong.parameters())
    assert detector.features.merge.weight.grad.any()
    assert detector.displacement.refine[-1].weight.grad.any()


@pytest.mark.parametrize("aggregation", ["weights", "adaptive", "adascan"])
def test_features_are_aggregated_as_told_and_that_is_learned(aggregation: str) -> None:
    detector = build(lag=1, aggregation=aggregation).train()
    evidence = detector.observe(torch.cat(images(2)))
    memory, _ = detector.remember(evidence.in_time(2))
    memory[0].square().sum().backward()
    assert memory[0].shape == evidence.fast.features[0].shape
    assert any(weight.grad is not None and weight.grad.any() for weight in detector.aggregate.parameters())


def test_cameras_share_a_pass() -> None:
    detector = build(lag=1)
    first, second = images(3), images(4)[:3]
    alone = [run(detector, frames)[-1].memory[0] for frames in (first, second)]
    states = [None, None]
    with torch.no_grad():
        for pair in zip(first, second, strict=True):
            steps = detector.step_streams(states, detector.observe(torch.cat(pair)).split())
            states = [step.state for step in steps]
    for step, expected in zip(steps, alone, strict=True):
        torch.testing.assert_close(step.memory[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": {"kind": "memnet"}}, "no memory of its own"),
        ({"propagation": {"every": 2, "source": "boxes"}}, "looks at every frame"),
        ({"class_names": ["ball"]}, "same class_names"),
        ({"features": {"kind": "tiny", "channels": 64}}, "same channels"),
        ({"displacement": {"kind": "none"}}, "lag needs a displacement"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_merging_keeps_the_best_of_overlapping_boxes_of_a_class() -> None:
    one = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]),
        "scores": torch.tensor([0.6, 0.9]),
        "labels": torch.tensor([0, 1]),
    }
    other = {
        "boxes": torch.tensor([[0.0, 0, 10, 11], [20, 20, 30, 30]]),
        "scores": torch.tensor([0.8, 0.7]),
        "labels": torch.tensor([0, 0]),
    }
    merged = merge_boxes([one, other], 0.5)
    assert merged["scores"].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert merged["labels"].tolist() == [1, 0, 0]
