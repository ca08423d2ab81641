import pytest
import torch
from pydantic import ValidationError

from memwarp_core.models import Detector, DetectorConfig

CONFIG = DetectorConfig(name="test", class_names=("ball", "crate", "cone"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(CONFIG).eval()


def test_detections_are_boxes_inside_the_image_best_first(detector: Detector) -> None:
    with torch.no_grad():
        found = detector(torch.rand(2, 3, 64, 96) * 255)
    assert len(found) == 2
    for of_image in found:
        assert (of_image["boxes"] >= 0).all()
        assert (of_image["boxes"] <= torch.tensor([96, 64, 96, 64])).all()
        assert (of_image["scores"].diff() <= 0).all()
        assert of_image["labels"].max() < 3


def test_one_step_reaches_every_weight_that_makes_boxes() -> None:
    detector = Detector(CONFIG)
    images = torch.rand(2, 3, 64, 96) * 255
    levels = detector.features.finish(detector.features.levels(detector.features.early(images)))
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}
    losses = detector.head.losses(levels, [target, nothing], (64, 96))
    torch.stack(list(losses.values())).sum().backward()
    parts = (detector.features, detector.head)
    silent = [name for part in parts for name, w in part.named_parameters() if w.grad is None]
    assert not silent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 3}, "unknown key 'horizon'; known keys: name, .*anticipation"),
        ({"memory": {"kind": "clocknet", "stride": 2}}, "unknown key 'stride'; known keys: .*strides"),
        ({"memory": {"kind": "lstm"}}, "'lstm'.*'memnet', 'clocknet', 'fgfa'"),
        ({"memory": {"kind": "clocknet", "strides": [4, 1]}}, r"strides must increase, got \(4, 1\)"),
        ({"memory": {"kind": "fgfa", "composed": True}}, "composed needs future: 0"),
        ({"features": {"channels": 40}}, "multiple of 32, got 40"),
        ({"features": {"memory_at": ["conv5", "conv5"]}}, "name each stage once"),
        ({"displacement": {"kind": "none"}}, "memory memnet needs a displacement: correlation, flownet, raft or still"),
        ({"memory": {"kind": "none"}, "propagation": {"every": 2}}, "propagation of features needs a memory"),
        ({"memory": {"kind": "fgfa"}, "split": True}, "need a causal memory"),
        ({"head": {"kind": "torchvision"}}, "come together; got tiny features and the head torchvision"),
        (
            {"memory": {"kind": "clocknet", "composed": True}, "displacement": {"kind": "flownet", "scale_map": True}},
            "scale_map cannot be chained",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_what_would(change: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DetectorConfig.model_validate({"name": "x", "class_names": ["a"], **change})
