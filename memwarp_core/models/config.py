"""The typed configuration of a detector: one class per part, checked once, stored inside the weights file."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from memwarp_core.geometry import Motion

PADDING_GREY = 127
"""What images are padded with to whole cells, in a stream and in training."""

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Stage = Literal["conv3", "conv4", "conv5"]
"""Where in a backbone the memory sits; what follows in the backbone runs on the memory."""


class Config(BaseModel):
    """What all configurations share: they are values, and an unknown key is refused with the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, value: Any) -> Any:
        unknown = sorted(value.keys() - cls.model_fields.keys()) if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; known keys: {', '.join(cls.model_fields)}")
        return value


def _by_kind(default: str) -> Discriminator:
    """Choose a part's class by its key `kind`, so that an error speaks of that class alone."""

    def kind_of(value: Any) -> str:
        return value.get("kind", default) if isinstance(value, dict) else value.kind

    return Discriminator(kind_of)


# ---------------------------------------------------------------------------------------------------------- features


class _StagedFeaturesConfig(Config):
    channels: Positive = 96
    """Channels of conv5, which is the feature map F that the head reads."""
    memory_at: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("conv5",)
    """One memory per stage named (the supplement's Table 2b); with several, the maps that follow from them are
    averaged."""

    @model_validator(mode="after")
    def _stages_differ(self) -> "_StagedFeaturesConfig":
        if len(set(self.memory_at)) != len(self.memory_at):
            raise ValueError(f"memory_at must name each stage once, got {self.memory_at}")
        return self


class TinyFeaturesConfig(_StagedFeaturesConfig):
    """A small residual network at stride 8; see features.py."""

    kind: Literal["tiny"] = "tiny"
    widths: tuple[Positive, Positive, Positive, Positive] = (24, 48, 96, 128)
    """Channels at strides 2, 4, 8 and 16."""

    @model_validator(mode="after")
    def _channels_fit_the_norms(self) -> "TinyFeaturesConfig":
        if self.channels % 32:
            raise ValueError(f"channels must be a multiple of 32, got {self.channels}")
        return self


class ResNetFeaturesConfig(_StagedFeaturesConfig):
    """torchvision's ResNet with conv5 at stride 16 and a 3x3 convolution behind it; see features.py."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101] = 101
    channels: Positive = 1024


class TorchvisionFeaturesConfig(Config):
    """The backbone, with its feature pyramid, of a detector from torchvision.models.detection."""

    kind: Literal["torchvision"] = "torchvision"
    detector: str
    """Its name there, such as fasterrcnn_resnet50_fpn."""


FeaturesConfig = Annotated[
    Annotated[TinyFeaturesConfig, Tag("tiny")]
    | Annotated[ResNetFeaturesConfig, Tag("resnet")]
    | Annotated[TorchvisionFeaturesConfig, Tag("torchvision")],
    _by_kind("tiny"),
]

# ------------------------------------------------------------------------------------------------------ displacement


class NoDisplacementConfig(Config):
    """Frames are not compared; for detectors without memory."""

    kind: Literal["none"] = "none"


class StillConfig(Config):
    """Frames are taken to be aligned, so that a memory is aggregated without warping; an ablation."""

    kind: Literal["still"] = "still"


class CorrelationConfig(Config):
    """Correlation of the detector's own early features; see displacement/correlation.py."""

    kind: Literal["correlation"] = "correlation"
    channels: Positive = 48
    """Channels of the compared embeddings."""
    radius: Positive = 10
    """Largest displacement that the correlation sees, in cells of the feature map."""


class FlowNetConfig(Config):
    """FlowNetS on images of half the resolution; see displacement/flownet.py."""

    kind: Literal["flownet"] = "flownet"
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the published network's channels; 1 is FlowNetS as published."""
    scale_map: bool = False
    """Also predict a factor per position for the warped features (deep feature flow)."""


class RaftConfig(Config):
    """torchvision's RAFT-small on images of half the resolution; see displacement/raft.py."""

    kind: Literal["raft"] = "raft"
    updates: Positive = 6
    """Refinements of the flow."""


DisplacementConfig = Annotated[
    Annotated[NoDisplacementConfig, Tag("none")]
    | Annotated[StillConfig, Tag("still")]
    | Annotated[CorrelationConfig, Tag("correlation")]
    | Annotated[FlowNetConfig, Tag("flownet")]
    | Annotated[RaftConfig, Tag("raft")],
    _by_kind("correlation"),
]

# ------------------------------------------------------------------------------------------------------------ memory

