"""Plays bags to the detector's node over DDS and scores what it says: `memwarp replay`, with the node of a robot.

    ros2 launch memwarp_ros replay_evaluation.launch.py bag:=my_bag output:=out/replay_ros
    python -m memwarp_ros.replay_evaluation my_bag --output out/replay_ros             # starts a node of its own

Times: this player gives images the stamps of now, so that the node sees a live camera; another one (`ros2 bag play
--clock`) plays the bag's own time. Either way, all that is kept is put back on the time of the bag.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray, LabelInfo

from memwarp_core.data.bags import COMPRESSED_TYPE, LABEL_INFO_SUFFIX, BagClip, image_topics
from memwarp_core.errors import ConfigError, DataError, MemwarpError
from memwarp_core.evaluation.replay.kept import CameraResult, write_results
from memwarp_core.evaluation.replay.latency import Latency, as_json
from memwarp_core.evaluation.replay.recordings import Camera, find_bags, open_cameras
from memwarp_core.evaluation.replay.replay import RUNS_FOLDER, ReplayConfig, bag_names, write_report
from memwarp_core.evaluation.replay.running import ANTICIPATED, NOTHING_MOVED, CameraRun
from memwarp_core.evaluation.replay.tables import print_report
from memwarp_core.files import write_bytes_whole
from memwarp_core.timeline import no_objects
from memwarp_core.types import Detections
from memwarp_ros.conversions import from_detection_array, stamp_to_ns
from memwarp_ros.demo import Processes
from memwarp_ros.local_domain import local_domain
from memwarp_ros.msg import AnticipatedDetections
from memwarp_ros.serialization import stamp_of, with_stamp

LATENCY_FILE = "latency.json"
"""In the output folder: how long the node took, for `memwarp replay --latency`."""
_NODE = "detector"
_SCORED_FROM = 0.05
"""The score_threshold of a node that is started here: average precision needs less sure boxes, too."""
_TOPICS = {
    "detections": Detection2DArray,
    "detections_now": Detection2DArray,
    "anticipated": AnticipatedDetections,
    "debug/processing_time_ms": Float64,
    "debug/pipeline_latency_ms": Float64,
}
_EXTERNAL_PLAYER = ("ros2", "bag", "play", "--clock", "100", "--delay", "5")
"""Its delay lets the node find it before the first image."""
_START_TIMEOUT_S = 180.0
"""Until the node has loaded its model and is connected; the first import of torch on a cold disk takes most of it."""
_SILENCE_S = 5.0
"""After the last image; when nothing has come for so long, nothing will."""

Message = tuple[int, bytes]
"""When it was received, in nanoseconds of the system's clock, and itself, serialized."""


