"""detector_node: images in; detections of the current and of the coming instants out.

The newest image wins: a subscription keeps one message, and the callback group of all of them lets one callback run at
a time, so what arrives during an inference replaces what waits. That callback serves whatever waits from any camera, so
a fast camera gets no more turns than a slow one. Services and diagnostics are in another group and answer meanwhile
(torch releases the interpreter while it computes).
"""

import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException, ShutdownException, TimeoutException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Task
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import LabelInfo

from memwarp_core import ConfigError, Detections, DetectorState, MemwarpError, load_detector
from memwarp_core.big_buffers import keep_big_buffers
from memwarp_core.streaming import VideoDetector
from memwarp_ros.camera import Camera, Frame
from memwarp_ros.conversions import to_label_info
from memwarp_ros.parameters import concerns_live, declare_parameters, live_parameters

_REPORTS = QoSProfile(depth=10)
_LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
_REPORT_EVERY_S = 1.0


class DetectorNode(LifecycleNode):
    """One detector and its cameras, mostly one; the tables in README.md say what goes in and out.

    configure loads the model, warms it up and creates the topics; activate subscribes; deactivate unsubscribes and
    keeps the model; cleanup frees it. A transition that fails says why in the log and leaves the node where it was.

    Args:
        context: of another ROS graph than the process's own.
    Raises: ConfigError if a parameter has a value that it does not take.
    """

    config = "detector.yaml"
    """Where the defaults of the parameters are."""

    def __init__(self, name: str = "detector", context: Context | None = None) -> None:
        super().__init__(name, context=context)
        self.settings = declare_parameters(self, self.config)
        self._live = live_parameters(self)
        self._detector: VideoDetector | None = None
        self._is_active = False
        group = self.image_group = MutuallyExclusiveCallbackGroup()
        self.cameras = [
            Camera(self, name, topic, settings=self.settings, live=self._live, group=group, on_image=self._on_image)
            for name, topic in self.settings.cameras.items()
        ]
        # Held while images are processed, so that stop() can wait for the last one.
        self._processing = threading.Lock()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", _REPORTS)
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
            detector = self.load()
            self._warm_up(detector)
        except Exception as error:
            # rclpy swallows what a transition raises. A model that cannot be had leaves the node unconfigured.
            reason = str(error) if isinstance(error, MemwarpError) else traceback.format_exc()
            self.get_logger().fatal(f"cannot load model {self.settings.model}: {reason}")
            return TransitionCallbackReturn.FAILURE
        self._detector = detector
        for camera in self.cameras:
            camera.open(detector)
        self._label_info = self.create_publisher(LabelInfo, "~/label_info", _LATCHED)
        self._publish_label_info(self._live.score_threshold)
        return TransitionCallbackReturn.SUCCESS

    def load(self) -> VideoDetector:
        """The model, ready to run.

        Raises: ConfigError if it cannot be had.
        """
        settings = self.settings
        return load_detector(settings.model, settings.device, settings.precision, settings.backend)

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
        for camera in self.cameras:
            camera.close()
        self.destroy_publisher(self._label_info)
        self._detector = None
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
        """Take images from now on, with empty memories."""
        for camera in self.cameras:
            camera.start()

    def stop(self) -> None:
        """Take no more images; returns when the last one is done."""
        for camera in self.cameras:
            camera.stop()
        with self._processing:
            self._forget()

    def _on_image(self, camera: Camera, message: Image | CompressedImage, info: dict[str, int]) -> None:
        """Answer an image, and what waits from the other cameras: one of each, so that none has to wait for its turn.

        Cameras whose images have the same size share a pass through the network.
        """
        with self._processing:
            if not camera.is_listening:
                return
            together: dict[tuple[int, int] | None, list[Camera]] = {camera.image_size: [camera]}
            for other in self.cameras:
                if other is not camera:
                    together.setdefault(other.image_size, []).append(other)
            for cameras in together.values():
                taken = [one.take(message, info) if one is camera else one.take_waiting() for one in cameras]
                for frame, found, state in self._step([frame for frame in taken if frame is not None]):
                    self.answer(frame, found, state)

    def answer(self, frame: Frame, found: Detections, state: DetectorState) -> None:
        """Publish what was found in an image, and what follows from it."""
        frame.camera.answer(frame, found, state)

    def _step(self, frames: Sequence[Frame]) -> list[tuple[Frame, Detections, DetectorState]]:
        """What is in each frame, and the camera's new state; frames that the detector refuses are left out."""
        if not frames:
            return []
        images, stamps_ns, states = zip(*((frame.image, frame.stamp_ns, frame.state) for frame in frames), strict=True)
        try:
            stepped = self._detector.step_cameras(images, stamps_ns, states)
        except MemwarpError as error:
            if len(frames) > 1:  # the others must not suffer from one camera's image
                return [one for frame in frames for one in self._step([frame])]
            frames[0].camera.refuse(stamps_ns[0], error)
            return []
        return [(frame, *of_frame) for frame, of_frame in zip(frames, stepped, strict=True)]

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget()
        response.success, response.message = True, "a new memory begins with the next image"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.set_parameters([Parameter("enabled", value=request.data)])
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        if not concerns_live(parameters):  # also when a subscription declares its qos_overrides, even within a change
            return SetParametersResult(successful=True)
        try:
            live = live_parameters(self, parameters)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        before = self._live
        with self._processing:  # so that one image is handled with one set of values
            self._live = live
            for camera in self.cameras:
                camera.change(live)
        if self._detector is not None and live.score_threshold != before.score_threshold:
            self._publish_label_info(live.score_threshold)
        if self._is_active and live.enabled != before.enabled:
            if live.enabled:
                self.start()
            else:
                self.stop()
        return SetParametersResult(successful=True)

    def _publish_label_info(self, score_threshold: float) -> None:
        header = Header(stamp=self.get_clock().now().to_msg())
        self._label_info.publish(to_label_info(self._detector.class_names, header, score_threshold))

    def _report(self) -> None:
        header = Header(stamp=self.get_clock().now().to_msg())
        self._diagnostics.publish(DiagnosticArray(header=header, status=self.report(header)))

    def report(self, header: Header) -> list[DiagnosticStatus]:
        """The statuses for /diagnostics, of each camera."""
        detector = self._detector
        hardware_id = str(detector.device if detector else self.settings.device)
        statuses = []
        for camera in self.cameras:
            of_images, of_anticipation = camera.report(header, hardware_id)
            if detector is not None:
                of_images.values.append(KeyValue(key="model", value=f"{detector.name} {detector.version}"))
            of_images.values.append(KeyValue(key="memory of the process [MiB]", value=f"{_memory_mib():.0f}"))
            statuses += [of_images, of_anticipation]
        return statuses

    def _forget(self) -> None:
        for camera in self.cameras:
            camera.forget()

    def _warm_up(self, detector: VideoDetector) -> None:
        """The first inferences take longer than all others; nobody waits for these two."""
        image = np.zeros((480, 640, 3), np.uint8)
        state = detector.start()
        for stamp_ns in (0, 100_000_000):
            _, state = detector.step(image, stamp_ns, state)
        detector.anticipate(state, self._live.horizons_s)


