"""What holds of every head on one feature map."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from memwarp_core.models.config import (
    FCOSHeadConfig,
    HeadConfig,
    RFCNHeadConfig,
    TinyFeaturesConfig,
    TorchvisionFeaturesConfig,
    TorchvisionHeadConfig,
)
from memwarp_core.models.features import build_features
from memwarp_core.models.heads import FCOSHead, RFCNHead, TorchvisionHead, build_head
from memwarp_core.models.parts import Head

IMAGE_SIZE = (96, 128)
BOXES = torch.tensor([[10.0, 14.0, 50.0, 48.0], [60.0, 30.0, 108.0, 90.0], [8.0, 60.0, 32.0, 84.0]])
LABELS = torch.tensor([2, 0, 1])
NO_OBJECTS = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}

CONFIGS = {
    "fcos": FCOSHeadConfig(),
    "rfcn": RFCNHeadConfig(
        anchor_sizes=(24, 48),
        rpn_channels=64,
        proposals_before_nms=300,
        proposals=40,
        bins=3,
        hard_examples=32,
        score_threshold=0.05,
    ),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> HeadConfig:
    return CONFIGS[request.param]


def head_of(config: HeadConfig) -> Head:
    torch.manual_seed(0)
    return build_head(build_features(TinyFeaturesConfig()), 3, config)


def feature_map(seed: int, batch: int = 1) -> Tensor:
    """Smooth noise of a tiny detector's shape: 96 channels at stride 8."""
    noise = torch.randn(batch, 96, 12, 16, generator=torch.Generator().manual_seed(seed))
    return F.relu(3 * F.avg_pool2d(noise, 3, 1, 1))


def test_a_configuration_builds_its_head() -> None:
    assert isinstance(head_of(CONFIGS["fcos"]), FCOSHead)
    assert isinstance(head_of(CONFIGS["rfcn"]), RFCNHead)
    whole = TorchvisionFeaturesConfig(detector="ssdlite320_mobilenet_v3_large")
    assert isinstance(build_head(build_features(whole), 3, TorchvisionHeadConfig()), TorchvisionHead)


def test_a_head_that_has_learned_one_picture_finds_its_objects(config: HeadConfig) -> None:
    head, levels = head_of(config), (feature_map(0),)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(120):
        losses = head.losses(levels, [{"boxes": BOXES, "labels": LABELS}], IMAGE_SIZE)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        (found,) = head.detect(levels, IMAGE_SIZE)
    overlap, nearest = box_iou(found["boxes"][:3], BOXES).max(1)
    assert sorted(nearest.tolist()) == [0, 1, 2]
    assert overlap.min() > 0.7
    assert torch.equal(found["labels"][:3], LABELS[nearest])
    # What else is left is worth much less than the three objects.
    assert (found["scores"][3:] < 0.7 * found["scores"][2]).all()


def test_one_step_reaches_every_weight(config: HeadConfig) -> None:
    head = head_of(config)
    losses = head.losses((feature_map(0, 2),), [{"boxes": BOXES, "labels": LABELS}, NO_OBJECTS], IMAGE_SIZE)
    torch.stack(list(losses.values())).sum().backward()
    assert not [name for name, weight in head.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_pictures_without_objects_teach_the_background(config: HeadConfig) -> None:
    head, levels = head_of(config), feature_map(0, 2).requires_grad_()
    losses = head.losses((levels,), [NO_OBJECTS, NO_OBJECTS], IMAGE_SIZE)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["classification"] > 0
    assert all(losses[name] == 0 for name in losses if "box" in name or "bbox" in name)
    torch.stack(list(losses.values())).sum().backward()
    assert levels.grad is not None and levels.grad.isfinite().all()


def test_detections_are_boxes_inside_the_image_best_first(config: HeadConfig) -> None:
    with torch.no_grad():
        found = head_of(config).detect((feature_map(0, 2),), IMAGE_SIZE)
    assert len(found) == 2
    for of_image in found:
        boxes, scores, labels = of_image["boxes"], of_image["scores"], of_image["labels"]
        assert len(boxes) == len(scores) == len(labels) > 0
        assert (boxes >= 0).all() and (boxes <= torch.tensor([128, 96, 128, 96])).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        assert (scores.diff() <= 0).all() and (scores > config.score_threshold).all() and (scores <= 1).all()
        assert labels.dtype == torch.int64 and set(labels.tolist()) == {0, 1, 2}


def test_no_more_detections_are_returned_than_asked_for(config: HeadConfig) -> None:
    few = config.model_copy(update={"detections_per_image": 4})
    with torch.no_grad():
        many = head_of(config).detect((feature_map(0),), IMAGE_SIZE)[0]
        best = head_of(few).detect((feature_map(0),), IMAGE_SIZE)[0]
    assert len(many["scores"]) > 4
    assert all(torch.equal(best[key], many[key][:4]) for key in many)


def test_images_of_a_batch_do_not_influence_each_other(config: HeadConfig) -> None:
    head, maps = head_of(config), feature_map(0, 3)
    with torch.no_grad():
        together = head.detect((maps,), IMAGE_SIZE)
        reordered = head.detect((maps[[2, 0, 1]],), IMAGE_SIZE)
        alone = [head.detect((maps[i : i + 1],), IMAGE_SIZE)[0] for i in range(3)]
    for i, of_image in enumerate(together):
        for other in (alone[i], reordered[[1, 2, 0][i]]):
            for key in of_image:
                torch.testing.assert_close(other[key], of_image[key], rtol=1e-4, atol=1e-4)


def test_half_precision_leaves_coordinates_exact(config: HeadConfig) -> None:
    head, levels = head_of(config), (feature_map(0).to(memory_format=torch.channels_last),)
    with torch.no_grad():
        expected = head.detect(levels, IMAGE_SIZE)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = head.detect(tuple(level.bfloat16() for level in levels), IMAGE_SIZE)[0]
            losses = head.losses(
                tuple(level.bfloat16() for level in levels), [{"boxes": BOXES, "labels": LABELS}], IMAGE_SIZE
            )
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    overlap = box_iou(expected["boxes"][:10], found["boxes"]).max(1).values
    assert overlap.min() > 0.9
