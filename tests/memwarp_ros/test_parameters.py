"""The values of the node's parameters; rclpy checks the ranges of single ones, see the tests of the node."""

import pytest

from memwarp_core import ConfigError
from memwarp_ros.parameters import FixedParameters, LiveParameters, horizon_name

FIXED: dict[str, object] = {
    "autostart": True,
    "model": "memnet-tiny",
    "backend": "torch",
    "device": "auto",
    "precision": "auto",
    "threads": 0,
    "image_topics": (),
    "camera_names": (),
    "image_transport": "raw",
    "image_qos": "sensor_data",
    "keep_big_buffers": True,
    "tracking": False,
    "self_check_patience_s": 5.0,
}
LIVE: dict[str, object] = {
    "enabled": True,
    "score_threshold": 0.5,
    "max_detections": 100,
    "horizons_s": (0.05, 0.1, 0.2),
    "anticipation": "auto",
    "delay_compensation": "publish_delay",
    "consumer_delay_s": 0.0,
    "max_image_age_s": 1.0,
    "reset_at_cuts": False,
    "fall_back_to_unmoved": False,
}


@pytest.mark.parametrize("horizons_s", [(), (0.001,), (0.05, 0.051), (5.0,)])
def test_horizons_that_have_a_topic_each_are_taken(horizons_s: tuple[float, ...]) -> None:
    assert LiveParameters(**{**LIVE, "horizons_s": horizons_s}).horizons_s == horizons_s


@pytest.mark.parametrize(
    "horizons_s",
    [(0.0,), (-0.1,), (5.001,), (0.2, 0.1), (0.1, 0.1), (0.1, 0.1001), (float("nan"),), (float("inf"),)],
)
def test_other_horizons_are_refused(horizons_s: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="horizons_s must be increasing"):
        LiveParameters(**{**LIVE, "horizons_s": horizons_s})


@pytest.mark.parametrize(
    ("kind", "values", "name"),
    [
        (FixedParameters, FIXED, "backend"),
        (FixedParameters, FIXED, "image_transport"),
        (FixedParameters, FIXED, "image_qos"),
        (LiveParameters, LIVE, "anticipation"),
        (LiveParameters, LIVE, "delay_compensation"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(kind: type, values: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be one of .*, got 'best'"):
        kind(**{**values, name: "best"})


def test_without_image_topics_there_is_one_camera_without_a_name() -> None:
    assert FixedParameters(**{**FIXED, "image_topics": ("",), "camera_names": ("",)}).cameras == {"": "image"}


@pytest.mark.parametrize(
    ("topics", "names", "cameras"),
    [
        (("/front/image_raw",), (), {"front": "/front/image_raw"}),
        (("/robot/front/image", "rear/image"), (), {"front": "/robot/front/image", "rear": "rear/image"}),
        (("/left", "/right"), ("",), {"left": "/left", "right": "/right"}),
        (("/a/color/image", "/b/color/image"), ("a", "b"), {"a": "/a/color/image", "b": "/b/color/image"}),
    ],
)
def test_cameras_are_named_by_the_namespace_of_their_topic_unless_named(topics, names, cameras) -> None:
    assert FixedParameters(**{**FIXED, "image_topics": topics, "camera_names": names}).cameras == cameras


@pytest.mark.parametrize(
    ("topics", "names", "reason"),
    [
        (("/a/color/image", "/b/color/image"), (), "different names.*give camera_names"),
        (("/a/image", "/b/image"), ("a",), "a name for each of the 2 image_topics"),
        ((), ("a",), "a name for each of the 0 image_topics"),
        (("/a/image", "/b/image"), ("a", "a"), "different names"),
        (("/a/image",), ("a/b",), "letters, digits and underscores"),
        (("~/image",), (), "letters, digits and underscores"),
    ],
)
def test_cameras_that_cannot_be_told_apart_are_refused(topics, names, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        FixedParameters(**{**FIXED, "image_topics": topics, "camera_names": names})


@pytest.mark.parametrize(("horizon_s", "name"), [(0.1, "h100ms"), (0.0333, "h33ms"), (2.0, "h2000ms")])
def test_topic_of_a_horizon_is_named_in_milliseconds(horizon_s: float, name: str) -> None:
    assert horizon_name(horizon_s) == name
