"""Is the difference of two replays real? A paired bootstrap: both are scored on the same samples of the bags."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from memwarp_core.data.coco_json import read_json
from memwarp_core.errors import ConfigError, DataError
from memwarp_core.evaluation.replay.kept import CameraResult, read_results
from memwarp_core.evaluation.replay.replay import REPORT_FILE, RUNS_FOLDER
from memwarp_core.evaluation.replay.scoring import BASELINE, DETECTIONS, NOW, answers, frame_ids, streams
from memwarp_core.evaluation.replay.tables import heading, percent
from memwarp_core.evaluation.reproduction.bootstrap import interval, sample_clips, sampled_map
from memwarp_core.evaluation.vid_average_precision import Judgement, judge
from memwarp_core.types import Frame

_FEW_BAGS = 8
_BLOCK_NS = 2_000_000_000
"""With few bags, parts of so long are drawn instead of bags; what moves is mostly another thing in each."""


_Name = tuple[str, str]
"""Of a bag and of its camera."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Report:
    folder: Path
    stream: str | None
    class_names: tuple[str, ...]
    reference: dict[str, Any] | None
    cameras: dict[_Name, CameraResult]
    """Those with a reference."""


def compare(first: str, second: str, *, samples: int = 1000) -> dict[str, Any]:
    """Compare what two replays say at each instant of the same reference.

    Args:
        first, second: output folders of replays, or FOLDER:STREAM for one of their streams, "detections",
            "detections_now" or "baseline"; two streams of one replay can be compared as well.
        samples: of the bootstrap.
    Returns: JSON-ready: "reference"; "cameras", how many both have; "units", how many parts are drawn from, and "unit",
        "a bag" or "2 s of a bag"; and "streams", by the streams compared and then by the speed of objects ("all",
        "slow", "medium", "fast"): ImageNet VID's mAP@0.5 of the "first" and the "second", their "difference", and "low"
        and "high", between which it lies in 95 % of the samples; None where there are no such objects.
    Raises: DataError for a folder without a report, or two that have no bag with the same reference in common.
    """
    one, other = _read(first), _read(second)
    if one.class_names != other.class_names:
        raise DataError(f"{first} and {second} are of other classes: {one.class_names} and {other.class_names}.")
    names = [name for name in one.cameras if name in other.cameras and _same_truths(one, other, name)]
    if not names:
        raise DataError(
            f"{first} and {second} have no bag with the same reference in common; replay the same bags, with labels or "
            "the same --pseudo, for both."
        )
    pairs = _pairs(one, other, names)
    truths = [one.cameras[name].truths or () for name in names]
    units, unit = _units(truths)
    times = sample_clips(int(units.max()) + 1, samples)
    report: dict[str, Any] = {
        "reference": one.reference,
        "cameras": len(names),
        "units": int(units.max()) + 1,
        "unit": unit,
        "streams": {},
    }
    for label, stream, other_stream in pairs:
        figures = [
            sampled_map(_judge(of_report, names, of_stream), units, times, len(one.class_names))
            for of_report, of_stream in ((one, stream), (other, other_stream))
        ]
        report["streams"][label] = {
            speed: _difference(figures[0][speed], figures[1][speed]) for speed in ("all", "slow", "medium", "fast")
        }
    return report


def print_comparison(report: dict[str, Any], first: str, second: str, console: Console) -> None:
    console.print(f"A is {first}, B is {second}: {heading(report['reference'])}", highlight=False, soft_wrap=True)
    console.print(f"{report['cameras']} cameras; drawn are {report['units']} times {report['unit']}", highlight=False)
    for label, speeds in report["streams"].items():
        table = Table("mAP@0.5", "A", "B", "B - A", Column("95 %", no_wrap=True), "", title=label)
        for speed, found in speeds.items():
            if found is None:
                continue
            low, high = found["low"], found["high"]
            table.add_row(
                speed,
                percent(found["first"]),
                percent(found["second"]),
                f"{100 * found['difference']:+.1f}",
                f"{100 * low:+.1f} to {100 * high:+.1f}",
                "B is better" if low > 0 else "A is better" if high < 0 else "not clear",
            )
        console.print(table)


