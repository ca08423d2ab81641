import json

import numpy as np
import pytest
import torch
from torch import Tensor

from memwarp_core.errors import ConfigError
from memwarp_core.evaluation.end_point_error import end_point_error
from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.models.parts import Displacement
from memwarp_core.types import Frame

CLASSES = ("ball", "crate")


class Drift:
    """Three frames in which the background moves by 3 pixels and what is in the box by 5; one row is not known."""

    name = "drift"
    class_names = CLASSES

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Frame:
        return Frame(
            image=np.full((60, 100, 3), index, np.uint8),
            stamp_ns=index * 50_000_000,
            boxes_xyxy=np.array([[10, 20, 50, 40]], np.float32),
            labels=np.array([0]),
            track_ids=np.array([1]),
        )

    def displacement(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        assert index > 0
        field = np.tile(np.array([0, -3], np.float32), (60, 100, 1))
        field[20:40, 10:50] = (4, -3)
        known = np.ones((60, 100), np.bool_)
        known[0], field[0] = False, 0
        return field, known


class Constant(Displacement):
    """Says the same of all pairs of frames, which must come newest first."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.says = torch.tensor([x, y])

    def describe(self, images: Tensor, early: Tensor | None) -> Tensor:
        return images

    def forward(self, current: Tensor, past: Tensor) -> Tensor:
        assert current.mean() == past.mean() + 1
        height, width = current.shape[-2] // 8, current.shape[-1] // 8
        return self.says[None, :, None, None].expand(1, 2, height, width)


def detector(**parts: object) -> Detector:
    return Detector(DetectorConfig(name="test", class_names=CLASSES, short_side=64, **parts)).eval()  # type: ignore


def test_errors_are_in_image_pixels_over_known_places() -> None:
    drifting = detector()
    drifting.displacement = Constant(0, -3 / 8)
    report = end_point_error(drifting, [Drift(), Drift()])  # type: ignore[list-item]
    assert report["pairs"] == 4
    boxes, known = 20 * 40, 59 * 100
    assert report["inside_boxes"]["pixels"] == 4 * boxes
    assert report["inside_boxes"]["error"] == pytest.approx(4)
    assert report["inside_boxes"]["zero_motion"] == pytest.approx(5)
    assert report["all"]["pixels"] == 4 * known
    assert report["all"]["error"] == pytest.approx(4 * boxes / known)
    assert report["all"]["zero_motion"] == pytest.approx((5 * boxes + 3 * (known - boxes)) / known)


def test_zero_motion_is_what_a_still_field_would_get() -> None:
    still = detector()
    still.displacement = Constant(0, 0)
    report = end_point_error(still, [Drift()])  # type: ignore[list-item]
    for places in ("all", "inside_boxes"):
        assert report[places]["error"] == pytest.approx(report[places]["zero_motion"])


@pytest.mark.parametrize("kind", ["correlation", "flownet"])
def test_displacement_networks_are_measured(kind: str) -> None:
    displacement = {"kind": kind, **({"width": 0.1} if kind == "flownet" else {})}
    report = end_point_error(detector(displacement=displacement), [Drift()])  # type: ignore[list-item]
    assert 0 < json.loads(json.dumps(report))["all"]["error"] < 100


def test_without_clips_there_is_nothing_to_average() -> None:
    assert end_point_error(detector(), [])["all"] == {"error": None, "zero_motion": None, "pixels": 0}


def test_a_detector_that_does_not_compare_frames_is_refused() -> None:
    alone = detector(displacement={"kind": "none"}, memory={"kind": "none"})
    with pytest.raises(ConfigError, match="does not compare frames"):
        end_point_error(alone, [Drift()])  # type: ignore[list-item]
