"""A detector that runs is a copy with fewer layers, and computes what the one that learned computes."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from memwarp_core.models import Detector, build_detector
from memwarp_core.models.folding import fold_batch_norms
from memwarp_core.models.systems import find_system
from memwarp_core.models.torchvision_detectors import torchvision_config
from memwarp_core.streaming.video_detector import VideoDetector

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def with_statistics(detector: Detector) -> Detector:
    """As after a training: norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for norm in detector.modules():
        if isinstance(norm, _NORMS):
            for values in (norm.weight.data, norm.running_var):
                values.mul_(0.5 + torch.rand(values.shape, generator=generator))
            for values in (norm.bias.data, norm.running_mean):
                values.add_(0.1 * torch.randn(values.shape, generator=generator))
    return detector.eval()


@pytest.mark.parametrize("name", ["memnet-tiny-6", "rfcn-18", "fasterrcnn_mobilenet_v3_large_320_fpn+none"])
def test_a_folded_detector_computes_the_same_without_its_norms(name: str) -> None:
    torch.manual_seed(0)
    config = torchvision_config(name) if "+" in name else find_system(name).config
    detector = with_statistics(build_detector(config))
    folded = detector.for_inference()
    images = 255 * torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = (one.features.finish(one.observe(images).features) for one in (detector, folded))
    for before, after in zip(expected, got, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    assert any(isinstance(module, _NORMS) for module in detector.modules()), "the original stays as it is"
    assert not any(isinstance(module, _NORMS) for module in folded.modules())


def test_only_norms_of_the_convolution_before_are_folded() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)
    ).eval()
    fold_batch_norms(module)
    assert [type(layer) for layer in module] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Conv2d, nn.Identity]


def test_weights_kept_in_half_precision_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    detector = build_detector(find_system("memnet-tiny-6").config.model_copy(update={"fixed_size": (64, 96)}))
    image = torch.randint(0, 255, (64, 96, 3), dtype=torch.uint8).numpy()
    kept = VideoDetector(detector, "cpu", "bf16")
    assert kept.network.features.lateral.weight.dtype == torch.bfloat16
    monkeypatch.setattr("memwarp_core.streaming.video_detector.keep_weights_in", lambda *_: None)
    converted = VideoDetector(detector, "cpu", "bf16")
    assert converted.network.features.lateral.weight.dtype == torch.float32
    states = [run.start() for run in (kept, converted)]
    for stamp_ns in (0, 50_000_000):
        (one, first), (other, second) = (
            run.step(image, stamp_ns, state) for run, state in zip((kept, converted), states, strict=True)
        )
        states = [first, second]
        assert len(one) and torch.equal(one.boxes_xyxy, other.boxes_xyxy) and torch.equal(one.scores, other.scores)
