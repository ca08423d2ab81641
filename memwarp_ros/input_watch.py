"""Why no image arrives: what can be seen of it in the ROS graph, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import QoSCompatibility, QoSProfile, QoSReliabilityPolicy, qos_check_compatible

_GET_STATE = "lifecycle_msgs/srv/GetState"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Somebody who publishes on the topic on which images are expected."""

    node: str
    """With its namespace."""
    message_type: str
    """As in `sensor_msgs/msg/Image`."""
    qos: QoSProfile
    is_lifecycle: bool
    """Whether the node has lifecycle services, so that it publishes nothing before it is activated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a subscription waits for."""

    topic: str
    message_type: str
    """As in `sensor_msgs/msg/Image`."""
    qos: QoSProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """The likely cause of a silence."""

    cause: Literal["no publisher", "wrong type", "QoS", "lifecycle", "transport"]
    text: str
    """What was expected, what is there, what to do; one line."""


def explain_silence(
    expected: Expected, sources: Sequence[Source], other_topics: Sequence[str], middleware: str
) -> Explanation:
    """Why a subscription gets nothing, by exclusion: each cause is named only where those before it do not hold.

    Args:
        sources: all publishers of the topic, of whatever type.
        other_topics: topics on which messages of the expected type are published.
        middleware: as rclpy.get_rmw_implementation_identifier() says it.
    """
    topic, message_type = expected.topic, expected.message_type
    if not sources:
        there = f"there are images on {', '.join(sorted(other_topics))}" if other_topics else "nor on any other topic"
        return Explanation(
            cause="no publisher",
            text=f"nobody publishes {message_type} on {topic}; {there}. Start the camera, remap `image`, or compare "
            "ROS_DOMAIN_ID and the discovery range of both sides.",
        )
    typed = [source for source in sources if source.message_type == message_type]
    if not typed:
        found = ", ".join(sorted({f"{source.message_type} of {source.node}" for source in sources}))
        return Explanation(
            cause="wrong type",
            text=f"{topic} must carry {message_type}, there is {found}; set image_transport (raw takes Image from "
            "<image>, compressed takes CompressedImage from <image>/compressed) or remap `image`.",
        )
    checked = [(source, *qos_check_compatible(source.qos, expected.qos)) for source in typed]
    matched = [source for source, compatibility, _ in checked if compatibility != QoSCompatibility.ERROR]
    if not matched:
        found = "; ".join(f"{source.node}: {reason.strip(' ;')}" for source, _, reason in checked)
        return Explanation(
            cause="QoS",
            text=f"no publisher of {topic} offers the QoS that is asked for ({found}); set image_qos: sensor_data, and "
            "take qos_overrides for this topic out, or make the camera's the same.",
        )
    awake = [source for source in matched if not source.is_lifecycle]
    if not awake:
        names = ", ".join(source.node for source in matched)
        return Explanation(
            cause="lifecycle",
            text=f"only lifecycle nodes publish on {topic} ({names}), and these send nothing before they are active; "
            f"look with `ros2 lifecycle get {matched[0].node}`.",
        )
    return Explanation(cause="transport", text=_lost_on_the_way(expected, awake, middleware))


def look_for_sources(node: Node, topic: str) -> list[Source]:
    """The publishers of a topic that this node knows of now."""
    return [
        Source(
            node=_full_name(info.node_name, info.node_namespace),
            message_type=info.topic_type,
            qos=info.qos_profile,
            is_lifecycle=_has_lifecycle(node, info.node_name, info.node_namespace),
        )
        for info in node.get_publishers_info_by_topic(topic)
    ]


def topics_with(node: Node, message_type: str) -> list[str]:
    """The topics on which others publish messages of a type, such as `sensor_msgs/msg/Image`, now."""
    own = (node.get_name(), node.get_namespace())
    return [
        topic
        for topic, types in node.get_topic_names_and_types()
        if message_type in types  # of subscribers, too
        and any(
            info.topic_type == message_type and (info.node_name, info.node_namespace) != own
            for info in node.get_publishers_info_by_topic(topic)
        )
    ]


def type_name(message_type: type) -> str:
    """The name that ROS has for a message class: sensor_msgs/msg/Image."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"


def _lost_on_the_way(expected: Expected, sources: Sequence[Source], middleware: str) -> str:
    remedies = []
    if middleware.startswith("rmw_fastrtps") and not expected.message_type.endswith("CompressedImage"):
        remedies.append(
            "start the camera's process with memwarp_ros's config/fastdds.xml (by itself Fast DDS has 512 KiB, too "
            "few for a raw image of 640x480)"
        )
    best_effort = expected.qos.reliability == QoSReliabilityPolicy.BEST_EFFORT
    if best_effort and any(source.qos.reliability == QoSReliabilityPolicy.RELIABLE for source in sources):
        remedies.append("set image_qos: reliable, which this publisher offers")
    if not expected.message_type.endswith("CompressedImage"):
        remedies.append("use image_transport: compressed")
    remedies.append("let both sides share /dev/shm where they are in containers")
    names = ", ".join(source.node for source in sources)
    return (
        f"{names} is connected to {expected.topic}, but nothing arrives: it sends nothing (`ros2 topic hz` beside the "
        f"camera tells), or its messages are lost on the way: {'; or '.join(remedies)}."
    )


def _full_name(name: str, namespace: str) -> str:
    return f"{namespace.rstrip('/')}/{name}" if _is_announced(namespace) else "a node without a name"


def _is_announced(namespace: str) -> bool:
    """Publishers are known a moment before their nodes; until then rcl gives stand-ins for the names."""
    return namespace.startswith("/")


def _has_lifecycle(node: Node, name: str, namespace: str) -> bool:
    if not _is_announced(namespace):
        return False
    try:
        services = node.get_service_names_and_types_by_node(name, namespace)
    except NodeNameNonExistentError:  # it has just ended
        return False
    return any(_GET_STATE in types for _, types in services)
