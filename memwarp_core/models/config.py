"""The typed configuration of a detector: one class per part, checked once, stored inside the weights file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from memwarp_core.geometry import Motion

Positive = Annotated[int, Field(gt=0)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeaturesConfig(_Config):
    """The tiny residual network; see features.py."""

    widths: tuple[Positive, Positive, Positive, Positive] = (24, 48, 96, 128)
    """Channels at strides 2, 4, 8 and 16."""
    channels: Positive = 96
    """Channels of the feature map that the memory keeps, at stride 8; a multiple of 32 for the head's norms."""

    @model_validator(mode="after")
    def _channels_fit_the_norms(self) -> "FeaturesConfig":
        if self.channels % 32:
            raise ValueError(f"channels must be a multiple of 32, got {self.channels}")
        return self


class DisplacementConfig(_Config):
    """Correlation of early features; see displacement.py."""

    channels: Positive = 32
    """Channels of the compared embeddings."""
    radius: Positive = 5
    """Largest displacement that the correlation sees, in cells of the feature map."""


class MemoryConfig(_Config):
    """What is carried from frame to frame; see memory.py."""

    kind: Literal["none", "memnet"] = "memnet"
    """none is the per-frame detector (the paper's R-FCN row); memnet is MemNet."""
    aggregation: Literal["average", "weights"] = "average"
    """How evidence enters the warped memory: Eq. 3 or Eq. 4."""
    max_gap_s: Annotated[float, Field(gt=0)] = 1.0
    """A stream that paused for longer starts a new memory: nothing is known of the motion in between."""


class HeadConfig(_Config):
    """torchvision's FCOS on the memory; see head.py."""

    convolutions: Positive = 1
    """3x3 convolutions in each of the two towers."""
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    nms_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    detections_per_image: Positive = 100


class AnticipationConfig(_Config):
    """How detections of future instants are made; see streaming/video_detector.py."""

    source: Literal["features", "boxes"] = "features"
    """Warp the memory and run the head (section 4.3), or move the current boxes (the baseline of section 5.2)."""
    motion: Motion = "constant_velocity"


class DetectorConfig(_Config):
    """A whole detector: features x displacement x memory x head."""

    name: str
    version: str = "0"
    class_names: tuple[str, ...] = Field(min_length=1)
    short_side: Positive = 192
    """Images are scaled so that their shorter side has this many pixels before they enter the network."""
    features: FeaturesConfig = FeaturesConfig()
    displacement: DisplacementConfig = DisplacementConfig()
    memory: MemoryConfig = MemoryConfig()
    head: HeadConfig = HeadConfig()
    anticipation: AnticipationConfig = AnticipationConfig()
