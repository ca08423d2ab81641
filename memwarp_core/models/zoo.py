"""Named models: their configurations, and their weights as safetensors with the configuration inside."""

import json
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from memwarp_core.errors import ConfigError
from memwarp_core.files import write_whole
from memwarp_core.models.config import DetectorConfig
from memwarp_core.models.detector import Detector
from memwarp_core.models.fast_strong import FastStrong
from memwarp_core.models.systems import systems
from memwarp_core.models.torchvision_detectors import is_of_torchvision, load_torchvision

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""The models that ship with the package: <name>.safetensors, each with its model card <name>.md beside it."""
CONFIG_KEY = "memwarp_config"
"""Where a weights file keeps its configuration, as JSON in the safetensors header."""


def available_models() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors"))


def build_detector(config: DetectorConfig) -> Detector:
    """A detector with random weights."""
    return FastStrong(config) if config.strong is not None else Detector(config)


def load_weights(name_or_path: str | Path) -> Detector:
    """Build the detector of a shipped model or of a weights file, in eval mode on the CPU.

    Args:
        name_or_path: one of `available_models()`; a file that `save_weights` wrote; or a detector of torchvision with
            a memory, such as "fasterrcnn_resnet50_fpn+memnet", whose published weights are downloaded.
    Raises: ConfigError if there is no such model or file, or it is not one that `save_weights` wrote.
    """
    if is_of_torchvision(str(name_or_path)) and not Path(name_or_path).is_file():
        return load_torchvision(str(name_or_path))
    path = _find(name_or_path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path}: expected a safetensors file, got one that cannot be read as such ({error}); "
            "pickled checkpoints (.pt, .pth, .ckpt) are never loaded, convert them first."
        ) from error
    if CONFIG_KEY not in metadata:
        raise ConfigError(f"{path}: the file has no {CONFIG_KEY!r} in its header; save it with save_weights().")
    try:
        config = DetectorConfig.model_validate_json(metadata[CONFIG_KEY])
    except ValidationError as error:
        raise ConfigError(f"{path}: the configuration inside does not fit this version: {error}") from error
    detector = build_detector(config)
    try:
        detector.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{path}: the weights do not fit the configuration inside: {error}") from error
    return detector.eval()


def save_weights(detector: Detector, path: Path) -> None:
    """Write weights and configuration to one safetensors file, under a temporary name first."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in detector.state_dict().items()}
    metadata = {CONFIG_KEY: json.dumps(detector.config.model_dump(mode="json"))}
    write_whole(path, lambda temporary: save_file(tensors, temporary, metadata))


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    shipped = WEIGHTS_FOLDER / f"{name_or_path}.safetensors"
    if shipped.is_file():
        return shipped
    if str(name_or_path) in systems():
        raise ConfigError(
            f"model {str(name_or_path)!r}: the configuration is known, but no weights of it ship with memwarp; "
            "expected the path of weights that `memwarp train` made of it."
        )
    if path.is_dir():
        raise ConfigError(
            f"{path}: expected a model's name or the path of a .safetensors file, got a folder; "
            "one that `memwarp export` wrote runs with other backends, onnx or tensorrt."
        )
    raise ConfigError(
        f"model {str(name_or_path)!r}: neither a file nor a model that ships with memwarp "
        f"({', '.join(available_models()) or 'none'}); give one of these names or the path of a .safetensors file."
    )
