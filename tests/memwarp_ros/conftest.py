"""A live ROS graph for a test: a domain of its own, processes in it, a client that waits for facts and not for time."""

import fcntl
import gc
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rclpy
from ament_index_python.packages import get_package_prefix
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

PATIENCE_S = 120.0
"""Nothing here takes so long; a slow machine that also starts other processes may."""


@contextmanager
def free_domain() -> Iterator[int]:
    """A ROS domain that no other test uses at this time, not even another run's on this machine."""
    # A lifecycle node that an earlier test had in this process answers services until it is collected.
    gc.collect()
    for candidate in range(1, 80):
        path = Path(tempfile.gettempdir(), f"memwarp-test-domain-{candidate}")
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield candidate
            return
    raise RuntimeError("expected a free ROS domain among 1 to 79, all are taken by other tests; end some of them.")


class DetectorProcess:
    """detector_node, or another one of the package, as its own process, as `ros2 run` starts it."""

    def __init__(self, domain_id: int, log: Path, *ros_arguments: str, executable: str = "detector_node") -> None:
        program = Path(get_package_prefix("memwarp_ros"), "lib", "memwarp_ros", executable)
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [program, "--ros-args", *ros_arguments],
                env={**os.environ, "ROS_DOMAIN_ID": str(domain_id)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait(self) -> int:
        """The exit status, once it ended by itself."""
        return self.process.wait(PATIENCE_S)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.wait()


class Client:
    """A node in the test's process that talks to others in the domain."""

    def __init__(self, domain_id: int, processes: list[DetectorProcess]) -> None:
        self._processes = processes
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node("client", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def until(self, fact: Callable[[], object], what: str) -> None:
        """Handle messages until something holds; fails when a process ends meanwhile or after PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while not fact():
            for detector in self._processes:
                assert detector.process.poll() is None, f"the node ended while waiting for {what}:\n{detector.log}"
            logs = "\n".join(detector.log for detector in self._processes)
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}; the node says:\n{logs}"
            self._executor.spin_once(timeout_sec=0.1)

    def collect(self, message_type: type, topic: str, qos: QoSProfile | int = 10) -> list[Any]:
        """A list that grows with each message; returns when the publisher is there."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        self.until(lambda: self.node.count_publishers(topic), f"a publisher of {topic}")
        return messages

    def publisher(self, message_type: type, topic: str, qos: QoSProfile | int = 10) -> Any:
        """A publisher that somebody already listens to."""
        publisher = self.node.create_publisher(message_type, topic, qos)
        self.until(publisher.get_subscription_count, f"a subscriber of {topic}")
        return publisher

    def call(self, service_type: type, service: str, request: Any) -> Any:
        client = self.node.create_client(service_type, service)
        self.until(client.service_is_ready, f"service {service}")
        future = client.call_async(request)
        self.until(future.done, f"an answer of {service}")
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@contextmanager
def ending_well() -> Iterator[list[DetectorProcess]]:
    """The started nodes; those that still run in the end must end well on SIGINT."""
    started: list[DetectorProcess] = []
    with ExitStack() as cleanup:
        yield started
        for detector in started:
            cleanup.callback(detector.process.kill)
        for detector in started:
            if detector.process.poll() is None:
                assert detector.end() == 0, detector.log


@pytest.fixture
def domain_id() -> Iterator[int]:
    with free_domain() as domain:
        yield domain


@pytest.fixture
def detectors() -> Iterator[list[DetectorProcess]]:
    with ending_well() as started:
        yield started


@pytest.fixture
def start_detector(domain_id: int, detectors: list[DetectorProcess], tmp_path: Path) -> Callable[..., DetectorProcess]:
    """Start detector_node, or another executable, with ROS arguments."""

    def start(*ros_arguments: str, executable: str = "detector_node") -> DetectorProcess:
        log = tmp_path / f"detector{len(detectors)}.log"
        detectors.append(DetectorProcess(domain_id, log, *ros_arguments, executable=executable))
        return detectors[-1]

    return start


@pytest.fixture
def client(domain_id: int, detectors: list[DetectorProcess]) -> Iterator[Client]:
    client = Client(domain_id, detectors)
    yield client
    client.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """A node that several tests use one after the other, and a client in its domain."""

    detector: DetectorProcess
    client: Client


@pytest.fixture(scope="module")
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """A node that lives as long as its module's tests, started with the module's DETECTOR_ARGUMENTS."""
    log = tmp_path_factory.mktemp("graph") / "detector.log"
    with free_domain() as domain, ending_well() as started:
        started.append(DetectorProcess(domain, log, *request.module.DETECTOR_ARGUMENTS))
        client = Client(domain, started)
        yield Graph(detector=started[0], client=client)
        client.close()
