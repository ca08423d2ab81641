"""Training of a detector from its configuration: stages one after another, resumed where they were left."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from memwarp_core.data.clips import Clip
from memwarp_core.data.coco_vid import read_coco_vid
from memwarp_core.errors import ConfigError
from memwarp_core.evaluation.evaluate import evaluate
from memwarp_core.files import write_bytes_whole
from memwarp_core.models import Detector, build_detector, load_weights, save_weights
from memwarp_core.models.displacement import FlowNet, load_flownet
from memwarp_core.models.features import ResNetFeatures
from memwarp_core.models.pretrained import load_imagenet
from memwarp_core.streaming import run_detector
from memwarp_core.training.config import TrainingConfig
from memwarp_core.training.module import StageModule
from memwarp_core.training.packed_clips import pack_clips


def train(config: TrainingConfig, data: Path, validation: Path | None, output: Path) -> Path:
    """Train through all stages and write the weights.

    A run that was stopped goes on from the last finished epoch of the stage it was in when it is started again with
    the same output folder. Each stage leaves `<stage>.safetensors`, checkpoints and a CSV log in the folder.

    Args:
        config: the detector and its stages.
        data: CocoVID folder with displacement fields, as `memwarp simulate` writes it.
        validation: CocoVID folder whose clips are scored now and then; it does not influence the training.
        output: folder for weights, checkpoints and logs.
    Returns: the path of the last stage's weights.
    Raises: ConfigError if the class names differ, or the folder holds a run with another configuration.
    """
    output.mkdir(parents=True, exist_ok=True)
    _claim(output, config)
    clips, class_names = pack_clips(data)
    if class_names != config.detector.class_names:
        raise ConfigError(
            f"the detector's class_names are {config.detector.class_names}, but {data} has {class_names}."
        )
    lightning.seed_everything(config.seed, verbose=False)
    detector = build_detector(config.detector)
    _start_from_published_weights(detector, config)
    weights = output
    for number, stage in enumerate(config.stages):
        weights = output / f"{stage.name}.safetensors"
        if weights.is_file():
            detector = load_weights(weights)
            continue
        folder = output / stage.name
        checkpoint = ModelCheckpoint(folder, filename="last", save_top_k=1, enable_version_counter=False)
        callbacks: list[Callback] = [checkpoint, TQDMProgressBar(refresh_rate=25), LearningRateMonitor()]
        if validation is not None:
            callbacks.append(_Score(read_coco_vid(validation), config, folder))
        trainer = lightning.Trainer(
            max_epochs=stage.epochs,
            accelerator="auto",
            devices=1,
            gradient_clip_val=stage.gradient_norm,
            reload_dataloaders_every_n_epochs=1,
            logger=CSVLogger(folder, name="", version=""),
            callbacks=callbacks,
            log_every_n_steps=25,
            enable_model_summary=False,
        )
        last = folder / "last.ckpt"
        module = StageModule(detector.train(), stage, clips, config.seed + number)
        trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
        save_weights(detector, weights)
    return weights


def _start_from_published_weights(detector: Detector, config: TrainingConfig) -> None:
    if config.features_weights is not None:
        if not isinstance(detector.features, ResNetFeatures):
            raise ConfigError(f"features_weights are for resnet features; got {config.detector.features.kind}.")
        load_imagenet(detector.features, config.features_weights)
    if config.displacement_weights is not None:
        if not isinstance(detector.displacement, FlowNet):
            raise ConfigError(f"displacement_weights are for flownet; got {config.detector.displacement.kind}.")
        load_flownet(detector.displacement, Path(config.displacement_weights))


class _Score(Callback):
    """Scores the validation clips every few epochs, frame by frame as a stream."""

    def __init__(self, clips: Sequence[Clip], config: TrainingConfig, folder: Path) -> None:
        self._clips = clips
        self._every = config.evaluate_every_epochs
        self._file = folder / "validation.jsonl"

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done % self._every and done != trainer.max_epochs:
            return
        assert isinstance(module, StageModule)
        # A copy, because a video detector is in eval mode and training goes on.
        report = evaluate(run_detector(copy.deepcopy(module.detector)), self._clips)
        with self._file.open("a") as file:
            file.write(json.dumps({"epoch": done, **report}) + "\n")
        trainer.print(f"epoch {done}: mAP@0.5 on the validation clips: {report['map50']}")


def _claim(output: Path, config: TrainingConfig) -> None:
    """Refuse to mix two configurations in one folder."""
    path, text = output / "training.json", config.model_dump_json(indent=1)
    if path.is_file() and path.read_text() != text:
        raise ConfigError(f"{output} holds a run with another configuration; choose another folder or remove it.")
    write_bytes_whole(path, text.encode())
