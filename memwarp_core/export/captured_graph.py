"""Detectors of PyTorch whose step is recorded once and then replayed: CUDA graphs, and what torch.compile makes."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memwarp_core.errors import ConfigError
from memwarp_core.export.graph_detector import GraphDetector, Graphs
from memwarp_core.export.static_head import CapturableRFCNHead
from memwarp_core.export.step import TensorAnticipation, TensorMovedProposals, TensorStep, check_parts
from memwarp_core.models import Detector
from memwarp_core.models.folding import fold_batch_norms
from memwarp_core.models.heads import RFCNHead
from memwarp_core.models.parts import Levels, keep_weights_in

_SIZES = 8
"""Of images; with more, the graphs of the one that was not used for longest are recorded again."""
_WARM_UP = 3
"""Runs before the recording, in which libraries choose their kernels and torch.compile compiles."""


class CapturedGraph:
    """See Graph. A function that reads the same memory in every run; on a GPU it is recorded as a CUDA graph.

    Its kernels are then started together, and nothing in between waits for the host or the device. One run at a time.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[Tensor]],
        inputs: Mapping[str, Tensor],
        output_names: Sequence[str],
        dtype: torch.dtype,
    ) -> None:
        """
        Args:
            function: of the inputs in their order; it must not wait for the device, as `tensor.item()` does, nor keep
                a tensor elsewhere that it reads.
            inputs: tensors of the right sizes on the device; they are overwritten.
            output_names: of what the function returns.
            dtype: that convolutions compute in.
        """
        self._inputs = dict(inputs)
        self._output_names = tuple(output_names)
        device = next(iter(self._inputs.values())).device

        def run() -> Sequence[Tensor]:
            # A cache of weights in half precision would end with the recording, and the graph would read freed memory.
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False):
                return function(*self._inputs.values())

        self._replay = run if device.type == "cpu" else _recorded(run, device)

    def zeros(self) -> dict[str, Tensor]:
        return {name: torch.zeros_like(held) for name, held in self._inputs.items()}

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, held in self._inputs.items():
            held.copy_(inputs[name])
        return {name: value.clone() for name, value in zip(self._output_names, self._replay(), strict=True)}


class CapturedDetector(GraphDetector):
    """A detector whose step, anticipation and moved proposals are CapturedGraphs, made when a size is first seen."""

    def __init__(self, detector: Detector, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> None:
        """
        Args:
            detector: as `load_weights` returns it; it stays as it is.
            device: that everything runs on.
            dtype: that convolutions compute in.
            compiled: let torch.compile make the kernels, which takes from half a minute to minutes per size.
        Raises: ConfigError for a detector with parts that have no fixed sizes.
        """
        check_parts(detector)
        super().__init__(detector.config, str(dtype).removeprefix("torch."), lru_cache(_SIZES)(self._record))
        self._recorded_moved = lru_cache(_SIZES)(self._record_moved)
        self._step_of = lru_cache(_SIZES)(self._build_step)
        # In a tuple, which keeps it from becoming a part of this one, whose parts hold no weights.
        self._original = (detector,)
        self._device, self._dtype, self._compiled = device, dtype, compiled

    def detect_moved(
        self, memory: Levels, displacement: Tensor, proposals: Tensor, image_size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        """See Detector.detect_moved; all instants in one graph."""
        assert isinstance(self.head, RFCNHead)
        count = self.head.config.proposals
        proposals = F.pad(proposals[:, :count], (0, 0, 0, count - min(count, proposals.shape[1])))
        features = {f"features_{index}": level for index, level in enumerate(memory)}
        graph = self._recorded_moved(image_size, len(displacement))
        outputs = graph.run({"displacement": displacement, "proposals": proposals, **features})
        return [self.head.select(*of_one) for of_one in zip(outputs["boxes"], outputs["scores"], strict=True)]

    def _build_step(self, size: tuple[int, int]) -> tuple[TensorStep, dict[str, Tensor]]:
        """The step, and zeros of all that goes into it and comes out, by name."""
        (detector,) = self._original
        step = TensorStep(detector, size, CapturableRFCNHead)
        fold_batch_norms(step)
        step = step.to(memory_format=torch.channels_last)
        image = torch.zeros(1, 3, *size).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            outputs = step(image, *step.start())
        named = {"image": image, **dict(zip(step.output_names, outputs, strict=True))}
        # The state lies in memory as a step leaves it.
        named |= {name: named[f"next_{name}"] for name in step.input_names[1:]}
        zeros = {name: torch.zeros_like(value, device=self._device) for name, value in named.items()}
        step = step.to(self._device)
        keep_weights_in(step, self._dtype)
        return step, zeros

    def _record(self, size: tuple[int, int]) -> Graphs:
        step, zeros = self._step_of(size)
        return Graphs(
            self._graph(step, {name: zeros[name] for name in step.input_names}, step.output_names),
            self._graph(TensorAnticipation(step), _moved_inputs(zeros, 1), ("boxes", "scores")),
        )

    def _record_moved(self, size: tuple[int, int], instants: int) -> CapturedGraph:
        step, zeros = self._step_of(size)
        displacement, *features = _moved_inputs(zeros, instants).items()
        proposals = ("proposals", zeros["boxes"].expand(instants, -1, -1))
        return self._graph(TensorMovedProposals(step), dict([displacement, proposals, *features]), ("boxes", "scores"))

    def _graph(self, function: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]) -> CapturedGraph:
        # Every graph overwrites inputs of its own.
        own = {name: value.clone() for name, value in inputs.items()}
        made: Any = torch.compile(function, fullgraph=True, dynamic=False) if self._compiled else function
        return CapturedGraph(made, own, output_names, self._dtype)


def _moved_inputs(zeros: Mapping[str, Tensor], instants: int) -> dict[str, Tensor]:
    """The displacement to so many instants, then the features."""
    features = {name: value for name, value in zeros.items() if name.startswith("features_")}
    return {"displacement": zeros["features_0"].new_zeros(instants, 2, *zeros["features_0"].shape[-2:]), **features}


def load_captured(detector: Detector, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> CapturedDetector:
    """
    Raises: ConfigError for CUDA graphs without a GPU; see also CapturedDetector.
    """
    if device.type != "cuda" and not compiled:
        raise ConfigError(f"backend cuda_graph: expected a GPU that torch can use, such as cuda:0, got {device}.")
    return CapturedDetector(detector, device, dtype, compiled=compiled)


def _recorded(run: Callable[[], Sequence[Tensor]], device: torch.device) -> Callable[[], Sequence[Tensor]]:
    """The same function as a CUDA graph, which writes the same memory in every run."""
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as that of a strong detector, may use the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = run()

    def replay() -> Sequence[Tensor]:
        graph.replay()
        return outputs

    return replay
