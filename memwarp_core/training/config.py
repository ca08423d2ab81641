"""What can be chosen about a training run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import Config, DetectorConfig
from memwarp_core.models.systems import find_system

Positive = Annotated[int, Field(gt=0)]
Part = Literal["features", "displacement", "memory", "aggregate", "head"]

_LEARNS: dict[str, tuple[Part, ...]] = {
    "displacement": ("features", "displacement"),
    "frames": ("features", "displacement", "head"),
    "memory": ("features", "displacement", "memory", "head"),
    "fast": ("features", "displacement", "aggregate", "head"),
}


class StageConfig(Config):
    """One stage of a training; the next one goes on with its weights."""

    name: str
    trains: Literal["displacement", "frames", "memory", "fast"]
    """displacement: the displacement alone, on exact fields, and the early features where it reads them.
    frames: the per-frame detector, and the displacement where there are exact fields, with M_t = F_t.
    memory: everything end to end through the memory, gradients through time, BatchNorm frozen.
    fast: the fast detector beside a fixed strong one (section 4.2), on sequences longer than the lag; BatchNorm as for
        memory."""
    frozen: tuple[Part, ...] = ()
    """Parts that do not learn although they would by `trains`."""
    epochs: Positive
    steps_per_epoch: Positive = 250
    """Every epoch ends with a checkpoint, so this is also the most that an interrupted run loses."""
    batch_size: Positive = 4
    """Sequences per step and device."""
    frames: Annotated[int, Field(ge=2)] = 2
    """Frames per sequence."""
    max_temporal_stride: Positive = 1
    """Neighbouring frames of a sequence are `temporal_stride` to this many frames of the clip apart, drawn per
    sequence."""
    temporal_stride: Positive = 1
    """The least of them; by itself a fixed stride, as of the paper's MemNet-6-strd-4."""
    crop: tuple[Positive, Positive] | None = None
    """(height, width) in pixels of the window that is cut from every image; whole images by default."""
    scales: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    """(smallest, largest) factor by which a sequence is scaled before the window is cut."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw: AdamW, whose rate a cosine takes to a hundredth. sgd: momentum 0.9, a tenth of the rate after two thirds
    of the stage; the paper's, with a learning rate of 1e-3 and a weight decay of 5e-4."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """The highest, after the warm-up."""
    displacement_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    """The displacement learns at the learning rate times this."""
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_norm: Annotated[float, Field(gt=0)] = 10.0
    """Gradients are scaled down to this norm."""
    evidence_dropping: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of withholding a frame's evidence from the memory, never in a sequence's first frame (section 3.1;
    the paper: 0.8)."""
    displacement_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the error against exact displacement fields."""

    @property
    def learns(self) -> tuple[Part, ...]:
        """Parts of the detector whose weights this stage changes."""
        return tuple(part for part in _LEARNS[self.trains] if part not in self.frozen)

    @model_validator(mode="after")
    def _choices_fit_together(self) -> "StageConfig":
        if not self.learns:
            raise ValueError(f"stage {self.name}: everything that {self.trains} would train is frozen")
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"stage {self.name}: scales must be the smallest and the largest, got {self.scales}")
        if self.evidence_dropping and self.trains != "memory":
            raise ValueError(f"stage {self.name}: only trains: memory can drop evidence, got {self.trains}")
        return self


def _from_system(detector: Any) -> Any:
    if isinstance(detector, str):
        return find_system(detector).config
    if isinstance(detector, dict) and "like" in detector:
        changed = {key: value for key, value in detector.items() if key != "like"}
        system = find_system(detector["like"]).config.model_dump()
        if system["strong"] and isinstance(changed.get("strong"), dict):
            changed["strong"] = system["strong"] | changed["strong"]
        return system | changed
    return detector


class TrainingConfig(Config):
    """A training run: a detector and the stages that it goes through."""

    detector: Annotated[DetectorConfig, BeforeValidator(_from_system)]
    """Its configuration; the name of a system that `memwarp models` lists; or such a name as `like`, and what differs
    from it; of `strong`, what differs there."""
    features_weights: str | None = None
    """What a ResNet starts from: a name of torchvision's ImageNet weights (IMAGENET1K_V1), or a .safetensors file."""
    displacement_weights: str | None = None
    """What FlowNetS starts from: a .safetensors file with published weights."""
    start_from: str | dict[Part, str] | None = None
    """Weights of a former run, or a shipped model's name: the first stage goes on with their parts. Or such weights for
    each of some parts."""
    start_parts: tuple[Part, ...] | None = None
    """Which parts of the one; all that it has by default. Without "head", for instance, the classes can be others."""
    strong_weights: str | None = None
    """Weights of the strong detector beside a fast one: a file, or a shipped model's name."""
    skip_bad: bool = False
    """Leave out and count what is broken in the data sets; by default, the first such thing is an error."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    seed: int = 0
    precision: Literal[32, "bf16-mixed", "16-mixed"] = 32
    """Bits of the arithmetic; weights always have 32."""
    evaluate_every_epochs: Positive = 4
    """How often the validation clips are scored."""
    log_every_steps: Positive = 25
    """How often the losses are logged."""

    @model_validator(mode="after")
    def _choices_fit_together(self) -> "TrainingConfig":
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages must have different names, got {', '.join(names)}")
        if self.start_parts is not None and not isinstance(self.start_from, str):
            missing = "which is missing" if self.start_from is None else "which names the parts itself"
            raise ValueError(f"start_parts says what to take from start_from, {missing}")
        strong = self.detector.strong
        if self.strong_weights is not None and strong is None:
            raise ValueError(f"strong_weights are for a detector with `strong`; {self.detector.name} has none")
        for stage in self.stages:
            if stage.trains == "displacement" and self.detector.displacement.kind in ("none", "still"):
                raise ValueError(
                    f"stage {stage.name} trains a displacement; that of {self.detector.name} is "
                    f"{self.detector.displacement.kind}"
                )
            if stage.trains == "fast" and (strong is None or (self.strong_weights or self.start_from) is None):
                raise ValueError(f"stage {stage.name} needs a detector with `strong`, and strong_weights")
            if stage.trains == "fast" and strong is not None and stage.frames <= strong.lag:
                raise ValueError(f"stage {stage.name} needs frames above the lag of {strong.lag}, got {stage.frames}")
            if stage.trains == "memory" and strong is not None:
                raise ValueError(f"stage {stage.name}: beside a strong detector, train `fast` instead of `memory`")
        return self


RECIPES = Path(__file__).parent / "recipes"


def shipped_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped recipe or a user's own. Raises: ConfigError if there is neither."""
    for path in (Path(name_or_path), RECIPES / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    raise ConfigError(
        f"recipe {name_or_path!r}: neither a file nor one that ships with memwarp ({', '.join(shipped_recipes())})."
    )


def read_training_config(path: Path) -> TrainingConfig:
    """Raises: ConfigError naming the file, the key and what was expected."""
    try:
        return TrainingConfig.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
