from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.optical_flow import raft_small

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import (
    ClockNetConfig,
    MemNetConfig,
    NoDisplacementConfig,
    NoMemoryConfig,
    RaftConfig,
    TinyFeaturesConfig,
    TorchvisionFeaturesConfig,
    TorchvisionHeadConfig,
)
from memwarp_core.models.detector import Detector
from memwarp_core.models.features import TinyFeatures
from memwarp_core.models.parts import Displacement
from memwarp_core.models.torchvision_detectors import (
    TORCHVISION_DETECTORS,
    TorchvisionFeatures,
    TorchvisionHead,
    keys_from_torchvision,
    load_torchvision,
    torchvision_config,
)

SSDLITE = "ssdlite320_mobilenet_v3_large"
SMALL_FASTER_RCNN = "fasterrcnn_mobilenet_v3_large_320_fpn"
RETINANET = "retinanet_resnet50_fpn"
ONE_OF_EACH = [
    SSDLITE,
    SMALL_FASTER_RCNN,
    pytest.param(RETINANET, marks=pytest.mark.slow),
    pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.slow),
    pytest.param("fcos_resnet50_fpn", marks=pytest.mark.slow),
]


def image_for(name: str) -> Tensor:
    """(1, 3, H, W) in [0, 255], of a size that is neither scaled nor padded; coarse, so that boxes differ."""
    height, width = (320, 320) if name == SSDLITE else (128, 160)
    coarse = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(1)) * 255
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)


def made_up_weights(name: str) -> dict[str, Tensor]:
    """Under torchvision's keys; scores spread over the classes, so that something is detected."""
    torch.manual_seed(0)
    if name == "raft_small":
        return raft_small(weights=None).state_dict()
    weights = get_model(name, weights=None, weights_backbone=None).state_dict()
    for key, value in weights.items():
        if key.endswith(("cls_score.bias", "cls_logits.bias")):
            value.normal_(-3, 2)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.1)
    return weights


@lru_cache
def made_up(name: str) -> Detector:
    """Without memory, with made-up weights; shared by tests, which leave the weights as they are."""
    detector = Detector(torchvision_config(f"{name}+none"))
    detector.load_state_dict(keys_from_torchvision(made_up_weights(name)))
    return detector.eval()


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let torchvision find made-up weights of one detector, and of RAFT, where it would download the published ones."""

    def use(name: str) -> None:
        answers = {get_model_weights(model).DEFAULT.url: made_up_weights(model) for model in (name, "raft_small")}
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **_: dict(answers[url]))

    return use


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_without_memory_the_detections_are_torchvisions(name: str, publish: Callable[[str], None]) -> None:
    publish(name)
    image = image_for(name)
    sizes = {} if name == SSDLITE else {"min_size": image.shape[-2], "max_size": image.shape[-1]}
    reference = get_model(name, weights="DEFAULT", **sizes).eval()
    detector = load_torchvision(f"{name}+none")
    with torch.no_grad():
        (expected,) = reference([image[0] / 255])
        (found,) = detector(image)
    objects = expected["labels"] > 0
    assert objects.sum() > 10 and len(expected["labels"].unique()) > 1
    torch.testing.assert_close(found["boxes"], expected["boxes"][objects])
    torch.testing.assert_close(found["scores"], expected["scores"][objects])
    assert torch.equal(found["labels"], expected["labels"][objects] - 1)
    trained = {keys for keys, w in reference.named_parameters() if w.requires_grad}
    assert keys_from_torchvision(dict.fromkeys(trained, image)).keys() == {
        key for key, w in detector.named_parameters() if w.requires_grad
    }


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_losses_are_finite_and_reach_what_is_trainable(name: str) -> None:
    """In whatever mode: training runs in one, measuring the loss on other data in the other."""
    detector = made_up(name)
    images = image_for(name).repeat(2, 1, 1, 1)
    targets = [
        {
            "boxes": torch.tensor([[10.0, 12.0, 90.0, 70.0], [60.0, 30.0, 150.0, 120.0]]),
            "labels": torch.tensor([0, 89]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    size = (images.shape[-2], images.shape[-1])
    levels = detector.features.levels(detector.features.early(images))
    losses = detector.head.losses(levels, targets, size)
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values()) and len(losses) >= 2
    sum(losses.values()).backward()
    silent = [key for key, w in detector.named_parameters() if w.requires_grad and w.grad is None]
    assert not silent
    first = next(w for w in detector.features.parameters() if w.requires_grad)
    assert first.grad is not None and first.grad.abs().sum() > 0
    with torch.no_grad():
        assert detector.detect(levels, size)[0].keys() == {"boxes", "scores", "labels"}
    detector.zero_grad(set_to_none=True)


def test_the_last_score_is_that_of_the_last_class() -> None:
    """torchvision's first one is that of the background, which we have no label for."""
    torch.manual_seed(0)
    features = TorchvisionFeatures(TorchvisionFeaturesConfig(detector=SSDLITE)).eval()
    head = TorchvisionHead(features, 2, TorchvisionHeadConfig(score_threshold=0.5)).eval()
    with torch.no_grad():
        for of_level in head.detector.head.classification_head.module_list:
            of_level[-1].bias.view(-1, 3).copy_(torch.tensor([-9.0, -9.0, 9.0]))
        levels = features.levels(features.early(image_for(SSDLITE)))
        (found,) = head.detect(levels, (320, 320))
    assert found["labels"].unique().tolist() == [1]


