"""Detectors that are graphs behind the same door as those of PyTorch, whatever runs their graphs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import ValidationError
from torch import Tensor

from memwarp_core.errors import ConfigError
from memwarp_core.export.onnx_file import CONFIG_KEY, PRECISION_KEY
from memwarp_core.models import Detector
from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.detector import Step
from memwarp_core.models.heads import RFCNHead
from memwarp_core.models.parts import Evidence, Levels, repeat, warp_levels

_State = dict[str, Tensor]


class Graph(Protocol):
    """A function of tensors of fixed sizes, ready to run."""

    def zeros(self) -> dict[str, Tensor]:
        """A tensor of zeros for each input."""

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs, by name, in tensors of their own."""


@dataclass(frozen=True, slots=True)
class Graphs:
    """What runs a detector on images of one size."""

    step: Graph
    """TensorStep."""
    anticipation: Graph
    """TensorAnticipation."""


class GraphDetector(Detector):
    """A detector whose step is a graph, for a VideoDetector; TensorStep says what goes into it and comes out.

    Its parts are there for what they know of strides and sizes; they hold no weights.
    """

    def __init__(self, config: DetectorConfig, precision: str, graphs: Callable[[tuple[int, int]], Graphs]) -> None:
        """
        Args:
            config, precision: of the graphs; see `read_config` and `read_precision`.
            graphs: those for images of (height, width) in the network.
        """
        with torch.device("meta"):
            super().__init__(config)
        self.precision = precision
        self._graphs = graphs

    def _apply(self, fn: Any, recurse: bool = True) -> "GraphDetector":
        """There are no weights to be moved."""
        return self

    def for_inference(self) -> "GraphDetector":
        """See Detector.for_inference; that is what the graphs are."""
        return self.eval()

    def observe(self, images: Tensor, *, withhold: bool = False) -> Evidence:
        """Returns: the images themselves, for the graph of the step."""
        return Evidence(features=None, motion=images)

    def step_streams(self, states: Sequence[_State | None], evidence: Sequence[Evidence | None]) -> list[Step]:
        """See Detector.step_streams; one after the other."""
        steps = []
        for state, new in zip(states, evidence, strict=True):
            assert new is not None and new.motion is not None
            steps.append(self._step_one(state, new.motion))
        return steps

    def detect(self, memory: Levels, image_size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """See Detector.detect; one entry of the batch after the other."""
        found = []
        for entry in range(len(memory[0])):
            inputs = {f"features_{index}": level[entry : entry + 1] for index, level in enumerate(memory)}
            still = memory[0].new_zeros(1, 2, *memory[0].shape[-2:])
            found.append(self._select(self._graphs(image_size).anticipation.run({"displacement": still, **inputs})))
        return found

    def detect_moved(
        self, memory: Levels, displacement: Tensor, proposals: Tensor, image_size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        """See Detector.detect_moved; these graphs have proposals of their own only."""
        return self.detect(warp_levels(repeat(memory, len(displacement)), displacement), image_size)

    def _step_one(self, state: _State | None, image: Tensor) -> Step:
        is_first = state is None
        step = self._graphs((image.shape[-2], image.shape[-1])).step
        outputs = step.run({**(step.zeros() if state is None else state), "image": image})
        features = tuple(value for name, value in outputs.items() if name.startswith("features_"))
        state = {name.removeprefix("next_"): value for name, value in outputs.items() if name.startswith("next_")}
        return Step(features, state, None if is_first else outputs.get("displacement"), found=[self._select(outputs)])

    def _select(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(self.head, RFCNHead)
        return self.head.select(outputs["boxes"][0], outputs["scores"][0])


def need_file(path: Path) -> None:
    """
    Raises: ConfigError if there is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected a folder that `memwarp export MODEL --output FOLDER` wrote.")


def read_config(metadata: Mapping[str, str], path: Path) -> DetectorConfig:
    """The configuration in an exported file's metadata.

    Raises: ConfigError if there is none, or it does not fit this version.
    """
    if CONFIG_KEY not in metadata:
        raise ConfigError(f"{path}: the file has no {CONFIG_KEY!r} in its metadata; write it with `memwarp export`.")
    try:
        return DetectorConfig.model_validate_json(metadata[CONFIG_KEY])
    except ValidationError as error:
        raise ConfigError(f"{path}: the configuration inside does not fit this version: {error}") from error


def read_precision(metadata: Mapping[str, str], wanted: str, path: Path) -> str:
    """What an exported file's convolutions compute in: "fp32" or "fp16".

    Args:
        wanted: one of these, or "auto" for what there is.
    Raises: ConfigError if the file has another one.
    """
    precision = metadata.get(PRECISION_KEY, "fp32")
    if wanted not in ("auto", precision):
        raise ConfigError(
            f"{path}: expected precision auto or {precision}, in which it was exported, got {wanted}; "
            "`memwarp export --precision` writes others."
        )
    return precision
