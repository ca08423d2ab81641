"""Figures that show at a glance what a detector did."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from memwarp_core.files import write_whole

INK = "#1c2530"
"""Of text."""
MUTED = "#6b7785"
"""Of text beside it."""
_MEMWARP = "#1f78d1"
_BASELINE = "#b4bcc6"


@dataclass(frozen=True, kw_only=True, slots=True)
class HorizonScores:
    """How good the boxes of one detector are, now and later."""

    horizons_s: Sequence[float]
    """0 for the current frame, then the horizons, increasing."""
    map50: Sequence[float | None]
    """mAP@0.5 in [0, 1] per horizon; None where it could not be measured."""
    map50_nothing_moved: Sequence[float | None]
    """The same for the current boxes, held against the later frame."""


def save_overview(
    path: Path,
    *,
    title: str,
    note: str,
    strip: Sequence[np.ndarray],
    captions: Sequence[str],
    latencies_ms: Sequence[float],
    scores: HorizonScores | None = None,
) -> None:
    """Write a figure with a film strip, the mAP per horizon and a histogram of latencies.

    Args:
        path: a .png file; it is written under a temporary name and renamed.
        title: one line above all.
        note: what the boxes in the strip mean; at the right of the title.
        strip: (H, W, 3) uint8 RGB images of one size, in the order of time; shown in up to two rows.
        captions: one per image.
        latencies_ms: from publishing a frame to receiving its detections.
        scores: left out where there is no ground truth.
    """
    columns = min(len(strip), 3)
    rows = -(-len(strip) // columns)
    height, width = strip[0].shape[:2]
    image_width = 13.6 / columns
    rows_height = rows * (image_width * height / width + 0.28)
    figure = Figure(figsize=(14, 0.6 + rows_height + 3.6), dpi=100, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold", color=INK)
    figure.text(0.995, 0.995, note, ha="right", va="top", fontsize=11, color=MUTED)
    top, bottom = figure.subfigures(2, 1, height_ratios=[rows_height, 3.6], squeeze=False)[:, 0]

    film = top.subplots(rows, columns, squeeze=False).ravel()
    for axes in film:
        axes.axis("off")
    for axes, image, caption in zip(film, strip, captions, strict=False):
        axes.imshow(image, interpolation="antialiased")
        axes.set_title(caption, loc="left", fontsize=10, color=MUTED, pad=3)

    if scores is None:
        _plot_latencies(bottom.subplots(), latencies_ms)
    else:
        left, right = bottom.subplots(1, 2)
        _plot_horizons(left, scores)
        _plot_latencies(right, latencies_ms)

    save_small(figure, path)


def save_small(figure: Figure, path: Path) -> None:
    """Write a figure of pictures with 256 colours: a third of the size, and hardly anybody sees it."""
    full = io.BytesIO()
    figure.savefig(full)
    image = Image.open(full).convert("RGB")
    # The default method would spend all colours on the scene and give none to a small box.
    palette = image.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    small = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    write_whole(path, lambda temporary: small.save(temporary, optimize=True))


def _plot_horizons(axes: Axes, scores: HorizonScores) -> None:
    positions = range(len(scores.horizons_s))
    series = (
        ("anticipated with the memory's motion", scores.map50, _MEMWARP),
        ("if nothing had moved", scores.map50_nothing_moved, _BASELINE),
    )
    for side, (name, values, color) in enumerate(series):
        # The current frame has no baseline: both are the same boxes.
        shown = [(at, value) for at, value in zip(positions, values, strict=True) if value is not None]
        shown = [(at, value) for at, value in shown if side == 0 or scores.horizons_s[at] > 0]
        where = [at + (0.0 if scores.horizons_s[at] == 0 else (side - 0.5) * 0.38) for at, _ in shown]
        bars = axes.bar(where, [value for _, value in shown], 0.36, color=color, label=name)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=10, color=INK)
    labels = ["now" if horizon_s == 0 else f"in {horizon_s:g} s" for horizon_s in scores.horizons_s]
    axes.set_xticks(positions, labels)
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.legend(loc="upper right", fontsize=10, frameon=False, ncols=2)
    dress(axes, "mAP@0.5 against the ground truth of that instant")


def _plot_latencies(axes: Axes, latencies_ms: Sequence[float]) -> None:
    if len(latencies_ms):
        axes.hist(latencies_ms, bins=min(40, max(10, len(latencies_ms) // 4)), color=_MEMWARP, rwidth=0.92)
        top = axes.get_ylim()[1] * 1.2
        axes.set_ylim(0, top)
        right = max(latencies_ms) * 1.15
        for percentile, level in ((50, 0.97), (95, 0.89), (99, 0.81)):
            value = float(np.percentile(latencies_ms, percentile))
            has_room = value < 0.8 * right
            axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"p{percentile} {value:.0f} ms",
                (value, top * level),
                xytext=(5 if has_room else -5, 0),
                textcoords="offset points",
                ha="left" if has_room else "right",
                va="center",
                fontsize=10,
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
            )
        axes.set_xlim(left=0, right=right)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("ms", color=MUTED)
    dress(axes, "Frames by time from publishing an image to receiving its detections")


def dress(axes: Axes, title: str) -> None:
    """Title and colours, and no more lines than needed: how all plots of memwarp look."""
    axes.set_title(title, loc="left", fontsize=12, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_BASELINE)
    axes.tick_params(colors=MUTED, length=0)
    axes.grid(axis="y", color="#e8ebef")
    axes.set_axisbelow(True)
