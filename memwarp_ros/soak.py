"""The real node under a camera that misbehaves and callers that never rest: does it stay as it was?

    python -m memwarp_ros.soak [--minutes 10] [--output out/soak]

The images (soak_camera.py) come at 30 Hz, now and then with another size, with stamps that begin again, or with an
encoding that does not exist. Meanwhile subscribers come and go, every service is called and the lifecycle goes round.
Watched are the memory of the node, the age of its answers, and whether anything was lost, late or missed.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2DArray

from memwarp_core.errors import MemwarpError
from memwarp_core.files import write_bytes_whole
from memwarp_ros.conversions import stamp_to_ns
from memwarp_ros.demo import Processes
from memwarp_ros.local_domain import local_domain
from memwarp_ros.message_info import with_message_info
from memwarp_ros.msg import AnticipatedDetections
from memwarp_ros.soak_camera import BROKEN_EVERY, LOOP, RESIZED_EVERY, TOPIC, index_and_sent_ns, stamp_ns_of

PASSING = {
    "growth of the memory, MiB": 20.0,
    "oldest answer, ms": 1000.0,
    "growth of the median age, ms": 50.0,
    "answers lost": 0.0,
    "answers out of order or under another header": 0.0,
    "subscribers that heard nothing": 0.0,
    "longest response of a service, ms": 1000.0,
    "transitions missed": 0.0,
    "disturbances that never came": 0.0,
    "exit status": 0.0,
}
"""What is checked, and the largest figure with which it passes."""
_COMING_AND_GOING = {
    "detections_now": Detection2DArray,
    "anticipated": AnticipatedDetections,
    "debug_image": Image,
}
_STATES = {Transition.TRANSITION_DEACTIVATE: "inactive", Transition.TRANSITION_ACTIVATE: "active"}
_REST_S = 3.0
_HEARD_WITHIN_S = 10.0
_PATIENCE_S = 120.0


class SoakError(MemwarpError):
    """The run could not be brought to its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Detections of an image, as they arrived."""

    index: int
    """Of the image."""
    age_ms: float
    """From sending the image to the arrival of its detections, whenever this process got to look at them."""
    is_right: bool
    """Whether it is of a later image than the answer before, under the header of that image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What was counted up to a moment."""

    answers: int
    processed: int
    refused: int
    restarts: int


class Watcher(Node):
    """Calls what the node offers, and notes what comes of it.

    Args:
        check_processes: raises SoakError when one of the other processes has ended.
    """

    def __init__(self, check_processes: Callable[[], None]) -> None:
        super().__init__("soak_watcher")
        self.answers: list[Answer] = []
        self.reports: list[dict[str, str]] = []
        """The diagnostics of the images, one per second."""
        self.response_ms: dict[str, list[float]] = defaultdict(list)
        """Of each service, by name."""
        self.transitions_missed = 0
        self.unheard = 0
        self.came_and_went = 0
        self._check_processes = check_processes
        self._callers: dict[str, Any] = {}
        self.create_subscription(Detection2DArray, "/detector/detections", with_message_info(self._on_detections), 100)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def go_round(self) -> None:
        """Once all that callers and subscribers do."""
        self._come_and_go()
        self.call(Trigger, "reset", Trigger.Request())
        for enabled in (False, True):
            self.call(SetBool, "enable", SetBool.Request(data=enabled))
        for transition in _STATES:
            self.change(transition)
        known = len(self.answers)
        self.until(lambda: len(self.answers) > known, "an answer after the activation")
        until_s = time.monotonic() + _REST_S
        self.until(lambda: time.monotonic() > until_s, "the end of the rest")

    def settle(self) -> Counts:
        """Deactivate the node, and count once it has told all that it did."""
        self.change(Transition.TRANSITION_DEACTIVATE)
        known = len(self.reports)
        self.until(lambda: len(self.reports) >= known + 2, "two reports of the inactive node")
        return self.counts()

    def counts(self) -> Counts:
        """Of now; while images are processed, the answers may be ahead of what the node has reported."""
        names = {"processed": "images processed", "refused": "images refused", "restarts": "memory restarts"}
        reported = {field: int(self.reports[-1][name]) for field, name in names.items()}
        return Counts(answers=len(self.answers), **reported)

    def saw_all(self, before: Counts) -> bool:
        """Whether each disturbance of the images has come since then, and was noticed by the node."""
        now = self.counts()
        return self.answers[-1].index > LOOP and now.refused > before.refused and now.restarts > before.restarts

    def change(self, transition: int) -> None:
        """Ask for a transition of the lifecycle, and for the state after it."""
        request = ChangeState.Request(transition=Transition(id=transition))
        success = self.call(ChangeState, "change_state", request).success
        state = self.call(GetState, "get_state", GetState.Request()).current_state.label
        self.transitions_missed += not (success and state == _STATES[transition])

    def call(self, kind: type, name: str, request: Any) -> Any:
        """The response of a service of the node."""
        if name not in self._callers:
            self._callers[name] = self.create_client(kind, f"/detector/{name}")
        client = self._callers[name]
        self.until(client.service_is_ready, f"the service {name}")
        began_ns = time.monotonic_ns()
        future = client.call_async(request)
        self.until(future.done, f"a response of {name}")
        self.response_ms[name].append((time.monotonic_ns() - began_ns) / 1e6)
        return future.result()

    def until(self, fact: Callable[[], object], what: str) -> None:
        """Handle messages until something holds.

        Raises: SoakError if that takes too long or a process has ended.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not fact():
            self._check_processes()
            if time.monotonic() > deadline:
                raise SoakError(f"expected {what} within {_PATIENCE_S:.0f} s, got none; the logs of the run tell more.")
            rclpy.spin_once(self, timeout_sec=0.05)

    def _come_and_go(self) -> None:
        """Be a subscriber of every topic that is computed only for subscribers, until something comes."""
        heard: set[str] = set()
        subscriptions = [
            self.create_subscription(kind, f"/detector/{name}", lambda _, name=name: heard.add(name), 10, raw=True)
            for name, kind in _COMING_AND_GOING.items()
        ]
        until_s = time.monotonic() + _HEARD_WITHIN_S
        self.until(lambda: len(heard) == len(subscriptions) or time.monotonic() > until_s, "something on each topic")
        self.came_and_went += len(subscriptions)
        self.unheard += len(subscriptions) - len(heard)
        for subscription in subscriptions:
            self.destroy_subscription(subscription)

    def _on_detections(self, message: Detection2DArray, info: dict[str, int]) -> None:
        index, sent_ns = index_and_sent_ns(message.header.frame_id)
        is_next = not self.answers or index > self.answers[-1].index
        is_right = is_next and stamp_to_ns(message.header.stamp) == stamp_ns_of(index)
        age_ms = (info.get("received_timestamp", time.time_ns()) - sent_ns) / 1e6
        self.answers.append(Answer(index=index, age_ms=age_ms, is_right=is_right))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if "images processed" in values:
                self.reports.append(values)


