"""One stage of training as a Lightning module."""

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from memwarp_core.models import Detector
from memwarp_core.models.features import STRIDE
from memwarp_core.training.config import StageConfig
from memwarp_core.training.packed_clips import PackedClip
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
        sequences, frames = batch.images.shape[:2]
        images = photometric(batch.images.float(), generator).flatten(0, 1)
        evidence = self.detector.features(images.contiguous(memory_format=torch.channels_last))
        motion = evidence.motion.unflatten(0, (sequences, frames))
        displacement = self.detector.displacement(motion[:, 1:].flatten(0, 1), motion[:, :-1].flatten(0, 1))
        displacement = displacement.unflatten(0, (sequences, frames - 1))
        features = evidence.features.unflatten(0, (sequences, frames))
        if self._stage.trains == "memory":
            features = self._remember(features, displacement, generator)
        targets = [{"boxes": b, "labels": c} for b, c in zip(batch.boxes, batch.labels, strict=True)]
        losses = self.detector.head.losses(features.flatten(0, 1), targets)
        error = (displacement - batch.displacement[:, 1:]).norm(dim=2, keepdim=True)
        weight = _object_weight(batch)[:, 1:] * batch.valid[:, 1:]
        losses["displacement"] = self._stage.displacement_weight * (error * weight).sum() / weight.sum().clamp(min=1)
        total = torch.stack(list(losses.values())).sum()
        self.log_dict({name: value.detach() for name, value in losses.items()})
        self.log("loss", total.detach(), prog_bar=True)
        return total

    def _remember(self, features: Tensor, displacement: Tensor, generator: torch.Generator) -> Tensor:
        """Run the memory over (B, T, C, H, W) evidence, withholding some of it; the head then reads every frame."""
        withheld = torch.rand(features.shape[1], generator=generator) < self._stage.evidence_dropping
        state, remembered = None, []
        for t in range(features.shape[1]):
            evidence = None if t > 0 and withheld[t] else features[:, t]
            memory, state = self.detector.memory.step(state, evidence, displacement[:, t - 1] if t > 0 else None)
            remembered.append(memory)
        return torch.stack(remembered, dim=1)

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
