"""One detector on a live stream: images with stamps in, detections of now and of the coming instants out."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memwarp_core.errors import ConfigError, DataError, StaleFrameError
from memwarp_core.geometry import extrapolate, propagate_boxes, splat, warp
from memwarp_core.models import Detector, load_weights
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.models.features import SIZE_MULTIPLE, STRIDE
from memwarp_core.models.memory import MemoryState
from memwarp_core.types import Detections

Precision = Literal["auto", "fp32", "fp16", "bf16"]

_PADDING_GREY = 127
_LARGEST_ASPECT_RATIO = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """The displacement from one frame of a stream to the frame before it."""

    displacement: Tensor
    """(1, 2, H/8, W/8), backward, in cells of the feature map."""
    interval_ns: int
    """Time between the two frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorState:
    """Everything a detector remembers of one camera; a new state is a reset."""

    stamp_ns: int | None = None
    """Stamp of the newest frame; None before the first one."""
    image_size: tuple[int, int] | None = None
    """(height, width) of the camera's images."""
    memory: MemoryState | None = None
    motion_features: Tensor | None = None
    """(1, C', H/4, W/4) of the newest frame, to compare the next one with."""
    motion: Motion | None = None
    """From the newest frame to the one before it; None after a stream's first frame."""
    previous_motion: Motion | None = None
    """From that frame to the one before it."""
    detections: Detections | None = None
    """What was found in the newest frame."""