Aggregation = Literal["average", "weights", "adaptive", "adascan"]
"""How evidence enters a warped memory: Eq. 3, Eq. 4, FGFA's adaptive weights, AdaScan; see memory/aggregation.py."""


class _MemoryConfig(Config):
    max_gap_s: Annotated[float, Field(gt=0)] = 1.0
    """A stream that paused for longer starts a new memory: nothing is known of the motion in between."""


class NoMemoryConfig(_MemoryConfig):
    """The per-frame detector (the paper's R-FCN row)."""

    kind: Literal["none"] = "none"


class MemNetConfig(_MemoryConfig):
    """MemNet (section 3.1); see memory/memnet.py."""

    kind: Literal["memnet"] = "memnet"
    aggregation: Aggregation = "average"


class ClockNetConfig(_MemoryConfig):
    """ClockNet (section 3.2); see memory/clocknet.py."""

    kind: Literal["clocknet"] = "clocknet"
    strides: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 4, 8)
    """Frames between two updates of each time axis; the paper's axes k = 1, 3, 4."""
    aggregation: Aggregation = "average"
    composed: bool = False
    """Chain the displacements of neighbouring frames instead of measuring over an axis's whole stride."""

    @model_validator(mode="after")
    def _strides_increase(self) -> "ClockNetConfig":
        if any(newer >= older for newer, older in zip(self.strides[:-1], self.strides[1:], strict=True)):
            raise ValueError(f"strides must increase, got {self.strides}")
        return self


class FGFAConfig(_MemoryConfig):
    """Flow-guided feature aggregation over a window of frames; see memory/fgfa.py."""

    kind: Literal["fgfa"] = "fgfa"
    past: Positive = 10
    """Frames of the window before the current one."""
    future: Annotated[int, Field(ge=0)] = 10
    """Frames after it; 0 is causal FGFA."""
    composed: bool = False
    """Chain the displacements of neighbouring frames online (causal FGFA*)."""

    @model_validator(mode="after")
    def _only_the_past_is_chained(self) -> "FGFAConfig":
        if self.composed and self.future:
            raise ValueError(f"composed needs future: 0, since displacements are chained online; got {self.future}")
        return self


MemoryConfig = Annotated[
    Annotated[NoMemoryConfig, Tag("none")]
    | Annotated[MemNetConfig, Tag("memnet")]
    | Annotated[ClockNetConfig, Tag("clocknet")]
    | Annotated[FGFAConfig, Tag("fgfa")],
    _by_kind("memnet"),
]

# -------------------------------------------------------------------------------------------------------------- head


class FCOSHeadConfig(Config):
    """torchvision's FCOS on one map; see heads/fcos.py."""

    kind: Literal["fcos"] = "fcos"
    convolutions: Positive = 1
    """3x3 convolutions in each of the two towers."""
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    nms_threshold: Fraction = 0.5
    detections_per_image: Positive = 100


class RFCNHeadConfig(Config):
    """Region proposals and position-sensitive pooling; see heads/rfcn.py."""

    kind: Literal["rfcn"] = "rfcn"
    anchor_sizes: tuple[Positive, ...] = (128, 256, 512)
    """Sides of the square anchors, in network pixels."""
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_channels: Positive = 512
    """Channels of the region proposal network's 3x3 convolution."""
    proposals_before_nms: Positive = 6000
    proposals: Positive = 300
    """Proposals that are kept and classified, in training and inference."""
    rpn_nms_threshold: Fraction = 0.7
    bins: Positive = 7
    """Bins of position-sensitive pooling in each direction."""
    hard_examples: Positive = 128
    """Proposals of the largest loss that training learns from (OHEM)."""
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.001
    nms_threshold: Fraction = 0.3
    detections_per_image: Positive = 300


class TorchvisionHeadConfig(Config):
    """What follows the backbone in a detector from torchvision.models.detection; see torchvision_detectors.py."""

    kind: Literal["torchvision"] = "torchvision"
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    nms_threshold: Fraction = 0.5
    detections_per_image: Positive = 100


HeadConfig = Annotated[
    Annotated[FCOSHeadConfig, Tag("fcos")]
    | Annotated[RFCNHeadConfig, Tag("rfcn")]
    | Annotated[TorchvisionHeadConfig, Tag("torchvision")],
    _by_kind("fcos"),
]

# ---------------------------------------------------------------------------------------------------- whole detector


