"""Every system of the paper's tables under its own name, at the paper's size and at one that a CPU can train."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from memwarp_core.errors import ConfigError
from memwarp_core.models.config import Aggregation, DetectorConfig

Overrides = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A row of a table: what is built, and on what sequences it is trained."""

    tables: str
    """Where the paper has it; S1, S2a and S2b are the supplement's tables. Empty for what the paper does not have."""
    row: str
    """What the paper calls it there."""
    config: DetectorConfig
    frames: int
    """Frames per training sequence."""
    temporal_stride: int
    """Every n-th frame of a clip is in a training sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    strong: str
    """How names call the large backbone, ..."""
    fast: str
    """... the light one, ..."""
    ablation: str
    """... and the one of the supplement's Table 2, at half resolution."""
    short_side: int
    long_side: int
    base: Overrides
    """Configuration of the strong per-frame detector."""
    fast_features: Overrides
    ablation_features: Overrides
    pair_aggregation: Aggregation = "average"
    """How a fast detector takes in the features that it borrows; the paper's average by default."""


# fmt: off
_VID_CLASSES = [
    "airplane", "antelope", "bear", "bicycle", "bird", "bus", "car", "cattle", "dog", "domestic_cat", "elephant",
    "fox", "giant_panda", "hamster", "horse", "lion", "lizard", "monkey", "motorcycle", "rabbit", "red_panda",
    "sheep", "snake", "squirrel", "tiger", "train", "turtle", "watercraft", "whale", "zebra",
]
# fmt: on
_SIMULATED_CLASSES = ["ball", "crate", "barrel", "cone", "dumbbell", "rover", "humanoid"]

_PAPER = _Size(
    strong="101",
    fast="18",
    ablation="50",
    short_side=600,
    long_side=1000,
    base={
        "class_names": _VID_CLASSES,
        "features": {"kind": "resnet", "depth": 101},
        "displacement": {"kind": "flownet"},
        "head": {"kind": "rfcn"},
    },
    fast_features={"kind": "resnet", "depth": 18},
    ablation_features={"kind": "resnet", "depth": 50},
)
_TINY = _Size(
    strong="tiny",
    fast="nano",
    ablation="nano",
    short_side=192,
    long_side=320,
    base={
        "class_names": _SIMULATED_CLASSES,
        "features": {"kind": "tiny"},
        "displacement": {"kind": "correlation"},
        "head": {
            "kind": "rfcn",
            "anchor_sizes": [24, 48, 96],
            "rpn_channels": 96,
            "proposals_before_nms": 1000,
            "proposals": 100,
            "bins": 3,
            "hard_examples": 64,
        },
    },
    fast_features={"kind": "tiny", "widths": [16, 32, 48, 64]},
    ablation_features={"kind": "tiny", "widths": [16, 32, 48, 64]},
    # "More advanced aggregation schemes are possible" (section 4.2), and this one is better here.
    pair_aggregation="weights",
)

_PER_FRAME = {"memory": {"kind": "none"}, "displacement": {"kind": "none"}}
_MEMNET = {"memory": {"kind": "memnet"}}
_CLOCKNET = {"memory": {"kind": "clocknet"}}


@cache
def systems() -> dict[str, System]:
    """All systems by name, the paper's size first."""
    return {
        system.config.name: system
        for size in (_PAPER, _TINY)
        for table in (_table_1, _table_2, _table_3, _supplement_2)
        for system in table(size)
    }


def find_system(name: str) -> System:
    """Raises: ConfigError naming similar ones."""
    if name not in systems():
        similar = ", ".join(get_close_matches(name, systems(), cutoff=0.3)) or "rfcn-101"
        raise ConfigError(f"system {name!r}: expected one that `memwarp models` lists, such as {similar}.")
    return systems()[name]


def _table_1(size: _Size) -> Iterator[System]:
    """Accuracy and runtime of the methods; the supplement's Table 1 has the same ones per class."""
    strong = size.strong

    def row(
        name: str, row: str, overrides: Overrides, tables: str = "1", half: bool = False, **sequence: int
    ) -> System:
        return _system(name, tables, row, size, overrides, half, **sequence)

    yield row(f"rfcn-{strong}", "R-FCN", _PER_FRAME, "1 S1", frames=1)
    # FGFA trains on a frame with a few of its neighbours, and aggregates more of them when it runs.
    yield row(f"fgfa-{strong}", "FGFA", {"memory": {"kind": "fgfa"}}, "1 S1", frames=3)
    yield row(f"fgfa-{strong}-half", "FGFA (half)", {"memory": {"kind": "fgfa"}}, half=True, frames=3)
    causal = {"kind": "fgfa", "future": 0}
    yield row(f"causal-fgfa-{strong}", "Cau. FGFA", {"memory": causal}, "1 S1", frames=3)
    yield row(f"causal-fgfa-{strong}-composed", "Cau. FGFA*", {"memory": {**causal, "composed": True}}, frames=3)
    yield row(f"memnet-{strong}-3", "MemNet-3", _MEMNET, frames=3)
    yield row(f"memnet-{strong}-6", "MemNet-6", _MEMNET, "1 2 S1", frames=6)
    weights = {"memory": {"kind": "memnet", "aggregation": "weights"}}
    yield row(f"memnet-{strong}-6-wgts", "MemNet-6-wgts", weights, frames=6)
    yield row(f"memnet-{strong}-6-strd-4", "MemNet-6-strd-4", _MEMNET, frames=6, temporal_stride=4)
    yield row(f"memnet-{strong}-6-strd-8", "MemNet-6-strd-8", _MEMNET, frames=6, temporal_stride=8)
    yield row(f"clocknet-{strong}", "ClockNet", _CLOCKNET, "1 2 3 S1", frames=6)
    composed = {"memory": {"kind": "clocknet", "composed": True}}
    yield row(f"clocknet-{strong}-composed", "", composed, "", frames=6)