class Still(Displacement):
    """Nothing moved, on a map of stride 32."""

    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        return images[:, :2, ::32, ::32]

    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        return torch.zeros_like(current)


def test_a_still_memory_of_two_equal_frames_sees_what_one_frame_shows() -> None:
    detector = Detector(torchvision_config(f"{SMALL_FASTER_RCNN}+memnet")).eval()
    detector.displacement = Still()
    detector.load_state_dict(keys_from_torchvision(made_up_weights(SMALL_FASTER_RCNN)))
    image = image_for(SMALL_FASTER_RCNN)
    with torch.no_grad():
        first = detector.step(None, detector.observe(image))
        second = detector.step(first.state, detector.observe(image))
        assert first.memory is not None and second.memory is not None
        (expected,), (found,) = detector(image), detector.detect(second.memory, (128, 160))
    torch.testing.assert_close(second.memory, first.memory, rtol=1e-4, atol=1e-4)
    assert len(found["boxes"]) > 10
    # Places between pixels are rounded when the memory is warped.
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


def test_a_memory_of_torchvisions_levels_is_warped_by_raft(publish: Callable[[str], None]) -> None:
    publish(SMALL_FASTER_RCNN)
    detector = load_torchvision(f"{SMALL_FASTER_RCNN}+clocknet")
    assert isinstance(detector.config.displacement, RaftConfig)
    loaded = detector.displacement.raft.state_dict()  # type: ignore[union-attr]
    for key, value in made_up_weights("raft_small").items():
        assert torch.equal(loaded[key], value), key
    image = image_for(SMALL_FASTER_RCNN)
    with torch.no_grad():
        first = detector.step(None, detector.observe(image))
        second = detector.step(first.state, detector.observe(image.roll(8, dims=3)))
    assert second.memory is not None and second.displacement is not None
    assert [level.shape[-2:] for level in second.memory] == [(4, 5), (4, 5), (2, 3)]
    assert second.displacement.shape == (1, 2, 4, 5)
    assert all(level.isfinite().all() for level in second.memory)


