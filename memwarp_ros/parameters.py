"""The parameters of the nodes: meaning and permitted values. Their defaults are in config/<node>.yaml."""

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from memwarp_core import ConfigError
from memwarp_core.streaming import BACKENDS

_IMAGE_TRANSPORTS = ("raw", "compressed")
_ANTICIPATIONS = ("auto", "features", "proposals", "boxes")
_DELAY_COMPENSATIONS = ("none", "publish_delay")
_LONGEST_HORIZON_S = 5.0
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""What may stand between two slashes in the name of a topic."""

IMAGE_QOS = {
    "sensor_data": QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT),
    "reliable": QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE),
    "transient_local": QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL),
    "system_default": QoSProfile(
        depth=1, reliability=QoSReliabilityPolicy.SYSTEM_DEFAULT, durability=QoSDurabilityPolicy.SYSTEM_DEFAULT
    ),
}
"""Each by its name as a parameter; the depth of 1 lets the newest image win."""
if hasattr(QoSReliabilityPolicy, "BEST_AVAILABLE"):  # not in Humble
    IMAGE_QOS["best_available"] = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_AVAILABLE)


def _choice(description: str, *choices: str, read_only: bool = True) -> ParameterDescriptor:
    return ParameterDescriptor(
        description=description, additional_constraints=f"one of: {', '.join(choices)}", read_only=read_only
    )


def _seconds(description: str, longest_s: float) -> ParameterDescriptor:
    return ParameterDescriptor(
        description=description, floating_point_range=[FloatingPointRange(from_value=0.0, to_value=longest_s)]
    )


_DESCRIPTORS = {
    "autostart": ParameterDescriptor(
        description="Configure and activate at start; otherwise the node waits for the lifecycle's transitions.",
        read_only=True,
    ),
    "model": ParameterDescriptor(
        description="A shipped model by name, or the path of a weights file (.safetensors); for the backends onnx "
        "and tensorrt, the folder that `memwarp export` wrote.",
        read_only=True,
    ),
    "backend": _choice(
        "What runs the model: torch; cuda_graph or compiled, which record a step of it when the first image of a size "
        "comes, compiled for up to minutes; onnx, on the CPU; or tensorrt, on a GPU, by engines that are built when "
        "there are none yet, which may take minutes.",
        *BACKENDS,
    ),
    "device": ParameterDescriptor(
        description="Where the model runs: auto (the first GPU, else the CPU), cpu, cuda:0, ...", read_only=True
    ),
    "precision": _choice(
        "Arithmetic of the model; auto is fp16 on a GPU and fp32 on a CPU.", "auto", "fp32", "fp16", "bf16"
    ),
    "threads": ParameterDescriptor(
        description="Threads for one inference on the CPU; 0 leaves the choice to torch.",
        integer_range=[IntegerRange(from_value=0, to_value=256, step=1)],
        read_only=True,
    ),
    "image_topics": ParameterDescriptor(
        description="The image topics of several cameras, each with topics of results of its own: "
        "~/<camera>/detections and so on. An empty name leaves it at one camera on `image`.",
        read_only=True,
    ),
    "camera_names": ParameterDescriptor(
        description="A name for each of image_topics; an empty one takes the last part of the topic's namespace: "
        "front for /robot/front/image_raw.",
        read_only=True,
    ),
    "image_transport": _choice(
        "raw takes sensor_msgs/Image from `image`, compressed takes sensor_msgs/CompressedImage from "
        "`image/compressed`; remapping `image` moves both.",
        *_IMAGE_TRANSPORTS,
    ),
    "image_qos": _choice(
        "sensor_data (best effort) takes images from every publisher, reliable only from reliable ones; "
        "transient_local also gets the image that such a publisher sent before; system_default is what the "
        "middleware's own profile says; best_available (not in Humble) is reliable where the publisher is. "
        "The newest image wins with all.",
        *IMAGE_QOS,
    ),
    "keep_big_buffers": ParameterDescriptor(
        description="Keep the memory of an image for the next one instead of returning it to the system.",
        read_only=True,
    ),
    "tracking": ParameterDescriptor(
        description="Give each object an id that stays from image to image; otherwise `id` is empty.", read_only=True
    ),
    "enabled": ParameterDescriptor(description="Take images while the node is active; ~/enable sets it, too."),
    "score_threshold": ParameterDescriptor(
        description="Detections with a lower score are not published.",
        floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1.0)],
    ),
    "max_detections": ParameterDescriptor(
        description="At most so many detections per image are published, the best ones.",
        integer_range=[IntegerRange(from_value=1, to_value=1000, step=1)],
    ),
    "horizons_s": ParameterDescriptor(
        description="Seconds after the image for which the objects are anticipated, nearest first.",
        additional_constraints=f"increasing, at least 0.001 apart, above 0, at most {_LONGEST_HORIZON_S}",
    ),
    "anticipation": _choice(
        "How the objects of later instants are found: features runs the head on the moved memory, proposals only where "
        "the current boxes move to, which costs much less for several horizons, boxes moves the boxes alone; auto is "
        "the model's own choice.",
        *_ANTICIPATIONS,
        read_only=False,
    ),
    "delay_compensation": _choice(
        "~/detections_now: publish_delay moves the detections to the instant of publishing, by the measured age of the "
        "image; none leaves them as they were in the image.",
        *_DELAY_COMPENSATIONS,
        read_only=False,
    ),
    "consumer_delay_s": _seconds(
        "Seconds that ~/detections_now looks further ahead than the instant of publishing, for what comes after it: "
        "transport, planning, the actuator.",
        1.0,
    ),
    "max_image_age_s": _seconds(
        "An image that is older on arrival is reported in /diagnostics, and ~/detections_now does not move what was "
        "seen in it.",
        _LONGEST_HORIZON_S,
    ),
    "reset_at_cuts": ParameterDescriptor(
        description="Begin a new memory where an image shows another scene than the one before; for edited videos."
    ),
    "self_check_patience_s": ParameterDescriptor(
        description="Anticipating is reported as harmful when it was worse than standing boxes for so many seconds.",
        floating_point_range=[FloatingPointRange(from_value=0.0, to_value=3600.0)],
        read_only=True,
    ),
    "fall_back_to_unmoved": ParameterDescriptor(
        description="Publish standing boxes instead of anticipated ones at horizons where anticipating is harmful."
    ),
    "strong_device": ParameterDescriptor(
        description="Where the strong detector runs: auto (the second GPU where there are two), cpu, cuda:1, ...",
        read_only=True,
    ),
    "strong_threads": ParameterDescriptor(
        description="Threads for one inference of the strong detector on the CPU; 0 leaves the choice to torch.",
        integer_range=[IntegerRange(from_value=0, to_value=256, step=1)],
        read_only=True,
    ),
    "strong_patience_s": ParameterDescriptor(
        description="The strong detector is started again when it has not answered for so many seconds.",
        floating_point_range=[FloatingPointRange(from_value=0.1, to_value=3600.0)],
        read_only=True,
    ),
    "max_lag_images": ParameterDescriptor(
        description="Strong features that are more images behind are not borrowed.",
        integer_range=[IntegerRange(from_value=1, to_value=1000, step=1)],
        read_only=True,
    ),
    "max_lag_s": ParameterDescriptor(
        description="Strong features that are more seconds behind are not borrowed.",
        floating_point_range=[FloatingPointRange(from_value=0.0, to_value=60.0)],
        read_only=True,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedParameters:
    """The values that stay as they are while the node runs.

    Raises: ConfigError if a parameter has a value that it does not take.
    """

    autostart: bool
    model: str
    backend: str
    device: str
    precision: str
    threads: int
    image_topics: tuple[str, ...]
    camera_names: tuple[str, ...]
    image_transport: str
    image_qos: str
    keep_big_buffers: bool
    tracking: bool
    self_check_patience_s: float

    def __post_init__(self) -> None:
        _check_choice("backend", self.backend, BACKENDS)
        _check_choice("image_transport", self.image_transport, _IMAGE_TRANSPORTS)
        _check_choice("image_qos", self.image_qos, tuple(IMAGE_QOS))
        topics, names = _given(self.image_topics), [*self.cameras]
        if len(_given(self.camera_names)) not in (0, len(topics)):
            raise ConfigError(
                f"parameter camera_names must have a name for each of the {len(topics)} image_topics, "
                f"got {list(self.camera_names)}."
            )
        if topics and (len(names) < len(topics) or not all(_NAME.fullmatch(name) for name in names)):
            raise ConfigError(
                "cameras must have different names, each of letters, digits and underscores, got "
                f"{names} for image_topics {topics}; give camera_names."
            )

    @property
    def cameras(self) -> dict[str, str]:
        """The image topic of each camera by its name; a single one without a name, on `image`, if none are listed."""
        topics = _given(self.image_topics)
        names = _given(self.camera_names) or [_camera_name(topic) for topic in topics]
        return dict(zip(names, topics, strict=False)) or {"": "image"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PairParameters:
    """What fast_strong_node has beside the parameters of detector_node; it stays as it is while the node runs."""

    strong_device: str
    strong_threads: int
    strong_patience_s: float
    max_lag_images: int
    max_lag_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveParameters:
    """The values that can be changed while the node runs; rclpy checks the ranges of single numbers.

    Raises: ConfigError if a parameter has a value that it does not take.
    """

    enabled: bool
    score_threshold: float
    max_detections: int
    horizons_s: tuple[float, ...]
    anticipation: str
    delay_compensation: str
    consumer_delay_s: float
    max_image_age_s: float
    reset_at_cuts: bool
    fall_back_to_unmoved: bool

    def __post_init__(self) -> None:
        _check_choice("anticipation", self.anticipation, _ANTICIPATIONS)
        _check_choice("delay_compensation", self.delay_compensation, _DELAY_COMPENSATIONS)
        in_range = all(0.001 <= horizon_s <= _LONGEST_HORIZON_S for horizon_s in self.horizons_s)
        names = [horizon_name(horizon_s) for horizon_s in self.horizons_s] if in_range else []
        if not in_range or list(self.horizons_s) != sorted(self.horizons_s) or len(set(names)) < len(names):
            raise ConfigError(
                f"parameter horizons_s must be increasing seconds, at least 0.001 apart, above 0 and at most "
                f"{_LONGEST_HORIZON_S}, got {list(self.horizons_s)}."
            )


def horizon_name(horizon_s: float) -> str:
    """The last part of the name of a horizon's own topic: h100ms for 0.1 s."""
    return f"h{round(horizon_s * 1000)}ms"