def soak(minutes: float, output: Path) -> dict[str, Any]:
    """Run it.

    Returns: figures of all kinds, and `checks`: for each one its figure, the limit and whether it passed.
    Raises: SoakError if a process ends before its time, or the node falls silent.
    """
    detector = Path(get_package_prefix("memwarp_ros"), "lib", "memwarp_ros", "detector_node")
    with Processes(os.environ, output / "logs") as processes:

        def check() -> None:
            for name in ("node", "camera"):
                if processes.exit_code(name) is not None:
                    raise SoakError(f"the {name} ended with status {processes.exit_code(name)}; its log tells why.")

        processes.start("node", [str(detector), "--ros-args", "-r", f"image:={TOPIC}", "-p", "use_sim_time:=true"])
        processes.start("camera", [sys.executable, "-m", "memwarp_ros.soak_camera"])
        watcher = Watcher(check)
        watcher.until(lambda: watcher.answers, "the first answer")
        before = watcher.settle()
        watcher.change(Transition.TRANSITION_ACTIVATE)
        ends_s = time.monotonic() + minutes * 60
        first_report = len(watcher.reports)
        # A short run goes on until each disturbance has come.
        while (now_s := time.monotonic()) < ends_s or (now_s < ends_s + _PATIENCE_S and not watcher.saw_all(before)):
            watcher.go_round()
        after = watcher.settle()
        watcher.destroy_node()
    return summarize(
        watcher.answers[before.answers :],
        [float(report["memory of the process [MiB]"]) for report in watcher.reports[first_report:]],
        before,
        after,
        response_ms=watcher.response_ms,
        transitions_missed=watcher.transitions_missed,
        came_and_went=watcher.came_and_went,
        unheard=watcher.unheard,
        exit_status=processes.exit_code("node") or 0,
    )


