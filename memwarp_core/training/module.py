"""One stage of training as a Lightning module."""

import math
from dataclasses import replace
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from memwarp_core.geometry import resize_displacement
from memwarp_core.models import Detector
from memwarp_core.models.parts import Evidence
from memwarp_core.training.config import StageConfig
from memwarp_core.training.packed_clips import STRIDE, PackedClip
from memwarp_core.training.sequences import SequenceBatch, Sequences, collate, photometric

OBJECT_WEIGHT = 5.0
"""A displacement inside an object counts this much more than one of the background, which is most of the image."""


class StageModule(lightning.LightningModule):
    """Trains a detector's parts on sequences. Everything random depends on the seed and the step alone."""

    def __init__(self, detector: Detector, stage: StageConfig, clips: list[PackedClip], seed: int) -> None:
        super().__init__()
        self.detector = detector
        self._stage = stage
        self._clips = clips
        self._stage_seed = seed

    def train_dataloader(self) -> DataLoader[SequenceBatch]:
        stage = self._stage
        per_epoch = stage.steps_per_epoch * stage.batch_size
        sequences = Sequences(
            self._clips,
            frames=stage.frames,
            first=self.current_epoch * per_epoch,
            length=per_epoch,
            seed=self._stage_seed,
            crop=stage.crop,
            size_multiple=self.detector.features.size_multiple,
            max_temporal_stride=stage.max_temporal_stride,
        )
        return DataLoader(sequences, stage.batch_size, collate_fn=collate)

    def on_train_epoch_start(self) -> None:
        self.detector.train()
        if self._stage.trains == "memory":
            for module in self.detector.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def training_step(self, batch: SequenceBatch, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._stage_seed * 1_000_003 + self.global_step)
        images = photometric(batch.images.float(), generator).flatten(0, 1)
        frames = batch.images.shape[1]
        evidence = self.detector.observe(images.contiguous(memory_format=torch.channels_last))
        if self._stage.trains == "memory":
            withheld = torch.rand(frames, generator=generator) < self._stage.evidence_dropping
            in_time = [
                replace(new, features=None) if t > 0 and withheld[t] else new
                for t, new in enumerate(evidence.in_time(frames))
            ]
            memory, displacement = self.detector.remember(in_time)
        else:
            assert evidence.features is not None
            memory, displacement = evidence.features, self._compare_neighbours(evidence, frames)
        targets = [{"boxes": b, "labels": c} for b, c in zip(batch.boxes, batch.labels, strict=True)]
        size = (images.shape[-2], images.shape[-1])
        losses = self.detector.head.losses(self.detector.features.finish(memory), targets, size)
        if displacement is not None:
            losses["displacement"] = self._stage.displacement_weight * _end_point_error(displacement, batch)
        total = torch.stack(list(losses.values())).sum()
        self.log_dict({name: value.detach() for name, value in losses.items()})
        self.log("loss", total.detach(), prog_bar=True)
        return total

    def _compare_neighbours(self, evidence: Evidence, frames: int) -> Tensor | None:
        """(B, T - 1, 2, H, W), from each frame of B sequences to the frame before it."""
        if self.detector.displacement is None or evidence.motion is None:
            return None
        motion = evidence.motion.unflatten(0, (-1, frames))
        fields = self.detector.displacement(motion[:, 1:].flatten(0, 1), motion[:, :-1].flatten(0, 1))
        return fields[:, :2].unflatten(0, (-1, frames - 1))

    def configure_optimizers(self) -> Any:
        stage = self._stage
        optimizer = torch.optim.AdamW(
            self.detector.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay, foreach=True
        )
        steps = stage.epochs * stage.steps_per_epoch

        def factor(step: int) -> float:
            if step < stage.warmup_steps:
                return (step + 1) / stage.warmup_steps
            progress = (step - stage.warmup_steps) / max(steps - stage.warmup_steps, 1)
            return 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _end_point_error(displacement: Tensor, batch: SequenceBatch) -> Tensor:
    """Mean distance to the exact fields where they are known, in cells of (B, T - 1, 2, H, W) `displacement`."""
    size = (displacement.shape[-2], displacement.shape[-1])
    exact = resize_displacement(batch.displacement[:, 1:].flatten(0, 1), size)
    weight = (_object_weight(batch) * batch.valid)[:, 1:].flatten(0, 1)
    weight = F.interpolate(weight, size, mode="area")
    error = (displacement.flatten(0, 1) - exact).norm(dim=1, keepdim=True)
    return (error * weight).sum() / weight.sum().clamp(min=1)


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
