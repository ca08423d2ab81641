"""Sensor faults in bursts: motion blur, defocus, noise, low light and over-exposure.

At a strength of up to 1, somebody who knows the frames before should still find most objects; at 3, a frame by itself
often shows next to nothing.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

FaultKind = Literal["none", "motion_blur", "defocus", "noise", "low_light", "over_exposure"]
FAULT_KINDS: tuple[FaultKind, ...] = ("motion_blur", "defocus", "noise", "low_light", "over_exposure")
LONGEST_BURST = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with one frame."""

    kind: FaultKind = "none"
    strength: float = 0.0
    """0 is mild, 1 strong, and 3 about as bad as a camera gets."""
    direction_rad: float = 0.0
    """Direction in the image of the mount's vibration, for motion blur."""

    @property
    def exposure(self) -> float:
        """Exposure time as a share of the frame interval; only a motion-blurred frame has one worth rendering."""
        return min(0.5 + 0.5 * self.strength, 1.0) if self.kind == "motion_blur" else 0.0


def draw_faults(rng: np.random.Generator, frames: int, degraded_fraction: float, strongest: float = 1.0) -> list[Fault]:
    """A fault for each frame, in bursts of 1 to 6 frames of one kind, separated by at least one clean frame.

    In the long run `degraded_fraction` of the frames are degraded; a burst may be under way at frame 0. Strengths lie
    between 0 and `strongest`.
    """
    if degraded_fraction <= 0:
        return [Fault()] * frames
    mean_burst = (1 + LONGEST_BURST) / 2
    mean_gap = mean_burst * (1 - degraded_fraction) / degraded_fraction
    chance = min(1.0, 1.0 / max(mean_gap, 1.0))
    faults: list[Fault] = []
    # Starting well before frame 0 makes every frame equally likely to be degraded.
    warm_up = 40
    while len(faults) < warm_up + frames:
        faults.extend([Fault()] * int(rng.geometric(chance)))
        kind = FAULT_KINDS[int(rng.integers(len(FAULT_KINDS)))]
        strength, direction = strongest * float(rng.uniform()), float(rng.uniform(0.0, np.pi))
        fault = Fault(kind=kind, strength=strength, direction_rad=direction)
        faults.extend([fault] * int(rng.integers(1, LONGEST_BURST + 1)))
    return faults[warm_up : warm_up + frames]


def apply_fault(image: np.ndarray, fault: Fault, rng: np.random.Generator) -> np.ndarray:
    """The image with the fault, (H, W, 3) uint8 RGB. For motion blur, `image` is the mean of the sub-frames already."""
    scale = image.shape[1] / 320.0
    s = fault.strength
    if fault.kind == "none":
        return image
    if fault.kind == "motion_blur":
        return cv2.filter2D(image, -1, _line_kernel((4.0 + 7.0 * s) * scale, fault.direction_rad))
    if fault.kind == "defocus":
        return cv2.filter2D(image, -1, _disc_kernel((1.6 + 2.2 * s) * scale))
    light: np.ndarray = image.astype(np.float32) / 255.0
    if fault.kind == "noise":
        sigma = 0.07 + 0.09 * s
        light = light + _normal(rng, image) * sigma * (0.5 + 0.7 * np.sqrt(light))
    elif fault.kind == "low_light":
        light = light * max(0.32 - 0.19 * s, 0.03)
        light = light + _normal(rng, image) * (0.015 + 0.025 * s)
    else:
        light = light * (1.6 + 1.2 * s) + 0.05 * s
        light = cv2.GaussianBlur(light, (0, 0), 0.7 * scale)
    return np.clip(light * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _normal(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return rng.standard_normal(image.shape, dtype=np.float32)


def _line_kernel(length: float, direction_rad: float) -> np.ndarray:
    size = 2 * int(np.ceil(length / 2)) + 3
    kernel = np.zeros((size, size), np.float32)
    center = size // 2
    for t in np.linspace(-0.5, 0.5, 8 * size):
        x, y = center + t * length * np.cos(direction_rad), center + t * length * np.sin(direction_rad)
        kernel[round(y), round(x)] += 1.0
    return np.asarray(kernel / kernel.sum())


def _disc_kernel(radius: float) -> np.ndarray:
    reach = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0.0, 1.0).astype(np.float32)
    return np.asarray(kernel / kernel.sum())