def _memory_mib() -> float:
    """Resident memory of this process; NaN where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return float("nan")


def main(node_type: type[DetectorNode] = DetectorNode) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    # rclpy's own handlers tear the context down below an inference that still wants to publish.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        node = node_type()
    except ConfigError as error:
        get_logger("memwarp").fatal(str(error))
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
    """One thread for the image; everything else is done by the one that spins."""
    executor = _TwoThreads(node.image_group, node.context)
    executor.add_node(node)
    return executor


class _TwoThreads(Executor):
    """Calls back one group in a thread of its own, and everything else in the one that spins.

    rclpy's MultiThreadedExecutor submits a callback again and again until a thread begins it. While images are
    processed and a /clock ticks, thousands of them pile up, and an image takes seconds.

    Args:
        group: mutually exclusive.
    """

    def __init__(self, group: CallbackGroup, context: Context) -> None:
        super().__init__(context=context)
        self._group = group
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._error: Exception | None = None

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for something to do, and do it or let the thread begin it. Raises: what a callback raised."""
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (TimeoutException, ShutdownException, ExternalShutdownException):
            return
        if entity is not None and entity.callback_group is self._group:
            self._thread.submit(self._call, task)
            while not (task.executing() or task.done()):  # until then, rclpy would hand it out again
                time.sleep(1e-4)
        else:
            self._call(task)
        if self._error is not None:
            raise self._error

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """See Executor; what the thread has begun ends first."""
        self._thread.shutdown()
        return super().shutdown(timeout_sec)

    def _call(self, task: Task) -> None:
        task()
        self._error = self._error or task.exception()


def spin_once(executor: Executor) -> None:
    """Wait a moment for something to do, and begin it."""
    # Where another thread destroys a subscription while rclpy gathers what to wait for, rclpy raises (its issues 1206
    # and 1355). Nothing has begun then, and the next round does without the subscription.
    with suppress(rclpy_implementation.InvalidHandle):
        executor.spin_once(timeout_sec=0.2)


if __name__ == "__main__":
    sys.exit(main())
