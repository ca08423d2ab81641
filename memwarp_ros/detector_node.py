"""detector_node: images in; detections of the current and of the coming instants out.

The newest image wins: the subscription keeps one message, and its callback group lets one callback run at a time, so
what arrives during an inference replaces what waits. Services and diagnostics are in another group and answer meanwhile
(torch releases the interpreter while it computes).
"""

import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.executors import Executor, MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2DArray, LabelInfo

from memwarp_core import ConfigError, Detections, DetectorState, MemwarpError, StaleFrameError, load_detector
from memwarp_core.streaming import Tracker, Tracks, VideoDetector
from memwarp_core.visualization import draw_detections
from memwarp_ros.anticipation_watch import AnticipationWatch, anticipation_status, harm
from memwarp_ros.big_buffers import keep_big_buffers
from memwarp_ros.conversions import (
    image_to_rgb,
    ns_to_stamp,
    rgb_to_image,
    stamp_to_ns,
    to_anticipation_check,
    to_label_info,
)
from memwarp_ros.input_watch import Expected, explain_silence, look_for_sources, topics_with, type_name
from memwarp_ros.msg import AnticipatedDetections, AnticipationCheck
from memwarp_ros.parameters import IMAGE_QOS, declare_parameters, horizon_name, live_parameters
from memwarp_ros.serialization import serialize_anticipated, serialize_detection_array
from memwarp_ros.stream_statistics import StreamStatistics

_RESULTS = QoSProfile(depth=10)
_LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
_WHY_ANEW = {
    "gap": "came after a gap longer than the model's max_gap_s",
    "size": "has another size than the one before",
}
_DEBUG_TIMES = ("processing_time", "pipeline_latency", "cyclic_time")
"""Of the last image: from taking it to having published; from its stamp until then; from the image before to it."""
_WARN_EVERY_S = 5.0
_EXPLAIN_EVERY_S = 30.0
_REPORT_EVERY_S = 1.0


