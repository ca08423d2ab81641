"""What main() and the parameters decide before the first image; nothing here loads a model."""

import sys

import pytest
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from memwarp_ros import detector_node
from memwarp_ros.parameters import IMAGE_QOS


@pytest.mark.parametrize(("arguments", "kept"), [([], 1), (["-p", "keep_big_buffers:=false"], 0)])
def test_memory_of_images_is_kept_unless_told_otherwise(domain_id, monkeypatch, arguments, kept) -> None:
    calls: list[None] = []
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))
    monkeypatch.setattr(sys, "argv", ["detector_node", "--ros-args", *arguments])
    monkeypatch.setattr(detector_node, "keep_big_buffers", lambda: calls.append(None))
    monkeypatch.setattr(detector_node, "start_up", lambda node: False)
    assert detector_node.main() == 1
    assert len(calls) == kept


@pytest.mark.parametrize(
    ("preset", "publisher"),
    [
        *((preset, "sensor_data") for preset in IMAGE_QOS if preset not in ("reliable", "transient_local")),
        *((preset, "transient_local") for preset in IMAGE_QOS),
    ],
)
def test_presets_connect_with_the_publishers_that_they_are_for(client, preset: str, publisher: str) -> None:
    topic = f"/{preset}_from_{publisher}/image"
    camera = client.node.create_publisher(Image, topic, IMAGE_QOS[publisher])
    overrides = QoSOverridingOptions.with_default_policies()
    subscription = client.node.create_subscription(
        Image, topic, lambda _: None, IMAGE_QOS[preset], qos_overriding_options=overrides
    )
    assert subscription.qos_profile.depth == 1
    client.until(camera.get_subscription_count, "the connection")


def test_an_image_that_was_sent_before_comes_with_transient_local(client) -> None:
    camera = client.node.create_publisher(Image, "/still", IMAGE_QOS["transient_local"])
    camera.publish(Image(width=7))
    images: list[Image] = []
    client.node.create_subscription(Image, "/still", images.append, IMAGE_QOS["transient_local"])
    client.until(lambda: images, "the image")
    assert images[0].width == 7
