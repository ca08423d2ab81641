"""How a system of the paper is trained when no recipe says otherwise."""

from memwarp_core.errors import ConfigError
from memwarp_core.models.systems import System, find_system
from memwarp_core.training.config import StageConfig, TrainingConfig


def default_training(name: str) -> TrainingConfig:
    """The training of a system that `memwarp models` lists, on sequences of its row's length and temporal stride.

    Raises: ConfigError for an unknown system, or one that needs more than its configuration says.
    """
    system = find_system(name)
    if system.config.strong is not None:
        raise ConfigError(
            f"{name} learns beside a trained strong detector; write a recipe with `detector: {name}`, strong_weights "
            "and a stage that trains: fast."
        )
    if system.config.features.kind == "resnet":
        return TrainingConfig(detector=system.config, features_weights="IMAGENET1K_V1", stages=_of_the_paper(system))
    return TrainingConfig(detector=system.config, stages=_tiny(system))


def _of_the_paper(system: System) -> tuple[StageConfig, ...]:
    """Section 5: SGD, 2 epochs, 1e-3, a tenth of it after 4/3 epochs; with FGFA's data and its 4 devices.

    An epoch are the 53,639 images of DET and the 57,834 of VID that FGFA's lists name: 27,868 steps of four.
    """
    remembers = system.config.memory.kind != "none"
    return (
        StageConfig(
            name="end-to-end",
            trains="memory" if remembers else "frames",
            epochs=112,  # of 500 steps, since each ends with a checkpoint
            steps_per_epoch=500,
            batch_size=1,
            frames=max(system.frames, 2),
            temporal_stride=system.temporal_stride,
            max_temporal_stride=system.temporal_stride,
            optimizer="sgd",
            learning_rate=1e-3,
            weight_decay=5e-4,
            evidence_dropping=0.8 if system.config.memory.kind in ("memnet", "clocknet") else 0.0,
        ),
    )


def _tiny(system: System) -> tuple[StageConfig, ...]:
    """That of the shipped model: an hour or so on two CPU cores, on simulated clips with displacement fields."""
    per_frame = StageConfig(
        name="frames", trains="frames", epochs=24, steps_per_epoch=250, batch_size=4, frames=2, max_temporal_stride=2
    )
    if system.config.memory.kind == "none":
        return (per_frame,)
    memory = StageConfig(
        name="memory",
        trains="memory",
        epochs=5,
        steps_per_epoch=200,
        batch_size=2,
        frames=system.frames,
        temporal_stride=system.temporal_stride,
        max_temporal_stride=system.temporal_stride,
        learning_rate=4e-4,
        warmup_steps=100,
        evidence_dropping=0.5 if system.config.memory.kind in ("memnet", "clocknet") else 0.0,
    )
    return (per_frame, memory)
