"""Training of a detector from its configuration: stages one after another, resumed where they were left."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from memwarp_core.data.clips import Clip
from memwarp_core.data.data_set import open_data_set
from memwarp_core.errors import ConfigError, MemwarpError
from memwarp_core.evaluation.evaluate import evaluate
from memwarp_core.files import write_bytes_whole
from memwarp_core.models import Detector, build_detector, load_weights, save_weights
from memwarp_core.models.displacement import FlowNet, load_flownet
from memwarp_core.models.fast_strong import FastStrong
from memwarp_core.models.features import ResNetFeatures
from memwarp_core.models.pretrained import load_imagenet
from memwarp_core.streaming import run_detector
from memwarp_core.training.config import StageConfig, TrainingConfig
from memwarp_core.training.module import StageModule


def train(
    config: TrainingConfig,
    data: Path,
    validation: Path | None,
    output: Path,
    *,
    devices: int = 1,
    num_nodes: int = 1,
    workers: int = 0,
) -> Path:
    """Train through all stages and write the weights.

    A run that was stopped or killed goes on from the last finished epoch of the stage it was in when it is started
    again with the same output folder and number of devices; on a CPU the result is the same to the last bit. Each
    stage leaves `<stage>.safetensors`, `<stage>-best.safetensors` if there are validation clips, and a folder with
    checkpoints, validation.jsonl and one CSV log per start.

    Args:
        config: the detector and its stages.
        data: see open_data_set; its class names must be the detector's.
        validation: the same, whose clips are scored now and then; they decide which weights are the best, and nothing
            else.
        output: folder for weights, checkpoints and logs; with several machines, one that all of them see.
        devices: per machine, each with a process of its own. They are started here, unless torchrun or Slurm did it.
        num_nodes: machines.
        workers: processes per device that read sequences.
    Returns: the path of the last stage's weights.
    Raises: DataError for a broken data set. ConfigError if the class names differ, the folder holds a run with
        another configuration, weights to start from do not fit, or processes on several machines were not started by
        torchrun or Slurm. NotFiniteError if a loss becomes NaN or infinite. MemwarpError if one of several processes
        failed.
    """
    if devices * num_nodes > 1 and not (TorchElasticEnvironment.detect() or SLURMEnvironment.detect()):
        if num_nodes > 1:
            raise ConfigError(
                f"training on {num_nodes} machines has to be started on each of them, by srun or by torchrun "
                f"--nnodes {num_nodes} --nproc-per-node {devices}."
            )
        return _launch(config, data, validation, output, devices, workers)
    output.mkdir(parents=True, exist_ok=True)
    _claim(output, config)
    lightning.seed_everything(config.seed, verbose=False)
    validation_clips = None if validation is None else open_data_set(validation, skip_bad=config.skip_bad)
    detector = _first_detector(config)
    weights = output
    for number, stage in enumerate(config.stages):
        weights = output / f"{stage.name}.safetensors"
        if not weights.is_file():
            folder = output / stage.name
            callbacks: list[Callback] = [
                ModelCheckpoint(folder, filename="last", save_top_k=1, enable_version_counter=False),
                TQDMProgressBar(refresh_rate=25),
                LearningRateMonitor(),
            ]
            if validation_clips is not None:
                best = output / f"{stage.name}-best.safetensors"
                callbacks.append(_Score(validation_clips, config.evaluate_every_epochs, folder, best))
            trainer = lightning.Trainer(
                max_epochs=stage.epochs,
                accelerator="auto",
                devices=devices,
                num_nodes=num_nodes,
                strategy=_strategy(stage) if devices * num_nodes > 1 else "auto",
                use_distributed_sampler=False,
                precision=config.precision,
                gradient_clip_val=stage.gradient_norm,
                reload_dataloaders_every_n_epochs=1,
                default_root_dir=folder,
                logger=CSVLogger(folder, name="", flush_logs_every_n_steps=1),
                callbacks=callbacks,
                log_every_n_steps=config.log_every_steps,
                enable_model_summary=False,
            )
            module = StageModule(detector, stage, data, config.seed + number, skip_bad=config.skip_bad, workers=workers)
            last = folder / "last.ckpt"
            trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
            if trainer.is_global_zero:
                save_weights(module.detector, weights)
            trainer.strategy.barrier()
        # From the file, as after a restart, and with every part able to learn again.
        detector = load_weights(weights)
    return weights


def _launch(
    config: TrainingConfig, data: Path, validation: Path | None, output: Path, devices: int, workers: int
) -> Path:
    """Train in one process per device of this machine."""
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(launch, _train_in_process)(config, data, validation, output, devices, workers)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        said: Any = failure.message  # a dict if the process raised, a text if it died
        raise MemwarpError(f"a process failed: {said['message'] if isinstance(said, dict) else said}") from error
    return output / f"{config.stages[-1].name}.safetensors"


@record
def _train_in_process(
    config: TrainingConfig, data: Path, validation: Path | None, output: Path, devices: int, workers: int
) -> None:
    train(config, data, validation, output, devices=devices, workers=workers)


def _strategy(stage: StageConfig) -> str:
    """Only single frames use every weight in every step: evidence may be withheld, a stream may be short."""
    return "ddp" if stage.trains == "frames" else "ddp_find_unused_parameters_true"


def _first_detector(config: TrainingConfig) -> Detector:
    """With random weights, or those that the configuration names."""
    detector = build_detector(config.detector)
    if config.features_weights is not None:
        if not isinstance(detector.features, ResNetFeatures):
            raise ConfigError(f"features_weights are for resnet features; got {config.detector.features.kind}.")
        load_imagenet(detector.features, config.features_weights)
    if config.displacement_weights is not None:
        if not isinstance(detector.displacement, FlowNet):
            raise ConfigError(f"displacement_weights are for flownet; got {config.detector.displacement.kind}.")
        load_flownet(detector.displacement, Path(config.displacement_weights))
    if isinstance(config.start_from, str):
        _take_parts(detector, config.start_from, config.start_parts)
    elif config.start_from is not None:
        for part, source in config.start_from.items():
            _take_parts(detector, source, [part])
    if config.strong_weights is not None:
        assert isinstance(detector, FastStrong) and detector.strong is not None
        _take_weights(detector.strong, load_weights(config.strong_weights), config.strong_weights, "strong")
    return detector


def _take_parts(detector: Detector, source: str, names: Sequence[str] | None) -> None:
    """Copy the parts of a trained detector, all or those named, where both it and this one have weights."""
    parts = dict(load_weights(source).named_children())
    for name, part in detector.named_children():
        both_have_weights = name in parts and parts[name].state_dict() and part.state_dict()
        if both_have_weights and (names is None or name in names):
            _take_weights(part, parts[name], source, name)


def _take_weights(part: nn.Module, trained: nn.Module, source: str, name: str) -> None:
    """Raises: ConfigError naming the first weight that does not fit."""
    wanted, given = part.state_dict(), trained.state_dict()
    for key in sorted(wanted.keys() | given.keys()):
        shapes = [tuple(weights[key].shape) if key in weights else "nothing" for weights in (wanted, given)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"{source}: {name}.{key} must be {shapes[0]} to fit the detector, got {shapes[1]}; give weights of the "
                "same configuration, or name the parts that fit in start_parts."
            )
    part.load_state_dict(given)


class _Score(Callback):
    """Scores the validation clips every few epochs, frame by frame as a stream, and keeps the best weights."""

    def __init__(self, clips: Sequence[Clip], every_epochs: int, folder: Path, best: Path) -> None:
        self._clips = clips
        self._every = every_epochs
        self._file = folder / "validation.jsonl"
        self._best = best

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done % self._every and done != trainer.max_epochs:
            return
        assert isinstance(module, StageModule)
        if trainer.is_global_zero:
            self._score(module.detector, done, trainer)
        trainer.strategy.barrier()

    def _score(self, detector: Detector, epoch: int, trainer: lightning.Trainer) -> None:
        report = evaluate(run_detector(detector), self._clips)
        lines = self._file.read_text().splitlines() if self._file.is_file() else []
        # A run that was killed between scoring and its checkpoint comes here twice.
        former = [line for line in map(json.loads, lines) if line["epoch"] < epoch]
        if all(_map50(report) > _map50(line) for line in former):
            save_weights(detector, self._best)
        text = "".join(json.dumps(line) + "\n" for line in [*former, {"epoch": epoch, **report}])
        write_bytes_whole(self._file, text.encode())
        trainer.print(f"epoch {epoch}: mAP@0.5 on the validation clips: {report['map50']}")


def _map50(report: dict[str, Any]) -> float:
    """Over all frames; without any box to find, every detector is as good."""
    value = report["map50"]["all"]
    return 0.0 if value is None else value


@rank_zero_only
def _claim(output: Path, config: TrainingConfig) -> None:
    """Refuse to mix two configurations in one folder."""
    path = output / "training.json"
    # Not the text: what older versions wrote lacks the fields, with their defaults, that came later.
    if path.is_file() and TrainingConfig.model_validate_json(path.read_bytes()) != config:
        raise ConfigError(f"{output} holds a run with another configuration; choose another folder or remove it.")
    write_bytes_whole(path, config.model_dump_json(indent=1).encode())
