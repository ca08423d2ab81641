"""One detector on live streams: images with stamps in, detections of now and of the coming instants out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memwarp_core.errors import ConfigError, DataError, StaleFrameError
from memwarp_core.geometry import (
    MOTION_SAMPLES,
    MotionSample,
    follow_boxes,
    predict_displacement,
    propagate_boxes,
    splat,
)
from memwarp_core.models import Detector
from memwarp_core.models.config import PADDING_GREY, AnticipationConfig
from memwarp_core.models.detector import merge_boxes
from memwarp_core.models.parts import Levels, keep_weights_in, repeat, warp_levels
from memwarp_core.types import Detections

Precision = Literal["auto", "fp32", "fp16", "bf16"]
Beginning = Literal["start", "gap", "size"]
"""Why a memory begins: with a stream (or after a reset), after too long a gap, or with images of another size."""

_LARGEST_ASPECT_RATIO = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorState:
    """Everything a detector remembers of one camera; a new state is a reset."""

    began: Beginning | None = "start"
    """Why the memory began anew with the newest frame; None where it went on. Before the first frame, "start"."""
    newest_ns: int | None = None
    """Stamp of the newest frame; None before the first one."""
    stamp_ns: int | None = None
    """Stamp of the frame that the memory stands at; an older one where frames are only anticipated."""
    since_evidence: int = 0
    """Frames since the last one that was looked at in full, that one included."""
    image_size: tuple[int, int] | None = None
    """(height, width) of the camera's images."""
    memory: Any = None
    """The memory's own state."""
    features: Levels | None = None
    """M_t, what the head read."""
    motions: tuple[MotionSample, ...] = ()
    """The last few displacements between neighbouring frames, newest first."""
    detections: Detections | None = None
    """What was found at stamp_ns."""


