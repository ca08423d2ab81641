"""The demo: a camera, the detector node and a recorder as three processes that talk over ROS 2 on this machine alone.

    python -m memwarp_ros.demo --output out/demo [--video PATH] [--model NAME] [--seconds N] [--rate HZ]

This process imports no rclpy: it starts the others, watches them, and then looks at what was recorded.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from rich.console import Console

from memwarp_core.data.open_clip import frame_rate_of, open_clip
from memwarp_core.errors import ConfigError, DataError, MemwarpError
from memwarp_ros import demo_topics
from memwarp_ros.demo_report import Published, show_table, write_report
from memwarp_ros.local_domain import local_domain

PACKAGE = "memwarp_ros"
_START_TIMEOUT_S = 180.0
"""Until the node has loaded its model; the first import of torch on a cold disk takes most of it."""
_SCORED_FROM = 0.1
"""The node's score_threshold here: average precision needs less sure boxes, too. Five times as many would bring less
than a point of mAP more. Drawn are those that the installed configuration would publish."""
PATIENCE_S = 10.0
"""For each way of asking a child to end."""
_RESULT_TIMEOUT_S = 20.0
"""From the last image to its results."""


class DemoError(MemwarpError):
    """A process of the demo did not do its part."""


class Processes:
    """Child processes that end with the `with` block, whatever happens in it.

    A child reports with JSON lines on its standard output that have an "event"; all else that it says is in its log.
    """

    def __init__(self, environment: Mapping[str, str], log_folder: Path) -> None:
        self._environment = dict(environment)
        self._log_folder = log_folder
        self._children: dict[str, subprocess.Popen[str]] = {}
        # Each line that a child says, with its name; None when its output has ended.
        self._lines: queue.Queue[tuple[str, str | None]] = queue.Queue()

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a child; it has its own session, so that Ctrl-C reaches this process alone, which then ends it."""
        self._log_folder.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("w") as log:
            child = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._children[name] = child
        threading.Thread(target=self._read, args=(name, child), daemon=True).start()

    def wait_for(self, name: str, event: str, timeout_s: float) -> dict[str, Any]:
        """The next report of that event by that child.

        Raises: DemoError if that child ends without it, any child fails, or time is up.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                source, line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise DemoError(
                    f"the {name} did not report {event!r} within {timeout_s:.0f} s; its last output:\n"
                    f"{self._last_output(name)}"
                ) from None
            if line is None:
                code = self._children[source].wait()
                if code != 0 or source == name:
                    raise DemoError(
                        f"the {source} ended with exit code {code} before the demo was over; its last output:\n"
                        f"{self._last_output(source)}"
                    )
            elif source == name and line.startswith("{") and json.loads(line).get("event") == event:
                return json.loads(line)

    def wait_for_end(self, name: str, timeout_s: float) -> None:
        """Give a child that is done the time to leave in peace."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._children[name].wait(timeout_s)

    def check(self, name: str) -> None:
        """Raises: DemoError if a child has ended."""
        if (code := self.exit_code(name)) is not None:
            raise DemoError(f"the {name} ended with exit code {code}; its last output:\n{self._last_output(name)}")

    def exit_code(self, name: str) -> int | None:
        """None while it runs."""
        return self._children[name].poll()

    def tell(self, name: str, line: str) -> None:
        """Write a line to a child's standard input; a child that has ended is reported by wait_for."""
        pipe = self._children[name].stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.write(line + "\n")
            pipe.flush()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            running = [child for child in self._children.values() if child.poll() is None]
            for child in running:
                child.send_signal(stop)
            for child in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(PATIENCE_S)

    def _read(self, name: str, child: "subprocess.Popen[str]") -> None:
        assert child.stdout is not None
        with self._log(name).open("a") as log:
            for line in child.stdout:
                if not line.startswith("{"):
                    log.write(line)
                self._lines.put((name, line))
        self._lines.put((name, None))

    def _log(self, name: str) -> Path:
        return self._log_folder / f"{name}.log"

    def _last_output(self, name: str, lines: int = 15) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-lines:]) or "(nothing)"


