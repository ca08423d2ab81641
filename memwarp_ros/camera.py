"""What detector_node has of each camera: its topics, its memory, and what is known of its images."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import CallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Header
from vision_msgs.msg import Detection2DArray

from memwarp_core import DataError, Detections, DetectorState, MemwarpError
from memwarp_core.streaming import Tracker, Tracks, VideoDetector, is_cut, layout
from memwarp_core.visualization import draw_detections
from memwarp_ros.anticipation_watch import AnticipationWatch, anticipation_status, harm
from memwarp_ros.conversions import image_to_rgb, ns_to_stamp, rgb_to_image, stamp_to_ns, to_anticipation_check
from memwarp_ros.input_watch import Expected, explain_silence, look_for_sources, topics_with, type_name
from memwarp_ros.msg import AnticipatedDetections, AnticipationCheck
from memwarp_ros.parameters import IMAGE_QOS, FixedParameters, LiveParameters, horizon_name
from memwarp_ros.serialization import serialize_anticipated, serialize_detection_array
from memwarp_ros.stream_statistics import StreamStatistics

_RESULTS = QoSProfile(depth=10)
_WHY_ANEW = {
    "gap": "came after a gap longer than the model's max_gap_s",
    "size": "has another size than the one before",
}
_DEBUG_TIMES = ("processing_time", "pipeline_latency", "cyclic_time")
"""Of the last image: from taking it to having published; from its stamp until then; from the image before to it."""
_WARN_EVERY_S = 5.0
_EXPLAIN_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """An image that was taken and waits for the detector."""

    camera: "Camera"
    image: np.ndarray
    """(H, W, 3), uint8, RGB."""
    header: Header
    taken_ns: int
    """Of time.monotonic_ns()."""
    age_ns: int
    """From its stamp to when it was taken, by the node's clock."""
    remembered: DetectorState
    """The camera's, when the image was taken."""
    state: DetectorState
    """From which the detector goes on: the remembered one, or a new one."""
    why_anew: str | None
    """Why it is a new one, if this image is the reason."""

    @property
    def stamp_ns(self) -> int:
        return stamp_to_ns(self.header.stamp)


