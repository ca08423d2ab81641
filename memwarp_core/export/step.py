"""One step of a stream as a function of tensors: image and memory in, boxes and memory out."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from memwarp_core.errors import ConfigError
from memwarp_core.export.static_head import StaticRFCNHead
from memwarp_core.models import Detector, build_detector
from memwarp_core.models.config import ClockNetConfig, MemNetConfig, NoMemoryConfig, RFCNHeadConfig
from memwarp_core.models.displacement import Raft
from memwarp_core.models.memory import ClockNet, MemNet
from memwarp_core.models.memory.memnet import MemNetState
from memwarp_core.models.parts import Evidence, Levels, warp_levels


class TensorStep(nn.Module):
    """A detector's step without Python values in its state, so that it can be traced once for all frames.

    The state is `frame`, the number of frames seen (1,), int64, and the memory's tensors. A stream starts with zeros
    everywhere; each step's next state is the following step's state. Everything is of one image, in shapes that are
    the same for every frame.

    What the step leaves to its caller is the choice among its boxes (RFCNHead.select: a threshold on the scores and
    non-maximum suppression by class), so that thresholds stay free and all results have a fixed size.
    """

    def __init__(self, detector: Detector, size: tuple[int, int], head: type[StaticRFCNHead] = StaticRFCNHead) -> None:
        """
        Args:
            detector: as `load_weights` returns it.
            size: (height, width) of the network's input, multiples of features.size_multiple.
            head: what takes the place of the detector's own.
        Raises: ConfigError for a detector with parts that cannot be traced.
        """
        super().__init__()
        config = detector.config
        check_parts(detector)
        assert isinstance(config.head, RFCNHeadConfig)
        network = build_detector(config)
        network.head = head(
            network.features.head_channels[0], network.features.head_strides[0], len(config.class_names), config.head
        )
        network.load_state_dict(detector.state_dict())
        self.network = network.eval().requires_grad_(False)
        self.size = size
        with torch.no_grad():
            evidence = network.observe(torch.zeros(1, 3, *size))
            assert evidence.features is not None
            self._levels = len(evidence.features)
            maps = _started_maps(network, evidence.features)
        self._keeps_maps = len(maps)
        named = {f"map_{index}": level for index, level in enumerate(maps)}
        if evidence.motion is not None:
            named["motion"] = evidence.motion
        if isinstance(network.memory, ClockNet):
            assert evidence.motion is not None
            named = {
                f"axis_{axis}_{name}": value
                for axis in range(len(network.memory.strides))
                for name, value in named.items()
            } | {"motion": evidence.motion}
        self.state_shapes = {name: tuple(value.shape) for name, value in named.items()}
        """Of the memory's tensors, by name; without `frame`."""

    @property
    def input_names(self) -> list[str]:
        return ["image", "frame", *self.state_shapes]

    @property
    def output_names(self) -> list[str]:
        displacement = ["displacement"] if self.network.displacement is not None else []
        features = [f"features_{index}" for index in range(self._levels)]
        return [
            "boxes",
            "scores",
            *features,
            *displacement,
            "next_frame",
            *(f"next_{name}" for name in self.state_shapes),
        ]

    def start(self) -> list[Tensor]:
        """The state of a stream of which no frame was seen: `frame` and the memory's tensors."""
        return [torch.zeros(1, dtype=torch.int64), *(torch.zeros(shape) for shape in self.state_shapes.values())]

    def forward(self, image: Tensor, frame: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            image: (1, 3, *size), RGB in [0, 255], padded with PADDING_GREY at the right and below.
            frame, memory: the state.
        Returns: boxes (1, N, 4), xyxy in pixels of `image`; scores (1, N, classes); M_t per level; D_(t,t-1) on the
            finest level (1, 2, H, W), zero in a stream's first frame, if frames are compared; and the next state.
        """
        evidence = self.network.observe(image)
        is_first = frame == 0
        step = self._clocknet if isinstance(self.network.memory, ClockNet) else self._single
        read, displacement, state = step(evidence, is_first, frame, memory)
        fields = [] if displacement is None else [torch.where(is_first, 0.0, displacement[:, :2])]
        return *self.rate(*read), *read, *fields, frame + 1, *state

    def rate(self, *levels: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (1, N, 4) and scores (1, N, classes) from the features M_t."""
        head = self.network.head
        assert isinstance(head, StaticRFCNHead)
        return head.rate(self.network.features.finish(levels), self.size)

    def _single(
        self, evidence: Evidence, is_first: Tensor, frame: Tensor, memory: Sequence[Tensor]
    ) -> tuple[Levels, Tensor | None, list[Tensor]]:
        """MemNet, or no memory: what is read, the displacement and the memory's next tensors."""
        assert evidence.features is not None
        if evidence.motion is None:
            return evidence.features, None, []
        (displacement,) = self._compare(evidence.motion, [memory[-1]])
        memnet = self.network.memory
        if not isinstance(memnet, MemNet):
            return evidence.features, displacement, [evidence.motion]
        going, state = memnet.step(MemNetState(tuple(memory[:-1]), memory[-1]), evidence, [displacement])
        started = memnet.aggregate.start(evidence.features)
        maps = _choose(is_first, started, state.maps)
        read = _choose(is_first, memnet.aggregate.read(started), going)
        return read, displacement, [*maps, evidence.motion]

    def _clocknet(
        self, evidence: Evidence, is_first: Tensor, frame: Tensor, memory: Sequence[Tensor]
    ) -> tuple[Levels, Tensor | None, list[Tensor]]:
        """ClockNet.step with the ticks as tensors: axes that do not tick are updated as well, for nothing."""
        clocknet = self.network.memory
        assert isinstance(clocknet, ClockNet) and evidence.features is not None and evidence.motion is not None
        *axes, newest = memory
        kept = self._keeps_maps + 1
        pasts = [axes[kept * axis + self._keeps_maps] for axis in range(len(clocknet.strides))]
        # An axis that ticks in every frame was last updated in the frame before.
        compared = [newest, *(past for past, stride in zip(pasts, clocknet.strides, strict=True) if stride > 1)]
        fields = self._compare(evidence.motion, compared)
        longer = iter(fields[1:])
        started = clocknet.aggregate.start(evidence.features)
        state, memories = [], []
        for axis, stride in enumerate(clocknet.strides):
            maps = tuple(axes[kept * axis : kept * axis + self._keeps_maps])
            warped = warp_levels(maps, next(longer) if stride > 1 else fields[0])
            ticks = frame % stride == 0
            updated = _choose(is_first, started, clocknet.aggregate(warped, evidence.features))
            memories.append(clocknet.aggregate.read(_choose(ticks, updated, warped)))
            state += [*_choose(ticks, updated, maps), torch.where(ticks, evidence.motion, pasts[axis])]
        mean = tuple(sum(level[1:], level[0]) / len(level) for level in zip(*memories, strict=True))
        return mean, fields[0], [*state, evidence.motion]

    def _compare(self, motion: Tensor, pasts: Sequence[Tensor]) -> list[Tensor]:
        """The displacement to each of the past frames, measured in one batch."""
        assert self.network.displacement is not None
        current = motion.expand(len(pasts), -1, -1, -1)
        return list(self.network.displacement(current, torch.cat(tuple(pasts))).float().split(1))


class TensorAnticipation(nn.Module):
    """Boxes from the features of a step, moved to a coming instant (the paper, section 4.3)."""

    def __init__(self, step: TensorStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, displacement: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            displacement: (1, 2, H, W), from the coming instant to the newest frame, on the finest level: what
                `predict_displacement` and `splat` make of the last displacements.
            features: M_t per level.
        Returns: boxes (1, N, 4) and scores (1, N, classes), as of a step.
        """
        return self.step.rate(*warp_levels(features, displacement))


class TensorMovedProposals(nn.Module):
    """The same by looking only where given boxes move to; see Detector.detect_moved."""

    def __init__(self, step: TensorStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, displacement: Tensor, proposals: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            displacement: (T, 2, H, W), of T coming instants.
            proposals: (T, N, 4), where the boxes are at each; empty ones are found nowhere.
            features: M_t per level, of one stream.
        Returns: boxes (T, N, 4) and scores (T, N, classes).
        """
        network = self.step.network
        assert isinstance(network.head, StaticRFCNHead)
        return network.head.rate_moved(network.features.finish(features), displacement, proposals, self.step.size)


def _choose(condition: Tensor, these: Iterable[Tensor], those: Iterable[Tensor]) -> Levels:
    return tuple(torch.where(condition, this, that) for this, that in zip(these, those, strict=True))


def _started_maps(network: Detector, features: Levels) -> Levels:
    if isinstance(network.memory, (MemNet, ClockNet)):
        return network.memory.aggregate.start(features)
    return ()


def check_parts(detector: Detector) -> None:
    """
    Raises: ConfigError unless all parts can be traced.
    """
    config = detector.config
    refused = {
        f"the memory {config.memory.kind}": not isinstance(
            config.memory, (NoMemoryConfig, MemNetConfig, ClockNetConfig)
        ),
        "chained displacements": getattr(config.memory, "composed", False),
        f"the head {config.head.kind}": not isinstance(config.head, RFCNHeadConfig),
        "RAFT's displacements": isinstance(detector.displacement, Raft),
        "frames without evidence (propagation)": config.propagation.every > 1,
        "image halves (split)": config.split,
        "a strong detector beside it": config.strong is not None,
    }
    for what, is_there in refused.items():
        if is_there:
            raise ConfigError(
                f"model {config.name!r}: expected memory none, memnet or clocknet, head rfcn and every frame looked "
                f"at, which export knows; got {what}. Run it with PyTorch."
            )
