"""The paper's figures, drawn from what was measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from memwarp_core.data.clips import Clip
from memwarp_core.evaluation.plots import INK, MUTED, dress, save_small
from memwarp_core.evaluation.reproduction.bootstrap import Interval
from memwarp_core.evaluation.running import ClipRun
from memwarp_core.evaluation.scoring import CLEAN
from memwarp_core.files import write_whole
from memwarp_core.geometry import resize_displacement
from memwarp_core.streaming import VideoDetector
from memwarp_core.types import Frame
from memwarp_core.visualization import draw_detections

_COLORS = ("#1f78d1", "#e0662d", "#2a9d6f", "#8a5cc2", "#c2a03a", "#d1477a")
_SHOWN_SCORE = 0.5
"""Boxes of a lower score are left out of pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One system in the plane of accuracy and runtime."""

    label: str
    map: Interval
    """In percent."""
    ms: float
    paper_map: float
    paper_ms: float


def save_tradeoff(path: Path, points: Sequence[Point]) -> None:
    """Figure 6: accuracy against time per frame, ours with 95 % intervals and the paper's beside them."""
    figure = Figure(figsize=(11, 4.4), dpi=100, layout="constrained")
    ours, paper = figure.subplots(1, 2)
    for color, point in zip(_COLORS * len(points), points, strict=False):
        error = [[max(point.map.value - point.map.low, 0)], [max(point.map.high - point.map.value, 0)]]
        ours.errorbar(point.ms, point.map.value, yerr=error, fmt="o", color=color, capsize=3)
        paper.plot(point.paper_ms, point.paper_map, "o", color=color, label=point.label)
    for axes, title in ((ours, "here"), (paper, "in the paper (ImageNet VID, TITAN Xp)")):
        _dress(axes, title, "ms per frame", "mAP")
        axes.set_xlim(left=0)
    paper.legend(frameon=False, fontsize=9, loc="lower right")
    write_whole(path, figure.savefig)


def save_curves(path: Path, ours: Mapping[str, Sequence[float]], paper: Mapping[str, Mapping[int, float]]) -> None:
    """Figure 7d and the supplement's Figure 4: mAP in percent over the frames since the last evidence.

    Args:
        ours: name to mAP per frame since the evidence, from 0.
        paper: name to mAP by delta.
    """
    figure = Figure(figsize=(11, 4.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    colors = dict(zip(dict.fromkeys([*ours, *paper]), _COLORS, strict=False))
    for name, values in ours.items():
        left.plot(range(len(values)), values, "o-", color=colors[name], label=name, markersize=4)
    for name, by_delta in paper.items():
        right.plot(list(by_delta), list(by_delta.values()), "o-", color=colors[name], label=name, markersize=4)
    _dress(left, "here", "frames since the last evidence", "mAP of such frames")
    _dress(right, "in the paper (Table 2)", "δ", "mAP")
    right.set_xticks([0, 4, 8])
    for axes in (left, right):
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    write_whole(path, figure.savefig)


def save_displacements(
    path: Path, pairs: Sequence[tuple[Frame, Frame]], detectors: Mapping[str, VideoDetector]
) -> None:
    """Figure 7c: displacements from each pair's second frame to its first, by several detectors, as colour wheels.

    Args:
        pairs: of neighbouring frames.
        detectors: by what the columns are called; each measures displacements.
    """
    columns = ["past frame", "frame", *detectors]
    height, width = pairs[0][0].image.shape[:2]
    each = 12.6 / len(columns)
    figure = Figure(figsize=(13.6, len(pairs) * (each * height / width + 0.1) + 0.5), dpi=100, layout="constrained")
    grid = figure.subplots(len(pairs), len(columns), squeeze=False)
    for row, (past, current) in zip(grid, pairs, strict=True):
        fields = [_measure(detector, past, current) for detector in detectors.values()]
        fastest = max(float(np.percentile(np.linalg.norm(field, axis=2), 99.5)) for field in fields)
        pictures = [past.image, current.image, *(paint_displacement(field, fastest) for field in fields)]
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture)
            axes.axis("off")
        row[-1].text(
            1.02, 0.02, f"wheel: {fastest:.0f} px", transform=row[-1].transAxes, rotation=90, fontsize=8, color=MUTED
        )
        wheel = row[-1].inset_axes((0.82, 0.7, 0.17, 0.28))
        wheel.imshow(_wheel())
        wheel.axis("off")
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, loc="left", fontsize=11, color=INK)
    write_whole(path, figure.savefig)