class Camera:
    """One stream of images and all that comes of it.

    Args:
        node: whose topics, clock and log are used.
        name: stands before the names of the results, as in ~/<name>/detections; with an empty one, ~/detections.
        image_topic: without /compressed.
        group: lets one image of all cameras be handled at a time.
        on_image: called with this camera, a message and what the middleware says of it.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        image_topic: str,
        *,
        settings: FixedParameters,
        live: LiveParameters,
        group: CallbackGroup,
        on_image: Callable[["Camera", Image | CompressedImage, dict[str, int]], None],
    ) -> None:
        self.name = name
        self._node = node
        self._prefix = f"~/{name}" if name else "~"
        self._settings, self._live = settings, live
        self._group = group
        self._on_image = partial(on_image, self)
        # A logger of its own, because it is what counts when a warning was given last.
        self._logger = node.get_logger().get_child(name) if name else node.get_logger()
        # A remapping of `image` moves the compressed topic along, as image_transport does it.
        self._is_compressed = settings.image_transport == "compressed"
        self._topic = node.resolve_topic_name(image_topic) + ("/compressed" if self._is_compressed else "")
        self._subscription: Subscription | None = None
        self._detector: VideoDetector | None = None
        self._tracker: Tracker | None = None
        self._tracks = Tracks()
        """They live as long as the node, so that no id is given twice."""
        self._statistics = StreamStatistics(time.monotonic_ns())
        self._watch = AnticipationWatch(live.horizons_s, settings.self_check_patience_s)
        self._moving_s = 0.0
        """How long it took to move the last detections to the instant of publishing."""
        self._state = DetectorState()
        self._layout: np.ndarray | None = None
        """Of the last image, if cuts are looked for."""
        # Held for the moment in which the state is exchanged: forget() comes from another thread.
        self._exchange = threading.Lock()

    @property
    def is_listening(self) -> bool:
        return self._subscription is not None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the last image; None without any."""
        return self._state.image_size

    def open(self, detector: VideoDetector) -> None:
        """Create the topics of the results."""
        self._detector = detector
        self._tracker = Tracker(detector) if self._settings.tracking else None
        self.forget()
        self._detections = self.create_publisher(Detection2DArray, "detections")
        self._anticipated = self.create_publisher(AnticipatedDetections, "anticipated")
        self._anticipated_at = self._horizon_publishers()
        self._detections_now = self.create_publisher(Detection2DArray, "detections_now")
        self._debug_times = [self.create_publisher(Float64, f"debug/{name}_ms") for name in _DEBUG_TIMES]
        self._anticipation_check = self.create_publisher(AnticipationCheck, "anticipation_check")
        self._debug_image = self.create_publisher(Image, "debug_image")

    def close(self) -> None:
        """Take the topics away, and what is remembered."""
        results = (self._detections, self._anticipated, self._detections_now, self._anticipation_check)
        for publisher in (*results, *self._anticipated_at, *self._debug_times, self._debug_image):
            self._node.destroy_publisher(publisher)
        self._detector = self._tracker = None
        self.forget()

    def start(self) -> None:
        """Take images from now on, with an empty memory."""
        if self._subscription is not None:
            return
        self.forget()
        subscribe = partial(
            self._node.create_subscription,
            CompressedImage if self._is_compressed else Image,
            self._topic,
            qos_profile=IMAGE_QOS[self._settings.image_qos],
            callback_group=self._group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._subscription, tells_of_losses = _with_losses(subscribe, self._on_image, self._statistics.lose)
        self._statistics.new_subscription(time.monotonic_ns(), tells_of_losses)
        self._topic = self._subscription.topic_name
        detector = self._detector
        self._logger.info(f"{detector.name} {detector.version} on {detector.device} listens to {self._topic}")

    def stop(self) -> None:
        """Take no more images."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def forget(self) -> None:
        """Begin a new memory with the next image."""
        with self._exchange:
            self._state = self._detector.start() if self._detector else DetectorState()

    def change(self, live: LiveParameters) -> None:
        """Take other values of parameters; not while an image is handled."""
        before, self._live = self._live, live
        if live.horizons_s == before.horizons_s:
            return
        self._watch = AnticipationWatch(live.horizons_s, self._settings.self_check_patience_s)
        if self._detector is not None:
            for publisher in self._anticipated_at:
                self._node.destroy_publisher(publisher)
            self._anticipated_at = self._horizon_publishers()

    def take(self, message: Image | CompressedImage, info: dict[str, int]) -> Frame | None:
        """What the detector needs of an image; None if it is not the image that it claims to be."""
        taken_ns, stamp_ns = time.monotonic_ns(), stamp_to_ns(message.header.stamp)
        age_ns = self._now_ns() - stamp_ns
        self._statistics.receive(taken_ns, age_ns, info.get("publication_sequence_number"))
        try:
            image = image_to_rgb(message)
        except DataError as error:
            self.refuse(stamp_ns, error)
            return None
        remembered = self._state
        why_anew = self._why_anew(image, stamp_ns, remembered)
        return Frame(
            camera=self,
            image=image,
            header=message.header,
            taken_ns=taken_ns,
            age_ns=age_ns,
            remembered=remembered,
            state=self._detector.start() if why_anew else remembered,
            why_anew=why_anew,
        )

    def take_waiting(self) -> Frame | None:
        """As `take`, of the image that waits to be taken; None if there is none."""
        subscription = self._subscription
        if subscription is None:
            return None
        try:
            with subscription.handle:
                waiting = subscription.handle.take_message(subscription.msg_type, False)
        except rclpy_implementation.InvalidHandle:  # it was just destroyed by stop()
            return None
        return None if waiting is None else self.take(*waiting)

    def refuse(self, stamp_ns: int, error: MemwarpError) -> None:
        """Count an image that cannot be used, and say why."""
        self._statistics.refused += 1
        self._logger.warning(
            f"{self._topic}: image of {stamp_ns / 1e9:.3f} s refused ({self._statistics.refused} so far): {error}",
            throttle_duration_sec=_WARN_EVERY_S,
        )

    def answer(self, frame: Frame, found: Detections, state: DetectorState) -> None:
        """Publish what is in a frame, and what will be.

        Args:
            found, state: what the detector's `step` returned.
        """
        self._remember(frame, state)
        if self._tracker is not None:
            found, self._tracks = self._tracker.step(found, state, self._tracks)
        # The current frame first: whoever waits for it need not wait for the anticipation.
        current = self._best(found)
        names = self._detector.class_names
        self._detections.publish(serialize_detection_array(current, names, frame.header))
        self._publish_now(found, current, state, frame.header)
        anticipated = self._anticipate(found, current, state, frame.header)
        if self._debug_image.get_subscription_count():
            drawn = draw_detections(frame.image, current, names, dashed=anticipated)
            self._debug_image.publish(rgb_to_image(drawn, frame.header))
        took_ns = time.monotonic_ns() - frame.taken_ns
        self._statistics.process(took_ns)
        of_image_ns = (took_ns, frame.age_ns + took_ns, self._statistics.cycle_ns)
        for publisher, of_this_ns in zip(self._debug_times, of_image_ns, strict=True):
            if publisher.get_subscription_count():
                publisher.publish(Float64(data=of_this_ns / 1e6))

    def report(self, header: Header, hardware_id: str) -> tuple[DiagnosticStatus, DiagnosticStatus]:
        """The status of the images, and that of the anticipations, whose check is published as well."""
        now_ns, node_name = time.monotonic_ns(), self._node.get_fully_qualified_name()
        of_images = self._statistics.report(
            now_ns,
            name=f"{node_name}: {self._topic}",
            hardware_id=hardware_id,
            enabled=self.is_listening,
            max_age_s=self._live.max_image_age_s,
            why_silent=self._explain_silence() if self._statistics.is_silent(now_ns) else "",
        )
        watch = self._watch
        checks = watch.look()
        if self._detector is not None:
            names = self._detector.class_names
            self._anticipation_check.publish(to_anticipation_check(checks, watch.horizons_s, names, header))
        if harmful := harm(checks, watch.horizons_s):
            self._logger.warning(f"{self._topic}: {harmful}", throttle_duration_sec=_EXPLAIN_EVERY_S)
        of_anticipation = anticipation_status(
            checks,
            watch.horizons_s,
            name=f"{node_name}: anticipation" + (f" of {self.name}" if self.name else ""),
            hardware_id=hardware_id,
            falls_back=self._live.fall_back_to_unmoved,
        )
        return of_images, of_anticipation

    def _why_anew(self, image: np.ndarray, stamp_ns: int, remembered: DetectorState) -> str | None:
        """Why an image cannot go on with what is remembered; what the detector finds out by itself is not told."""
        before, self._layout = self._layout, layout(image) if self._live.reset_at_cuts else None
        if remembered.newest_ns is None:
            return None
        if stamp_ns < remembered.newest_ns:
            return "is before the last one"
        if before is not None and self._layout is not None and is_cut(before, self._layout):
            return "shows another scene than the one before"
        return None

    def _remember(self, frame: Frame, state: DetectorState) -> None:
        why_anew = frame.why_anew or _WHY_ANEW.get(state.began)
        if why_anew is not None:
            self._statistics.restarts += 1
            self._logger.warning(
                f"{self._topic}: image of {frame.stamp_ns / 1e9:.3f} s {why_anew}; a new memory begins",
                throttle_duration_sec=_WARN_EVERY_S,
            )
        with self._exchange:
            if self._state is frame.remembered:  # otherwise forget() came in between, and this was seen before it
                self._state = state

    def _publish_now(self, found: Detections, current: Detections, state: DetectorState, header: Header) -> None:
        """Publish the current detections as they are at this instant, if somebody listens."""
        if not self._detections_now.get_subscription_count():
            return
        live, source_ns = self._live, stamp_to_ns(header.stamp)
        began_ns = time.monotonic_ns()
        age_s = (self._now_ns() - source_ns) / 1e9
        if live.delay_compensation == "none" or age_s > live.max_image_age_s:
            if live.delay_compensation != "none":
                self._logger.warning(
                    f"{self._topic}: image of {source_ns / 1e9:.3f} s is {age_s:.3f} s old, more than max_image_age_s "
                    f"({live.max_image_age_s}); detections_now shows it unmoved. Where a recording is played, set "
                    "use_sim_time here and publish /clock there.",
                    throttle_duration_sec=_WARN_EVERY_S,
                )
            self._detections_now.publish(serialize_detection_array(current, self._detector.class_names, header))
            return
        # Moving the boxes takes time, too: about as long as for the image before.
        horizon_s = max(age_s, 0.0) + self._moving_s + live.consumer_delay_s
        (moved,) = self._chosen([horizon_s], self._look_ahead(found, state, [horizon_s]), current)
        target = Header(stamp=ns_to_stamp(moved.stamp_ns), frame_id=header.frame_id)
        message = serialize_detection_array(moved, self._detector.class_names, target)
        self._moving_s = (time.monotonic_ns() - began_ns) / 1e9
        self._detections_now.publish(message)

    def _anticipate(
        self, found: Detections, current: Detections, state: DetectorState, header: Header
    ) -> list[Detections]:
        """Publish what will be at each horizon; nothing is computed while nobody listens."""
        listeners = (self._anticipated, *self._anticipated_at, self._anticipation_check, self._debug_image)
        if not any(publisher.get_subscription_count() for publisher in listeners):
            self._watch.step(current, [], state)
            return []
        anticipated = self._look_ahead(found, state, self._live.horizons_s)
        self._watch.step(current, anticipated, state)
        anticipated = self._chosen(self._live.horizons_s, anticipated, current)
        detector = self._detector
        self._anticipated.publish(
            serialize_anticipated(anticipated, detector.class_names, header, detector.name, detector.version)
        )
        for publisher, later in zip(self._anticipated_at, anticipated, strict=True):
            target = Header(stamp=ns_to_stamp(later.stamp_ns), frame_id=header.frame_id)
            publisher.publish(serialize_detection_array(later, detector.class_names, target))
        return anticipated

    def _look_ahead(self, found: Detections, state: DetectorState, horizons_s: Sequence[float]) -> list[Detections]:
        """What is to be published of later instants, with the ids of what was found."""
        how = self._detector.config.anticipation
        if self._live.anticipation != "auto":
            how = how.model_copy(update={"source": self._live.anticipation})
        anticipated = [self._best(later) for later in self._detector.anticipate(state, horizons_s, how)]
        if self._tracker is None:
            return anticipated
        return [self._tracker.anticipate(later, found, state) for later in anticipated]

    def _chosen(
        self, horizons_s: Sequence[float], anticipated: Sequence[Detections], current: Detections
    ) -> list[Detections]:
        """Standing boxes instead of anticipated ones where these do harm, if that is wanted."""
        return [
            replace(current, stamp_ns=later.stamp_ns)
            if self._live.fall_back_to_unmoved and self._watch.is_harmful(horizon_s)
            else later
            for horizon_s, later in zip(horizons_s, anticipated, strict=True)
        ]

    def _best(self, detections: Detections) -> Detections:
        """Those that are to be published, in host memory."""
        host = detections.cpu()
        count = int((host.scores >= self._live.score_threshold).sum())
        count = min(count, self._live.max_detections)
        return host.select(slice(count))

    def _explain_silence(self) -> str:
        """Why no image arrives, by what the graph shows; it is logged as well, now and then."""
        subscription = self._subscription
        if subscription is None:
            return ""
        message_type = type_name(subscription.msg_type)
        explanation = explain_silence(
            Expected(topic=self._topic, message_type=message_type, qos=subscription.qos_profile),
            look_for_sources(self._node, self._topic),
            topics_with(self._node, message_type),
            get_rmw_implementation_identifier(),
        )
        self._logger.warning(f"no image arrives: {explanation.text}", throttle_duration_sec=_EXPLAIN_EVERY_S)
        return explanation.text

    def create_publisher(self, message_type: type, name: str) -> Publisher:
        """Of a topic of this camera; the node destroys it."""
        return self._node.create_publisher(message_type, f"{self._prefix}/{name}", _RESULTS)

    def _horizon_publishers(self) -> list[Publisher]:
        horizons_s = self._live.horizons_s
        return [self.create_publisher(Detection2DArray, f"anticipated/{horizon_name(of_one)}") for of_one in horizons_s]

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds


def _with_losses(
    subscribe: Callable[..., Subscription], on_image: Callable[..., Any], on_lost: Callable[[int], None]
) -> tuple[Subscription, bool]:
    """Subscribe as this rclpy and its middleware can; returns whether they tell how many images get lost on the way."""
    # rclpy of Humble knows nothing of message info, later ones pass it to a callback with a second argument.
    if not hasattr(Subscription, "CallbackType"):
        return subscribe(callback=lambda message: on_image(message, {})), False
    from rclpy.event_handler import SubscriptionEventCallbacks  # not in Humble

    events = SubscriptionEventCallbacks(message_lost=lambda lost: on_lost(lost.total_count_change))
    try:
        return subscribe(callback=on_image, event_callbacks=events), True
    except rclpy_implementation.UnsupportedEventTypeError:
        return subscribe(callback=on_image), False
