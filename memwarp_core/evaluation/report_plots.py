"""The figures of `memwarp evaluate` as plots, with all models in each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memwarp_core.evaluation.plots import INK, dress
from memwarp_core.files import write_whole

_COLORS = ("#1f78d1", "#e07b39", "#3a9d5d", "#8e5bb5", "#c2456b", "#5b7083", "#b8962e", "#2aa5a5")
"""Of the models, in their order; repeated where there are more."""
_LINES = {"features": "-", "boxes": "--", "features, robust": "-", "boxes, robust": "--", "nothing moved": ":"}
"""Of what is compared in each model; other ways of anticipation are in the report alone."""

Figures = Mapping[str, float | None]


def save_report_plots(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the plots of a report of evaluate_models into a folder.

    These are accuracy.png, by what is wrong with a frame and by the speed of objects; and, where they were measured,
    runtime.png (the paper's Figure 6), propagation.png (Figure 7d) and anticipation.png (the supplement's Figure 4).
    """
    models: Mapping[str, Mapping[str, Any]] = report["models"]
    for name in ("runtime.png", "propagation.png", "anticipation.png"):  # of an earlier report
        (folder / name).unlink(missing_ok=True)
    _save_bars(folder / "accuracy.png", {name: _by_split(model) for name, model in models.items()})
    times = {name: ms for name, ms in report["runtime"]["ms_per_frame"].items() if ms is not None}
    if times:
        _save_runtime(folder / "runtime.png", times, {name: model["map50"]["all"] for name, model in models.items()})
    propagated = {
        name: {source: scores["map50"] for source, scores in model["propagation"].items()}
        for name, model in models.items()
    }
    if any(propagated.values()):
        _save_curves(folder / "propagation.png", propagated, "frames since the last evidence")
    anticipated = {
        name: {way: {"0": model["map50"]["all"], **scores} for way, scores in model["anticipation"].items()}
        for name, model in models.items()
    }
    if any(anticipated.values()):
        _save_curves(folder / "anticipation.png", anticipated, "seconds ahead")


def _by_split(model: Mapping[str, Any]) -> dict[str, float | None]:
    by_kind = {kind.replace("_", "\n"): value for kind, value in model["map50_by_degradation"].items()}
    return {**model["map50"], **by_kind, **model["map50_by_speed"]}


def _save_bars(path: Path, models: Mapping[str, Figures]) -> None:
    figure, axes = _canvas(width=12)
    width = 0.8 / len(models)
    for index, (name, figures) in enumerate(models.items()):
        at = np.arange(len(figures)) + (index - (len(models) - 1) / 2) * width
        bars = axes.bar(at, _percents(figures), 0.92 * width, color=_color(index), label=name)
        if len(models) <= 2:  # there is room for numbers
            axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=9, color=INK)
    splits = list(next(iter(models.values())))
    axes.set_xticks(range(len(splits)), splits)
    axes.set_ylim(0, 105)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(models), fontsize=9, frameon=False)
    write_whole(path, figure.savefig)


def _save_runtime(path: Path, ms: Mapping[str, float], map50: Figures) -> None:
    figure, axes = _canvas(width=7)
    for index, (at, name) in enumerate(zip(zip(ms.values(), _percents(map50), strict=True), ms, strict=True)):
        axes.plot(*at, "o", color=_color(index), markersize=9)
        axes.annotate(name, at, xytext=(8, 0), textcoords="offset points", va="center", color=INK)
    axes.margins(y=0.25)
    axes.set_xlim(0, 1.3 * max(ms.values()))  # names are at the right of their points
    axes.set_xlabel("ms per frame", color=INK)
    write_whole(path, figure.savefig)


def _save_curves(path: Path, models: Mapping[str, Mapping[str, Figures]], what: str) -> None:
    """A colour per model, a kind of line for each of its curves, whose keys are numbers."""
    figure, axes = _canvas(width=9)
    for index, (name, curves) in enumerate(models.items()):
        for way, figures in curves.items():
            if way in _LINES:
                at = [float(key) for key in figures]
                color, label = _color(index), f"{name}: {way}"
                axes.plot(at, _percents(figures), _LINES[way], color=color, marker="o", markersize=4, label=label)
    axes.set_ylim(0, 100)
    axes.set_xlabel(what, color=INK)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, frameon=False)
    write_whole(path, figure.savefig)


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _percents(figures: Figures) -> list[float]:
    """NaN, which plots leave out, where there is nothing to find."""
    return [float("nan") if value is None else 100 * value for value in figures.values()]


def _canvas(width: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 4.2), dpi=120, layout="constrained", facecolor="white")
    axes = figure.subplots()
    dress(axes, "mAP@0.5 in percent")
    return figure, axes