class Listener(Node):
    """Hears all that a detector says, without looking into it, and plays bags to it.

    Args:
        detector: the node's name; in the namespace of this one, unless it begins with a slash.
        check: called while waiting; raises an error if there is nothing more to wait for.
    """

    def __init__(self, detector: str, check: Callable[[], None] = lambda: None) -> None:
        super().__init__("replay_evaluation")
        self._detector = detector
        self._check = check
        self.class_names: tuple[str, ...] = ()
        self.heard: dict[str, list[Message]] = {topic: [] for topic in _TOPICS}
        """By topic below the detector's name, in the order in which they came."""
        self.clock: list[tuple[int, int]] = []
        """When each message on /clock was received, and what it says."""
        self._from_detector = [
            self._hear(f"{detector}/{topic}", kind, self.heard[topic]) for topic, kind in _TOPICS.items()
        ]
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(LabelInfo, f"{detector}{LABEL_INFO_SUFFIX}", self._learn_names, latched)
        self._reset = self.create_client(Trigger, f"{detector}/reset")

    def wait_for_detector(self) -> None:
        """Raises: DataError if it does not come."""
        self._until(
            lambda: self.class_names and all(one.get_publisher_count() for one in self._from_detector),
            _START_TIMEOUT_S,
            f"the topics of {self._detector}, got none; is the node there and active (ros2 lifecycle get "
            f"{self._detector})?",
        )

    def begin(self) -> None:
        """Let the detector forget what it saw, and forget what it said."""
        if not self._reset.wait_for_service(_SILENCE_S):
            raise DataError(f"expected the service {self._detector}/reset, got none; is the node there?")
        future = self._reset.call_async(Trigger.Request())
        self._until(future.done, _START_TIMEOUT_S, f"an answer of {self._detector}/reset")
        for heard in self.heard.values():
            heard.clear()
        self.clock.clear()

    def play(self, clip: BagClip) -> int:
        """Publish the images of a camera on their topic at their pace, and wait for the answers.

        Returns: what was added to their stamps, in nanoseconds.
        Raises: DataError if nobody listens to them.
        """
        kind = CompressedImage if clip.connection.msgtype == COMPRESSED_TYPE else Image
        publisher = self.create_publisher(kind, clip.connection.topic, QoSProfile(depth=5))
        try:
            self._until(
                publisher.get_subscription_count,
                _START_TIMEOUT_S,
                f"the detector to listen to {clip.connection.topic} ({kind.__name__}), got nobody; name the topic and "
                "the transport of the bag, as in image_topic:=... image_transport:=raw.",
            )
            offset_ns = time.time_ns() + 100_000_000 - clip.stamps_ns[0]
            for stamp_ns, message in _images(clip):
                while (wait_ns := stamp_ns + offset_ns - time.time_ns()) > 0:
                    rclpy.spin_once(self, timeout_sec=wait_ns / 1e9)
                publisher.publish(with_stamp(message, stamp_ns + offset_ns))
            self._wait_for_answers(clip.stamps_ns[-1] + offset_ns)
        finally:
            self.destroy_publisher(publisher)
        return offset_ns

    def watch_player(self, clip: BagClip) -> None:
        """Let rosbag2 play the bag of a camera, with the bag's time on /clock, and wait for the answers.

        Raises: ConfigError where there is no rosbag2; DataError if it does not begin.
        """
        subscription = self._hear("/clock", Clock, heard := [], QoSReliabilityPolicy.BEST_EFFORT)
        try:
            player = subprocess.Popen([*_EXTERNAL_PLAYER, str(clip.path)], stdin=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise ConfigError("expected the command ros2, got none; source your ROS, or use --player own.") from error
        try:
            self._until(lambda: heard, _START_TIMEOUT_S, f"the bag's time on /clock from {player.args}, got none.")
            self._wait_for_answers(clip.stamps_ns[-1], lambda: len(heard))
        finally:
            player.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                player.wait(_SILENCE_S)
            player.kill()
            self.destroy_subscription(subscription)
        self.clock = [(received, stamp_to_ns(deserialize_message(message, Clock).clock)) for received, message in heard]

    def _hear(
        self,
        topic: str,
        kind: Any,
        heard: list[Message],
        reliability: QoSReliabilityPolicy = QoSReliabilityPolicy.RELIABLE,
    ) -> Any:
        def keep(message: bytes, info: Mapping[str, int]) -> None:
            heard.append((info["received_timestamp"], message))

        return self.create_subscription(kind, topic, keep, QoSProfile(depth=200, reliability=reliability), raw=True)

    def _learn_names(self, message: LabelInfo) -> None:
        self.class_names = tuple(one.class_name for one in message.class_map)

    def _wait_for_answers(self, last_stamp_ns: int, signs: Callable[[], int] = lambda: 0) -> None:
        """Until all was said of an image, or there was silence for some seconds."""
        known, deadline = -1, 0.0
        while not self._has_said_all_of(last_stamp_ns):
            now = time.monotonic()
            if (count := sum(map(len, self.heard.values())) + signs()) > known:
                known, deadline = count, now + _SILENCE_S
            elif now > deadline:
                return
            rclpy.spin_once(self, timeout_sec=0.1)

    def _has_said_all_of(self, stamp_ns: int) -> bool:
        counts = {len(heard) for topic, heard in self.heard.items()}
        detections = self.heard["detections"]
        return bool(detections) and stamp_of(detections[-1][1]) >= stamp_ns and len(counts) == 1

    def _until(self, fact: Callable[[], object], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not fact():
            self._check()
            if time.monotonic() > deadline:
                raise DataError(f"waited {timeout_s:.0f} s for {what}")
            rclpy.spin_once(self, timeout_sec=0.1)


def _images(clip: BagClip) -> Iterator[Message]:
    """Stamp and serialized message of each image of a clip."""
    stamps_ns = set(clip.stamps_ns)
    for _, _, message in clip.reader.messages([clip.connection]):
        if (stamp_ns := stamp_of(message)) in stamps_ns:
            stamps_ns.remove(stamp_ns)
            yield stamp_ns, message


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What the node said of a bag, on the bag's time."""

    run: CameraRun
    latencies_ns: tuple[tuple[int, int], ...]
    """Of each image: from when the node took it until its detections were there, and until it was free again."""
    model: str
    """Its name and version, as the messages have it; empty without any."""


def to_run(
    heard: Mapping[str, Sequence[Message]],
    stamps_ns: Sequence[int],
    class_names: Sequence[str],
    *,
    added_ns: int,
    to_bag_time: Callable[[int], int],
) -> Heard:
    """What was heard of the images of a camera.

    Args:
        heard: by topic, see Listener.
        stamps_ns: of the bag's images; what was said of others is left out.
        added_ns: to the stamps of the bag in the messages.
        to_bag_time: when something was received, by the time of the bag.
    """

    def parse(message: bytes) -> Detections:
        said = from_detection_array(deserialize_message(message, Detection2DArray), class_names)
        return replace(said, stamp_ns=said.stamp_ns - added_ns)

    known = set(stamps_ns)
    found = [(received, parse(message)) for received, message in heard["detections"]]
    found = [(received, said) for received, said in found if said.stamp_ns in known]
    received = [one for one, _ in found]
    # What follows detections is of their image, up to the next ones: only some messages tell of which they are.
    nows = _following(received, heard["detections_now"])
    processing, pipeline = (
        {place: deserialize_message(message, Float64).data for place, (_, message) in _following(received, of).items()}
        for of in (heard["debug/processing_time_ms"], heard["debug/pipeline_latency_ms"])
    )
    begun_ns, available_ns, now, latencies_ns = [], [], [], []
    for place, (there, said) in enumerate(found):
        there, message = nows.get(place, (there, None))
        available_ns.append(to_bag_time(there))
        now.append(said if message is None else parse(message))
        begun_ns.append(said.stamp_ns)
        if place in processing and place in pipeline:
            begun_ns[-1] += round(1e6 * (pipeline[place] - processing[place]))
            latencies_ns.append((max(0, available_ns[-1] - begun_ns[-1]), round(1e6 * processing[place])))
    said_later, model = _anticipated([message for _, message in heard["anticipated"]], class_names, added_ns)
    horizons_ns = sorted({horizon_ns for of_image in said_later.values() for horizon_ns in of_image})
    anticipated: dict[tuple[str, float], tuple[Detections, ...]] = {}
    for horizon_ns in horizons_ns:
        anticipated[ANTICIPATED, horizon_ns / 1e9] = tuple(
            said_later.get(said.stamp_ns, {}).get(horizon_ns) or no_objects(said.stamp_ns + horizon_ns)
            for _, said in found
        )
        anticipated[NOTHING_MOVED, horizon_ns / 1e9] = tuple(
            replace(said, stamp_ns=said.stamp_ns + horizon_ns) for _, said in found
        )
    run = CameraRun(
        stamps_ns=tuple(said.stamp_ns for _, said in found),
        begun_ns=tuple(begun_ns),
        available_ns=tuple(available_ns),
        detections=tuple(said for _, said in found),
        now=tuple(now),
        anticipated=anticipated,
    )
    return Heard(run=run, latencies_ns=tuple(latencies_ns), model=model)


def _following(received: Sequence[int], messages: Sequence[Message]) -> dict[int, Message]:
    """By place in `received`, the first message from then until the next one."""
    following: dict[int, Message] = {}
    for message in messages:
        if (place := bisect_right(received, message[0]) - 1) >= 0:
            following.setdefault(place, message)
    return following


def _anticipated(
    messages: Sequence[bytes], class_names: Sequence[str], added_ns: int
) -> tuple[dict[int, dict[int, Detections]], str]:
    """By the stamp of the image and the horizon in nanoseconds; and the model that said so."""
    said: dict[int, dict[int, Detections]] = {}
    model = ""
    for one in messages:
        message = deserialize_message(one, AnticipatedDetections)
        model = f"{message.model} {message.model_version}".strip()
        stamp_ns = stamp_to_ns(message.header.stamp) - added_ns
        said[stamp_ns] = {
            stamp_to_ns(at.horizon): replace(
                from_detection_array(at.detections, class_names), stamp_ns=stamp_ns + stamp_to_ns(at.horizon)
            )
            for at in message.horizons
        }
    return said, model


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is played and what it is scored against; see ReplayConfig."""

    topic: str | None = None
    truth_topic: str | None = None
    truth_file: Path | None = None
    is_played_here: bool = True
    """Otherwise by another player, with /clock."""


def evaluate(listener: Listener, paths: Sequence[Path], options: Options, output: Path) -> dict[str, Any]:
    """Play bags to a detector one after the other, and write the report and LATENCY_FILE into a folder.

    Returns: what is in report.json; see write_report.
    Raises: DataError if no bag could be used or the node does not answer; ConfigError for options that do not fit.
    """
    bags = find_bags(paths)
    if len(bags) > 1 and not options.is_played_here:
        raise ConfigError(f"expected one bag where another player plays it, got {len(bags)}.")
    listener.wait_for_detector()
    runs, clips, failed, latencies_ns, model = {}, {}, {}, [], ""
    with ExitStack() as stack:
        for bag, name in bag_names(bags).items():
            try:
                camera = _open(bag, listener.class_names, options, output, stack)
            except DataError as error:
                failed[name] = str(error)
                continue
            heard = _play(listener, camera.clip, options)
            if not heard.run.stamps_ns:
                failed[name] = "the node said nothing of any image; look at its log and at /diagnostics."
                continue
            latencies_ns += heard.latencies_ns
            model = heard.model or model
            runs[name] = output / RUNS_FOLDER / f"{name}-ros.safetensors"
            result = CameraResult(
                name=camera.name,
                stamps_ns=camera.clip.stamps_ns,
                truths=camera.truths,
                model=heard.run,
                baseline=None,
                problems=camera.problems,
            )
            write_results(runs[name], [result])
            clips[name] = [camera.clip]
        config = ReplayConfig(
            model=model or _NODE,
            baseline=None,
            mode="ros",
            topics=(options.topic,) if options.topic else (),
            truth_topics=(options.truth_topic,) if options.truth_topic else (),
            truth_file=options.truth_file,
        )
        latency = Latency(samples_ns=tuple(latencies_ns)) if latencies_ns else None
        report = write_report(output, config, runs, listener.class_names, clips=clips, failed=failed, latency=latency)
    if latency is not None:
        write_bytes_whole(output / LATENCY_FILE, json.dumps(as_json(latency)).encode())
    return report


def _open(bag: Path, class_names: Sequence[str], options: Options, output: Path, stack: ExitStack) -> Camera:
    (camera,) = open_cameras(
        bag,
        class_names,
        topics=(options.topic,) if options.topic else (),
        truth_topics=(options.truth_topic,) if options.truth_topic else (),
        truth_file=options.truth_file,
        workplace=output / "salvaged",
    )
    stack.callback(camera.clip.close)
    return camera


def _play(listener: Listener, clip: BagClip, options: Options) -> Heard:
    listener.begin()
    if options.is_played_here:
        added_ns = listener.play(clip)
        return to_run(
            listener.heard,
            clip.stamps_ns,
            listener.class_names,
            added_ns=added_ns,
            to_bag_time=lambda received: received - added_ns,
        )
    listener.watch_player(clip)
    offset_ns = clock_offset(listener.clock)
    return to_run(
        listener.heard,
        clip.stamps_ns,
        listener.class_names,
        added_ns=0,
        to_bag_time=lambda received: received + offset_ns,
    )


def clock_offset(ticks: Sequence[tuple[int, int]]) -> int:
    """What to add to the system's clock for the time of a bag that is played at its pace, in nanoseconds.

    Args:
        ticks: when each was received, and what it says; some may be lost. While rosbag2 waits with the first image,
            its clock runs already; then it begins again.
    """
    received, clock = np.array(ticks).T
    last_begin = np.flatnonzero(np.diff(clock) < 0).max(initial=-1) + 1
    offsets = np.sort((clock - received)[last_begin:])
    return int(offsets[len(offsets) // 2])


@contextmanager
def own_node(image_topic: str, model: str | None, options: Options, log_folder: Path) -> Iterator[Callable[[], None]]:
    """A detector node in a domain of its own, which ends with the block. Yields a function that says if it has ended.

    To be called before rclpy is initialized.
    """
    os.environ.update(local_domain())
    prefix = Path(get_package_prefix("memwarp_ros"))
    command = [str(prefix / "lib" / "memwarp_ros" / "detector_node"), "--ros-args", "-r", f"__node:={_NODE}"]
    command += ["--params-file", str(prefix / "share" / "memwarp_ros" / "config" / "detector.yaml")]
    command += ["-r", f"image:={image_topic.removesuffix('/compressed')}", "-p", f"score_threshold:={_SCORED_FROM}"]
    if image_topic.endswith("/compressed"):
        command += ["-p", "image_transport:=compressed"]
    if model is not None:
        command += ["-p", f"model:={model}"]
    if not options.is_played_here:
        command += ["-p", "use_sim_time:=true"]
    with Processes({**os.environ, "PYTHONUNBUFFERED": "1"}, log_folder) as processes:
        processes.start("node", command)
        yield lambda: processes.check("node")


def _with_transport(topic: str | None, transport: str) -> str | None:
    return f"{topic}/compressed" if topic and transport == "compressed" else topic


def _first_topic(paths: Sequence[Path]) -> str:
    for bag in find_bags(paths):
        with suppress(DataError):
            return image_topics(bag)[0]
    raise DataError("no bag could be used: expected images, got no topic with any.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="memwarp_ros.replay_evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("bags", nargs="+", type=Path, help="bags, folders of bags, or .txt files with a path per line")
    parser.add_argument("--output", type=Path, default=Path("out/replay_ros"), help="folder for the report")
    parser.add_argument("--topic", help="of the images; the only one if not given")
    parser.add_argument(
        "--transport", choices=("raw", "compressed"), default="raw", help="compressed: TOPIC/compressed"
    )
    parser.add_argument(
        "--ground-truth", help="topic of Detection2DArray (/ground_truth if not given), or a CocoVID file"
    )
    parser.add_argument("--player", choices=("own", "external"), default="own", help="external: ros2 bag play")
    parser.add_argument("--node", help="name of a running node, as detector; if not given, one is started")
    parser.add_argument("--model", help="of the node that is started: a name, or the path of a weights file")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    truth = arguments.ground_truth or None  # a launch file gives an empty one
    is_file = truth is not None and (truth.endswith(".json") or Path(truth).exists())  # as memwarp replay tells them
    options = Options(
        topic=_with_transport(arguments.topic, arguments.transport),
        truth_topic=None if is_file else truth or None,
        truth_file=Path(truth) if is_file else None,
        is_played_here=arguments.player == "own",
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the node must not outlive this process
    console = Console()
    try:
        with ExitStack() as stack:
            check: Callable[[], None] = lambda: None  # noqa: E731 (own_node's takes its place)
            if arguments.node is None:
                topic = options.topic or _first_topic(arguments.bags)
                log_folder = arguments.output / "logs"
                check = stack.enter_context(own_node(topic, arguments.model, options, log_folder))
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
            stack.callback(rclpy.try_shutdown)
            listener = Listener(arguments.node or _NODE, check)
            stack.callback(listener.destroy_node)
            report = evaluate(listener, arguments.bags, options, arguments.output)
    except MemwarpError as error:
        console.print("[bold red]Error:[/]", end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; all processes have ended")
        return 130
    print_report(report, console)
    console.print(f"all figures, and a page to look at, are in {arguments.output}", highlight=False)
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
