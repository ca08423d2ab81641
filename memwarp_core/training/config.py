"""What can be chosen about a training run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import Config, DetectorConfig
from memwarp_core.models.systems import find_system

Positive = Annotated[int, Field(gt=0)]


class StageConfig(Config):
    """One stage of a training; the next one goes on with its weights."""

    name: str
    trains: Literal["frames", "memory"]
    """frames: the per-frame detector and the displacement, with M_t = F_t.
    memory: everything end to end through the memory, gradients through time, BatchNorm frozen."""
    epochs: Positive
    steps_per_epoch: Positive = 250
    batch_size: Positive = 4
    """Sequences per step."""
    frames: Annotated[int, Field(ge=2)] = 2
    """Frames per sequence."""
    max_temporal_stride: Positive = 1
    """Neighbouring frames of a sequence are 1 to this many frames of the clip apart."""
    crop: tuple[Positive, Positive] | None = None
    """(height, width) in pixels of the window that is cut from every image; whole images by default."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Highest rate of AdamW, after the warm-up; a cosine takes it to a hundredth."""
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_norm: Annotated[float, Field(gt=0)] = 10.0
    """Gradients are scaled down to this norm."""
    evidence_dropping: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of withholding a frame's evidence from the memory, never in a sequence's first frame (section 3.1;
    the paper: 0.8)."""
    displacement_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the error against exact displacement fields."""


def _system_by_name(detector: Any) -> Any:
    return find_system(detector).config if isinstance(detector, str) else detector


class TrainingConfig(Config):
    """A training run: a detector and the stages that it goes through."""

    detector: Annotated[DetectorConfig, BeforeValidator(_system_by_name)]
    """Its configuration, or the name of a system that `memwarp models` lists."""
    features_weights: str | None = None
    """What a ResNet starts from: a name of torchvision's ImageNet weights (IMAGENET1K_V1), or a .safetensors file."""
    displacement_weights: str | None = None
    """What FlowNetS starts from: a .safetensors file with published weights."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    seed: int = 0
    evaluate_every_epochs: Positive = 4
    """How often the validation clips are scored."""


RECIPES = Path(__file__).parent / "recipes"


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped recipe or a user's own. Raises: ConfigError if there is neither."""
    for path in (Path(name_or_path), RECIPES / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise ConfigError(f"recipe {name_or_path!r}: neither a file nor one that ships with memwarp ({known}).")


def read_training_config(path: Path) -> TrainingConfig:
    """Raises: ConfigError naming the file, the key and what was expected."""
    try:
        return TrainingConfig.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
