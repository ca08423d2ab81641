"""What `memwarp models` lists."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from memwarp_core.models.config import ClockNetConfig, DetectorConfig, NoMemoryConfig
from memwarp_core.models.systems import systems
from memwarp_core.models.zoo import WEIGHTS_FOLDER, available_models, build_detector, load_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippedModel:
    """A model with its weights."""

    name: str
    version: str
    parameters: int
    class_names: tuple[str, ...]
    map50: dict[str, float]
    """The report of `memwarp evaluate` on held-out clips, per split of frames; the model card beside it says which."""
    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemOverview:
    """A system of the paper, of which there is a configuration."""

    name: str
    row: str
    tables: str
    parameters: int
    strides: tuple[int, ...]
    """Image pixels per cell, per level of the memory."""
    time_strides: tuple[int, ...]
    """Frames between two updates, per time axis; empty without a memory."""
    start_from: str
    """Where the weights come from that a training begins with."""


def shipped_models() -> list[ShippedModel]:
    """In the order of their names."""
    models = []
    for name in available_models():
        detector = load_weights(name)
        report = WEIGHTS_FOLDER / f"{name}.json"
        models.append(
            ShippedModel(
                name=name,
                version=detector.config.version,
                parameters=sum(parameter.numel() for parameter in detector.parameters()),
                class_names=detector.config.class_names,
                map50=json.loads(report.read_text())["map50"] if report.is_file() else {},
                folder=WEIGHTS_FOLDER,
            )
        )
    return models


def system_overview() -> Iterator[SystemOverview]:
    """In the order of the paper's tables, its own size first."""
    for name, system in systems().items():
        parameters, strides = _measure(_parts(system.config))
        yield SystemOverview(
            name=name,
            row=system.row,
            tables=system.tables,
            parameters=parameters,
            strides=strides,
            time_strides=_time_strides(system.config),
            start_from=_start_from(system.config),
        )


def _parts(config: DetectorConfig) -> str:
    """What decides about a detector's weights, so that it is built once for all systems that share it."""
    parts = config.model_copy(update={"name": "", "short_side": 1, "long_side": None})
    return parts.model_dump_json(exclude={"propagation", "split"})


@cache
def _measure(parts: str) -> tuple[int, tuple[int, ...]]:
    """Parameters, and image pixels per cell. Nothing is allocated on the meta device."""
    with torch.device("meta"), _WithoutValues():
        detector = build_detector(DetectorConfig.model_validate_json(parts))
    return sum(parameter.numel() for parameter in detector.parameters()), detector.features.strides


class _WithoutValues(TorchFunctionMode):
    """Leaves new weights as they are: drawing random values takes most of the time even where there is no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _time_strides(config: DetectorConfig) -> tuple[int, ...]:
    if isinstance(config.memory, NoMemoryConfig):
        return () if config.strong is None else _time_strides(config.strong.detector)
    axes = config.memory.strides if isinstance(config.memory, ClockNetConfig) else (1,)
    every = config.propagation.every
    if config.propagation.source == "anticipation":  # the memory stands still in between
        return tuple(axis * every for axis in axes)
    return tuple(lcm(axis, every) for axis in axes)


def _start_from(config: DetectorConfig) -> str:
    if config.features.kind != "resnet":
        return "random weights"
    return "torchvision's ImageNet weights and published FlowNetS weights"