def _read(given: str) -> _Report:
    folder, stream = Path(given), None
    if not folder.exists() and ":" in given:
        name, stream = given.rsplit(":", 1)
        folder = Path(name)
        if stream not in (DETECTIONS, NOW, BASELINE):
            raise ConfigError(f"{given}: expected {DETECTIONS}, {NOW} or {BASELINE} after the colon, got {stream!r}.")
    file = folder / REPORT_FILE
    if not file.is_file():
        raise DataError(f"{given}: expected the output folder of `memwarp replay`, got none with a {REPORT_FILE}.")
    report = read_json(file)
    try:
        kept = {bag: read_results(folder / RUNS_FOLDER / name) for bag, name in report["runs"].items()}
        names, reference = tuple(report["class_names"]), report["reference"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: expected the report of a replay, got one without {error}.") from error
    cameras = {(bag, one.name): one for bag, of_bag in kept.items() for one in of_bag if one.truths is not None}
    return _Report(folder=folder, stream=stream, class_names=names, reference=reference, cameras=cameras)


def _same_truths(one: _Report, other: _Report, name: _Name) -> bool:
    truths, others = one.cameras[name].truths or (), other.cameras[name].truths or ()
    return len(truths) == len(others) and all(
        a.stamp_ns == b.stamp_ns and np.array_equal(a.boxes_xyxy, b.boxes_xyxy) and np.array_equal(a.labels, b.labels)
        for a, b in zip(truths, others, strict=True)
    )


def _pairs(one: _Report, other: _Report, names: Sequence[_Name]) -> list[tuple[str, str, str]]:
    """What is compared: its label, and the stream of each."""
    there, others = ([*streams([of.cameras[name] for name in names])] for of in (one, other))
    for of, has in ((one, there), (other, others)):
        if of.stream is not None and of.stream not in has:
            raise ConfigError(f"{of.folder}: expected a replay with the stream {of.stream}, got {', '.join(has)}.")
    if one.stream or other.stream:
        stream, other_stream = one.stream or NOW, other.stream or NOW
        label = stream if stream == other_stream else f"{stream}, {other_stream}"
        return [(label, stream, other_stream)]
    return [(stream, stream, stream) for stream in there if stream in others]


def _units(truths: Sequence[Sequence[Frame]]) -> tuple[np.ndarray, str]:
    """(F,), int, the part that each instant belongs to, of all that are drawn from; and what a part is."""
    if len(truths) >= _FEW_BAGS:
        return np.repeat(np.arange(len(truths)), [len(of_camera) for of_camera in truths]), "a bag"
    units: list[int] = []
    for of_camera in truths:
        start = max(units, default=-1) + 1
        units += [start + (truth.stamp_ns - of_camera[0].stamp_ns) // _BLOCK_NS for truth in of_camera]
    return np.unique(units, return_inverse=True)[1], "2 s of a bag"


def _judge(report: _Report, names: Sequence[_Name], stream: str) -> Judgement:
    cameras = [report.cameras[name] for name in names]
    truths = [camera.truths or () for camera in cameras]
    return judge(
        [*chain(*(answers(camera, stream).said for camera in cameras))],
        truths,
        adaptive_iou=False,
        frame_ids=[frame_ids(of_camera, camera.stamps_ns) for of_camera, camera in zip(truths, cameras, strict=True)],
    )


def _difference(first: np.ndarray, second: np.ndarray) -> dict[str, float] | None:
    if not (np.isfinite(first[0]) and np.isfinite(second[0])):
        return None
    difference = interval(second - first)
    return {
        "first": float(first[0]),
        "second": float(second[0]),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
    }
