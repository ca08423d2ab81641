"""What the graph says about an input that stays silent: by rules, and with real publishers in a domain of their own."""

from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from memwarp_ros.input_watch import Expected, Source, explain_silence, look_for_sources, topics_with, type_name

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
BEST_EFFORT = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def explain(
    *sources: Source,
    qos: QoSProfile = BEST_EFFORT,
    message_type: str = RAW,
    others: tuple[str, ...] = (),
    middleware: str = "rmw_fastrtps_cpp",
) -> tuple[str, str]:
    expected = Expected(topic="/camera/image", message_type=message_type, qos=qos)
    explanation = explain_silence(expected, sources, others, middleware)
    return explanation.cause, explanation.text


def source(qos: QoSProfile = BEST_EFFORT, message_type: str = RAW, is_lifecycle: bool = False) -> Source:
    return Source(node="/driver", message_type=message_type, qos=qos, is_lifecycle=is_lifecycle)


def test_without_a_publisher_the_topics_that_have_images_are_named() -> None:
    cause, text = explain(others=("/front/image", "/back/image"))
    assert cause == "no publisher"
    assert "/camera/image" in text and "/back/image, /front/image" in text
    assert "nor on any other topic" in explain()[1]


def test_a_topic_of_another_type_is_named_with_its_publisher() -> None:
    cause, text = explain(source(message_type=COMPRESSED))
    assert cause == "wrong type"
    assert f"must carry {RAW}" in text and f"{COMPRESSED} of /driver" in text and "image_transport" in text


@pytest.mark.parametrize(
    ("asked", "reason"),
    [(RELIABLE, "reliable"), (LATCHED, "durability|transient")],
)
def test_a_qos_that_nobody_offers_is_named_with_the_policy(asked: QoSProfile, reason: str) -> None:
    cause, text = explain(source(BEST_EFFORT), qos=asked)
    assert cause == "QoS"
    assert "image_qos: sensor_data" in text
    assert any(word in text.lower() for word in reason.split("|"))


def test_one_publisher_that_fits_is_enough_to_exclude_qos_and_type() -> None:
    fitting = source(RELIABLE)
    assert explain(source(BEST_EFFORT), source(message_type=COMPRESSED), fitting, qos=RELIABLE)[0] == "transport"


def test_a_lifecycle_publisher_may_sleep() -> None:
    cause, text = explain(source(is_lifecycle=True))
    assert cause == "lifecycle"
    assert "ros2 lifecycle get /driver" in text
    assert explain(source(is_lifecycle=True), source())[0] == "transport"


def test_remedies_of_a_loss_fit_the_middleware_the_publisher_and_the_transport() -> None:
    cause, text = explain(source(RELIABLE))
    assert cause == "transport"
    assert "fastdds.xml" in text and "image_qos: reliable" in text and "image_transport: compressed" in text
    assert "image_qos" not in explain(source(BEST_EFFORT))[1]
    assert "fastdds.xml" not in explain(source(), middleware="rmw_cyclonedds_cpp")[1]
    of_compressed = explain(source(message_type=COMPRESSED), message_type=COMPRESSED)[1]
    assert "fastdds.xml" not in of_compressed and "image_transport" not in of_compressed


@pytest.mark.parametrize(("message_type", "name"), [(Image, RAW), (CompressedImage, COMPRESSED)])
def test_type_names_are_those_of_the_graph(message_type: type, name: str) -> None:
    assert type_name(message_type) == name


@pytest.fixture
def participant(domain_id: int) -> Iterator[Callable[..., Node]]:
    """Start nodes that the client sees only through the middleware."""
    started: list[Node] = []

    def start(kind: type[Node], namespace: str) -> Node:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain_id)
        started.append(kind("driver", namespace=namespace, context=context))
        return started[-1]

    yield start
    for node in started:
        node.destroy_node()
        rclpy.shutdown(context=node.context)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message_type", "offered", "asked", "cause"),
    [
        (Node, CompressedImage, RELIABLE, BEST_EFFORT, "wrong type"),
        (Node, Image, BEST_EFFORT, RELIABLE, "QoS"),
        (LifecycleNode, Image, RELIABLE, BEST_EFFORT, "lifecycle"),
        (Node, Image, RELIABLE, BEST_EFFORT, "transport"),
    ],
)
def test_causes_are_seen_in_a_real_graph(participant, client, kind, message_type, offered, asked, cause) -> None:
    # A namespace each: what rclpy keeps of a lifecycle node that was destroyed is still seen by the next test.
    namespace = f"/{cause.replace(' ', '_')}"
    topic = f"{namespace}/image"
    client.node.create_subscription(Image, topic, lambda _: None, asked)
    driver = participant(kind, namespace)
    driver.create_publisher(message_type, "image", offered)

    def explanation():
        expected = Expected(topic=topic, message_type=RAW, qos=asked)
        sources = look_for_sources(client.node, topic)
        return explain_silence(expected, sources, topics_with(client.node, RAW), "rmw_fastrtps_cpp")

    client.until(lambda: f"{namespace}/driver" in explanation().text, "the driver to be known")
    client.until(lambda: explanation().cause == cause, f"the cause to be {cause}")
    assert (topic in topics_with(client.node, RAW)) == (message_type is Image)
    client.node.create_publisher(Image, f"{namespace}/own", RELIABLE)
    client.until(lambda: client.node.count_publishers(f"{namespace}/own"), "the topic of the node itself")
    assert f"{namespace}/own" not in topics_with(client.node, RAW)