class VideoDetector:
    """A detector with its weights on a device; it keeps nothing between calls, a camera is a state.

    It runs a copy: the detector that it is made of stays as it is.
    """

    def __init__(self, detector: Detector, device: str = "auto", precision: Precision = "auto") -> None:
        self.device = choose_device(device)
        self._dtype = choose_dtype(precision, self.device)
        self.network = detector.for_inference().to(self.device).to(memory_format=torch.channels_last)
        if self._dtype != torch.float32:
            keep_weights_in(self.network, self._dtype)
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

    @property
    def lookahead(self) -> int:
        """Frames that must follow before a frame's detections are known; 0 for detectors that run live."""
        return self.network.memory.lookahead

    def start(self) -> DetectorState:
        """The state of a stream of which no frame was seen.

        Raises: ConfigError for a detector that looks ahead.
        """
        if self.lookahead:
            raise ConfigError(
                f"{self.name} looks {self.lookahead} frames into the future; expected a causal detector for a live "
                "stream, such as its causal variant; recordings go through detect_clip()."
            )
        return DetectorState()

    def step(self, image: np.ndarray, stamp_ns: int, state: DetectorState) -> tuple[Detections, DetectorState]:
        """Detect in the next frame of a stream.

        A new image size, or a gap longer than the memory's max_gap_s, starts a new memory; the state's `began` tells.

        Args:
            image: (H, W, 3), uint8, RGB.
            stamp_ns: when the image was taken; stamps of a stream increase.
            state: what `start` or the last `step` returned.
        Returns: detections, best first, in pixels of `image`, on this detector's device; and the next state.
        Raises:
            DataError: the image is not (H, W, 3) uint8, or a strip with sides of a ratio over 8.
            StaleFrameError: the stamp is not newer than the state's.
        """
        (stepped,) = self.step_cameras([image], [stamp_ns], [state])
        return stepped

    @torch.inference_mode()
    def step_cameras(
        self, images: Sequence[np.ndarray], stamps_ns: Sequence[int], states: Sequence[DetectorState]
    ) -> list[tuple[Detections, DetectorState]]:
        """Detect in one new frame of each of several cameras; equal sizes share one pass through the network.

        Args, Raises: as for `step`, one entry per camera; with an error no camera has advanced.
        Returns: per camera what `step` returns.
        """
        states = [self._continue_or_restart(*of_camera) for of_camera in zip(images, stamps_ns, states, strict=True)]
        stepped: dict[int, tuple[Detections, DetectorState]] = {}
        groups: dict[tuple[tuple[int, int], bool], list[int]] = {}
        for camera, (image, stamp_ns, state) in enumerate(zip(images, stamps_ns, states, strict=True)):
            withhold = 0 < state.since_evidence < self.config.propagation.every
            if withhold and self.config.propagation.source == "anticipation":
                stepped[camera] = self._skip(stamp_ns, state)
            else:
                size = self._network_size((image.shape[0], image.shape[1]))
                groups.setdefault((size, withhold), []).append(camera)
        for (_, withhold), cameras in groups.items():
            of_group = self._look(
                [images[camera] for camera in cameras],
                [stamps_ns[camera] for camera in cameras],
                [states[camera] for camera in cameras],
                withhold,
            )
            stepped.update(zip(cameras, of_group, strict=True))
        return [stepped[camera] for camera in range(len(images))]

    @torch.inference_mode()
    def detect_clip(self, frames: Iterable[tuple[np.ndarray, int]]) -> Iterator[Detections]:
        """Detect in all frames of a recording; the way for detectors that look ahead, and open to all.

        Args:
            frames: (image, stamp_ns), as for `step`.
        Returns: detections of each frame, in order, each as soon as it is known.
        """
        if not self.lookahead:
            state = self.start()
            for image, stamp_ns in frames:
                detections, state = self.step(image, stamp_ns, state)
                yield detections
            return
        memory_state, waiting = None, deque[tuple[int, tuple[int, int]]]()
        for frame in chain(frames, [None] * self.lookahead):
            evidence = None
            if frame is not None:
                image, stamp_ns = frame
                self._check_image(image)
                waiting.append((stamp_ns, (image.shape[0], image.shape[1])))
                with self._autocast():
                    evidence = self.network.observe(self._prepare([image]))
            with self._autocast():
                advanced = self.network.step(memory_state, evidence)
            memory_state = advanced.state
            if advanced.memory is not None:
                stamp, size = waiting.popleft()
                yield self._detect(advanced.memory, [stamp], [size])[0]

    @torch.inference_mode()
    def anticipate(
        self, state: DetectorState, horizons_s: Sequence[float], how: AnticipationConfig | None = None
    ) -> list[Detections]:
        """Say where objects will be, without seeing further images (the paper, section 4.3).

        Stamps decide how many frame intervals a horizon is. After a stream's first frame, and for a detector that does
        not compare frames, nothing is known of motion, and objects are expected to stay.

        Args:
            state: what `step` returned.
            horizons_s: seconds from the newest frame, not negative.
            how: source and motion model; the model's own choice by default.
        Returns: detections per horizon, as from `step`; their stamps are the newest frame's plus the horizon.
        Raises: ValueError if no frame was seen or a horizon is negative.
        """
        if state.detections is None or state.features is None or state.newest_ns is None or state.image_size is None:
            raise ValueError("anticipate() needs a state that has seen a frame; call step() first.")
        if any(not horizon >= 0 for horizon in horizons_s):
            raise ValueError(f"horizons_s must not be negative, got {list(horizons_s)}.")
        if not horizons_s:
            return []
        assert state.stamp_ns is not None
        how = how or self.config.anticipation
        stamps = [state.newest_ns + round(horizon * 1e9) for horizon in horizons_s]
        if not state.motions:
            if how.source != "features":
                return [replace(state.detections, stamp_ns=stamp) for stamp in stamps]
            return self._detect(repeat(state.features, len(stamps)), stamps, [state.image_size] * len(stamps))
        ages_s = [(stamp - state.stamp_ns) / 1e9 for stamp in stamps]
        totals = predict_displacement(state.motions, ages_s, how.motion)
        if how.source == "boxes":
            return self._propagate(state.detections, torch.cat(totals), stamps, state.image_size)
        fields, sizes = splat(torch.cat(totals)), [state.image_size] * len(stamps)
        if how.source == "features":
            return self._detect(warp_levels(repeat(state.features, len(stamps)), fields), stamps, sizes)
        proposals = self._propagate_in_network(state.detections, torch.cat(totals), state.image_size)
        with self._autocast():
            found = self.network.detect_moved(state.features, fields, proposals, self._padded_size(state.features))
        return self._detect(state.features, stamps, sizes, found=found)

    @torch.inference_mode()
    def follow_boxes(self, boxes_xyxy: Tensor, since_ns: int, state: DetectorState) -> Tensor:
        """Move boxes from the frame before to the newest one, by the displacement that was measured between the two.

        Nothing is computed on images. Where the time between is another than that of the newest measured displacement,
        its contents are taken to have kept their speed. Without any displacement, boxes stay.

        Args:
            boxes_xyxy: (N, 4), pixels of the camera's images; they may leave the image.
            since_ns: the instant at which they hold.
            state: what `step` returned for the newest frame.
        Returns: (N, 4), where their contents are at state.newest_ns, on the device of `boxes_xyxy`.
        """
        if not state.motions or state.newest_ns is None:
            return boxes_xyxy
        elapsed_s = (state.newest_ns - since_ns) / 1e9
        (total,) = predict_displacement(state.motions[:1], [elapsed_s], "constant_velocity")
        return self._move(boxes_xyxy, total[0], state, follow_boxes)

    @torch.inference_mode()
    def anticipate_boxes(self, boxes_xyxy: Tensor, horizon_s: float, state: DetectorState) -> Tensor:
        """Move boxes from the newest frame to a coming instant, as `anticipate` expects their contents to move.

        Args:
            boxes_xyxy: (N, 4), pixels of the camera's images, at state.newest_ns.
            horizon_s: seconds from the newest frame.
            state: what `step` returned.
        Returns: (N, 4), on the device of `boxes_xyxy`; they may leave the image.
        """
        if not state.motions:
            return boxes_xyxy
        (total,) = predict_displacement(state.motions, [horizon_s], self.config.anticipation.motion)
        return self._move(boxes_xyxy, total[0], state, propagate_boxes)

    def _look(
        self, images: Sequence[np.ndarray], stamps_ns: Sequence[int], states: Sequence[DetectorState], withhold: bool
    ) -> list[tuple[Detections, DetectorState]]:
        """Advance cameras whose images have the same size in the network."""
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        with self._autocast():
            evidence = self.network.observe(self._prepare(images), withhold=withhold).split()
            advanced = self.network.step_streams([state.memory for state in states], evidence)
        motions = []
        for one, stamp_ns, state in zip(advanced, stamps_ns, states, strict=True):
            if one.displacement is None or state.stamp_ns is None:
                motions.append(state.motions)
                continue
            newest = MotionSample(displacement=one.displacement, interval_ns=stamp_ns - state.stamp_ns)
            motions.append((newest, *state.motions[: MOTION_SAMPLES - 1]))
        memories: list[Levels] = [one.memory for one in advanced if one.memory is not None]
        if withhold and self.config.propagation.source == "boxes":
            found = []
            for state, of_stream, stamp_ns, size in zip(states, motions, stamps_ns, sizes, strict=True):
                assert state.detections is not None
                found += self._propagate(state.detections, of_stream[0].displacement, [stamp_ns], size)
        else:
            together = tuple(torch.cat(level) for level in zip(*memories, strict=True))
            looked = [of_image for one in advanced for of_image in one.found or ()]
            found = self._detect(together, stamps_ns, sizes, [one.late for one in advanced], looked)
        return [
            (
                detections,
                DetectorState(
                    began=state.began if state.newest_ns is None else None,
                    newest_ns=stamp_ns,
                    stamp_ns=stamp_ns,
                    since_evidence=state.since_evidence + 1 if withhold else 1,
                    image_size=size,
                    memory=one.state,
                    features=memory,
                    motions=of_stream,
                    detections=detections,
                ),
            )
            for detections, stamp_ns, state, size, one, memory, of_stream in zip(
                found, stamps_ns, states, sizes, advanced, memories, motions, strict=True
            )
        ]

    def _skip(self, stamp_ns: int, state: DetectorState) -> tuple[Detections, DetectorState]:
        """Say of a new frame what is anticipated of its instant, without looking at it."""
        assert state.newest_ns is not None
        state = replace(state, began=None, newest_ns=stamp_ns, since_evidence=state.since_evidence + 1)
        return self.anticipate(state, [0.0])[0], state

    def _detect(
        self,
        memory: Levels,
        stamps_ns: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        late: Sequence[list[dict[str, Tensor]] | None] = (),
        found: list[dict[str, Tensor]] | None = None,
    ) -> list[Detections]:
        """Run the head on a batch of memories; boxes go from network to source pixels.

        Args:
            sizes: (height, width) of each camera's images.
            late: per memory, boxes of a strong detector in network pixels, to be merged with those found.
            found: per memory, what the head says, where that is known.
        """
        if not found:
            with self._autocast():
                found = self.network.detect(memory, self._padded_size(memory))
        for index, of_image in enumerate(late):
            if of_image is not None:
                found[index] = merge_boxes([found[index], *of_image], self.config.head.nms_threshold)
        return [
            Detections(
                boxes_xyxy=self._to_source(of_image["boxes"].float(), size),
                scores=of_image["scores"].float(),
                labels=of_image["labels"],
                stamp_ns=stamp_ns,
            )
            for of_image, stamp_ns, size in zip(found, stamps_ns, sizes, strict=True)
        ]

    def _propagate(
        self, detections: Detections, totals: Tensor, stamps_ns: Sequence[int], size: tuple[int, int]
    ) -> list[Detections]:
        """Box propagation (section 5.2): the same boxes, moved with what is inside them; gone ones are dropped.

        Args:
            totals: (T, 2, H, W), a field for each of the stamps.
        """
        moved = self._propagate_in_network(detections, totals, size).clamp(min=0)
        moved = self._to_source(moved.flatten(0, 1), size).view_as(moved)
        visible = (moved[..., 2:] > moved[..., :2]).all(-1)
        return [
            replace(detections, boxes_xyxy=there, stamp_ns=stamp_ns).select(seen)
            for there, stamp_ns, seen in zip(moved, stamps_ns, visible, strict=True)
        ]

    def _propagate_in_network(self, detections: Detections, totals: Tensor, size: tuple[int, int]) -> Tensor:
        """The boxes as each field (T, 2, H, W) moves them, in network pixels, (T, N, 4); they may leave the image."""
        height, width = self._network_size(size)
        boxes = _scale_boxes(detections.boxes_xyxy, width / size[1], height / size[0])
        return propagate_boxes(boxes, totals, self.network.features.strides[0])

    def _move(
        self, boxes: Tensor, total: Tensor, state: DetectorState, how: Callable[[Tensor, Tensor, float], Tensor]
    ) -> Tensor:
        """Boxes in source pixels moved by a field in cells."""
        assert state.image_size is not None
        height, width = self._network_size(state.image_size)
        x, y = width / state.image_size[1], height / state.image_size[0]
        moved = how(_scale_boxes(boxes.to(total.device), x, y), total, self.network.features.strides[0])
        return _scale_boxes(moved, 1 / x, 1 / y).to(boxes.device)

    def _continue_or_restart(self, image: np.ndarray, stamp_ns: int, state: DetectorState) -> DetectorState:
        self._check_image(image)
        if state.newest_ns is None:
            return state
        if stamp_ns <= state.newest_ns:
            raise StaleFrameError(
                f"frame stamp {stamp_ns} ns is not after the memory's newest {state.newest_ns} ns; "
                "use the state of start() when a recording begins again."
            )
        if state.image_size != image.shape[:2]:
            return replace(self.start(), began="size")
        if stamp_ns - state.newest_ns > self.config.memory.max_gap_s * 1e9:
            return replace(self.start(), began="gap")
        return state

    def _check_image(self, image: np.ndarray) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise DataError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}; convert it first.")
        if max(image.shape[:2]) > _LARGEST_ASPECT_RATIO * min(image.shape[:2]):
            raise DataError(
                f"image is {image.shape[1]}x{image.shape[0]}; expected sides of a ratio up to {_LARGEST_ASPECT_RATIO}. "
                "The shorter side is scaled to the network's, so a strip would become huge; cut it into pieces."
            )

    def _network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the scaled image, before padding."""
        return self.config.network_size(size)

    def _padded_size(self, memory: Levels) -> tuple[int, int]:
        """(height, width) of the image in the network."""
        stride = self.network.features.strides[0]
        return memory[0].shape[-2] * stride, memory[0].shape[-1] * stride

    def _to_source(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, 4), from network to source pixels and inside the image."""
        height, width = self._network_size(size)
        boxes = _scale_boxes(boxes, size[1] / width, size[0] / height)
        x, y = boxes[:, 0::2].clamp(max=size[1]), boxes[:, 1::2].clamp(max=size[0])
        return torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=1)

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)

    def _prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """(B, 3, H, W) RGB in [0, 255] at the network's size, padded to a multiple of its stride."""
        height, width = self._network_size((images[0].shape[0], images[0].shape[1]))
        # From memory that is pinned, a GPU fetches images by itself; torch keeps it until they are there.
        staged = torch.empty((len(images), height, width, 3), dtype=torch.uint8, pin_memory=self.device.type != "cpu")
        for place, image in zip(staged.numpy(), images, strict=True):
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            place[:] = image
        tensor = staged.to(self.device, non_blocking=True)
        multiple = self.network.features.size_multiple
        padding = (0, -width % multiple, 0, -height % multiple)
        padded = F.pad(tensor.permute(0, 3, 1, 2).float(), padding, value=PADDING_GREY)
        return padded.contiguous(memory_format=torch.channels_last)


def _scale_boxes(boxes_xyxy: Tensor, x: float, y: float) -> Tensor:
    """Factors are plain numbers, because a tensor of them would have to travel to the device."""
    return torch.stack((boxes_xyxy[:, 0] * x, boxes_xyxy[:, 1] * y, boxes_xyxy[:, 2] * x, boxes_xyxy[:, 3] * y), dim=1)


def choose_device(device: str) -> torch.device:
    """
    Args:
        device: "auto" (the first GPU, else the CPU) or as torch calls it.
    Raises: ConfigError if torch cannot use it here.
    """
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


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """
    Args:
        precision: "auto" is fp16 on a GPU and fp32 on a CPU.
    Raises: ConfigError for an unknown one.
    """
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise ConfigError(f"precision {precision!r}: expected auto, {', '.join(dtypes)}.")
    return dtypes[precision]
