"""Detectors as ONNX files: one step of a stream, and the head for what is anticipated."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from memwarp_core.errors import ConfigError
from memwarp_core.export.half import to_half
from memwarp_core.export.step import TensorAnticipation, TensorStep
from memwarp_core.files import write_whole
from memwarp_core.models import Detector
from memwarp_core.models.config import DetectorConfig

STEP_FILE = "step.onnx"
ANTICIPATION_FILE = "anticipation.onnx"
CONFIG_KEY = "memwarp_config"
"""Where both files keep the detector's configuration, as JSON in their metadata."""
PRECISION_KEY = "memwarp_precision"
"""Where they say what the convolutions compute in."""
OPSET = 18
"""GridSample needs 16; torch's exporter writes 18 without a conversion."""
INSTALL = "pip install 'memwarp[export]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedDetector:
    """What was written."""

    step: Path
    anticipation: Path
    config: DetectorConfig
    """With the size that images have to be scaled to as its fixed_size."""


def export_onnx(
    detector: Detector, folder: Path, image_size: tuple[int, int], precision: Literal["fp32", "fp16"] = "fp32"
) -> ExportedDetector:
    """Write the files; TensorStep and TensorAnticipation say what goes into the graphs and comes out.

    Proposals are chosen inside of the graph, by the operator NonMaxSuppression, since the rest of the head runs on
    them. The choice among the final boxes stays outside: its threshold is the user's, and without it every output has
    a fixed size.

    Args:
        detector: as `load_weights` returns it.
        image_size: (height, width) of the camera's images. The graphs are for the one network size that they lead to.
        precision: of the convolutions, see `to_half`; inputs and outputs are in single precision with both.
    Raises: ConfigError if a part cannot be exported, or the packages for it are missing.
    """
    need_packages("onnx", "onnxscript")
    config = detector.config.model_copy(update={"fixed_size": detector.config.network_size(image_size)})
    assert config.fixed_size is not None
    multiple = detector.features.size_multiple
    height, width = (-(-side // multiple) * multiple for side in config.fixed_size)
    step = TensorStep(detector, (height, width)).eval()
    state = step.start()
    with torch.no_grad():
        outputs = dict(zip(step.output_names, step(torch.zeros(1, 3, height, width), *state), strict=True))
    features = {name: value for name, value in outputs.items() if name.startswith("features_")}
    displacement = torch.zeros(1, 2, *features["features_0"].shape[-2:])
    exported = ExportedDetector(step=folder / STEP_FILE, anticipation=folder / ANTICIPATION_FILE, config=config)
    image = {"image": torch.zeros(1, 3, height, width), "frame": state[0]}
    image |= dict(zip(step.state_shapes, state[1:], strict=True))
    metadata = {CONFIG_KEY: json.dumps(config.model_dump(mode="json")), PRECISION_KEY: precision}
    _write(exported.step, step, image, step.output_names, metadata)
    anticipation = TensorAnticipation(step).eval()
    moved = {"displacement": displacement, **features}
    _write(exported.anticipation, anticipation, moved, ["boxes", "scores"], metadata)
    return exported


def need_packages(*names: str) -> None:
    """
    Raises: ConfigError if one of the packages is not installed.
    """
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            raise ConfigError(f"ONNX needs the package {name}, which is not installed ({error}); {INSTALL}") from error


def _write(
    path: Path, module: nn.Module, inputs: dict[str, Tensor], output_names: Sequence[str], metadata: dict[str, str]
) -> None:
    import onnx

    with warnings.catch_warnings():
        # torchvision's own, about how its nms is traced.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(output_names),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata)
    if metadata[PRECISION_KEY] == "fp16":
        to_half(model)
    write_whole(path, lambda temporary: onnx.save(model, temporary))
