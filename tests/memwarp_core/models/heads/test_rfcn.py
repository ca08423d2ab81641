"""What holds of R-FCN's head alone; test_heads.py has what every head does."""

import math
from itertools import cycle
from operator import itemgetter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from memwarp_core.geometry import psroi_pool, warp
from memwarp_core.models.config import RFCNHeadConfig
from memwarp_core.models.heads.anchors import anchors_on
from memwarp_core.models.heads.rfcn import RFCNHead, assign, hardest

CLASSES = 3
IMAGE_SIZE = (96, 128)
CONFIG = RFCNHeadConfig(
    anchor_sizes=(24, 48), rpn_channels=32, proposals=40, bins=3, hard_examples=6, score_threshold=0.05
)


@pytest.fixture
def levels() -> tuple[Tensor]:
    return (torch.randn(2, 64, 12, 16, generator=torch.Generator().manual_seed(1)),)


@pytest.fixture
def head() -> RFCNHead:
    """With scores and boxes that differ between proposals more than they do at the published initialisation."""
    torch.manual_seed(0)
    head = RFCNHead(64, 8, CLASSES, CONFIG)
    torch.nn.init.normal_(head.class_maps.weight, std=0.5)
    torch.nn.init.normal_(head.box_maps.weight, std=0.5)
    return head


