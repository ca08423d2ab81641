"""The whole benchmark in one run: systems by part, what a frame costs by stream length, horizons, cameras and size."""

import json
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from memwarp_core.errors import ConfigError, DataError
from memwarp_core.evaluation.benchmark import Runs, benchmark, moving_images, random_detector
from memwarp_core.evaluation.benchmark_parts import measure_roof
from memwarp_core.files import write_bytes_whole, write_whole
from memwarp_core.models.config import AnticipationConfig
from memwarp_core.models.systems import find_system
from memwarp_core.streaming import VideoDetector

HORIZONS = (1, 2, 4, 8)
CAMERAS = (1, 2, 4)
SCALES = (0.5, 1.0, 2.0)
"""Of the height and the width of the images."""
STREAM_PARTS = 10
"""The length of a stream is looked at in so many pieces."""
_VERSION = 1


def run_benchmark(
    names: Sequence[str], size: tuple[int, int], frames: int, runs: Runs, sweep: str, stream_frames: int
) -> dict[str, Any]:
    """
    Args:
        names, size, frames, runs: as for `benchmark`.
        sweep: the causal system whose cost over stream length, horizons, cameras and sizes is measured, with the
            first backend.
        stream_frames: length of its stream.
    Returns: what goes into the JSON file: "environment", "roof", "systems" (Timing), and for the swept system
        "stream", "horizons", "moved_proposals" and "moved_boxes" (the horizons again, by these), "cameras" and "sizes",
        lists of {"at", "median_ms", "p95_ms"}; of horizons all of one call of `anticipate`, of cameras the time per
        image; and "peak_memory_bytes" of all of it.
    """
    config = find_system(sweep).config
    detector = random_detector(config, size, runs)
    if detector.lookahead:
        raise ConfigError(f"system {sweep!r}: expected a causal one for the sweeps, such as memnet-tiny-6.")
    roof = measure_roof(detector.device)
    timings = benchmark(names, size, frames, runs, roof)
    sizes = [(round(size[0] * scale), round(size[1] * scale)) for scale in SCALES]
    of_sizes = [random_detector(config, of_size, runs) for of_size in sizes]
    return {
        "version": _VERSION,
        "environment": _environment(detector.device),
        "size": list(size),
        "frames": frames,
        "sweep": sweep,
        "roof": asdict(roof),
        "systems": [asdict(timing) for timing in timings],
        "stream": _over_stream(detector, size, stream_frames),
        **_over_horizons(detector, size, frames),
        "cameras": _over_cameras(detector, size, frames),
        "sizes": _in_turns(
            {
                f"{width}x{height}": _steps(one, (height, width))
                for one, (height, width) in zip(of_sizes, sizes, strict=True)
            },
            frames,
        ),
        "peak_memory_bytes": _peak_memory(detector.device),
    }


def read_report(path: Path) -> dict[str, Any]:
    """
    Raises: DataError if it is not a file that `memwarp bench systems --output` wrote.
    """
    try:
        report = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: expected benchmark.json of `memwarp bench systems --output` ({error}).") from error
    if not isinstance(report, dict) or report.get("version") != _VERSION or "systems" not in report:
        raise DataError(f"{path}: expected benchmark.json of `memwarp bench systems --output`, version {_VERSION}.")
    return report


