"""The strong detector of a pair, in a process of its own, which may be slow, hang or die without anybody waiting."""

import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from memwarp_core.models import Detector, save_weights
from memwarp_core.models.fast_strong import Late
from memwarp_core.streaming.strong_process import STREAMS
from memwarp_core.streaming.video_detector import Precision

_PROGRAM = "import sys; from memwarp_core.streaming.strong_process import main; main(*sys.argv[1:])"
_LOGGER = logging.getLogger(__name__)
_START_S = 120.0
"""In which the process has to be ready: it imports torch and loads the model."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
"""Before the process is started again; it doubles with each failure in a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A frame that the strong detector may look at."""

    stream: int
    frame: int
    """Its number in the stream."""
    stamp_ns: int
    image: np.ndarray
    """(H, W, 3), uint8, RGB."""
    motion: Tensor
    """The fast detector's description of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loan:
    """What the strong detector said of a frame."""

    frame: int
    stamp_ns: int
    late: Late


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerReport:
    """How the strong detector is doing."""

    condition: Literal["starting", "running", "failed", "closed"]
    looked_at: int
    """Frames that it has finished."""
    look_ms: float
    """How long the last of them took, moving included; NaN before the first one."""
    failures: int
    """How often its process was given up and started again."""
    last_failure: str
    """Empty if there was none."""