@pytest.mark.parametrize("name", [SSDLITE, SMALL_FASTER_RCNN, pytest.param(RETINANET, marks=pytest.mark.slow)])
def test_images_of_a_batch_do_not_influence_each_other_and_channels_last_works(name: str) -> None:
    detector = made_up(name)
    image = image_for(name)
    batch = torch.cat((image.flip(3), image)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        (alone,), (_, together) = detector(image), detector(batch)
    torch.testing.assert_close(together["scores"], alone["scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [SSDLITE, SMALL_FASTER_RCNN, pytest.param(RETINANET, marks=pytest.mark.slow)])
def test_boxes_keep_full_precision_where_convolutions_do_not(name: str) -> None:
    detector = made_up(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (found,) = detector(image_for(name))
    assert found["boxes"].dtype == torch.float32 and len(found["boxes"])
    corners = found["boxes"].flatten()
    assert (corners != corners.bfloat16().float()).float().mean() > 0.2


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        (SSDLITE, (16, 32, 64, 107, 160, 320)),
        ("fasterrcnn_resnet50_fpn", (4, 8, 16, 32, 64)),
        ("retinanet_resnet50_fpn_v2", (8, 16, 32, 64, 128)),
    ],
)
def test_parameters_are_the_published_ones_and_levels_what_they_promise(name: str, strides: tuple[int, ...]) -> None:
    config = torchvision_config(f"{name}+none")
    height, width = config.fixed_size or (256, 384)
    with torch.device("meta"):
        detector = Detector(config).eval()
        features = detector.features
        levels = features.levels(features.early(torch.zeros(2, 3, height, width)))
    assert sum(w.numel() for w in detector.parameters()) == get_model_weights(name).DEFAULT.meta["num_params"]
    assert features.strides == features.head_strides == strides
    assert features.channels == features.head_channels == tuple(level.shape[1] for level in levels)
    assert [level.shape[-2:] for level in levels] == [(-(-height // s), -(-width // s)) for s in strides]


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION_DETECTORS)
def test_every_torchvision_detector_has_the_published_parameters(name: str) -> None:
    config = torchvision_config(f"{name}+none")
    with torch.device("meta"):
        detector = Detector(config)
    assert sum(w.numel() for w in detector.parameters()) == get_model_weights(name).DEFAULT.meta["num_params"]


def test_a_configuration_is_that_of_the_published_model() -> None:
    config = torchvision_config("fasterrcnn_resnet50_fpn+memnet")
    assert (config.short_side, config.long_side, config.fixed_size) == (800, 1333, None)
    assert (len(config.class_names), config.class_names[0], config.class_names[-1]) == (90, "person", "toothbrush")
    assert isinstance(config.displacement, RaftConfig)
    assert config.memory == MemNetConfig(aggregation="average")
    assert config.head == TorchvisionHeadConfig(score_threshold=0.05, nms_threshold=0.5, detections_per_image=100)
    assert isinstance(torchvision_config(f"{RETINANET}+clocknet").memory, ClockNetConfig)
    small = torchvision_config(f"{SMALL_FASTER_RCNN}+none")
    assert (small.short_side, small.long_side) == (320, 640)
    assert small.memory == NoMemoryConfig() and small.displacement == NoDisplacementConfig()
    ssd = torchvision_config(f"{SSDLITE}+none")
    assert ssd.fixed_size == (320, 320)
    assert ssd.head == TorchvisionHeadConfig(score_threshold=0.001, nms_threshold=0.55, detections_per_image=300)


@pytest.mark.parametrize(
    "name", ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn+lstm", "maskrcnn+memnet", "+none"]
)
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected one of .*fcos_resnet50_fpn.* \+none, \+memnet, \+clocknet"):
        torchvision_config(name)


def test_an_unknown_detector_in_a_configuration_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'yolo': expected one of .*fcos_resnet50_fpn"):
        TorchvisionFeatures(TorchvisionFeaturesConfig(detector="yolo"))


def test_the_head_needs_the_features_of_a_torchvision_detector() -> None:
    with pytest.raises(ConfigError, match="needs torchvision features, got TinyFeatures"):
        TorchvisionHead(TinyFeatures(TinyFeaturesConfig()), 3, TorchvisionHeadConfig())


def test_keys_of_the_backbone_go_to_the_features_and_all_others_to_the_head() -> None:
    weights = {"backbone.fpn.x": torch.tensor(1), "rpn.head.y": torch.tensor(2), "head.z": torch.tensor(3)}
    assert keys_from_torchvision(weights) == {
        "features.backbone.fpn.x": torch.tensor(1),
        "head.detector.rpn.head.y": torch.tensor(2),
        "head.detector.head.z": torch.tensor(3),
    }
