"""One stage of training as a Lightning module."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from memwarp_core.errors import ConfigError, MemwarpError
from memwarp_core.files import write_whole
from memwarp_core.geometry import resize_displacement
from memwarp_core.models import Detector
from memwarp_core.models.parts import Levels
from memwarp_core.training.config import StageConfig
from memwarp_core.training.packed_clips import STRIDE, PackedClip, pack_clips
from memwarp_core.training.sequences import SequenceBatch, Sequences, collate, photometric

OBJECT_WEIGHT = 5.0
"""A displacement inside an object counts this much more than one of the background, which is most of the image."""


class NotFiniteError(MemwarpError, ArithmeticError):
    """A loss became NaN or infinite."""


class StageModule(lightning.LightningModule):
    """Trains a detector's parts on sequences. Everything random depends on the seed, the step and the rank alone."""

    def __init__(
        self,
        detector: Detector,
        stage: StageConfig,
        data: Path,
        seed: int,
        *,
        skip_bad: bool = False,
        workers: int = 0,
    ) -> None:
        """
        Args:
            data: see pack_clips; with several machines, a folder that all of them see.
            seed: of this stage.
            skip_bad: see pack_clips.
            workers: processes per device that read sequences; the result is the same with any number.
        """
        super().__init__()
        self.prepare_data_per_node = False
        self.detector = detector
        self._stage = stage
        self._data = data
        self._stage_seed = seed
        self._skip_bad = skip_bad
        self._workers = workers
        for name, part in detector.named_children():
            if name not in stage.learns:
                part.requires_grad_(False)

    def prepare_data(self) -> None:
        """Called in one process, while the others wait."""
        self._pack()

    def setup(self, stage: str) -> None:
        """Raises: ConfigError if the clips have other classes, or lack the displacements that this stage learns."""
        self._clips, class_names = self._pack()
        if class_names != self.detector.config.class_names:
            raise ConfigError(
                f"the detector's class_names are {self.detector.config.class_names}, but {self._data} has "
                f"{class_names}."
            )
        self._has_fields = _has_fields(self._clips)
        if self._stage.trains == "displacement" and not self._has_fields:
            raise ConfigError(
                f"stage {self._stage.name} learns from exact displacement fields, but {self._data} has none; leave "
                "this stage out, or make the data set with `memwarp simulate --displacement`."
            )
        if self._stage.trains == "frames" and not self._has_fields and self.detector.displacement is not None:
            self.detector.displacement.requires_grad_(False)

    def _pack(self) -> tuple[list[PackedClip], tuple[str, ...]]:
        """The clips, in the size in which a stream enters the detector."""
        config = self.detector.config
        return pack_clips(self._data, short_side=config.short_side, long_side=config.long_side, skip_bad=self._skip_bad)

    def train_dataloader(self) -> DataLoader[SequenceBatch]:
        """Batches of one epoch; sequence n of the stage is drawn by (seed, n), and each rank takes its share."""
        stage, ranks = self._stage, self.trainer.world_size
        per_step = stage.batch_size * ranks
        sequences = Sequences(
            self._clips,
            frames=stage.frames,
            # Not by the epoch: Lightning still counts the one before when it asks for this after a restart.
            first=self.global_step * per_step,
            length=stage.steps_per_epoch * per_step,
            seed=self._stage_seed,
            crop=stage.crop,
            size_multiple=self.detector.features.size_multiple,
            max_temporal_stride=stage.max_temporal_stride,
            temporal_stride=stage.temporal_stride,
            scales=stage.scales,
        )
        firsts = range(self.global_rank * stage.batch_size, len(sequences), per_step)
        batches = [list(range(first, first + stage.batch_size)) for first in firsts]
        return DataLoader(sequences, batch_sampler=batches, collate_fn=collate, num_workers=self._workers)

    def on_train_epoch_start(self) -> None:
        self.detector.train()
        for name, part in self.detector.named_children():
            for module in part.modules():
                # Frames of one sequence are too alike for statistics.
                if isinstance(module, nn.BatchNorm2d) and (
                    self._stage.trains in ("memory", "fast") or name not in self._stage.learns
                ):
                    module.eval()

    def training_step(self, batch: SequenceBatch, index: int) -> Tensor:
        # The global generator, because torchvision's heads draw from it as well.
        generator = torch.manual_seed(self._stage_seed * 1_000_003 + self.global_step + (self.global_rank << 40))
        images = photometric(batch.images.float(), generator).flatten(0, 1)
        losses = self._losses(images.contiguous(memory_format=torch.channels_last), batch, generator)
        total = torch.stack([value.float() for value in losses.values()]).sum()
        if not torch.isfinite(total):
            raise NotFiniteError(self._save_batch(batch, losses))
        self.log_dict({name: value.detach() for name, value in losses.items()})
        self.log("loss", total.detach(), prog_bar=True)
        return total

    def _losses(self, images: Tensor, batch: SequenceBatch, generator: torch.Generator) -> dict[str, Tensor]:
        frames = batch.images.shape[1]
        if self._stage.trains == "displacement":
            fields = self._compare_neighbours(images, self.detector.features.early(images), frames)
            return {"displacement": self._displacement_loss(fields, batch)}
        memory: Levels
        displacement = None
        if self._stage.trains == "frames":
            early = self.detector.features.early(images)
            memory = self.detector.features.levels(early)
            if self.detector.displacement is not None and self._has_fields:
                displacement = self._compare_neighbours(images, early, frames)
        else:
            withheld = torch.rand(frames, generator=generator) < self._stage.evidence_dropping
            in_time = [
                replace(new, features=None) if t > 0 and withheld[t] else new
                for t, new in enumerate(self.detector.observe(images).in_time(frames))
            ]
            memory, displacement = self.detector.remember(in_time)
        targets = [{"boxes": b, "labels": c} for b, c in zip(batch.boxes, batch.labels, strict=True)]
        size = (images.shape[-2], images.shape[-1])
        losses = self.detector.head.losses(self.detector.features.finish(memory), targets, size)
        if displacement is not None and self._has_fields:
            losses["displacement"] = self._displacement_loss(displacement, batch)
        return losses

    def _compare_neighbours(self, images: Tensor, early: Tensor, frames: int) -> Tensor:
        """(B, T - 1, 2, H, W), from each frame of B sequences to the frame before it."""
        assert self.detector.displacement is not None
        motion = self.detector.displacement.describe(images, early).unflatten(0, (-1, frames))
        fields = self.detector.displacement(motion[:, 1:].flatten(0, 1), motion[:, :-1].flatten(0, 1))
        return fields[:, :2].unflatten(0, (-1, frames - 1))

    def _displacement_loss(self, displacement: Tensor, batch: SequenceBatch) -> Tensor:
        return self._stage.displacement_weight * _field_loss(displacement, batch)

    def _save_batch(self, batch: SequenceBatch, losses: Mapping[str, Tensor]) -> str:
        """Keep a batch that led to a loss that is not finite. Returns: what the user should know."""
        names = [name for name, value in losses.items() if not torch.isfinite(value)]
        path = Path(self.trainer.default_root_dir, f"not-finite-{self.global_step}-{self.global_rank}.safetensors")
        tensors = {"images": batch.images, "displacement": batch.displacement, "valid": batch.valid}
        for index, (boxes, labels) in enumerate(zip(batch.boxes, batch.labels, strict=True)):
            tensors |= {f"boxes.{index}": boxes, f"labels.{index}": labels}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        header = {"losses": json.dumps({name: str(value.item()) for name, value in losses.items()})}
        write_whole(path, lambda temporary: save_file(tensors, temporary, header))
        return (
            f"stage {self._stage.name}, step {self.global_step}: expected finite losses, got "
            f"{', '.join(f'{name} = {losses[name].item()}' for name in names)}. The batch is in {path}; look at it, "
            "and try a lower learning_rate or precision: 32."
        )

    def configure_optimizers(self) -> Any:
        stage = self._stage
        groups = self._parameter_groups()
        optimizer: torch.optim.Optimizer
        if stage.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, stage.learning_rate, momentum=0.9, weight_decay=stage.weight_decay)
        else:
            optimizer = torch.optim.AdamW(groups, stage.learning_rate, weight_decay=stage.weight_decay, foreach=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(stage, step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        displacement = list(self.detector.displacement.parameters()) if self.detector.displacement is not None else []
        apart = set(displacement) if self._stage.displacement_rate_factor != 1 else set()
        rest = [p for p in self.detector.parameters() if p.requires_grad and p not in apart]
        slower = [p for p in displacement if p.requires_grad and p in apart]
        rate = self._stage.learning_rate * self._stage.displacement_rate_factor
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": slower, "lr": rate}]
        return [group for group in groups if group["params"]]


def rate_factor(stage: StageConfig, step: int) -> float:
    """What the learning rate is multiplied with in a step: a linear warm-up, then a cosine or a step down."""
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    steps = stage.epochs * stage.steps_per_epoch
    if stage.optimizer == "sgd":
        return 1.0 if step < steps * 2 / 3 else 0.1
    progress = (step - stage.warmup_steps) / max(steps - stage.warmup_steps, 1)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def _has_fields(clips: list[PackedClip]) -> bool:
    """Whether the exact displacement is known anywhere."""
    return any(bool(clip.valid.any()) for clip in clips)


def _field_loss(displacement: Tensor, batch: SequenceBatch) -> Tensor:
    """Mean root of the distance to the exact fields where they are known.

    The root (a robust norm as in PWC-Net's fine-tuning, Sun et al., 2018) gives up what cannot be found, because it was
    hidden or is blurred, in favour of exactness elsewhere; a field that is off by more than a cell is of no use anyhow.

    Args:
        displacement: (B, T - 1, 2, H, W), in cells.
    """
    size = (displacement.shape[-2], displacement.shape[-1])
    exact = resize_displacement(batch.displacement[:, 1:].flatten(0, 1), size)
    weight = (_object_weight(batch) * batch.valid)[:, 1:].flatten(0, 1)
    weight = F.interpolate(weight, size, mode="area")
    distance = (displacement.flatten(0, 1) - exact).norm(dim=1, keepdim=True)
    return ((distance + 0.01).sqrt() * weight).sum() / weight.sum().clamp(min=1)


def _object_weight(batch: SequenceBatch) -> Tensor:
    """(B, T, 1, H/8, W/8), OBJECT_WEIGHT in cells whose centre lies in a box, else 1."""
    sequences, frames, _, height, width = batch.valid.shape
    weight = torch.ones(sequences * frames, height, width, device=batch.valid.device)
    ys = (torch.arange(height, device=weight.device) + 0.5) * STRIDE
    xs = (torch.arange(width, device=weight.device) + 0.5) * STRIDE
    for of_frame, boxes in zip(weight, batch.boxes, strict=True):
        inside_x = (xs > boxes[:, 0, None]) & (xs < boxes[:, 2, None])
        inside_y = (ys > boxes[:, 1, None]) & (ys < boxes[:, 3, None])
        of_frame[(inside_y[:, :, None] & inside_x[:, None, :]).any(0)] = OBJECT_WEIGHT
    return weight.view(sequences, frames, 1, height, width)
