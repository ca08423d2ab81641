"""The report of a replay on the terminal; figures of accuracy and agreement are in percent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from memwarp_core.evaluation.replay.scoring import BASELINE


def heading(reference: Mapping[str, Any] | None) -> str:
    """What the figures say; agreement with another detector is never called accuracy."""
    if reference is None:
        return "no reference: times alone"
    if reference["kind"] == "pseudo":
        return f"agreement with what {reference['of']} finds (a pseudo reference; this is no accuracy)"
    heading = f"against the ground truth of {reference['of']}"
    if reference["cameras"] < reference["of_cameras"]:
        heading += f", which {reference['cameras']} of {reference['of_cameras']} cameras have"
    return heading


def stream_name(stream: str, config: Mapping[str, Any]) -> str:
    """The model's by their topic, the baseline's by its own name."""
    return Path(config["baseline"]).stem if stream == BASELINE else stream


def print_report(report: Mapping[str, Any], console: Console) -> None:
    config, everything = report["config"], report["all"]
    how = f"simulated, latency {config['latency']}" if config["mode"] == "simulated" else config["mode"]
    console.print(f"{config['model']}, {how}: {heading(report['reference'])}", highlight=False, soft_wrap=True)
    _print_times(report, console)
    if "processed_frames" in everything:
        table = Table(Column("processed images", no_wrap=True), "frames", *_SCORES)
        for stream, score in everything["processed_frames"].items():
            table.add_row(stream_name(stream, config), str(score["frames"]), *_scores(score))
        console.print(table)
    if "streaming" in everything:
        table = Table(
            Column("at each instant", no_wrap=True),
            *(f"s{name}" if name.startswith("AP") else name for name in _SCORES),
            "age",
        )
        for stream, score in everything["streaming"].items():
            table.add_row(stream_name(stream, config), *_scores(score), _ms(everything["age_ms"][stream], "mean"))
        console.print(table)
    if ways := everything.get("horizons"):
        table = Table(Column("mAP@0.5, seconds ahead", no_wrap=True), *next(iter(ways.values())))
        for way, scores in ways.items():
            table.add_row(way, *map(percent, scores.values()))
        console.print(table)
    if "processed_frames" in everything:
        parts = {
            stream_name(stream, config): score["ap50_per_class"]
            for stream, score in everything.get("streaming", everything["processed_frames"]).items()
        }
        table = Table(Column("class, AP@0.5", no_wrap=True), *parts)
        for name in report["class_names"]:
            if any(of_stream[name] is not None for of_stream in parts.values()):
                table.add_row(name, *(percent(of_stream[name]) for of_stream in parts.values()))
        console.print(table)
    if len(report["bags"]) > 1:
        _print_bags(report, console)
    for bag, problems in report["partial"].items():
        for camera, of_camera in problems.items():
            for problem in of_camera:
                where = bag if camera == bag else f"{bag}, {camera}"
                console.print(f"[yellow]partial[/] {where}: ", end="")
                console.print(problem, markup=False, highlight=False, soft_wrap=True)
    for bag, error in report["failed"].items():
        console.print(f"[red]failed[/] {bag}: ", end="")
        console.print(error, markup=False, highlight=False, soft_wrap=True)


_SCORES = ("AP", "AP50", "VID slow", "VID medium", "VID fast")


def _scores(score: Mapping[str, Any]) -> list[str]:
    by_speed = (score["vid"][speed] for speed in ("slow", "medium", "fast"))
    return [*map(percent, (score["map"], score["map50"], *by_speed))]


def _print_times(report: Mapping[str, Any], console: Console) -> None:
    figures = report["all"]
    counts = ", ".join(f"{figures[key]} {key}" for key in ("images", "processed", "dropped", "refused"))
    console.print(counts, highlight=False, soft_wrap=True)
    for key, what in (("processing_ms", "processing"), ("latency_ms", "from stamp to detections")):
        spread = ", ".join(f"{kind} {_ms(figures[key], kind)}" for kind in ("mean", "p50", "p95", "max"))
        console.print(f"{what}: {spread}", highlight=False, soft_wrap=True)


def _print_bags(report: Mapping[str, Any], console: Console) -> None:
    """One figure per stream and bag: where to look first."""
    timed = "streaming" in report["all"]
    part, key, title = ("streaming", "map", "bag, sAP") if timed else ("processed_frames", "map50", "bag, AP50")
    if part not in report["all"]:
        return
    shown = list(report["all"][part])
    table = Table(
        Column(title, no_wrap=True), "images", "dropped", *(stream_name(stream, report["config"]) for stream in shown)
    )
    for name, figures in report["bags"].items():
        scores = (figures[part][stream][key] for stream in shown) if part in figures else [None] * len(shown)
        table.add_row(name, str(figures["images"]), str(figures["dropped"]), *map(percent, scores))
    console.print(table)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _ms(spread: Mapping[str, float] | None, kind: str) -> str:
    return "-" if spread is None else f"{spread[kind]:.1f} ms"