class VideoDetector:
    """A detector with its weights on a device; it keeps nothing between calls, a camera is a state."""

    def __init__(self, detector: Detector, device: str = "auto", precision: Precision = "auto") -> None:
        self.device = _choose_device(device)
        self._dtype = _choose_dtype(precision, self.device)
        self._detector = detector.to(self.device).to(memory_format=torch.channels_last).eval()
        self.config = detector.config

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def version(self) -> str:
        return self.config.version

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.config.class_names

    def start(self) -> DetectorState:
        """The state of a stream of which no frame was seen."""
        return DetectorState()

    @torch.inference_mode()
    def step(self, image: np.ndarray, stamp_ns: int, state: DetectorState) -> tuple[Detections, DetectorState]:
        """Detect in the next frame of a stream.

        A new image size, or a gap longer than the memory's max_gap_s, starts a new memory.

        Args:
            image: (H, W, 3), uint8, RGB.
            stamp_ns: when the image was taken; stamps of a stream increase.
            state: what `start` or the last `step` returned.
        Returns: detections, best first, in pixels of `image`, on this detector's device; and the next state.
        Raises:
            DataError: the image is not (H, W, 3) uint8, or a strip with sides of a ratio over 8.
            StaleFrameError: the stamp is not newer than the state's.
        """
        state = self._continue_or_restart(image, stamp_ns, state)
        with self._autocast():
            evidence = self._detector.features(self._prepare(image))
            motion = None
            if state.motion_features is not None and state.stamp_ns is not None:
                displacement = self._detector.displacement(evidence.motion, state.motion_features)
                motion = Motion(displacement=displacement.float(), interval_ns=stamp_ns - state.stamp_ns)
            features, memory = self._detector.memory.step(
                state.memory, evidence.features, None if motion is None else motion.displacement
            )
        size = (image.shape[0], image.shape[1])
        (detections,) = self._detect(features, [stamp_ns], size)
        return detections, DetectorState(
            stamp_ns=stamp_ns,
            image_size=size,
            memory=memory,
            motion_features=evidence.motion,
            motion=motion,
            previous_motion=state.motion,
            detections=detections,
        )

    @torch.inference_mode()
    def anticipate(
        self, state: DetectorState, horizons_s: Sequence[float], how: AnticipationConfig | None = None
    ) -> list[Detections]:
        """Say where objects will be, without seeing further images (the paper, section 4.3).

        Stamps decide how many frame intervals a horizon is. After a stream's first frame nothing is known of motion,
        and objects are expected to stay.

        Args:
            state: what `step` returned.
            horizons_s: seconds from the newest frame, not negative.
            how: source and motion model; the model's own choice by default.
        Returns: detections per horizon, as from `step`; their stamps are the newest frame's plus the horizon.
        Raises: ValueError if no frame was seen or a horizon is negative.
        """
        if state.detections is None or state.memory is None or state.stamp_ns is None or state.image_size is None:
            raise ValueError("anticipate() needs a state that has seen a frame; call step() first.")
        if any(not horizon >= 0 for horizon in horizons_s):
            raise ValueError(f"horizons_s must not be negative, got {list(horizons_s)}.")
        if not horizons_s:
            return []
        how = how or self.config.anticipation
        stamps = [state.stamp_ns + round(horizon * 1e9) for horizon in horizons_s]
        totals = self._extrapolate(state, horizons_s, how)
        if how.source == "boxes":
            return [
                self._propagate(state.detections, total[0], stamp, state.image_size)
                for total, stamp in zip(totals, stamps, strict=True)
            ]
        fields = splat(torch.cat(totals))
        memory = state.memory.features.expand(len(stamps), -1, -1, -1)
        return self._detect(warp(memory, fields), stamps, state.image_size)

    def _extrapolate(self, state: DetectorState, horizons_s: Sequence[float], how: AnticipationConfig) -> list[Tensor]:
        """Total displacement per horizon, (1, 2, H/8, W/8), feature cells, indexed by the newest frame."""
        assert state.memory is not None
        if state.motion is None:
            nothing = torch.zeros_like(state.memory.features[:, :2])
            return [nothing for _ in horizons_s]
        steps = [horizon * 1e9 / state.motion.interval_ns for horizon in horizons_s]
        previous = state.motion.displacement
        if state.previous_motion is not None:
            ratio = state.motion.interval_ns / state.previous_motion.interval_ns
            previous = state.previous_motion.displacement * ratio
        return extrapolate(previous, state.motion.displacement, steps, how.motion)

    def _detect(self, features: Tensor, stamps_ns: Sequence[int], size: tuple[int, int]) -> list[Detections]:
        """Run the head on a batch of maps of one camera; boxes go from network to source pixels."""
        with self._autocast():
            found = self._detector.head.detect(features)
        to_source = self._to_source(size)
        limit = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32, device=self.device)
        return [
            Detections(
                boxes_xyxy=torch.minimum(of_image["boxes"].float() * to_source, limit),
                scores=of_image["scores"].float(),
                labels=of_image["labels"],
                stamp_ns=stamp_ns,
            )
            for of_image, stamp_ns in zip(found, stamps_ns, strict=True)
        ]

    def _propagate(self, detections: Detections, total: Tensor, stamp_ns: int, size: tuple[int, int]) -> Detections:
        """Box propagation (section 5.2): the same boxes, moved with what is inside them; gone ones are dropped."""
        to_source = self._to_source(size)
        moved = propagate_boxes(detections.boxes_xyxy / to_source, total, STRIDE) * to_source
        limit = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32, device=self.device)
        moved = torch.minimum(moved.clamp(min=0), limit)
        visible = (moved[:, 2:] > moved[:, :2]).all(dim=1)
        return Detections(
            boxes_xyxy=moved[visible],
            scores=detections.scores[visible],
            labels=detections.labels[visible],
            stamp_ns=stamp_ns,
        )

    def _continue_or_restart(self, image: np.ndarray, stamp_ns: int, state: DetectorState) -> DetectorState:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise DataError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}; convert it first.")
        if max(image.shape[:2]) > _LARGEST_ASPECT_RATIO * min(image.shape[:2]):
            raise DataError(
                f"image is {image.shape[1]}x{image.shape[0]}; expected sides of a ratio up to {_LARGEST_ASPECT_RATIO}. "
                "The shorter side is scaled to the network's, so a strip would become huge; cut it into pieces."
            )
        if state.stamp_ns is None:
            return state
        if stamp_ns <= state.stamp_ns:
            raise StaleFrameError(
                f"frame stamp {stamp_ns} ns is not after the memory's newest {state.stamp_ns} ns; "
                "use the state of start() when a recording begins again."
            )
        too_old = stamp_ns - state.stamp_ns > self.config.memory.max_gap_s * 1e9
        return self.start() if too_old or state.image_size != image.shape[:2] else state

    def _network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the scaled image, before padding."""
        scale = self.config.short_side / min(size)
        return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)

    def _to_source(self, size: tuple[int, int]) -> Tensor:
        """(4,), source pixels per network pixel for x, y, x, y."""
        height, width = self._network_size(size)
        return torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float32, device=self.device)

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)

    def _prepare(self, image: np.ndarray) -> Tensor:
        """(1, 3, H, W) RGB in [0, 255] at the network's size, padded to a multiple of its stride."""
        height, width = self._network_size((image.shape[0], image.shape[1]))
        if (height, width) != image.shape[:2]:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(np.ascontiguousarray(image)).to(self.device, non_blocking=True)
        tensor = tensor.permute(2, 0, 1)[None].float()
        padding = (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE)
        return F.pad(tensor, padding, value=_PADDING_GREY).contiguous(memory_format=torch.channels_last)


def load_detector(
    name_or_path: str | Path = "memnet-tiny", device: str = "auto", precision: Precision = "auto"
) -> VideoDetector:
    """A shipped model by name, or one's own by the path of its weights file, ready to run.

    Args:
        name_or_path: one of `available_models()` or a .safetensors file that `save_weights` wrote.
        device: "auto" (the first GPU, else the CPU) or a torch device such as "cpu" or "cuda:1".
        precision: "auto" is fp16 on a GPU and fp32 on a CPU.
    Raises: ConfigError for an unknown model, device or precision, or a file that does not fit.
    """
    return VideoDetector(load_weights(name_or_path), device, precision)


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {device!r}: expected auto, cpu or a device that torch can use here, such as cuda:0 ({error})"
        ) from error
    return chosen


def _choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise ConfigError(f"precision {precision!r}: expected auto, {', '.join(dtypes)}.")
    return dtypes[precision]
