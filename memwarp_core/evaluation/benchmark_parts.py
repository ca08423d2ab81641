"""Where the time of a frame goes: parts of a detector, the work in them, and what the device could do at best."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from memwarp_core.export.graph_detector import GraphDetector
from memwarp_core.models.heads import RFCNHead
from memwarp_core.streaming.video_detector import VideoDetector

_Reading = np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Roof:
    """What a device does at best, measured with the operations that come closest to it."""

    flops_per_s: float
    """Of a product of two float32 matrices of 1024 x 1024."""
    bytes_per_s: float
    """Read and written by a copy of 64 MiB."""

    def least_ms(self, flops: float, bytes_moved: float) -> float:
        """What the work takes if only the slower of computing and moving it counts."""
        return 1e3 * max(flops / self.flops_per_s, bytes_moved / self.bytes_per_s)


class PartMeter:
    """Attributes what happens in a detector's frame to its parts; without a measurement under way it does nothing.

    A part's own share is counted: suppression takes place inside of the head, and is taken off it.
    """

    def __init__(self, detector: VideoDetector) -> None:
        self._device = detector.device
        self._read: Callable[[], _Reading] | None = None
        self._inner: list[_Reading] = []
        self._spent: dict[str, _Reading] = {}
        network = detector.network
        self._watch("transfer", detector, "_prepare")
        self._is_graph = isinstance(network, GraphDetector)
        if self._is_graph:  # whose parts run together
            self._watch("graph", network, "step_streams")
            self._watch("NMS", network.head, "select")
            return
        self._watch("features", network.features, "early", "levels", "finish")
        if network.displacement is not None:
            self._watch("displacement", network.displacement, "describe", "forward")
        self._watch("warp + aggregation", network.memory, "step")
        self._watch("head", network.head, "detect")
        if isinstance(network.head, RFCNHead):
            self._watch("NMS", network.head, "choose_proposals", "select")

    @contextmanager
    def milliseconds(self) -> Iterator[dict[str, _Reading]]:
        """Fills the dictionary with (1,) per part; on a GPU every border between parts waits for the device."""

        def read() -> _Reading:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            return np.array([1e3 * time.perf_counter()])

        with self._measured(read) as spent:
            yield spent

    @contextmanager
    def work(self) -> Iterator[dict[str, _Reading]]:
        """Fills the dictionary with (2,) per part: floating point operations, and bytes read and written.

        Operations are those of convolutions and matrix products, an addition and a multiplication counting two; bytes
        are those of every operator's inputs and outputs, as if nothing stayed in a cache. Of a graph, whose operators
        do not run one by one, neither is known.
        """
        if self._is_graph:
            yield {}
            return
        flops, traffic = FlopCounterMode(display=False), _Traffic()

        def read() -> _Reading:
            return np.array([flops.get_total_flops(), traffic.bytes], float)

        with flops, traffic, self._measured(read) as spent:
            yield spent

    @contextmanager
    def _measured(self, read: Callable[[], _Reading]) -> Iterator[dict[str, _Reading]]:
        self._read, self._spent = read, {}
        try:
            yield self._spent
        finally:
            self._read = None

    def _watch(self, part: str, owner: Any, *methods: str) -> None:
        for method in methods:
            setattr(owner, method, self._metered(part, getattr(owner, method)))

    def _metered(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._read is None:
                return function(*args, **kwargs)
            before = self._read()
            self._inner.append(np.zeros_like(before))
            result = function(*args, **kwargs)
            all_of_it = self._read() - before
            own = all_of_it - self._inner.pop()
            self._spent[part] = self._spent.get(part, 0) + own
            if self._inner:
                self._inner[-1] += all_of_it
            return result

        return run


class _Traffic(TorchDispatchMode):
    """Counts the bytes of all operators' tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def measure_roof(device: torch.device, repetitions: int = 7) -> Roof:
    """The best of some repetitions, since nothing makes a device faster than it is."""
    a, b = torch.rand(2, 1024, 1024, device=device)
    source = torch.rand(16 * 2**20, device=device)
    target = torch.empty_like(source)
    product_s = _best_s(lambda: torch.mm(a, b), device, repetitions)
    copy_s = _best_s(lambda: target.copy_(source), device, repetitions)
    return Roof(flops_per_s=2 * 1024**3 / product_s, bytes_per_s=2 * source.numel() * source.element_size() / copy_s)


def _best_s(run: Callable[[], object], device: torch.device, repetitions: int) -> float:
    times = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