class AnticipationConfig(Config):
    """How detections of future instants are made; see streaming/video_detector.py."""

    source: Literal["features", "proposals", "boxes"] = "features"
    """Warp the memory and run the head (section 4.3); with "proposals" it looks only where the current boxes move to,
    as long as it has two stages. Or move the current boxes (the baseline of section 5.2)."""
    motion: Motion = "robust"
    """How displacements go on; the model card of memnet-tiny compares them."""


class PropagationConfig(Config):
    """Frames that are not looked at in full (section 5.2); see streaming/video_detector.py."""

    every: Positive = 1
    """Evidence enters in every n-th frame; 1 is every frame."""
    source: Literal["features", "boxes", "anticipation"] = "features"
    """In between: the memory or the boxes warped by displacements of the images, or no use of the images at all."""


class StrongConfig(Config):
    """The strong detector beside a fast one (section 4.2); see fast_strong.py."""

    detector: "DetectorConfig"
    lag: Positive = 4
    """Frames by which the strong detector's output is late."""
    source: Literal["features", "boxes"] = "features"
    """Aggregate the strong features, warped over the lag, with the fast ones; or merge the strong boxes, moved over
    the lag."""
    aggregation: Aggregation = "average"
    """The rule for features: the paper's average, or another of those that a memory may have."""


class DetectorConfig(Config):
    """A whole detector: features x displacement x memory x head."""

    name: str
    version: str = "0"
    class_names: tuple[str, ...] = Field(min_length=1)
    short_side: Positive = 192
    """Images are scaled so that their shorter side has this many pixels before they enter the network, ..."""
    long_side: Positive | None = None
    """... unless the longer side would then have more than this."""
    fixed_size: tuple[Positive, Positive] | None = None
    """(height, width) that every image is scaled to instead, whatever its shape."""
    split: bool = False
    """Detect in the left and the right half of each image by themselves, as two devices would (Table 3)."""
    features: FeaturesConfig = TinyFeaturesConfig()
    displacement: DisplacementConfig = CorrelationConfig()
    memory: MemoryConfig = MemNetConfig()
    head: HeadConfig = FCOSHeadConfig()
    anticipation: AnticipationConfig = AnticipationConfig()
    propagation: PropagationConfig = PropagationConfig()
    strong: StrongConfig | None = None

    def network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of this (height, width) is scaled to, before padding."""
        return self.fixed_size or scaled_size(size, self.short_side, self.long_side)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "DetectorConfig":
        memory, displacement = self.memory, self.displacement
        if displacement.kind == "none":
            needs = [
                (memory.kind != "none", f"memory {memory.kind}"),
                (self.propagation.every > 1, "propagation"),
                (self.strong is not None, "a strong detector's lag"),
            ]
            for needed, what in needs:
                if needed:
                    raise ValueError(f"{what} needs a displacement: correlation, flownet, raft or still; got none")
        if memory.kind == "none" and self.propagation.every > 1 and self.propagation.source == "features":
            raise ValueError("propagation of features needs a memory: memnet or clocknet; got none")
        if memory.kind == "fgfa" and memory.future and (self.propagation.every > 1 or self.split):
            raise ValueError("propagation and split need a causal memory; got fgfa with future frames")
        if isinstance(displacement, FlowNetConfig) and displacement.scale_map and getattr(memory, "composed", False):
            raise ValueError("scale_map cannot be chained; set composed: false or scale_map: false")
        if (self.features.kind == "torchvision") != (self.head.kind == "torchvision"):
            raise ValueError(
                f"features and head of a torchvision detector come together; got {self.features.kind} features and "
                f"the head {self.head.kind}"
            )
        if self.strong is not None:
            self._check_strong(self.strong)
        return self

    def _check_strong(self, strong: StrongConfig) -> None:
        if self.split or self.memory.kind != "none" or strong.detector.strong is not None:
            raise ValueError("a fast detector beside a strong one has no memory of its own, no split, and only one")
        if self.propagation.every > 1:
            raise ValueError(
                "a fast detector beside a strong one looks at every frame; propagation is the strong one's"
            )
        if strong.detector.class_names != self.class_names:
            raise ValueError(f"the strong detector must have the same class_names, got {strong.detector.class_names}")
        fast, slow = self.features, strong.detector.features
        if strong.source == "features" and getattr(fast, "channels", None) != getattr(slow, "channels", None):
            raise ValueError("features of the fast and the strong detector must have the same channels")


StrongConfig.model_rebuild()


def scaled_size(size: tuple[int, int], short_side: int, long_side: int | None) -> tuple[int, int]:
    """(height, width) with the shorter side as given, or smaller where the longer one would be above its limit."""
    scale = short_side / min(size)
    if long_side is not None:
        scale = min(scale, long_side / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
