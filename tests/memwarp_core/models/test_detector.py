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


def test_an_unknown_key_or_an_impossible_width_is_refused() -> None:
    with pytest.raises(ValidationError, match="horizon"):
        DetectorConfig.model_validate({"name": "x", "class_names": ["a"], "horizon": 3})
    with pytest.raises(ValidationError, match="multiple of 32, got 40"):
        DetectorConfig.model_validate({"name": "x", "class_names": ["a"], "features": {"channels": 40}})