def run_demo(
    source: Path,
    output: Path,
    *,
    seconds: float | None = None,
    rate_hz: float | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """Play a recording to the node and report on what it said.

    Args:
        source: bag, video file or folder of images.
        output: folder that gets detections.mcap, overlay.mp4, overview.png, summary.json and the processes' logs.
        seconds: how much of the recording is played; all of it if None.
        rate_hz: frames per second; the recording's own if None.
        model: name or weights file; that of the installed configuration if None.
    Returns: what is in summary.json.
    Raises: DemoError, DataError or ConfigError.
    """
    clip = open_clip(source)
    rate_hz = rate_hz or frame_rate_of(clip)
    install = _install_prefix()
    parameters_file = install / "share" / PACKAGE / "config" / "detector.yaml"
    parameters = yaml.safe_load(parameters_file.read_text())["/**"]["ros__parameters"]
    recording = output / "detections.mcap"
    python = sys.executable

    play = [python, "-m", f"{PACKAGE}.demo_player", "--source", str(source), "--rate", str(rate_hz)]
    if seconds is not None:
        play += ["--seconds", str(seconds)]
    record = [python, "-m", f"{PACKAGE}.demo_recorder", "--output", str(recording)]
    for horizon_s in parameters["horizons_s"]:
        record += ["--horizon", str(horizon_s)]
    # The same as launch/detector.launch.py does; `launch` itself is not among the packages that pip has.
    detect = [str(install / "lib" / PACKAGE / "detector_node"), "--ros-args"]
    detect += ["-r", "__node:=detector", "--params-file", str(parameters_file)]
    detect += ["-r", f"image:={demo_topics.IMAGE}", "--log-level", "info"]
    detect += ["-p", f"score_threshold:={_SCORED_FROM}"]

    if model is not None:
        detect += ["-p", f"model:={model}"]

    with Processes({**os.environ, **local_domain(), "PYTHONUNBUFFERED": "1"}, output / "logs") as processes:
        processes.start("node", detect)
        processes.start("recorder", record)
        processes.wait_for("recorder", "connected", _START_TIMEOUT_S)
        processes.start("player", play)
        playing_s = (seconds or len(clip) / rate_hz) * 2 + 60
        published = processes.wait_for("player", "played", playing_s)["published"]
        processes.tell("recorder", str(published[-1]["stamp_ns"]))
        try:
            processes.wait_for("recorder", "recorded", _RESULT_TIMEOUT_S)
        except DemoError:
            # The last image may be lost on the way, as best-effort images may be; take what there is.
            processes.tell("recorder", "0")
            processes.wait_for("recorder", "recorded", _RESULT_TIMEOUT_S)
        processes.wait_for_end("recorder", _RESULT_TIMEOUT_S)

    return write_report(
        recording,
        clip,
        [Published(**one) for one in published],
        rate_hz=rate_hz,
        shown_score=parameters["score_threshold"],
        output=output,
    )


def _install_prefix() -> Path:
    try:
        return Path(get_package_prefix(PACKAGE))
    except PackageNotFoundError as error:
        raise ConfigError(
            f"the ROS package {PACKAGE} is not installed in this environment; run `make demo`, or build it with "
            "colcon and source install/setup.bash."
        ) from error


def _sample() -> Path:
    folder = _install_prefix() / "share" / PACKAGE / "sample"
    if not folder.exists():
        raise DataError(f"{folder}: the sample recording is not installed; build the package again.")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="memwarp_ros.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder for the results")
    parser.add_argument("--video", type=Path, help="your own recording instead of the sample: video, folder or bag")
    parser.add_argument("--model", help="name or weights file; the installed configuration's if not given")
    parser.add_argument("--seconds", type=float, help="play so many seconds of it; all if not given")
    parser.add_argument("--rate", type=float, help="frames per second; the recording's own if not given")
    arguments = parser.parse_args()
    console = Console()
    # A child must not outlive this process when it is asked to end, so it leaves through the `with` blocks.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with console.status("Playing the recording to the detector node ..."):
            summary = run_demo(
                arguments.video or _sample(),
                arguments.output,
                seconds=arguments.seconds,
                rate_hz=arguments.rate,
                model=arguments.model,
            )
    except MemwarpError as error:
        console.print("[bold red]Error:[/]", end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; all processes have ended")
        return 130
    show_table(summary, arguments.output, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
