import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.streaming import strong_worker
from memwarp_core.streaming.strong_worker import Look, StrongWorker

WAIT_S = 200.0
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strong_worker, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(strong_worker, "_LONGEST_PAUSE_S", 0.05)


@pytest.fixture
def strong() -> Detector:
    torch.manual_seed(0)
    return Detector(DetectorConfig(name="strong", class_names=("ball",), short_side=64)).eval()


@pytest.fixture
def worker(strong: Detector) -> Iterator[StrongWorker]:
    worker = StrongWorker(strong, "features", device="cpu", to=CPU, threads=1, patience_s=WAIT_S)
    yield worker
    worker.close()


def frame(number: int, stream: int = 0, size: tuple[int, ...] = (64, 96, 3)) -> Look:
    image = np.full(size, number % 256, np.uint8)
    return Look(stream=stream, frame=number, stamp_ns=number, image=image, motion=torch.zeros(1))


def wait_for(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def look_at(worker: StrongWorker, number: int) -> None:
    worker.offer(frame(number))
    loan = worker.wait_for(0, number, WAIT_S)
    assert loan is not None and loan.stamp_ns == number


def die(worker: StrongWorker) -> None:
    os.kill(worker._process.pid, signal.SIGKILL)  # type: ignore[union-attr, arg-type]


def hang(worker: StrongWorker) -> None:
    os.kill(worker._process.pid, signal.SIGSTOP)  # type: ignore[union-attr, arg-type]
    worker._patience_s = 0.2
    worker.offer(frame(2))


def hang_while_an_image_is_read(worker: StrongWorker) -> None:
    os.kill(worker._process.pid, signal.SIGSTOP)  # type: ignore[union-attr, arg-type]
    worker._patience_s = 0.2
    worker.offer(frame(2, size=(64, 9600, 3)))  # more than a socket holds


def fail(worker: StrongWorker) -> None:
    worker.offer(frame(2, size=(64, 96, 4)))


@pytest.mark.parametrize(
    ("disturb", "reason"),
    [
        (die, "its process ended"),
        (hang, "no answer to frame 2 within 0.2 s"),
        (hang_while_an_image_is_read, "no answer to frame 2 within 0.2 s"),
        (fail, "Error: "),
    ],
)
@pytest.mark.slow
def test_it_recovers(worker: StrongWorker, disturb: Callable[[StrongWorker], None], reason: str) -> None:
    look_at(worker, 1)
    disturb(worker)
    worker.offer(frame(3, stream=1))  # a process that died at rest is missed when it has something to do
    wait_for(lambda: worker.report.failures > 0)
    assert reason in worker.report.last_failure
    assert worker.newest(0).frame == 1  # type: ignore[union-attr] # what it said before stays
    worker._patience_s = WAIT_S
    look_at(worker, 4)
    assert worker.report.condition == "running"


def test_the_newest_frame_of_each_stream_wins(worker: StrongWorker) -> None:
    wait_for(lambda: worker.report.condition == "running")
    process = worker._process
    os.kill(process.pid, signal.SIGSTOP)  # type: ignore[union-attr, arg-type]
    worker.offer(frame(0))
    wait_for(lambda: not worker._waiting)
    for number in range(1, 5):
        for stream in (0, 1):
            worker.offer(frame(number, stream))
    os.kill(process.pid, signal.SIGCONT)  # type: ignore[union-attr, arg-type]
    for stream in (0, 1):
        assert worker.wait_for(stream, 4, WAIT_S) is not None
    assert worker.report.looked_at == 3


@pytest.mark.slow
def test_closing_does_not_wait_for_a_hanging_process(worker: StrongWorker) -> None:
    look_at(worker, 0)
    process = worker._process
    os.kill(process.pid, signal.SIGSTOP)  # type: ignore[union-attr, arg-type]
    worker.offer(frame(1))
    worker.close()
    assert worker.report.condition == "closed"
    assert worker.newest(0).frame == 0  # type: ignore[union-attr]


NONSENSE = """
import sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
connection.send(None)
connection.recv()
connection.send(7)
connection.recv()
"""


def test_nonsense_is_a_failure_like_others(strong: Detector) -> None:
    program = (sys.executable, "-c", NONSENSE)
    worker = StrongWorker(strong, "features", device="cpu", to=CPU, patience_s=WAIT_S, program=program)
    for number in (1, 2):
        worker.offer(frame(number))
        wait_for(lambda failures=number: worker.report.failures == failures)
        assert worker.report.last_failure.startswith("TypeError: ")
    worker.close()
    assert worker.report.condition == "closed"
