"""Runs all rows over the same clips, and scores each on these and on bootstrap samples of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)

from memwarp_core.data.clips import Clip
from memwarp_core.data.data_set import fingerprint, open_data_set
from memwarp_core.evaluation.kept_runs import KeptRuns
from memwarp_core.evaluation.reproduction.bootstrap import sample_clips, sampled_map
from memwarp_core.evaluation.reproduction.rows import PER_FRAME, rows
from memwarp_core.evaluation.running import ClipRun, ground_truth
from memwarp_core.evaluation.vid_average_precision import accumulate, judge
from memwarp_core.streaming import VideoDetector, run_detector
from memwarp_core.types import Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of one row. Arrays are (1 + S,): of the clips as they are, then of S bootstrap samples, the same for all rows."""

    map: Mapping[str, np.ndarray]
    """VID's mAP at IoU 0.5, in percent, of objects by speed (see SPEEDS); NaN where a sample has none."""
    ms: np.ndarray
    """Median over the clips of the mean time per frame; NaN for a row that was not run in turns with the others."""
    ap: Mapping[str, float | None]
    """Per class in percent, of all objects; None for a class that is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was measured of all rows that are trained; mappings are by the names of their systems."""

    clips: Sequence[Clip]
    truths: Sequence[Sequence[Frame]]
    """Every frame of each clip, without images."""
    runs: Mapping[str, Sequence[ClipRun]]
    """One per clip."""
    figures: Mapping[str, Figures]
    samples: int
    """Of the bootstrap."""
    device: str
    """What they ran on."""


def measure(data: Path, *, weights: Path, kept: Path, samples: int, device: str) -> Measured:
    """Run every row whose weights are there over a data set, and score it.

    Args:
        data: a data set with labels.
        weights: folder of the models, as <name>.safetensors.
        kept: folder for what each row found in each clip; what is there already is read.
        samples: of the bootstrap.
    Raises:
        ConfigError: a model in the folder is not the one that its row is about.
        DataError: the data set cannot be read.
    """
    clips = open_data_set(data)
    truths = [ground_truth(clip) for clip in clips]
    detectors = {
        name: run_detector(row.build(weights), device) for name, row in rows().items() if row.is_trained(weights)
    }
    runs = run_rows(detectors, clips, folder=kept, data_fingerprint=fingerprint(data))
    times = sample_clips(len(clips), samples)
    figures = {
        name: score_row(of_row, truths, clips[0].class_names, times=times, beside=runs.get(PER_FRAME, of_row))
        for name, of_row in track(runs.items(), description="scoring", transient=True)
    }
    return Measured(
        clips=clips,
        truths=truths,
        runs=runs,
        figures=figures,
        samples=samples,
        device=_name_of({str(detector.device) for detector in detectors.values()}),
    )


def run_rows(
    detectors: Mapping[str, VideoDetector], clips: Sequence[Clip], *, folder: Path, data_fingerprint: str
) -> dict[str, list[ClipRun]]:
    """One run per row and clip; clip by clip the rows take turns, so that a disturbance of the machine hits all alike.

    Args:
        detectors: by the rows' systems.
        folder: where runs are kept; those that are there already are read.
        data_fingerprint: of the data set that the clips are from.
    """
    kept = {
        name: KeptRuns(detector, parent=folder, data_fingerprint=data_fingerprint)
        for name, detector in detectors.items()
    }
    runs: dict[str, list[ClipRun]] = {name: [] for name in detectors}
    columns = (TextColumn("running"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("running", total=len(clips) * len(kept))
        for number, clip in enumerate(clips):
            for name, of_row in kept.items():
                runs[name].append(of_row.run(number, clip))
                progress.advance(task)
    return runs


def score_row(
    runs: Sequence[ClipRun],
    truths: Sequence[Sequence[Frame]],
    class_names: Sequence[str],
    *,
    times: np.ndarray,
    beside: Sequence[ClipRun],
) -> Figures:
    """
    Args:
        runs, truths: one per clip.
        times: by sample_clips.
        beside: another row's runs; only clips that both ran over in one session count for the time.
    """
    judged = judge([*chain(*(run.detections for run in runs))], truths, adaptive_iou=False)
    frames = np.array([len(clip) for clip in truths])
    sampled = sampled_map(judged, np.repeat(np.arange(len(truths)), frames), times, len(class_names))
    whole = accumulate(judged, class_names)
    clip_ms = np.array([run.step_ms.mean() for run in runs])
    timed = np.array([run.session == other.session for run, other in zip(runs, beside, strict=True)])
    return Figures(
        map={speed: 100 * of_samples for speed, of_samples in sampled.items()},
        ms=np.array([_median(np.repeat(clip_ms[timed], sample[timed])) for sample in times]),
        ap={name: None if ap["all"] is None else 100 * ap["all"] for name, ap in whole.ap.items()},
    )


def map_by_age(measured: Measured, system: str, every: int) -> list[float]:
    """mAP in percent of the frames that are 0, 1, ..., every - 1 frames behind the last evidence; NaN without objects.

    Args:
        system: one that gets evidence in every n-th frame.
    """
    found = [*chain(*(run.detections for run in measured.runs[system]))]
    judged = judge(found, measured.truths, adaptive_iou=False)
    ages = np.concatenate([np.arange(len(clip)) % every for clip in measured.truths])
    class_names = measured.clips[0].class_names
    scores = [accumulate(judged, class_names, (ages == age).astype(float)).map["all"] for age in range(every)]
    return [float("nan") if score is None else 100 * score for score in scores]


def _name_of(devices: set[str]) -> str:
    cuda = any(device.startswith("cuda") for device in devices)
    return torch.cuda.get_device_name() if cuda else f"a CPU (torch threads: {torch.get_num_threads()})"


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
