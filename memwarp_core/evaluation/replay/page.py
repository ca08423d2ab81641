"""The report of a replay as one HTML page with everything in it: plots, tables, and frames of the worst errors."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memwarp_core.data.clips import Clip
from memwarp_core.errors import DataError
from memwarp_core.evaluation.motion_iou import intersection_over_union
from memwarp_core.evaluation.plots import INK, dress
from memwarp_core.evaluation.replay.kept import CameraResult
from memwarp_core.evaluation.replay.scoring import DETECTIONS, NOW, answers
from memwarp_core.evaluation.replay.tables import heading, percent, stream_name
from memwarp_core.files import write_bytes_whole
from memwarp_core.timeline import index_at
from memwarp_core.types import Detections, Frame
from memwarp_core.visualization import draw_detections

COLORS = {DETECTIONS: "#9db9d6", NOW: "#1f78d1", "baseline": "#e07b39"}
_WORST = 6
_SURE = 0.5
_FULL_WIDTH = 640


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """An instant at which what was said is far from what is true."""

    camera: int
    """Its place among the results."""
    instant: int
    mistakes: int
    """Objects that no sure detection is on, and sure detections that are on no object."""
    said: Detections


def worst_instants(results: Sequence[CameraResult], stream: str, count: int = _WORST) -> list[Worst]:
    """Those with the most mistakes, the first of each camera before the second of any, and a second apart."""
    found = []
    for camera, result in enumerate(results):
        if result.truths is None:
            continue
        said = [one.select(one.scores >= _SURE) for one in answers(result, stream).said]
        mistakes = [_mistakes(one, truth) for one, truth in zip(said, result.truths, strict=True)]
        taken: list[int] = []
        for instant in np.argsort(mistakes, kind="stable")[::-1]:
            stamp_ns = result.truths[instant].stamp_ns
            if mistakes[instant] and all(abs(stamp_ns - result.truths[one].stamp_ns) > 1e9 for one in taken):
                worst = Worst(camera=camera, instant=int(instant), mistakes=mistakes[instant], said=said[instant])
                found.append((len(taken), -mistakes[instant], worst))
                taken.append(int(instant))
            if len(taken) == count:
                break
    return [worst for *_, worst in sorted(found, key=lambda one: one[:2])][:count]


def _mistakes(said: Detections, truth: Frame) -> int:
    overlaps = intersection_over_union(said.boxes_xyxy.numpy()[:, None].astype(float), truth.boxes_xyxy[None])
    on = (overlaps >= 0.5) & (said.labels.numpy()[:, None] == truth.labels)
    return int((~on.any(axis=0)).sum() + (~on.any(axis=1)).sum())


def write_page(
    file: Path, report: Mapping[str, Any], results: Sequence[CameraResult], clips: Mapping[int, Clip]
) -> None:
    """
    Args:
        report: of `replay`.
        results: of all cameras.
        clips: by the places of their cameras among the results, where images can be shown.
    """
    config, reference = report["config"], report["reference"]
    stream = DETECTIONS if config["mode"] == "offline" else NOW
    page = Environment(loader=PackageLoader(__package__, ""), autoescape=True).get_template("page.html")
    everything = report["all"]
    content = page.render(
        config=config,
        bags=len(report["bags"]),
        heading=heading(reference),
        pseudo=reference["of"] if reference and reference["kind"] == "pseudo" else None,
        counts=", ".join(f"{everything[key]} {key}" for key in ("images", "processed", "dropped", "refused")),
        plots=_plots(report, results),
        tables=_tables(report),
        frames=_frames(worst_instants(results, stream), results, clips, report["class_names"]),
        stream=stream,
        failed=report["failed"],
        partial=report["partial"],
        settings=json.dumps(config, indent=1),
    )
    write_bytes_whole(file, content.encode())


def _plots(report: Mapping[str, Any], results: Sequence[CameraResult]) -> dict[str, str]:
    everything, config = report["all"], report["config"]
    what = "agreement" if report["reference"] and report["reference"]["kind"] == "pseudo" else "accuracy"
    plots = {}
    scores = everything.get("streaming", everything.get("processed_frames"))
    if scores:
        title = f"{what.capitalize()} at each instant" if "streaming" in everything else what.capitalize()
        plots[title] = _bars(scores, config)
    if ways := everything.get("horizons"):
        plots[f"{what.capitalize()} of what was said about later"] = _horizons(ways)
    if config["mode"] != "offline":
        plots["Time"] = _times(results)
    return plots


def _bars(scores: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    figure, axes = _canvas()
    names = ("AP", "AP50", "slow", "medium", "fast")
    width = 0.8 / len(scores)
    for place, (stream, score) in enumerate(scores.items()):
        values = [score["map"], score["map50"], *(score["vid"][speed] for speed in names[2:])]
        at = np.arange(len(names)) + (place - (len(scores) - 1) / 2) * width
        bars = axes.bar(at, _percents(values), 0.92 * width, color=COLORS[stream], label=stream_name(stream, config))
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=9, color=INK)
    axes.set_xticks(range(len(names)), ["AP", "AP@0.5", *(f"{speed} objects" for speed in names[2:])])
    axes.set_ylim(0, 105)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    dress(axes, "percent")
    return _png(figure)


def _horizons(ways: Mapping[str, Mapping[str, float | None]]) -> str:
    figure, axes = _canvas()
    for (way, scores), line in zip(ways.items(), ("-", "--", ":"), strict=False):
        axes.plot([float(key) for key in scores], _percents([*scores.values()]), line, marker="o", label=way)
    axes.set_ylim(0, 100)
    axes.set_xlabel("seconds ahead", color=INK)
    axes.legend(frameon=False)
    dress(axes, "mAP@0.5 in percent, by seconds from the image to the instant spoken of")
    return _png(figure)


def _times(results: Sequence[CameraResult]) -> str:
    figure = Figure(figsize=(10.4, 3.4), dpi=100, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    latencies_ms = [
        (available_ns - stamp_ns) / 1e6
        for result in results
        for stamp_ns, available_ns in zip(result.model.stamps_ns, result.model.available_ns, strict=True)
    ]
    known = [result for result in results if result.truths is not None]
    ages_ms = [age_ns / 1e6 for age_ns in chain(*(answers(result, DETECTIONS).ages_ns for result in known))]
    for axes, times, title in (
        (left, latencies_ms, "From the stamp of an image to its detections, in ms"),
        (right, ages_ms, "Age of the newest detections at each instant, in ms"),
    ):
        axes.hist(times, bins=40, color=COLORS[NOW], rwidth=0.92)
        axes.set_xlim(left=0)
        dress(axes, title)
    return _png(figure)


def _tables(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    everything, config = report["all"], report["config"]
    tables = []
    scores = everything.get("streaming", everything.get("processed_frames"))
    if scores:
        names = {stream: stream_name(stream, config) for stream in scores}
        rows = [
            [name, *(percent(scores[stream]["ap50_per_class"][name]) for stream in names)]
            for name in report["class_names"]
            if any(score["ap50_per_class"][name] is not None for score in scores.values())
        ]
        tables.append({"title": "By class, AP@0.5", "columns": ["class", *names.values()], "rows": rows})
    part = "streaming" if "streaming" in everything else "processed_frames"
    rows = []
    for bag, figures in report["bags"].items():
        of_bag = figures.get(part, {})
        times = figures["latency_ms"]
        rows.append(
            [
                bag,
                figures["images"],
                figures["dropped"],
                "-" if times is None else f"{times['p50']:.0f}",
                "-" if times is None else f"{times['p95']:.0f}",
                *(percent(of_bag[stream]["map"] if stream in of_bag else None) for stream in scores or ()),
            ]
        )
    columns = ["bag", "images", "dropped", "latency, ms", "95 %"]
    columns += [f"AP of {stream_name(stream, config)}" for stream in scores or ()]
    tables.append({"title": "By bag", "columns": columns, "rows": rows})
    return tables


def _frames(
    worst: Sequence[Worst], results: Sequence[CameraResult], clips: Mapping[int, Clip], class_names: Sequence[str]
) -> list[dict[str, str]]:
    frames = []
    for one in worst:
        result, clip = results[one.camera], clips.get(one.camera)
        truth = (result.truths or ())[one.instant]
        index = index_at(result.stamps_ns, truth.stamp_ns, 10**18)
        if clip is None or index is None:
            continue
        try:
            image = clip[index].image
        except DataError:
            continue
        reference = Detections(
            boxes_xyxy=torch.from_numpy(truth.boxes_xyxy),
            scores=torch.ones(len(truth.labels)),
            labels=torch.from_numpy(truth.labels),
            stamp_ns=truth.stamp_ns,
        )
        scale = max(1, round(_FULL_WIDTH / image.shape[1]))
        drawn = draw_detections(image, one.said, class_names, [reference], scale=scale)
        if drawn.shape[1] > 1.5 * _FULL_WIDTH:
            drawn = cv2.resize(drawn, (_FULL_WIDTH, round(_FULL_WIDTH * drawn.shape[0] / drawn.shape[1])))
        _, content = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
        since_s = (truth.stamp_ns - result.stamps_ns[0]) / 1e9
        caption = f"{result.name}, {since_s:.2f} s: {one.mistakes} missed or wrong"
        frames.append({"image": base64.b64encode(content.tobytes()).decode(), "caption": caption})
    return frames


def _percents(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else 100 * value for value in values]


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10.4, 3.6), dpi=100, layout="constrained", facecolor="white")
    return figure, figure.subplots()


def _png(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return base64.b64encode(content.getvalue()).decode()
