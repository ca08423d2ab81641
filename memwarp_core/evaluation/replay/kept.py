"""What was said of a camera, with what is true of it, in a file: an interrupted replay goes on, two are compared."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from memwarp_core.errors import DataError
from memwarp_core.evaluation.kept_runs import from_tensors, to_tensors
from memwarp_core.evaluation.replay.running import CameraRun
from memwarp_core.files import write_whole
from memwarp_core.types import Detections, Frame

_KEY = "memwarp_replay"
"""Where a file keeps what are not tensors, as JSON in the safetensors header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraResult:
    """All that is scored of one camera of one bag."""

    name: str
    stamps_ns: tuple[int, ...]
    """Of all its images."""
    truths: tuple[Frame, ...] | None
    """Without images; a pseudo reference is here as well. None where there is none."""
    model: CameraRun
    baseline: CameraRun | None
    problems: tuple[str, ...]


def write_results(path: Path, results: Sequence[CameraResult]) -> None:
    """Write the cameras of a bag to a .safetensors file, which appears whole or not at all."""
    every: list[Detections] = []
    header = []
    for result in results:
        truths = None if result.truths is None else [_as_detections(truth) for truth in result.truths]
        runs = [result.model] if result.baseline is None else [result.model, result.baseline]
        header.append(
            {
                "name": result.name,
                "stamps_ns": result.stamps_ns,
                "problems": result.problems,
                "truths": None if truths is None else len(truths),
                "tracks": None if result.truths is None else [truth.track_ids.tolist() for truth in result.truths],
                "runs": [
                    {
                        "begun_ns": run.begun_ns,
                        "available_ns": run.available_ns,
                        "anticipated": list(run.anticipated),
                        "refused": run.refused,
                    }
                    for run in runs
                ],
            }
        )
        every += chain(truths or (), *(chain(run.detections, run.now, *run.anticipated.values()) for run in runs))
    write_whole(path, lambda temporary: save_file(to_tensors(every), temporary, {_KEY: json.dumps(header)}))


def read_results(path: Path) -> list[CameraResult]:
    """What `write_results` wrote. Raises: DataError if it cannot be read as such."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_KEY])
            every = iter(from_tensors({key: file.get_tensor(key) for key in file.keys()}))  # noqa: SIM118 (not a dict)
        return [_result(of_camera, every) for of_camera in header]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise DataError(
            f"{path}: expected what `memwarp replay` kept, got something else ({error}); remove it and replay again."
        ) from error


def _result(header: dict, every: Iterator[Detections]) -> CameraResult:
    truths = None
    if header["truths"] is not None:
        truths = tuple(_as_frame(next(every), tracks) for tracks in header["tracks"])
    runs = [_run(of_run, every) for of_run in header["runs"]]
    return CameraResult(
        name=header["name"],
        stamps_ns=tuple(header["stamps_ns"]),
        truths=truths,
        model=runs[0],
        baseline=runs[1] if len(runs) > 1 else None,
        problems=tuple(header["problems"]),
    )


def _run(header: dict, every: Iterator[Detections]) -> CameraRun:
    count = len(header["begun_ns"])
    detections = tuple(next(every) for _ in range(count))
    return CameraRun(
        stamps_ns=tuple(one.stamp_ns for one in detections),
        begun_ns=tuple(header["begun_ns"]),
        available_ns=tuple(header["available_ns"]),
        detections=detections,
        now=tuple(next(every) for _ in range(count)),
        anticipated={
            (way, horizon_s): tuple(next(every) for _ in range(count)) for way, horizon_s in header["anticipated"]
        },
        refused=tuple(header["refused"]),
    )


def _as_detections(truth: Frame) -> Detections:
    return Detections(
        boxes_xyxy=torch.from_numpy(truth.boxes_xyxy),
        scores=torch.ones(len(truth.labels)),
        labels=torch.from_numpy(truth.labels),
        stamp_ns=truth.stamp_ns,
    )


def _as_frame(truth: Detections, tracks: list[int]) -> Frame:
    return Frame(
        image=np.empty((0, 0, 3), np.uint8),
        stamp_ns=truth.stamp_ns,
        boxes_xyxy=truth.boxes_xyxy.numpy(),
        labels=truth.labels.numpy(),
        track_ids=np.array(tracks, np.int64),
    )
