"""Chooses what each of the paper's figures shows of what was measured."""

from collections.abc import Mapping
from pathlib import Path

from memwarp_core.evaluation.reproduction.bootstrap import interval
from memwarp_core.evaluation.reproduction.figures import (
    Point,
    fastest_pairs,
    most_faults,
    save_curves,
    save_displacements,
    save_film_strip,
    save_tradeoff,
)
from memwarp_core.evaluation.reproduction.measure import Measured, map_by_age
from memwarp_core.evaluation.reproduction.rows import ANTICIPATION, DELTAS, propagated, rows
from memwarp_core.models.zoo import load_weights
from memwarp_core.streaming import run_detector

TRADEOFF, FILM, DISPLACEMENT = "tradeoff.png", "film.png", "displacement.png"
PROPAGATION_CURVES, ANTICIPATION_CURVES = "propagation.png", "anticipation.png"

_TRADEOFF_ROWS = ("rfcn-tiny", "fgfa-tiny", "causal-fgfa-tiny", "memnet-tiny-6", "memnet-tiny-6-wgts", "clocknet-tiny")
_FILM_ROWS = ("rfcn-tiny", "memnet-tiny-6", "clocknet-tiny")
_FILM_FRAMES = 6
_MEMORIES = {"memnet-tiny-6": "MemNet", "clocknet-tiny": "ClockNet"}
_BEFORE_AND_AFTER = {"before, R-FCN's own": "rfcn-tiny", "after, with MemNet": "memnet-tiny"}
_PAIRS = 3


def draw_all(folder: Path, measured: Measured, *, weights: Path, device: str) -> None:
    """Write every figure of which a row is trained; those of a former run are removed first.

    Args:
        weights: folder of the models, whose displacements are compared.
    """
    for old in folder.glob("*.png"):
        old.unlink()
    _draw_tradeoff(folder / TRADEOFF, measured)
    _draw_film(folder / FILM, measured)
    _draw_displacements(folder / DISPLACEMENT, measured, weights, device)
    _draw_curves(folder / PROPAGATION_CURVES, measured, {"featprop": "features", "boxprop": "boxes"})
    _draw_curves(folder / ANTICIPATION_CURVES, measured, {ANTICIPATION: "features"})


def _draw_tradeoff(path: Path, measured: Measured) -> None:
    known = rows()
    points = [
        Point(
            label=known[name].label,
            map=interval(measured.figures[name].map["all"]),
            ms=float(measured.figures[name].ms[0]),
            paper_map=known[name].paper["all"],
            paper_ms=known[name].paper["ms"],
        )
        for name in _TRADEOFF_ROWS
        if name in measured.figures
    ]
    if points:
        save_tradeoff(path, points)


def _draw_film(path: Path, measured: Measured) -> None:
    index, at = most_faults(measured.truths, _FILM_FRAMES)
    shown = {rows()[name].label: measured.runs[name][index] for name in _FILM_ROWS if name in measured.runs}
    if shown:
        save_film_strip(path, measured.clips[index], range(at, at + _FILM_FRAMES), shown)


def _draw_displacements(path: Path, measured: Measured, weights: Path, device: str) -> None:
    files = {title: weights / f"{model}.safetensors" for title, model in _BEFORE_AND_AFTER.items()}
    if all(file.is_file() for file in files.values()):
        compared = {title: run_detector(load_weights(file), device) for title, file in files.items()}
        places = fastest_pairs(measured.truths, _PAIRS)
        if places and all(detector.network.displacement is not None for detector in compared.values()):
            pairs = [(measured.clips[index][at - 1], measured.clips[index][at]) for index, at in places]
            save_displacements(path, pairs, compared)


def _draw_curves(path: Path, measured: Measured, ways: Mapping[str, str]) -> None:
    known, every = rows(), DELTAS[-1]
    curves = {f"{name}, {what}": (system, way) for way, what in ways.items() for system, name in _MEMORIES.items()}
    ours = {
        label: map_by_age(measured, propagated(system, way, every), every)
        for label, (system, way) in curves.items()
        if propagated(system, way, every) in measured.runs
    }
    paper = {
        label: {delta: known[propagated(system, way, delta)].paper["all"] for delta in (0, *DELTAS)}
        for label, (system, way) in curves.items()
    }
    if ours:
        save_curves(path, ours, paper)
