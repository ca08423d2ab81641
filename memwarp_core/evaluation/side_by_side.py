"""Evaluates several detectors on a data set; an evaluation that was interrupted goes on where it was."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, track

from memwarp_core.data.clips import Clip
from memwarp_core.data.coco_vid import DISPLACEMENT_FOLDER, CocoVidClip
from memwarp_core.data.data_set import fingerprint, open_data_set
from memwarp_core.errors import ConfigError, DataError
from memwarp_core.evaluation.end_point_error import end_point_error
from memwarp_core.evaluation.kept_runs import KeptRuns
from memwarp_core.evaluation.propagation import SOURCES, Source, propagating, score_propagation
from memwarp_core.evaluation.report_plots import save_report_plots
from memwarp_core.evaluation.running import ClipRun, ground_truth
from memwarp_core.evaluation.scoring import ms_per_frame, score_runs
from memwarp_core.files import write_bytes_whole
from memwarp_core.streaming import VideoDetector
from memwarp_core.types import Frame

REPORT_FILE = "report.json"
RUNS_FOLDER = "runs"


def evaluate_models(
    detectors: Mapping[str, VideoDetector],
    data: Path,
    *,
    horizons_s: Sequence[float] = (),
    propagation: int = 1,
    output: Path | None = None,
) -> dict[str, Any]:
    """Evaluate several detectors side by side. They take turns, clip by clip, so that a disturbance hits all alike.

    Args:
        detectors: by the names that the report calls them.
        data: what open_data_set reads.
        horizons_s: with any, anticipation is scored so many seconds ahead.
        propagation: with n > 1, frames are also scored by their age, up to n - 1 frames; see score_propagation.
        output: a folder for report.json, plots and, in `runs`, all detections, from which an evaluation goes on that
            was interrupted or gets another model or data set. Without it nothing is kept.
    Returns: JSON-ready:
        "clips" and "frames", how many there are;
        "models", from name to the figures of score_runs, with "propagation", from what is propagated to the figures of
            score_propagation, and, where the data set has exact fields, "displacement", by end_point_error;
        "runtime", over the number of "clips" that all models ran over in the same start of the program: "ms_per_frame"
            by model, and "ratio" to the first one's; None without such clips.
    Raises: ConfigError for an output that is a file; DataError for a data set that cannot be read, or whose classes
        are not those of a detector.
    """
    if output is not None and output.is_file():
        raise ConfigError(f"{output}: expected a folder for the report and what it was made of, got a file.")
    clips = open_data_set(data)
    for name, detector in detectors.items():
        if clips[0].class_names != detector.class_names:
            raise DataError(
                f"{data}: expected the classes of {name}, {', '.join(detector.class_names)}; got "
                f"{', '.join(clips[0].class_names)}."
            )
    ways = _ways(detectors, data, horizons_s, propagation, output)
    made = _run_in_turns(ways, clips)
    truths = [ground_truth(clip) for clip in clips]
    report: dict[str, Any] = {
        "clips": len(clips),
        "frames": sum(map(len, truths)),
        "models": _score(ways, made, truths, clips[0].class_names),
        "runtime": _runtime(ways, made),
    }
    if (data / DISPLACEMENT_FOLDER).is_dir():
        with_fields = [clip for clip in clips if isinstance(clip, CocoVidClip)]
        for name, detector in detectors.items():
            if detector.network.displacement is not None:
                report["models"][name]["displacement"] = end_point_error(detector.network, with_fields)
    if output is not None:
        write_bytes_whole(output / REPORT_FILE, json.dumps(report, indent=1).encode())
        save_report_plots(output, report)
    return report


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """In which a model runs over every clip."""

    model: str
    propagated: Source | None
    """None with evidence in every frame."""
    runs: KeptRuns
    starts: int
    """Runs per clip, beginning with frame 0, 1, ..."""


def _ways(
    detectors: Mapping[str, VideoDetector],
    data: Path,
    horizons_s: Sequence[float],
    propagation: int,
    output: Path | None,
) -> list[_Way]:
    """All models with evidence in every frame first, so that their times are taken close to each other."""
    parent = None if output is None else output / RUNS_FOLDER
    of_data = "" if output is None else fingerprint(data)
    ways = [
        _Way(
            model=name,
            propagated=None,
            runs=KeptRuns(detector, horizons_s, parent=parent, data_fingerprint=of_data),
            starts=1,
        )
        for name, detector in detectors.items()
    ]
    for name, detector in detectors.items() if propagation > 1 else ():
        for source in SOURCES:
            changed = propagating(detector, propagation, source)
            if changed is not None:
                runs = KeptRuns(changed, parent=parent, data_fingerprint=of_data)
                ways.append(_Way(model=name, propagated=source, runs=runs, starts=propagation))
    return ways


def _run_in_turns(ways: Sequence[_Way], clips: Sequence[Clip]) -> list[list[list[ClipRun]]]:
    """The runs of each way, per clip, from each start."""
    made: list[list[list[ClipRun]]] = [[] for _ in ways]
    frames = sum(max(len(clip) - first, 0) for clip in clips for way in ways for first in range(way.starts))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("frames", total=frames)
        for number, clip in enumerate(clips):
            for way, of_way in zip(ways, made, strict=True):
                progress.update(task, description=f"{clip.name}: {way.runs.detector.name}")
                of_way.append([])
                for first in range(way.starts):
                    of_way[-1].append(way.runs.run(number, clip, first=first))
                    progress.advance(task, max(len(clip) - first, 0))
    return made


def _score(
    ways: Sequence[_Way],
    made: Sequence[Sequence[Sequence[ClipRun]]],
    truths: Sequence[Sequence[Frame]],
    class_names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """See "models" in evaluate_models."""
    reports: dict[str, dict[str, Any]] = {}
    for way, of_clips in track([*zip(ways, made, strict=True)], description="scoring", transient=True):
        if way.propagated is None:
            runs = [run for (run,) in of_clips]
            reports[way.model] = {**score_runs(runs, truths, class_names), "propagation": {}}
        else:
            reports[way.model]["propagation"][way.propagated] = score_propagation(of_clips, truths, class_names)
    return reports


def _runtime(ways: Sequence[_Way], made: Sequence[Sequence[Sequence[ClipRun]]]) -> dict[str, Any]:
    """See "runtime" in evaluate_models."""
    names = [way.model for way in ways if way.propagated is None]
    by_clip = zip(*([run for (run,) in of_clips] for of_clips in made[: len(names)]), strict=True)
    together = [of_clip for of_clip in by_clip if len({run.session for run in of_clip}) == 1]
    times = [ms_per_frame(runs) for runs in zip(*together, strict=True)] or [None] * len(names)
    ratios = [None if time is None or not times[0] else time / times[0] for time in times]
    return {
        "clips": len(together),
        "ms_per_frame": dict(zip(names, times, strict=True)),
        "ratio": dict(zip(names, ratios, strict=True)),
    }