def test_of_equal_scores_the_first_is_first(head: RFCNHead, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(head, "choose_proposals", lambda boxes, _: seen.append(boxes) or boxes)
    nothing = (torch.zeros(1, 64, 12, 16),)
    head.detect(nothing, IMAGE_SIZE)
    (anchors,) = anchors_on(head.rpn.anchor_generator, nothing, IMAGE_SIZE)
    torch.testing.assert_close(seen[0], clip_boxes_to_image(anchors, IMAGE_SIZE))


def random_boxes(count: int, seed: int) -> Tensor:
    corners = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([90.0, 60.0])
    sides = 12 + torch.rand(count, 2, generator=torch.Generator().manual_seed(seed + 1)) * 24
    return torch.cat((corners, corners + sides), 1)


def propose(head: RFCNHead, monkeypatch: pytest.MonkeyPatch, *of_images: Tensor) -> None:
    """Let the region proposal network find these boxes."""
    boxes = cycle(of_images)
    monkeypatch.setattr(head, "choose_proposals", lambda *_: next(boxes))


def votes(head: RFCNHead, features: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Class probabilities (classes + 1,) and box code (4,) of one box of one image (C, H, W)."""
    read = features[None, 32:]
    # R-FCN's boxes include their last pixel.
    roi = torch.tensor([[0, box[0], box[1], box[2] - 1, box[3] - 1]])
    classes = psroi_pool(F.conv2d(read, head.class_maps.weight, head.class_maps.bias), roi, 3, 1 / 8)
    code = psroi_pool(F.conv2d(read, head.box_maps.weight, head.box_maps.bias), roi, 3, 1 / 8)
    return classes.mean((2, 3))[0].softmax(0), code.mean((2, 3))[0]


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def moved(box: list[float], code: list[float]) -> list[float]:
    """A box moved by its code, inside the image."""
    width, height = box[2] - box[0], box[3] - box[1]
    x = (box[0] + box[2]) / 2 + code[0] / 10 * width
    y = (box[1] + box[3]) / 2 + code[1] / 10 * height
    width, height = width * math.exp(code[2] / 5), height * math.exp(code[3] / 5)
    edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(max(edge, 0.0), limit) for edge, limit in zip(edges, (128, 96, 128, 96), strict=True)]


def test_the_published_size_has_the_published_number_of_weights() -> None:
    head = RFCNHead(1024, 16, 30, RFCNHeadConfig())
    rpn = (512 * 9 * 512 + 512) + (512 * 9 + 9) + (512 * 4 * 9 + 4 * 9)
    score_maps = 512 * 31 * 49 + 31 * 49
    box_maps = 512 * 4 * 49 + 4 * 49
    assert sum(weight.numel() for weight in head.parameters()) == rpn + score_maps + box_maps == 3_262_688
    with torch.no_grad():
        (found,) = head.eval().detect((torch.randn(1, 1024, 4, 6),), (64, 96))
    assert found["labels"].max() < 30


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    for name, weight in RFCNHead(1024, 16, 30, RFCNHeadConfig()).named_parameters():
        if name.endswith("bias"):
            assert not weight.any()
        else:
            assert weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_weights_come_back_from_a_file_as_they_were(head: RFCNHead) -> None:
    other = RFCNHead(64, 8, CLASSES, CONFIG)
    other.load_state_dict(head.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), other.parameters(), strict=True))


def test_proposals_read_the_first_half_of_the_channels_and_score_maps_the_second(head: RFCNHead) -> None:
    features = torch.randn(1, 64, 12, 16, requires_grad=True)
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}]
    losses = head.losses((features,), targets, IMAGE_SIZE)
    (of_proposals,) = torch.autograd.grad(losses["rpn_objectness"] + losses["rpn_box"], features, retain_graph=True)
    (of_maps,) = torch.autograd.grad(losses["classification"] + losses["box"], features)
    assert of_proposals[:, :32].any() and not of_proposals[:, 32:].any()
    assert of_maps[:, 32:].any() and not of_maps[:, :32].any()


@pytest.mark.parametrize(("overlap", "spread"), [(0.05, 0.0), (0.05, 1.0), (0.7, 6.0)])
def test_proposals_are_those_of_torchvision(overlap: float, spread: float) -> None:
    """Few of the best are kept, or many; some boxes are thin, or outside of the image."""
    head = RFCNHead(64, 8, CLASSES, CONFIG.model_copy(update={"rpn_nms_threshold": overlap}))
    generator = torch.Generator().manual_seed(0)
    anchors = [torch.cat((random_boxes(900, 0), random_boxes(900, 2) + 60))] * 2
    objectness = torch.randn(2 * 1800, 1, generator=generator)
    deltas = torch.randn(2 * 1800, 4, generator=generator) * torch.tensor([1.0, 1.0, spread, spread])
    boxes = head.rpn.box_coder.decode(deltas, anchors).view(2, -1, 4)
    of_images, _ = head.rpn.filter_proposals(boxes, objectness, [IMAGE_SIZE] * 2, [1800])
    for proposals, expected in zip(head._propose(objectness, deltas, anchors, IMAGE_SIZE), of_images, strict=True):
        torch.testing.assert_close(proposals[: len(expected)], expected, rtol=0, atol=0)
        assert not proposals[len(expected) :].any()


def test_detections_are_those_of_plain_loops_over_proposals_and_classes(
    head: RFCNHead, levels: tuple[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    proposals = [random_boxes(40, 0), random_boxes(25, 2)]  # the second image is filled up with empty boxes
    propose(head, monkeypatch, *proposals)
    with torch.no_grad():
        found = head.detect(levels, IMAGE_SIZE)
        rated = [[votes(head, levels[0][i], box) for box in of_image] for i, of_image in enumerate(proposals)]
    score_of = itemgetter(0)
    for of_image, boxes, ratings in zip(found, proposals, rated, strict=True):
        expected: list[tuple[float, int, list[float]]] = []
        for label in range(CLASSES):
            candidates = [
                (scores[label + 1].item(), label, moved(box.tolist(), code.tolist()))
                for box, (scores, code) in zip(boxes, ratings, strict=True)
                if scores[label + 1] > 0.05
            ]
            kept: list[tuple[float, int, list[float]]] = []
            for candidate in sorted(candidates, key=score_of, reverse=True):  # of equal scores the first
                if all(iou(candidate[2], better[2]) <= 0.3 for better in kept):
                    kept.append(candidate)
            assert len(kept) < len(candidates)
            expected += kept
        expected.sort(key=score_of, reverse=True)
        torch.testing.assert_close(of_image["scores"], torch.tensor([score for score, _, _ in expected]))
        torch.testing.assert_close(of_image["boxes"], torch.tensor([box for _, _, box in expected]), rtol=0, atol=1e-3)
        assert of_image["labels"].tolist() == [label for _, label, _ in expected]


def test_learning_is_from_the_hardest_proposals_of_each_image(
    head: RFCNHead, levels: tuple[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """hard_examples is 6: the mean is over the 6 largest sums of class and box loss of each image, and no others."""
    truth = [
        {"boxes": random_boxes(2, 10), "labels": torch.tensor([2, 0])},
        {"boxes": random_boxes(1, 20), "labels": torch.tensor([1])},
    ]
    near = [of_image["boxes"].repeat(4, 1) + torch.randn(1).item() for of_image in truth]
    proposals = [torch.cat((near[0], random_boxes(20, 4))), torch.cat((near[1], random_boxes(9, 6)))]
    propose(head, monkeypatch, *proposals)
    losses = head.losses(levels, truth, IMAGE_SIZE)

    chosen = []
    for i, of_image in enumerate(truth):
        rated = []
        for box in torch.cat((proposals[i], of_image["boxes"])):  # the objects themselves are proposals as well
            overlaps = [iou(box.tolist(), other) for other in of_image["boxes"].tolist()]
            best = max(range(len(overlaps)), key=overlaps.__getitem__)
            scores, code = votes(head, levels[0][i], box)
            if overlaps[best] < 0.5:
                rated.append((-scores[0].log().item(), 0.0))
                continue
            (x1, y1, x2, y2), (u1, v1, u2, v2) = box.tolist(), of_image["boxes"][best].tolist()
            wanted = [
                10 * ((u1 + u2) - (x1 + x2)) / 2 / (x2 - x1),
                10 * ((v1 + v2) - (y1 + y2)) / 2 / (y2 - y1),
                5 * math.log((u2 - u1) / (x2 - x1)),
                5 * math.log((v2 - v1) / (y2 - y1)),
            ]
            errors = [abs(a - b) for a, b in zip(code.tolist(), wanted, strict=True)]
            smooth = sum(e**2 / 2 if e < 1 else e - 0.5 for e in errors)
            rated.append((-scores[of_image["labels"][best] + 1].log().item(), smooth))
        rated.sort(key=sum, reverse=True)
        assert any(box_loss > 0 for _, box_loss in rated[:6]) and sum(rated[6]) > 0
        chosen += rated[:6]
    assert losses["classification"].item() == pytest.approx(sum(c for c, _ in chosen) / 12, rel=1e-4)
    assert losses["box"].item() == pytest.approx(sum(b for _, b in chosen) / 12, rel=1e-4)


def test_the_hardest_are_chosen_by_numbers() -> None:
    losses = torch.tensor([[0.1, 5.0, 3.0, 0.2, 9.0], [0.0, 0.0, 2.0, 7.0, 7.5]])
    real = torch.tensor([[True, True, True, True, False], [True, False, False, False, True]])
    learned = hardest(losses, real, 2)
    assert learned.tolist() == [[False, True, True, False, False], [True, False, False, False, True]]
    assert torch.equal(hardest(losses, real, 99), real)


def test_a_proposal_belongs_to_the_object_it_overlaps_by_half() -> None:
    target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 40.0, 10.0]]), "labels": torch.tensor([4, 0])}
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4.9], [21, 0, 40, 10], [60, 60, 70, 70], [0, 0, 0, 0]])
    labels, wanted = assign(boxes, target)
    assert labels.tolist() == [5, 0, 1, 0, 0]
    assert torch.equal(wanted[[0, 2]], target["boxes"])


def test_without_any_proposal_nothing_is_found_and_objects_are_still_learned(
    head: RFCNHead, levels: tuple[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(head, monkeypatch, torch.zeros(0, 4), torch.zeros(0, 4))
    with torch.no_grad():
        assert [len(of_image["boxes"]) for of_image in head.detect(levels, IMAGE_SIZE)] == [0, 0]
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    one = {"boxes": random_boxes(1, 0), "labels": torch.tensor([1])}
    assert head.losses(levels, [nothing, one], IMAGE_SIZE)["classification"] > 0
    assert head.losses(levels, [nothing, nothing], IMAGE_SIZE)["classification"] == 0


def test_the_order_of_a_batch_does_not_matter_to_learning(head: RFCNHead, levels: tuple[Tensor]) -> None:
    targets = [{"boxes": random_boxes(n, n), "labels": torch.arange(n)} for n in (1, 3)]
    losses = head.losses(levels, targets, IMAGE_SIZE)
    reordered = head.losses((levels[0].flip(0),), targets[::-1], IMAGE_SIZE)
    for name in ("classification", "box"):  # the proposal network learns from random anchors
        torch.testing.assert_close(reordered[name], losses[name], rtol=1e-4, atol=1e-5)


def test_a_moved_map_is_judged_as_if_its_features_were_moved(
    head: RFCNHead, levels: tuple[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.nn.init.normal_(head.class_maps.bias)  # type: ignore[arg-type]
    torch.nn.init.normal_(head.box_maps.bias)  # type: ignore[arg-type]
    features, fields = levels[0][:1], torch.randn(2, 2, 12, 16)
    fields[1] += 6  # brings zeros from outside
    boxes = torch.stack((random_boxes(9, 1), random_boxes(9, 3)))
    with torch.inference_mode():
        came = head.eval().detect_moved((features,), fields, boxes, IMAGE_SIZE)
        propose(head, monkeypatch, *boxes)
        expected = head.detect((warp(features.expand(2, -1, -1, -1), fields),), IMAGE_SIZE)
    for one, other in zip(came, expected, strict=True):
        assert len(one["boxes"]) > 0
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-4)


def test_moved_proposals_may_leave_the_image_and_be_none(head: RFCNHead, levels: tuple[Tensor]) -> None:
    outside = torch.tensor([[-60.0, 10.0, -20.0, 30.0], [200.0, 10.0, 240.0, 30.0]]).expand(2, -1, -1)
    for proposals in (outside, outside[:, :0]):
        with torch.inference_mode():
            found = head.eval().detect_moved((levels[0][:1],), torch.zeros(2, 2, 12, 16), proposals, IMAGE_SIZE)
        assert [len(of_image["boxes"]) for of_image in found] == [0, 0]