def _table_2(size: _Size) -> Iterator[System]:
    """Evidence in every n-th frame only, by what the frames in between are detected with; n = 0 is Table 1's."""
    sources = {"boxprop": "boxes", "featprop": "features", "anticipation": "anticipation"}
    memories = [(_MEMNET, f"memnet-{size.strong}-6", "MemNet"), (_CLOCKNET, f"clocknet-{size.strong}", "ClockNet")]
    for memory, name, row in memories:
        for way, source in sources.items():
            for every in (4, 8):
                also = "2 3" if (row, way, every) == ("ClockNet", "featprop", 4) else "2"
                overrides = {**memory, "propagation": {"every": every, "source": source}}
                label = f"{row}, {way}, {every}"
                yield _system(f"{name}-{way}-{every}", also, label, size, overrides, frames=6)


def _table_3(size: _Size) -> Iterator[System]:
    """Fast and strong detectors, by themselves, on image halves, and together."""
    fast, strong = size.fast, size.strong
    light: Overrides = {**_PER_FRAME, "features": size.fast_features}
    every_4th: Overrides = {**_CLOCKNET, "propagation": {"every": 4}}
    rows: list[tuple[str, str, Overrides]] = [
        (f"rfcn-{fast}", "R-FCN-18", light),
        (f"rfcn-{fast}-split", "R-FCN-18 (split)", {**light, "split": True}),
        (f"clocknet-{strong}-split", "ClockNet-101 (split)", {**_CLOCKNET, "split": True}),
        (f"clocknet-{strong}-featprop-4-split", "ClockNet-101-FeatProp (split)", {**every_4th, "split": True}),
    ]
    for name, row, overrides in rows:
        yield _system(name, "3", row, size, overrides, frames=1 if "rfcn" in name else 6)
    helper = _configuration(f"clocknet-{strong}-featprop-4", size, every_4th, half=False)
    for way, source, row in (("boxprop", "boxes", "BoxProp"), ("featprop", "features", "FeatProp")):
        pair: Overrides = {
            "features": size.fast_features,
            "memory": {"kind": "none"},
            "strong": {"detector": helper, "lag": 4, "source": source, "aggregation": size.pair_aggregation},
        }
        name = f"rfcn-{fast}+clocknet-{strong}-{way}"
        yield _system(name, "3", f"R-FCN-18+ClockNet-101-{row}", size, pair, frames=6)


def _supplement_2(size: _Size) -> Iterator[System]:
    """Ways of aggregation (a) and places of the memory (b), at half resolution."""
    for aggregation in ("average", "weights", "adaptive", "adascan"):
        overrides = {
            "features": size.ablation_features,
            "memory": {"kind": "memnet", "aggregation": aggregation},
        }
        row = {"average": "Average", "weights": "Weighting", "adaptive": "Adaptive Weighting", "adascan": "AdaScan"}
        name = f"memnet-{size.ablation}-half-{aggregation}"
        yield _system(name, "S2a", row[aggregation], size, overrides, half=True, frames=6)
    for stages in (["conv3"], ["conv4"], ["conv4", "conv5"], ["conv5"]):
        overrides = {"features": {**size.ablation_features, "memory_at": stages}, **_MEMNET}
        row_name = "+".join(stages)
        name = f"memnet-{size.ablation}-half-{row_name}"
        yield _system(name, "S2b", row_name, size, overrides, half=True, frames=6)


def _system(
    name: str,
    tables: str,
    row: str,
    size: _Size,
    overrides: Overrides,
    half: bool = False,
    *,
    frames: int,
    temporal_stride: int = 1,
) -> System:
    config = DetectorConfig.model_validate(_configuration(name, size, overrides, half))
    return System(tables=tables, row=row, config=config, frames=frames, temporal_stride=temporal_stride)


def _configuration(name: str, size: _Size, overrides: Overrides, half: bool) -> Overrides:
    divisor = 2 if half else 1
    return {
        "name": name,
        "short_side": size.short_side // divisor,
        "long_side": size.long_side // divisor,
        **size.base,
        **overrides,
    }
