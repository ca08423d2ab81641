"""The process of the strong detector beside a fast one; started by strong_worker.py."""

import signal
from collections import OrderedDict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memwarp_core.models import load_weights
from memwarp_core.models.fast_strong import look
from memwarp_core.streaming.video_detector import Precision, VideoDetector

STREAMS = 16
"""Most streams that are remembered; the one that was silent for longest goes."""


def main(descriptor: str, weights: str, source: str, device: str, precision: Precision, threads: str) -> None:
    """Say None when ready, then answer each (stream, image) with what is lent of it, until nobody asks any more.

    An answer is (features, boxes) as in Late, of numpy arrays; or a text that says what went wrong, and then it ends.

    Args:
        descriptor: of an open socket.
        weights, device, precision: as for load_detector.
        source: StrongConfig.source.
        threads: of torch on a CPU; 0 leaves the choice to torch.
    """
    connection = Connection(int(descriptor))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the terminal sends to everybody
    if int(threads):
        torch.set_num_threads(int(threads))
    try:
        strong = _Strong(load_weights(weights), device, precision)
        states: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        connection.send(None)
        while True:
            stream, image = connection.recv()
            lent, states[stream] = strong.look(image, source, *states.pop(stream, (None, 0)))
            if len(states) > STREAMS:
                states.popitem(last=False)
            connection.send(lent)
    except (EOFError, OSError):
        pass  # nobody is there any more
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


class _Strong(VideoDetector):
    @torch.inference_mode()
    def look(self, image: np.ndarray, source: str, state: Any, seen: int) -> tuple[Any, tuple[Any, int]]:
        """Returns: what is lent, in host memory; and the next `state` and `seen`."""
        with self._autocast():
            features, boxes, state = look(self.network, self._prepare([image]), state, seen, source)
        return (_to_host(features), _to_host(boxes)), (state, seen + 1)


def _to_host(lent: Any) -> Any:
    if isinstance(lent, Tensor):
        lent = lent.cpu()
        return (lent.float() if lent.dtype == torch.bfloat16 else lent).numpy()  # NumPy has no bfloat16
    if isinstance(lent, dict):
        return {key: _to_host(value) for key, value in lent.items()}
    return None if lent is None else type(lent)(_to_host(value) for value in lent)