def summarize(
    answers: Sequence[Answer],
    memory_mib: Sequence[float],
    before: Counts,
    after: Counts,
    *,
    response_ms: dict[str, list[float]],
    transitions_missed: int,
    came_and_went: int,
    unheard: int,
    exit_status: int,
) -> dict[str, Any]:
    """The figures of a run; what soak() returns.

    Args:
        answers: between the two counts.
        memory_mib: of the node, at equal intervals.
    """
    ages_ms = np.array([answer.age_ms for answer in answers])
    processed = after.processed - before.processed
    last = answers[-1].index
    refused, restarts = after.refused - before.refused, after.restarts - before.restarts
    # A broken image may be among those that the node never sees, but not all of them.
    came = {"encoding": refused, "size": last // RESIZED_EVERY, "stamps": last // LOOP, "new memories": restarts}
    figures = {
        "growth of the memory, MiB": _growth(memory_mib),
        "oldest answer, ms": float(ages_ms.max()),
        "growth of the median age, ms": _growth(ages_ms),
        "answers lost": abs(processed - (after.answers - before.answers)),
        "answers out of order or under another header": sum(not answer.is_right for answer in answers),
        "subscribers that heard nothing": unheard,
        "longest response of a service, ms": max(max(times) for times in response_ms.values()),
        "transitions missed": transitions_missed,
        "disturbances that never came": sum(count == 0 for count in came.values()),
        "exit status": abs(exit_status),
    }
    checks = {
        name: {"figure": figure, "limit": PASSING[name], "passed": figure <= PASSING[name]}
        for name, figure in figures.items()
    }
    return {
        "passed": all(check["passed"] for check in checks.values()),
        "checks": checks,
        "images": {
            "sent": last - answers[0].index + 1,
            "processed": processed,
            "with an encoding that does not exist": last // BROKEN_EVERY,
            "of them seen and refused": refused,
            "changes of size": last // RESIZED_EVERY,
            "stamps that began again": last // LOOP,
            "new memories for these": restarts,
        },
        "age_ms": dict(zip(("p50", "p95", "p99"), np.percentile(ages_ms, (50, 95, 99)).tolist(), strict=True)),
        "memory_mib": list(memory_mib),
        "load of the machine": os.getloadavg()[-1],
        "services": {
            name: {"calls": len(times), "p50_ms": float(np.median(times)), "longest_ms": max(times)}
            for name, times in response_ms.items()
        },
        "subscribers that came and went": came_and_went,
        "counted": {"before": asdict(before), "after": asdict(after)},
    }


def _growth(values: Sequence[float] | np.ndarray) -> float:
    """From the second fifth, when all has been seen once, to the last one, by their medians."""
    fifths = np.array_split(np.asarray(values, np.float64), 5)
    return float(np.median(fifths[-1]) - np.median(fifths[1]))


def _show(summary: dict[str, Any], console: Console) -> None:
    table = Table("", "figure", "at most", "", title="soak run")
    for name, check in summary["checks"].items():
        passed = "passed" if check["passed"] else "[bold red]failed[/]"
        table.add_row(name, f"{check['figure']:.1f}", f"{check['limit']:g}", passed)
    console.print(table)
    images = summary["images"]
    of_ages = ", ".join(f"{name} {age_ms:.0f} ms" for name, age_ms in summary["age_ms"].items())
    console.print(f"{images['sent']} images sent, {images['processed']} processed; age of the answers: {of_ages}")
    console.print(f"{summary['load of the machine']:.1f} processes wanted one of {os.cpu_count()} cores, in the mean")


def main() -> int:
    parser = argparse.ArgumentParser(prog="memwarp_ros.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long it goes on")
    parser.add_argument("--output", type=Path, default=Path("out/soak"), help="folder for soak.json and the logs")
    arguments = parser.parse_args()
    console = Console()
    os.environ.update(local_domain())
    rclpy.init()
    try:
        summary = soak(arguments.minutes, arguments.output)
    except MemwarpError as error:
        console.print("[bold red]Error:[/]", end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        console.print("interrupted; all processes have ended")
        return 130
    finally:
        rclpy.try_shutdown()
    write_bytes_whole(arguments.output / "soak.json", json.dumps(summary, indent=1).encode())
    _show(summary, console)
    return 0 if summary["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