class StrongWorker:
    """Runs the strong detector on the newest frame of each stream, whenever it is free.

    `offer` and `newest` never wait. A process that raises, dies, or does not answer within `patience_s` is killed, and
    started again after a pause that grows with each failure in a row; meanwhile the last loans stay, and age.

    Args:
        strong: the detector.
        source: StrongConfig.source.
        device, precision: of the strong detector; see load_detector.
        to: the device that loans are moved to.
        threads: torch threads of the process on a CPU; 0 leaves the choice to torch.
        patience_s: how long a frame may take.
        program: the process, which is called with the arguments of strong_process.py.
    """

    def __init__(
        self,
        strong: Detector,
        source: Literal["features", "boxes"],
        *,
        device: str = "auto",
        precision: Precision = "auto",
        to: torch.device,
        threads: int = 0,
        patience_s: float = 10.0,
        program: Sequence[str] = (sys.executable, "-c", _PROGRAM),
    ) -> None:
        self._network_size = strong.config.network_size
        self._to = to
        # Of our own, so that neither detector's work waits for what is moved.
        self._copies = None if to.type == "cpu" else torch.Stream(to)
        self._patience_s = patience_s
        self._folder = tempfile.TemporaryDirectory(prefix="memwarp-")
        weights = Path(self._folder.name) / "strong.safetensors"
        save_weights(strong, weights)
        self._program, self._arguments = program, (str(weights), source, device, precision, str(threads))
        # Guards what follows, which the fast path shares with the thread that waits for the process.
        self._changed = threading.Condition()
        self._waiting: OrderedDict[int, Look] = OrderedDict()
        """The newest frame of each stream; the stream that has waited longest is first."""
        self._loans: OrderedDict[int, Loan] = OrderedDict()
        """The newest of each stream; that of the stream looked at last is last."""
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self._report = WorkerReport(
            condition="starting", looked_at=0, look_ms=float("nan"), failures=0, last_failure=""
        )
        self._keeper = threading.Thread(target=self._keep, name="strong detector", daemon=True)
        self._keeper.start()

    @property
    def report(self) -> WorkerReport:
        return self._report

    def offer(self, look: Look) -> None:
        """Hand in a stream's newest frame; it takes the place of one that still waits."""
        with self._changed:
            self._waiting[look.stream] = look
            self._changed.notify_all()

    def newest(self, stream: int) -> Loan | None:
        """What the strong detector has finished last of this stream."""
        with self._changed:
            return self._hand_out(stream)

    def wait_for(self, stream: int, frame: int, timeout_s: float) -> Loan | None:
        """Wait until a frame is done; None if that takes too long."""

        def is_there() -> bool:
            loan = self._loans.get(stream)
            return self._is_closed or (loan is not None and loan.frame == frame)

        with self._changed:
            return self._hand_out(stream) if self._changed.wait_for(is_there, timeout_s) else None

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            if self._process is not None:
                self._process.kill()
        self._keeper.join()
        self._folder.cleanup()

    def _keep(self) -> None:
        """Start the process again and again, until the worker is closed."""
        pause_s = _FIRST_PAUSE_S
        while not self._is_closed:
            looked_at = self._report.looked_at
            try:
                self._serve()
            except Exception as error:  # whatever it was, or nobody would start the process again
                if self._is_closed:
                    break
                pause_s = _FIRST_PAUSE_S if self._report.looked_at > looked_at else min(2 * pause_s, _LONGEST_PAUSE_S)
                reason = _reason(error)
                self._say(condition="failed", failures=self._report.failures + 1, last_failure=reason)
                _LOGGER.warning("the strong detector failed and starts again in %.1f s: %s", pause_s, reason)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, pause_s)
        self._say(condition="closed")

    def _serve(self) -> None:
        """Start the process, and hand it frame after frame."""
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [*self._program, str(theirs.fileno()), *self._arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        theirs.close()
        with self._changed:
            self._process = process
            if self._is_closed:
                process.kill()
        connection = Connection(ours.detach())
        try:
            with _patience(process, _START_S, "to its start"):
                _answer(connection)
            self._say(condition="running")
            while (frame := self._next()) is not None:
                began_s = time.monotonic()
                height, width = self._network_size((frame.image.shape[0], frame.image.shape[1]))
                image = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
                with _patience(process, self._patience_s, f"to frame {frame.frame}"):
                    connection.send((frame.stream, image))
                    answer = _answer(connection)
                features, boxes = self._move(answer)
                late = Late(frame.motion, features, boxes)
                with self._changed:
                    self._loans.pop(frame.stream, None)
                    self._loans[frame.stream] = Loan(frame=frame.frame, stamp_ns=frame.stamp_ns, late=late)
                    while len(self._loans) > STREAMS:
                        self._loans.popitem(last=False)
                    self._changed.notify_all()
                self._say(looked_at=self._report.looked_at + 1, look_ms=1e3 * (time.monotonic() - began_s))
        finally:
            with self._changed:
                self._process = None
            process.kill()
            process.wait()
            connection.close()

    def _next(self) -> Look | None:
        """Wait for a frame to look at; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return None if self._is_closed else self._waiting.popitem(last=False)[1]

    def _hand_out(self, stream: int) -> Loan | None:
        """A stream's newest loan; its memory is kept until the kernels that the caller starts have read it."""
        loan = self._loans.get(stream)
        if loan is not None and self._copies is not None:
            in_boxes = [tensor for of_image in loan.late.boxes or () for tensor in of_image.values()]
            for tensor in (*(loan.late.features or ()), *in_boxes):
                tensor.record_stream(torch.accelerator.current_stream(self._to))
        return loan

    def _move(self, answer: Any) -> Any:
        """To the fast detector's device; nobody but this thread waits for it."""
        if isinstance(answer, np.ndarray):
            moved = torch.from_numpy(answer)
            if self._copies is not None:
                with self._copies:
                    moved = moved.pin_memory().to(self._to, non_blocking=True)
                self._copies.synchronize()
            return moved
        if isinstance(answer, dict):
            return {key: self._move(value) for key, value in answer.items()}
        return None if answer is None else type(answer)(self._move(value) for value in answer)

    def _say(self, **changed: Any) -> None:
        self._report = replace(self._report, **changed)


def _reason(error: Exception) -> str:
    """What made the strong detector fail, for a report."""
    if isinstance(error, (EOFError, ConnectionError)):
        return "its process ended"
    return str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"


@contextmanager
def _patience(process: subprocess.Popen[bytes], patience_s: float, to: str) -> Iterator[None]:
    """Kill a process that takes too long, which ends whatever is waited for: also for the rest of an image to be read,
    or of an answer to be written.

    Raises: RuntimeError instead of the EOFError or OSError that follows.
    """
    is_over = threading.Event()

    def give_up() -> None:
        is_over.set()
        process.kill()

    kill_later = threading.Timer(patience_s, give_up)
    kill_later.start()
    try:
        yield
    except (EOFError, OSError):
        if not is_over.is_set():
            raise
        raise RuntimeError(f"no answer {to} within {patience_s:g} s") from None
    finally:
        kill_later.cancel()
        kill_later.join()


def _answer(connection: Connection) -> Any:
    """Raises: RuntimeError if it is a complaint; EOFError if the process has ended."""
    answer = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer
