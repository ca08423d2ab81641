import pytest
import torch
from pydantic import ValidationError

from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.models.config import DisplacementConfig
from memwarp_core.models.displacement import CorrelationDisplacement

CONFIG = DetectorConfig(name="test", class_names=("ball", "crate", "cone"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(CONFIG).eval()


def test_features_have_the_strides_that_they_promise(detector: Detector) -> None:
    evidence = detector.features(torch.zeros(2, 3, 64, 96))
    assert evidence.features.shape == (2, 96, 8, 12)
    assert evidence.motion.shape == (2, 48, 16, 24)


def test_detections_are_boxes_inside_the_image_best_first(detector: Detector) -> None:
    with torch.no_grad():
        found = detector(torch.rand(2, 3, 64, 96) * 255)
    assert len(found) == 2
    for of_image in found:
        assert (of_image["boxes"] >= 0).all()
        assert (of_image["boxes"] <= torch.tensor([96, 64, 96, 64])).all()
        assert (of_image["scores"].diff() <= 0).all()
        assert of_image["labels"].max() < 3


def test_images_of_a_batch_do_not_influence_each_other(detector: Detector) -> None:
    images = torch.rand(2, 3, 64, 96) * 255
    with torch.no_grad():
        together = detector.features(images).features
        alone = detector.features(images[1:]).features
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-4)


def test_one_step_reaches_every_weight_that_makes_boxes() -> None:
    detector = Detector(CONFIG)
    features = detector.features(torch.rand(2, 3, 64, 96) * 255).features
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = detector.head.losses(features, [target, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}])
    torch.stack(list(losses.values())).sum().backward()
    parts = (detector.features, detector.head)
    silent = [name for part in parts for name, w in part.named_parameters() if w.grad is None]
    assert not silent


def test_displacement_finds_a_shift_of_distinct_places() -> None:
    """Before any training, the soft-argmax over distinct features already points the right way."""
    torch.manual_seed(0)
    part = CorrelationDisplacement(8, DisplacementConfig(channels=16, radius=3)).eval()
    torch.nn.init.constant_(part.log_temperature, 4.0)
    past = torch.randn(1, 8, 20, 24)
    current = past.roll(4, dims=3)  # 4 cells at stride 4 are 2 cells at stride 8, to the right
    field = part(current, past)[0, :, 2:-2, 4:-3]
    assert field[0].mean().item() == pytest.approx(-2.0, abs=0.3)
    assert field[1].mean().item() == pytest.approx(0.0, abs=0.3)


def test_an_unknown_key_or_an_impossible_width_is_refused() -> None:
    with pytest.raises(ValidationError, match="horizon"):
        DetectorConfig.model_validate({"name": "x", "class_names": ["a"], "horizon": 3})
    with pytest.raises(ValidationError, match="multiple of 32, got 40"):
        DetectorConfig.model_validate({"name": "x", "class_names": ["a"], "features": {"channels": 40}})