def _given(texts: Sequence[str]) -> list[str]:
    """Without the empty ones: a parameter that is an empty list would have no type."""
    return [text for text in texts if text]


def _camera_name(image_topic: str) -> str:
    return image_topic.strip("/").split("/")[-2:][0]


def declare_parameters(node: Node, config: str = "detector.yaml") -> FixedParameters:
    """Declare all parameters of detector_node, and those that another file adds; read those that do not change.

    Args:
        config: the defaults of the node, in config/; what it leaves out is in detector.yaml.
    Raises: ConfigError if a value was given that the parameter does not take.
    """
    try:
        for name, default in {**_read_defaults("detector.yaml"), **_read_defaults(config)}.items():
            node.declare_parameter(name, default, _DESCRIPTORS[name])
    except ParameterException as error:
        raise ConfigError(str(error)) from error
    return FixedParameters(**_values(node, FixedParameters))


def pair_parameters(node: Node) -> PairParameters:
    """Those that config/fast_strong.yaml has added."""
    return PairParameters(**_values(node, PairParameters))


def concerns_live(changes: Iterable[Parameter]) -> bool:
    """Whether one of the changes is of a value in LiveParameters."""
    names = {field.name for field in fields(LiveParameters)}
    return any(change.name in names for change in changes)


def live_parameters(node: Node, changes: Iterable[Parameter] = ()) -> LiveParameters:
    """The declared parameters that may change, as they will be with the given changes.

    Raises: ConfigError if a parameter has a value that it does not take.
    """
    values = _values(node, LiveParameters)
    values.update({change.name: _plain(change.value) for change in changes if change.name in values})
    return LiveParameters(**values)


def _values(node: Node, of: type) -> dict[str, Any]:
    return {field.name: _plain(node.get_parameter(field.name).value) for field in fields(of)}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | array) else value


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"parameter {name} must be one of {', '.join(choices)}, got {value!r}.")


def _read_defaults(config: str) -> dict[str, object]:
    path = Path(get_package_share_directory("memwarp_ros"), "config", config)
    return yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