def paint_displacement(field: np.ndarray, fastest: float) -> np.ndarray:
    """(H, W, 2) to (H, W, 3) in [0, 1]: the hue is the direction, and white is no motion.

    Args:
        fastest: the length at which colours are full.
    """
    hue = (np.arctan2(field[..., 1], field[..., 0]) / (2 * np.pi)) % 1.0
    strength = np.clip(np.linalg.norm(field, axis=-1) / max(fastest, 1e-6), 0, 1)
    return hsv_to_rgb(np.stack((hue, strength, np.full_like(hue, 0.98)), axis=-1))


def save_film_strip(path: Path, clip: Clip, frames: Sequence[int], runs: Mapping[str, ClipRun]) -> None:
    """Figures 7a and 7b: what several systems find in the same frames, which are captioned with their sensor fault.

    Args:
        frames: indices into the clip.
        runs: by what the lines are called.
    """
    shown = [clip[index] for index in frames]
    height, width = shown[0].image.shape[:2]
    each = 13.0 / len(frames)
    size = (13.6, len(runs) * (each * height / width + 0.06) + 0.5)
    figure = Figure(figsize=size, dpi=140, layout="constrained")
    grid = figure.subplots(len(runs), len(frames), squeeze=False)
    for row, (name, run) in zip(grid, runs.items(), strict=True):
        for axes, index, frame in zip(row, frames, shown, strict=True):
            found = run.detections[index]
            axes.imshow(draw_detections(frame.image, found, clip.class_names, (), _SHOWN_SCORE, scale=2))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, fontsize=10, color=INK)
    for axes, frame in zip(grid[0], shown, strict=True):
        fault = "clean" if frame.degradation == CLEAN else frame.degradation.replace("_", " ")
        axes.set_title(fault, loc="left", fontsize=10, color=MUTED, pad=3)
    save_small(figure, path)


def most_faults(truths: Sequence[Sequence[Frame]], length: int) -> tuple[int, int]:
    """(clip, first frame) of the stretch in which the most kinds of faults follow a clean frame; then, the most.

    Raises: ValueError if no clip is that long.
    """

    def merit(place: tuple[int, int]) -> tuple[bool, int, int, int]:
        frames = truths[place[0]][place[1] : place[1] + length]
        faults = [frame.degradation for frame in frames if frame.degradation != CLEAN]
        objects = sum(len(frame.labels) for frame in frames)
        return frames[0].degradation == CLEAN, len(set(faults)), len(faults), objects

    return max(((index, at) for index, clip in enumerate(truths) for at in range(len(clip) - length + 1)), key=merit)


def fastest_pairs(truths: Sequence[Sequence[Frame]], count: int) -> list[tuple[int, int]]:
    """(clip, second frame) of the clean pairs of frames in which a clip's objects move most, one per clip."""
    best = []
    for index, clip in enumerate(truths):
        moves = [
            (_mean_move(past, current), at)
            for at, (past, current) in enumerate(zip(clip, clip[1:], strict=False), start=1)
            if past.degradation == current.degradation == CLEAN
        ]
        if moves:
            best.append((*max(moves), index))
    return [(index, at) for _, at, index in sorted(best, reverse=True)[:count]]


def _mean_move(past: Frame, current: Frame) -> float:
    """Pixels by which the centres of the boxes that are in both frames move."""
    _, before, after = np.intersect1d(past.track_ids, current.track_ids, return_indices=True)
    if not len(before):
        return 0.0
    moves = _centers(current)[after] - _centers(past)[before]
    return float(np.linalg.norm(moves, axis=1).mean())


def _centers(frame: Frame) -> np.ndarray:
    return (frame.boxes_xyxy[:, :2] + frame.boxes_xyxy[:, 2:]) / 2


def _measure(detector: VideoDetector, past: Frame, current: Frame) -> np.ndarray:
    """(H, W, 2), in image pixels, at every pixel."""
    _, state = detector.step(past.image, past.stamp_ns, detector.start())
    _, state = detector.step(current.image, current.stamp_ns, state)
    cells = state.motions[0].displacement.float()
    height, width = current.image.shape[:2]
    stride = detector.network.features.strides[0]
    network_height, network_width = detector.config.network_size((height, width))
    padded = resize_displacement(cells, (cells.shape[2] * stride, cells.shape[3] * stride))
    field = resize_displacement(padded[:, :, :network_height, :network_width], (height, width))
    return field[0].permute(1, 2, 0).cpu().numpy()


def _wheel(size: int = 64) -> np.ndarray:
    """(size, size, 4): the colour of every direction and length up to the rim."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = np.hypot(x, y) <= 1
    return np.dstack((paint_displacement(np.stack((x, y), axis=-1), 1.0), inside))


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    dress(axes, title)
    axes.set_xlabel(x, color=MUTED)
    axes.set_ylabel(y, color=MUTED)