class DetectorNode(LifecycleNode):
    """One camera, one detector; the tables in README.md say what goes in and out.

    configure loads the model, warms it up and creates the topics; activate subscribes; deactivate unsubscribes and
    keeps the model; cleanup frees it. A transition that fails says why in the log and leaves the node where it was.

    Args:
        context: of another ROS graph than the process's own.
    Raises: ConfigError if a parameter has a value that it does not take.
    """

    def __init__(self, context: Context | None = None) -> None:
        super().__init__("detector", context=context)
        self.settings = declare_parameters(self)
        self._live = live_parameters(self)
        self._detector: VideoDetector | None = None
        self._statistics = StreamStatistics(time.monotonic_ns())
        self._subscription: Subscription | None = None
        self._is_active = False
        self._topic = self.resolve_topic_name("image")
        self._image_group = MutuallyExclusiveCallbackGroup()
        self._tracker: Tracker | None = None
        self._tracks = Tracks()
        """They live as long as the node, so that no id is given twice."""
        self._watch = AnticipationWatch(self._live.horizons_s, self.settings.self_check_patience_s)
        self._moving_s = 0.0
        """How long it took to move the last detections to the instant of publishing."""
        # Held while an image is processed, so that stop() can wait for the last one.
        self._processing = threading.Lock()
        # Held for the moment in which the state is exchanged: reset() comes from another thread.
        self._exchange = threading.Lock()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", _RESULTS)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        # Diagnostics go on where the time of a recording stands still.
        self.create_timer(_REPORT_EVERY_S, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.add_on_set_parameters_callback(self._on_set_parameters)
        # rclpy lets the error of a transition that the state does not allow end the process.
        change_state = self._service_change_state.callback
        self._service_change_state.callback = lambda *call: self._change_state(change_state, *call)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, warm it up and create the topics."""
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        try:
            detector = load_detector(
                self.settings.model, device=self.settings.device, precision=self.settings.precision
            )
            self._warm_up(detector)
        except Exception as error:
            # rclpy swallows what a transition raises. A model that cannot be had leaves the node unconfigured.
            reason = str(error) if isinstance(error, MemwarpError) else traceback.format_exc()
            self.get_logger().fatal(f"cannot load model {self.settings.model}: {reason}")
            return TransitionCallbackReturn.FAILURE
        self._detector = detector
        self._tracker = Tracker(detector) if self.settings.tracking else None
        self._state = detector.start()
        self._detections = self.create_publisher(Detection2DArray, "~/detections", _RESULTS)
        self._anticipated = self.create_publisher(AnticipatedDetections, "~/anticipated", _RESULTS)
        self._anticipated_at = self._create_horizon_publishers(self._live.horizons_s)
        self._detections_now = self.create_publisher(Detection2DArray, "~/detections_now", _RESULTS)
        self._debug_times = [self.create_publisher(Float64, f"~/debug/{name}_ms", _RESULTS) for name in _DEBUG_TIMES]
        self._anticipation_check = self.create_publisher(AnticipationCheck, "~/anticipation_check", _RESULTS)
        self._label_info = self.create_publisher(LabelInfo, "~/label_info", _LATCHED)
        self._debug_image = self.create_publisher(Image, "~/debug_image", _RESULTS)
        self._publish_label_info(self._live.score_threshold)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take images, unless `enabled` is false."""
        self._is_active = True
        if self._live.enabled:
            self.start()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more images; the model stays."""
        self._is_active = False
        self.stop()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and take the topics away."""
        results = (self._detections, self._anticipated, self._detections_now, self._anticipation_check)
        debug = (*self._debug_times, self._debug_image)
        for publisher in (*results, *self._anticipated_at, self._label_info, *debug):
            self.destroy_publisher(publisher)
        self._detector = None
        self._state = DetectorState()
        torch.cuda.empty_cache()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state: no more images, no model."""
        if self._is_active:
            self.on_deactivate(state)
        if self._detector is not None:
            self.on_cleanup(state)
        return TransitionCallbackReturn.SUCCESS

    def _change_state(
        self, change_state: Callable[..., Any], request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except rclpy_implementation.RCLError as error:
            self.get_logger().warning(
                f"transition {request.transition.label or request.transition.id} refused: {error}"
            )
            response.success = False
            return response

    def start(self) -> None:
        """Take images from now on, with an empty memory."""
        if self._subscription is not None:
            return
        self._forget()
        # A remapping of `image` moves the compressed topic along, as image_transport does it.
        image_topic = self.resolve_topic_name("image")
        is_compressed = self.settings.image_transport == "compressed"
        subscribe = partial(
            self.create_subscription,
            CompressedImage if is_compressed else Image,
            f"{image_topic}/compressed" if is_compressed else image_topic,
            qos_profile=IMAGE_QOS[self.settings.image_qos],
            callback_group=self._image_group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._subscription, tells_of_losses = _with_losses(subscribe, self._on_image, self._statistics.lose)
        self._statistics.new_subscription(tells_of_losses)
        self._topic = self._subscription.topic_name
        self.get_logger().info(
            f"{self._detector.name} {self._detector.version} on {self._detector.device} listens to {self._topic}"
        )

    def stop(self) -> None:
        """Take no more images; returns when the last one is done."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        self.destroy_subscription(subscription)
        with self._processing:
            self._forget()

    def _on_image(self, message: Image | CompressedImage, info: dict[str, int]) -> None:
        with self._processing:
            if self._subscription is None:
                return
            started_ns, stamp_ns = time.monotonic_ns(), stamp_to_ns(message.header.stamp)
            age_ns = self._now_ns() - stamp_ns
            self._statistics.receive(started_ns, age_ns, info.get("publication_sequence_number"))
            try:
                image = image_to_rgb(message)
                found, state = self._detect(image, stamp_ns)
            except MemwarpError as error:
                self._refuse(stamp_ns, error)
                return
            if self._tracker is not None:
                found, self._tracks = self._tracker.step(found, state, self._tracks)
            # The current frame first: whoever waits for it need not wait for the anticipation.
            current = self._best(found)
            self._detections.publish(serialize_detection_array(current, self._detector.class_names, message.header))
            self._publish_now(found, current, state, message.header)
            anticipated = self._anticipate(found, current, state, message.header)
            if self._debug_image.get_subscription_count():
                drawn = draw_detections(image, current, self._detector.class_names, dashed=anticipated)
                self._debug_image.publish(rgb_to_image(drawn, message.header))
            took_ns = time.monotonic_ns() - started_ns
            self._statistics.process(took_ns)
            of_image_ns = (took_ns, age_ns + took_ns, self._statistics.cycle_ns)
            for publisher, of_this_ns in zip(self._debug_times, of_image_ns, strict=True):
                if publisher.get_subscription_count():
                    publisher.publish(Float64(data=of_this_ns / 1e6))

    def _detect(self, image: np.ndarray, stamp_ns: int) -> tuple[Detections, DetectorState]:
        """What is in the image, and the stream's new state; a stamp that goes back begins a new memory."""
        state = self._state
        try:
            detections, new_state = self._detector.step(image, stamp_ns, state)
        except StaleFrameError:
            if stamp_ns == state.stamp_ns:
                raise
            self._statistics.restarts += 1
            self.get_logger().warning(
                f"{self._topic}: stamp {stamp_ns / 1e9:.3f} s is before the last one; a new memory begins",
                throttle_duration_sec=_WARN_EVERY_S,
            )
            detections, new_state = self._detector.step(image, stamp_ns, self._detector.start())
        if new_state.began in _WHY_ANEW:
            self._statistics.restarts += 1
            self.get_logger().warning(
                f"{self._topic}: image of {stamp_ns / 1e9:.3f} s {_WHY_ANEW[new_state.began]}; a new memory begins",
                throttle_duration_sec=_WARN_EVERY_S,
            )
        with self._exchange:
            if self._state is state:  # otherwise reset() came in between, and what was seen before is forgotten
                self._state = new_state
        return detections, new_state

    def _publish_now(self, found: Detections, current: Detections, state: DetectorState, header: Header) -> None:
        """Publish the current detections as they are at this instant, if somebody listens."""
        if not self._detections_now.get_subscription_count():
            return
        live, source_ns = self._live, stamp_to_ns(header.stamp)
        began_ns = time.monotonic_ns()
        age_s = (self._now_ns() - source_ns) / 1e9
        if live.delay_compensation == "none" or age_s > live.max_image_age_s:
            if live.delay_compensation != "none":
                self.get_logger().warning(
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
        anticipated = [self._best(later) for later in self._detector.anticipate(state, horizons_s)]
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

    def _refuse(self, stamp_ns: int, error: MemwarpError) -> None:
        self._statistics.refused += 1
        self.get_logger().warning(
            f"{self._topic}: image of {stamp_ns / 1e9:.3f} s refused ({self._statistics.refused} so far): {error}",
            throttle_duration_sec=_WARN_EVERY_S,
        )

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget()
        response.success, response.message = True, "a new memory begins with the next image"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.set_parameters([Parameter("enabled", value=request.data)])
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            live = live_parameters(self, parameters)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        before = self._live
        with self._processing:  # so that one image is handled with one set of values
            self._live = live
            if self._detector is not None and live.horizons_s != before.horizons_s:
                for publisher in self._anticipated_at:
                    self.destroy_publisher(publisher)
                self._anticipated_at = self._create_horizon_publishers(live.horizons_s)
                self._watch = AnticipationWatch(live.horizons_s, self.settings.self_check_patience_s)
        if self._detector is not None and live.score_threshold != before.score_threshold:
            self._publish_label_info(live.score_threshold)
        if self._is_active and live.enabled != before.enabled:
            if live.enabled:
                self.start()
            else:
                self.stop()
        return SetParametersResult(successful=True)

    def _create_horizon_publishers(self, horizons_s: Sequence[float]) -> list[Publisher]:
        return [
            self.create_publisher(Detection2DArray, f"~/anticipated/{horizon_name(horizon_s)}", _RESULTS)
            for horizon_s in horizons_s
        ]

    def _publish_label_info(self, score_threshold: float) -> None:
        header = Header(stamp=self.get_clock().now().to_msg())
        self._label_info.publish(to_label_info(self._detector.class_names, header, score_threshold))

    def _report(self) -> None:
        now_ns = time.monotonic_ns()
        why_silent = self._explain_silence() if self._statistics.is_silent(now_ns) else ""
        hardware_id = str(self._detector.device) if self._detector else self.settings.device
        status = self._statistics.report(
            now_ns,
            name=f"{self.get_fully_qualified_name()}: {self._topic}",
            hardware_id=hardware_id,
            enabled=self._subscription is not None,
            max_age_s=self._live.max_image_age_s,
            why_silent=why_silent,
        )
        if self._detector is not None:
            status.values.append(KeyValue(key="model", value=f"{self._detector.name} {self._detector.version}"))
        status.values.append(KeyValue(key="memory of the process [MiB]", value=f"{_memory_mib():.0f}"))
        header = Header(stamp=self.get_clock().now().to_msg())
        anticipation = self._report_anticipation(header, hardware_id)
        self._diagnostics.publish(DiagnosticArray(header=header, status=[status, anticipation]))

    def _report_anticipation(self, header: Header, hardware_id: str) -> DiagnosticStatus:
        """Publish and return what the check of past anticipations says."""
        watch = self._watch
        checks = watch.look()
        if self._detector is not None:
            names = self._detector.class_names
            self._anticipation_check.publish(to_anticipation_check(checks, watch.horizons_s, names, header))
        if harmful := harm(checks, watch.horizons_s):
            self.get_logger().warning(f"{self._topic}: {harmful}", throttle_duration_sec=_EXPLAIN_EVERY_S)
        return anticipation_status(
            checks,
            watch.horizons_s,
            name=f"{self.get_fully_qualified_name()}: anticipation",
            hardware_id=hardware_id,
            falls_back=self._live.fall_back_to_unmoved,
        )

    def _explain_silence(self) -> str:
        """Why no image arrives, by what the graph shows; it is logged as well, now and then."""
        subscription = self._subscription
        if subscription is None:
            return ""
        message_type = type_name(subscription.msg_type)
        explanation = explain_silence(
            Expected(topic=self._topic, message_type=message_type, qos=subscription.qos_profile),
            look_for_sources(self, self._topic),
            topics_with(self, message_type),
            get_rmw_implementation_identifier(),
        )
        self.get_logger().warning(f"no image arrives: {explanation.text}", throttle_duration_sec=_EXPLAIN_EVERY_S)
        return explanation.text

    def _forget(self) -> None:
        with self._exchange:
            self._state = self._detector.start() if self._detector else DetectorState()

    def _warm_up(self, detector: VideoDetector) -> None:
        """The first inferences take longer than all others; nobody waits for these two."""
        image = np.zeros((480, 640, 3), np.uint8)
        state = detector.start()
        for stamp_ns in (0, 100_000_000):
            _, state = detector.step(image, stamp_ns, state)
        detector.anticipate(state, self._live.horizons_s)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _with_losses(
    subscribe: Callable[..., Subscription], on_image: Callable[..., None], on_lost: Callable[[int], None]
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


def _memory_mib() -> float:
    """Resident memory of this process; NaN where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return float("nan")


def main() -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    # rclpy's own handlers tear the context down below an inference that still wants to publish.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        node = DetectorNode()
    except ConfigError as error:
        get_logger("detector").fatal(str(error))
        rclpy.shutdown()
        return 1
    if node.settings.keep_big_buffers:  # no image has come yet
        keep_big_buffers()
    executor = make_executor(node)
    failed = node.settings.autostart and not start_up(node)
    while not failed and not stopped.is_set():
        spin_once(executor)
    node.stop()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return int(failed)


def start_up(node: DetectorNode) -> bool:
    """Configure and activate; returns whether that worked."""
    success = TransitionCallbackReturn.SUCCESS
    return node.trigger_configure() == success and node.trigger_activate() == success


def make_executor(node: DetectorNode) -> Executor:
    """Two threads: one for the image, one for everything else."""
    executor = MultiThreadedExecutor(num_threads=2, context=node.context)
    executor.add_node(node)
    return executor


def spin_once(executor: Executor) -> None:
    """Wait a moment for something to do, and begin it."""
    # Where another thread destroys a subscription while rclpy gathers what to wait for, rclpy raises (its issues 1206
    # and 1355). Nothing has begun then, and the next round does without the subscription.
    with suppress(rclpy_implementation.InvalidHandle):
        executor.spin_once(timeout_sec=0.2)


if __name__ == "__main__":
    sys.exit(main())
