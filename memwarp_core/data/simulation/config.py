"""What can be chosen about a simulated data set. Imports no renderer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memwarp_core.errors import ConfigError

CLASS_NAMES: tuple[str, ...] = ("ball", "crate", "barrel", "cone", "dumbbell", "rover", "humanoid")
"""The classes of the simulated scenes, in the order of their labels."""

RATES_HZ = (5, 8, 10, 16, 20, 25, 30, 40, 50)
"""Frames per second that a simulated camera can have."""

MAX_OBJECTS = 5
"""Of the classes, in one clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationConfig:
    """A data set of simulated clips. Everything that changes what is rendered is decided here and by nothing else."""

    clips: int = 10
    """Number of clips."""
    frames: int = 16
    """Frames in each clip."""
    seed: int = 0
    """Clip i is drawn from the generator seeded with (seed, i): the same scenes with any number of workers."""
    width: int = 320
    """Image width in pixels."""
    height: int = 192
    """Image height in pixels."""
    rate_hz: int = 20
    """Frames per second: one of RATES_HZ."""
    horizontal_fov_deg: float = 65.0
    """Horizontal field of view of the camera."""
    degraded_fraction: float = 0.35
    """Share of frames with a sensor fault, reached on average over many clips; 0 switches the faults off."""
    fault_strength: float = 1.0
    """The strongest sensor fault; 1 leaves most objects recognisable, 3 leaves next to nothing of some frames."""
    min_objects: int = 1
    """At least so many objects of the classes in each clip, 1 to 5."""
    min_visible_fraction: float = 0.25
    """An object gets a box only if at least this share of its whole silhouette (neither occluded nor cut by the
    image border) can be seen."""
    min_box_size: float = 8.0
    """An object gets a box only if its box is at least this many pixels in width and in height."""
    displacement: bool = False
    """Also write the exact displacement field of every frame (CocoVID only)."""
    jpeg_quality: int = 92
    """Quality of the JPEG images, 1 to 100."""
    format: Literal["coco_vid", "bag"] = "coco_vid"
    """coco_vid: annotations.json and images. bag: one rosbag2 (MCAP) per clip; a single clip is the output folder
    itself, several are folders in it."""
    compressed: bool = True
    """In bags: sensor_msgs/CompressedImage (JPEG) instead of raw sensor_msgs/Image."""
    workers: int = 2
    """Processes that render in parallel; changes nothing about the result."""

    def __post_init__(self) -> None:
        self._require(self.clips >= 1, "clips", "at least 1")
        self._require(self.frames >= 1, "frames", "at least 1")
        self._require(self.seed >= 0, "seed", "0 or more")
        self._require(32 <= self.width <= 4096, "width", "32 to 4096 pixels")
        self._require(32 <= self.height <= 4096, "height", "32 to 4096 pixels")
        self._require(self.rate_hz in RATES_HZ, "rate_hz", ", ".join(map(str, RATES_HZ[:-1])) + f" or {RATES_HZ[-1]}")
        self._require(20 <= self.horizontal_fov_deg <= 120, "horizontal_fov_deg", "20 to 120 degrees")
        self._require(0 <= self.degraded_fraction <= 0.9, "degraded_fraction", "0 to 0.9")
        self._require(0 < self.fault_strength <= 4, "fault_strength", "above 0 and at most 4")
        self._require(1 <= self.min_objects <= MAX_OBJECTS, "min_objects", f"1 to {MAX_OBJECTS}")
        self._require(0 < self.min_visible_fraction <= 1, "min_visible_fraction", "above 0 and at most 1")
        self._require(self.min_box_size >= 1, "min_box_size", "at least 1 pixel")
        self._require(1 <= self.jpeg_quality <= 100, "jpeg_quality", "1 to 100")
        self._require(self.format in ("coco_vid", "bag"), "format", "coco_vid or bag")
        self._require(self.workers >= 1, "workers", "at least 1")
        if self.displacement and self.format == "bag":
            raise ConfigError("displacement fields are written with format coco_vid only, got format bag.")

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise ConfigError(f"{name} must be {expected}, got {getattr(self, name)!r}.")


_PHYSICS_RATE_HZ = 400
"""Steps of the physics per second; as near to it as whole steps per frame allow."""


def steps_per_frame(config: SimulationConfig) -> int:
    """Steps of the physics from a frame to the next."""
    return round(_PHYSICS_RATE_HZ / config.rate_hz)


def physics_rate_hz(config: SimulationConfig) -> int:
    """Steps of the physics per second: 400, and 390 for 30 frames per second."""
    return steps_per_frame(config) * config.rate_hz


def clip_name(index: int) -> str:
    """The name of clip `index`, also the name of its folders."""
    return f"clip_{index:05d}"


def frame_name(index: int) -> Path:
    """File name of frame `index` inside a clip's folder of images."""
    return Path(f"{index:06d}.jpg")
