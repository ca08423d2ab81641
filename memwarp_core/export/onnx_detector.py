"""Exported detectors behind the same door as those of PyTorch, run by onnxruntime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from memwarp_core.errors import ConfigError
from memwarp_core.export.onnx_file import ANTICIPATION_FILE, CONFIG_KEY, STEP_FILE, need_packages
from memwarp_core.models import Detector
from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.detector import Step
from memwarp_core.models.heads import RFCNHead
from memwarp_core.models.parts import Evidence, Levels

_State = dict[str, Tensor]


class OnnxDetector(Detector):
    """A detector whose step is an ONNX graph, for a VideoDetector on the CPU; see onnx_file.py.

    Its parts are there for what they know of strides and sizes; they hold no weights.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: that `export_onnx` wrote.
        Raises: ConfigError if there are no such files in it, or onnxruntime is missing.
        """
        need_packages("onnxruntime")
        step, anticipation = _session(folder / STEP_FILE), _session(folder / ANTICIPATION_FILE)
        with torch.device("meta"):
            super().__init__(_config(step, folder / STEP_FILE))
        self._step, self._anticipation = step, anticipation

    def _apply(self, fn: Any, recurse: bool = True) -> "OnnxDetector":
        """There are no weights to be moved."""
        return self

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
            found.append(self._select(_run(self._anticipation, {"displacement": still, **inputs})))
        return found

    def _step_one(self, state: _State | None, image: Tensor) -> Step:
        is_first = state is None
        outputs = _run(self._step, {"image": image, **(_zeros(self._step) if state is None else state)})
        features = tuple(value for name, value in outputs.items() if name.startswith("features_"))
        state = {name.removeprefix("next_"): value for name, value in outputs.items() if name.startswith("next_")}
        return Step(features, state, None if is_first else outputs.get("displacement"), found=[self._select(outputs)])

    def _select(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(self.head, RFCNHead)
        return self.head.select(outputs["boxes"][0], outputs["scores"][0])


def _session(path: Path) -> Any:
    import onnxruntime

    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected a folder that `memwarp export MODEL --output FOLDER` wrote.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each way to fail, and no common one
        raise ConfigError(f"{path}: onnxruntime cannot read it ({error}); run `memwarp export` again.") from error


def _config(session: Any, path: Path) -> DetectorConfig:
    metadata = session.get_modelmeta().custom_metadata_map
    if CONFIG_KEY not in metadata:
        raise ConfigError(f"{path}: the file has no {CONFIG_KEY!r} in its metadata; write it with `memwarp export`.")
    try:
        return DetectorConfig.model_validate_json(metadata[CONFIG_KEY])
    except ValidationError as error:
        raise ConfigError(f"{path}: the configuration inside does not fit this version: {error}") from error


def _zeros(session: Any) -> _State:
    """The state of a stream of which no frame was seen."""
    dtypes = {"tensor(int64)": torch.int64, "tensor(float)": torch.float32}
    return {one.name: torch.zeros(one.shape, dtype=dtypes[one.type]) for one in session.get_inputs()[1:]}


def _run(session: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
    names = [one.name for one in session.get_outputs()]
    return {name: torch.from_numpy(value) for name, value in zip(names, session.run(names, arrays), strict=True)}