def compare_reports(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """
    Returns: per system in both its name, the old and the new median in milliseconds, and whether they are further
        apart than the quartiles of both runs together.
    Raises: DataError if the reports are of different sizes or devices, which nothing can be concluded from.
    """
    for key, values in {
        "size": (old["size"], new["size"]),
        "device": (old["environment"]["device"], new["environment"]["device"]),
        "threads": (old["environment"]["threads"], new["environment"]["threads"]),
    }.items():
        if values[0] != values[1]:
            raise DataError(f"expected reports of the same {key}, got {values[0]} and {values[1]}; run it again alike.")
    before = {timing["name"]: timing for timing in old["systems"]}
    rows = []
    for timing in new["systems"]:
        if timing["name"] in before:
            past = before[timing["name"]]
            apart = abs(timing["median_ms"] - past["median_ms"])
            clear = apart > past["spread_ms"] + timing["spread_ms"]
            rows.append((timing["name"], past["median_ms"], timing["median_ms"], clear))
    return rows


def write_report(report: dict[str, Any], folder: Path) -> None:
    """benchmark.json, and for people benchmark.md (its tables) and benchmark.png."""
    write_bytes_whole(folder / "benchmark.json", json.dumps(report, indent=1).encode())
    write_bytes_whole(folder / "benchmark.md", _tables(report).encode())
    write_whole(folder / "benchmark.png", lambda temporary: _draw(report, temporary))


def _over_stream(detector: VideoDetector, size: tuple[int, int], frames: int) -> list[dict[str, Any]]:
    step = _steps(detector, size)
    step()
    times = [_ms(step) for _ in range(frames)]
    pieces = [piece for piece in np.array_split(np.array(times), STREAM_PARTS) if len(piece)]
    ends = np.cumsum([len(piece) for piece in pieces])
    return [_spread(int(end), piece) for end, piece in zip(ends, pieces, strict=True)]


def _over_horizons(detector: VideoDetector, size: tuple[int, int], frames: int) -> dict[str, list[dict[str, Any]]]:
    """By the model's own way, by moving proposals and by moving boxes, in turns with its step."""
    state = detector.start()
    for image, stamp_ns in islice(moving_images(size), 6):
        _, state = detector.step(image, stamp_ns, state)

    def anticipate(count: int, how: AnticipationConfig) -> Callable[[], object]:
        horizons_s = [0.05 * (1 + index) for index in range(count)]
        return lambda: [one.cpu() for one in detector.anticipate(state, horizons_s, how)]

    own = detector.config.anticipation
    ways = {
        "horizons": own,
        "moved_proposals": own.model_copy(update={"source": "proposals"}),
        "moved_boxes": own.model_copy(update={"source": "boxes"}),
    }
    runs: dict[Any, Callable[[], object]] = {("horizons", "step"): _steps(detector, size)}
    for key, how in ways.items():
        runs.update({(key, count): anticipate(count, how) for count in HORIZONS})
    rows = _in_turns(runs, frames)
    return {key: [{**row, "at": row["at"][1]} for row in rows if row["at"][0] == key] for key in ways}


def _over_cameras(detector: VideoDetector, size: tuple[int, int], frames: int) -> list[dict[str, Any]]:
    rows = _in_turns({count: _steps(detector, size, count) for count in CAMERAS}, frames)
    return [{"at": row["at"], **{key: row[key] / row["at"] for key in ("median_ms", "p95_ms")}} for row in rows]


def _steps(detector: VideoDetector, size: tuple[int, int], cameras: int = 1) -> Callable[[], None]:
    """A function that advances streams of its own by one frame."""
    images = moving_images(size)
    states = [detector.start()] * cameras

    def step() -> None:
        nonlocal states
        image, stamp_ns = next(images)
        stepped = detector.step_cameras([image] * cameras, [stamp_ns] * cameras, states)
        for found, _ in stepped:
            found.cpu()
        states = [state for _, state in stepped]

    return step


def _in_turns(runs: dict[Any, Callable[[], object]], repetitions: int) -> list[dict[str, Any]]:
    times: dict[Any, list[float]] = {at: [] for at in runs}
    for repetition in range(repetitions + 2):
        for at, run in runs.items():
            spent = _ms(run)
            if repetition >= 2:  # the first ones warm up
                times[at].append(spent)
    return [_spread(at, of_run) for at, of_run in times.items()]


def _ms(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def _spread(at: Any, times: Sequence[float] | np.ndarray) -> dict[str, Any]:
    median, p95 = np.percentile(times, [50, 95])
    return {"at": at, "median_ms": float(median), "p95_ms": float(p95)}


def _environment(device: torch.device) -> dict[str, Any]:
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else f"{platform.machine()} CPU",
        "cuda": torch.version.cuda if is_gpu else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


def _peak_memory(device: torch.device) -> int:
    """Of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tables(report: dict[str, Any]) -> str:
    (height, width), environment, roof = report["size"], report["environment"], report["roof"]
    versions = ", ".join(f"{name} {environment[name]}" for name in ("torch", "torchvision", "python"))
    lines = [
        f"{width}x{height} pixels, {environment['device']}, {environment['threads']} threads, {versions}; "
        f"{report['frames']} frames per system. Roof: {roof['flops_per_s'] / 1e9:.0f} GFLOP/s, "
        f"{roof['bytes_per_s'] / 1e9:.1f} GB/s. Peak memory of the whole run: "
        f"{report['peak_memory_bytes'] / 2**30:.1f} GiB.",
        "",
        "| system | ms per frame | quartiles apart | p95 | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for of in report["systems"]:
        figures = " | ".join(f"{of[key]:.1f}" for key in ("median_ms", "spread_ms", "p95_ms"))
        lines.append(f"| {of['name']} | {figures} | {of['ratio']:.2f} |")
    lines += ["", "| system | part | ms | GFLOP | MB | of the roof |", "| --- | --- | --- | --- | --- | --- |"]
    for of in report["systems"]:
        for part in of["parts"]:
            work = f"{part['flops'] / 1e9:.2f} | {part['bytes'] / 1e6:.1f} | {part['of_roof']:.0%}"
            lines.append(f"| {of['name']} | {part['name']} | {part['median_ms']:.1f} | {work} |")
    lines += ["", f"| {report['sweep']} | at | ms | p95 |", "| --- | --- | --- | --- |"]
    names = {
        "stream": "up to frame",
        "horizons": "horizons",
        "moved_proposals": "horizons, proposals moved",
        "moved_boxes": "horizons, boxes moved",
        "cameras": "cameras, per image",
        "sizes": "size",
    }
    for key, name in names.items():
        for row in report[key]:
            lines.append(f"| {name} | {row['at']} | {row['median_ms']:.1f} | {row['p95_ms']:.1f} |")
    return "\n".join(lines) + "\n"


def _draw(report: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    by_part, stream, horizons, others = figure.subplots(2, 2).flat
    systems = report["systems"][::-1]
    names = [system["name"] for system in systems]
    left = np.zeros(len(systems))
    # By place in the systems that have most of them.
    longest = sorted(report["systems"], key=lambda system: -len(system["parts"]))
    parts = dict.fromkeys(part["name"] for system in longest for part in system["parts"])
    for name in parts:
        widths = np.array(
            [next((part["median_ms"] for part in system["parts"] if part["name"] == name), 0.0) for system in systems]
        )
        by_part.barh(names, widths, left=left, label=name)
        left += widths
    by_part.set(xlabel="milliseconds per frame", title="by part")
    by_part.legend(fontsize="small")

    _line(stream, report["stream"])
    stream.set(
        xlabel="frames of the stream", ylabel="milliseconds per frame", title=f"{report['sweep']}: stream length"
    )
    step, *of_horizons = report["horizons"]
    _line(horizons, of_horizons)
    _line(horizons, report["moved_proposals"], "proposals moved, ")
    _line(horizons, report["moved_boxes"], "boxes moved, ")
    horizons.axhline(0.3 * step["median_ms"], color="gray", linestyle=":", label="0.3 of a step")
    horizons.axhline(step["median_ms"], color="gray", linestyle="--", label="a step")
    horizons.set(xlabel="horizons together", ylabel="milliseconds", title="anticipation")
    rows = report["cameras"] + report["sizes"]
    labels = [f"cameras: {row['at']}" for row in report["cameras"]] + [row["at"] for row in report["sizes"]]
    others.bar(labels, [row["median_ms"] for row in rows])
    others.tick_params(axis="x", rotation=30)
    others.set(ylabel="milliseconds per image", title="cameras together; image size")
    for axes in (stream, horizons, others):
        axes.set_ylim(bottom=0)
    stream.legend(fontsize="small")
    horizons.set_ylim(top=1.5 * horizons.get_ylim()[1])  # so that the legend is above the lines
    horizons.legend(fontsize="small", loc="upper left", ncols=2)
    height, width = report["size"]
    environment = report["environment"]
    threads = environment["threads"]
    figure.suptitle(
        f"{width}x{height} pixels, {environment['device']}, {threads} threads, torch {environment['torch']}"
    )
    figure.savefig(path, dpi=120)


def _line(axes: Any, rows: Sequence[dict[str, Any]], what: str = "") -> None:
    at = [row["at"] for row in rows]
    axes.plot(at, [row["median_ms"] for row in rows], marker="o", label=f"{what}median")
    axes.plot(at, [row["p95_ms"] for row in rows], marker=".", linewidth=0.8, label=f"{what}p95")
