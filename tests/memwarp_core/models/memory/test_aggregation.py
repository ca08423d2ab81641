import math

import pytest
import torch
from torch import Tensor, nn

from memwarp_core.models.memory.aggregation import AdaptiveWeights, AdaScan, AggregateLevels, Average, LearnedWeights


def maps(count: int, channels: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, 1, channels, 3, 4), random."""
    return torch.randn((count, 1, channels, 3, 4), generator=torch.Generator().manual_seed(count), dtype=dtype)


def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.3)
    return module


@pytest.mark.parametrize("rule", [Average(), LearnedWeights(8), AdaptiveWeights(8), AdaScan(8)])
def test_evidence_that_says_what_the_memory_says_changes_nothing(rule: nn.Module) -> None:
    """So weights add up to one."""
    (evidence,) = maps(1)
    randomise(rule)
    memory = rule.start(evidence)
    torch.testing.assert_close(rule.read(memory), evidence)
    torch.testing.assert_close(rule.read(rule(memory, evidence)), evidence)


@pytest.mark.parametrize("rule", [Average(), LearnedWeights(4), AdaptiveWeights(4), AdaScan(4)])
def test_gradients_are_right(rule: nn.Module) -> None:
    first, second, third = (one.requires_grad_() for one in maps(3, 4, torch.float64))
    randomise(rule.double())

    def run(first: Tensor, second: Tensor, third: Tensor, *parameters: Tensor) -> Tensor:
        return rule.read(rule(rule(rule.start(first), second), third))

    assert torch.autograd.gradcheck(run, (first, second, third, *rule.parameters()), fast_mode=True)


def test_the_average_weighs_both_alike() -> None:
    assert torch.equal(Average()(torch.tensor([[[[1.0]]]]), torch.tensor([[[[4.0]]]])), torch.tensor([[[[2.5]]]]))


def test_learned_weights_start_as_the_average() -> None:
    memory, evidence = maps(2)
    torch.testing.assert_close(LearnedWeights(8)(memory, evidence), (memory + evidence) / 2)


def test_learned_weights_are_a_softmax_over_both_networks_outputs() -> None:
    memory, evidence = maps(2)
    rule = randomise(LearnedWeights(8))
    of_memory, of_evidence = torch.cat((rule.of_memory(memory), rule.of_evidence(evidence)), 1).softmax(1).split(1, 1)
    torch.testing.assert_close(rule(memory, evidence), of_memory * memory + of_evidence * evidence)


def test_adaptive_weights_follow_the_definition_place_by_place() -> None:
    frames = maps(4)
    rule = randomise(AdaptiveWeights(8))
    embeddings = [rule.embed(frame) for frame in frames]
    expected = torch.zeros_like(frames[0])
    for y in range(3):
        for x in range(4):
            vectors = [embedding[0, :, y, x].tolist() for embedding in embeddings]
            likeness = []
            for vector in vectors:
                dot = sum(a * b for a, b in zip(vector, vectors[0], strict=True))
                likeness.append(math.exp(dot / math.hypot(*vector) / math.hypot(*vectors[0])))
            for frame, like in zip(frames, likeness, strict=True):
                expected[0, :, y, x] += frame[0, :, y, x] * like / sum(likeness)
    torch.testing.assert_close(rule.combine(list(frames), embeddings), expected)
    torch.testing.assert_close(rule(frames[1], frames[0]), rule.combine(frames[:2], embeddings[:2]))


def test_adaptive_weights_add_up_to_one_and_are_largest_for_the_current_frame() -> None:
    rule = randomise(AdaptiveWeights(8))
    weights = rule.weights([rule.embed(frame) for frame in maps(5)])
    assert weights.shape == (5, 1, 1, 3, 4)
    torch.testing.assert_close(weights.sum(0), torch.ones(1, 1, 3, 4))
    assert (weights[0] >= weights).all()


def test_adaptive_weights_embed_as_published() -> None:
    layers = [layer for layer in AdaptiveWeights(1024).embed if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size) for layer in layers] == [
        (512, (1, 1)),
        (512, (3, 3)),
        (2048, (1, 1)),
    ]


def test_adascan_is_the_mean_weighted_by_importance() -> None:
    frames = maps(5)
    rule = randomise(AdaScan(8))
    memory = rule.start(frames[0])
    mean, importances = torch.zeros_like(frames[0]), []
    for t, frame in enumerate(frames):
        importances.append(torch.sigmoid(rule.importance(frame - mean)))
        mean = sum(s * f for s, f in zip(importances, frames, strict=False)) / sum(importances)
        memory = rule(memory, frame) if t else memory
        torch.testing.assert_close(rule.read(memory), mean)


def test_adascan_starts_as_the_plain_mean() -> None:
    frames = maps(5)
    rule = AdaScan(8)
    memory = rule.start(frames[0])
    for frame in frames[1:]:
        memory = rule(memory, frame)
    torch.testing.assert_close(rule.read(memory), frames.mean(0))


def test_adascan_takes_what_comes_into_view_as_it_is() -> None:
    first, second = maps(2)
    rule = randomise(AdaScan(8))
    memory = rule.start(first)
    memory[:, :, :, -1] = 0  # as warping leaves it
    after = rule.read(rule(memory, second))
    torch.testing.assert_close(after[..., -1], second[..., -1])
    assert not torch.isclose(after[..., 0], second[..., 0]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adascan_goes_on_learning_in_an_endless_stream(dtype: torch.dtype) -> None:
    rule = AdaScan(8).to(dtype)
    zeros, ones = torch.zeros((1, 8, 3, 4), dtype=dtype), torch.ones((1, 8, 3, 4), dtype=dtype)
    with torch.no_grad():
        memory = rule.start(zeros)
        for _ in range(200):
            memory = rule(memory, zeros)
        for _ in range(60):
            memory = rule(memory, ones)
    assert (memory[:, -1] <= rule.MOST_IMPORTANCE + 1).all()
    assert (rule.read(memory) > 0.9).all()


def test_adascan_survives_evidence_of_no_importance() -> None:
    (evidence,) = maps(1)
    rule = AdaScan(8)
    nn.init.constant_(rule.importance[-1].bias, -1000)
    assert torch.equal(rule.read(rule.start(evidence)), evidence)


def test_each_level_has_its_own_weights() -> None:
    names = AggregateLevels((8, 16), "weights").state_dict().keys()
    assert {"0.of_memory.0.weight", "1.of_memory.0.weight", "0.of_evidence.2.bias"} <= names
