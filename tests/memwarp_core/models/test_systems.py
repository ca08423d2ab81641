import numpy as np
import pytest
import torch

from memwarp_core import ConfigError
from memwarp_core.models import Detector, build_detector
from memwarp_core.models.displacement import FlowNet
from memwarp_core.models.overview import system_overview
from memwarp_core.models.systems import find_system, systems
from memwarp_core.streaming import run_detector

# Systems that are the same in a step of training (how often evidence enters, halves of the image, how far frames are
# apart) are tried once.
TRAINED_ALIKE = ("prop-4", "prop-8", "anticipation-4", "anticipation-8", "-split", "-strd-4", "-strd-8")
OF_THE_PAPER = [name for name in systems() if find_system(name).config.features.kind == "resnet"]
TINY = [name for name in systems() if name not in OF_THE_PAPER]


def trained(names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(TRAINED_ALIKE)]


def train_once(detector: Detector, frames: int, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Losses of one short sequence with an object in it, after their gradients were computed."""
    torch.manual_seed(0)
    box = {"boxes": torch.tensor([[8.0, 8.0, 56.0, 48.0]]), "labels": torch.tensor([1])}
    evidence = detector.train().observe(torch.rand(frames, 3, *size) * 255)
    memory, displacement = detector.remember(evidence.in_time(frames))
    losses = detector.head.losses(detector.features.finish(memory), [box] * frames, size)
    if detector.config.strong is not None and detector.config.strong.source == "boxes":
        # Boxes are moved and not learned from; displacements learn from exact fields alone.
        assert displacement is not None
        losses["displacement"] = displacement.square().mean()
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize("tables", ["1", "2", "3", "S1", "S2a", "S2b"])
def test_every_row_of_a_table_is_there_at_both_sizes(tables: str) -> None:
    rows = {"1": 11, "2": 14, "3": 8, "S1": 5, "S2a": 4, "S2b": 4}[tables]
    for names in (OF_THE_PAPER, TINY):
        assert len([name for name in names if tables in find_system(name).tables.split()]) == rows


@pytest.mark.parametrize(
    "name", [*trained(TINY), *(pytest.param(name, marks=pytest.mark.slow) for name in trained(OF_THE_PAPER))]
)
def test_a_system_learns_in_all_that_is_not_frozen(name: str) -> None:
    detector = build_detector(find_system(name).config)
    # A fast detector meets strong features for the first time after their lag of four frames.
    losses = train_once(detector, frames=3 if detector.config.strong is None else 5, size=(64, 96))
    assert all(loss.isfinite() for loss in losses.values())
    silent = {parameter for parameter, w in detector.named_parameters() if w.requires_grad and w.grad is None}
    assert not silent
    if isinstance(detector.displacement, FlowNet):
        assert detector.displacement.conv1[0].weight.grad.any()


def test_the_overview_counts_what_a_detector_has() -> None:
    overview = {system.name: system for system in system_overview()}
    assert list(overview) == list(systems())
    built = build_detector(find_system("clocknet-tiny").config)
    assert overview["clocknet-tiny"].parameters == sum(w.numel() for w in built.parameters())
    assert overview["clocknet-tiny"].time_strides == (1, 4, 8)
    assert overview["clocknet-tiny-featprop-4"].time_strides == (4, 4, 8)
    assert overview["memnet-50-half-conv4+conv5"].strides == (16, 16)
    assert overview["rfcn-101"].time_strides == ()


def test_an_unknown_system_is_refused_with_similar_ones() -> None:
    with pytest.raises(ConfigError, match="'clocknet-102'.*clocknet-101"):
        find_system("clocknet-102")


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_system_runs_on_a_recording(name: str) -> None:
    """Long enough that every time axis has ticked again."""
    torch.manual_seed(0)
    config = find_system(name).config.model_copy(update={"fixed_size": (64, 96)})
    detector = run_detector(build_detector(config), device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (64, 128, 3), dtype=np.uint8)
    recording = [(image[:, index : index + 96], index * 50_000_000) for index in range(17)]
    found = list(detector.detect_clip(recording))
    assert [one.stamp_ns for one in found] == [stamp_ns for _, stamp_ns in recording]
    assert all(one.boxes_xyxy.isfinite().all() for one in found)
    assert max(len(one) for one in found) > 0
