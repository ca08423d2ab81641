"""Runs that are kept in files, so that an evaluation that was interrupted goes on where it was."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memwarp_core.data.clips import Clip
from memwarp_core.errors import DataError
from memwarp_core.evaluation.running import ClipRun, run_clip
from memwarp_core.files import write_whole
from memwarp_core.streaming import VideoDetector
from memwarp_core.types import Detections

_FORMAT = 1
"""Of the files; those of another one are not looked at."""
_KEY = "memwarp_run"
"""Where a file keeps what are not tensors, as JSON in the safetensors header."""


class KeptRuns:
    """Runs of one detector over the clips of one data set; each is made once and then read from its file.

    The files are in a folder whose name stands for everything that they depend on: weights and configuration of the
    detector, the kind of its device, the data set and the horizons. The code is not among these; after a change of it,
    remove the folder.
    """

    def __init__(
        self,
        detector: VideoDetector,
        horizons_s: Sequence[float] = (),
        *,
        parent: Path | None = None,
        data_fingerprint: str = "",
    ) -> None:
        """
        Args:
            horizons_s: see run_clip.
            parent: where the folder is, or will be; without it, every run is made when it is asked for.
            data_fingerprint: by `memwarp_core.data.data_set.fingerprint`.
        """
        self.detector = detector
        self.horizons_s = tuple(horizons_s)
        self.folder: Path | None = None
        if parent is not None:
            settings = f"{_FORMAT} {data_fingerprint} {list(self.horizons_s)}"
            self.folder = parent / f"{detector.name}-{fingerprint(detector, settings)[:16]}"

    def run(self, number: int, clip: Clip, *, first: int = 0) -> ClipRun:
        """The run over the data set's clip of this number, from frame `first` on.

        Raises: DataError if its file cannot be read.
        """
        if self.folder is None:
            return run_clip(self.detector, clip, self.horizons_s, first=first)
        path = self.folder / f"{number:05d}-from-{first}.safetensors"
        if path.is_file():
            return read_run(path)
        run = run_clip(self.detector, clip, self.horizons_s, first=first)
        write_run(path, run)
        return run


def write_run(path: Path, run: ClipRun) -> None:
    """Write a run to a .safetensors file, which appears whole or not at all."""
    every = [*chain(run.detections, *run.anticipated.values())]
    tensors = {
        "step_ms": torch.as_tensor(run.step_ms, dtype=torch.float64),
        **to_tensors(every),
    }
    anticipated = [[way, horizon_s, len(said)] for (way, horizon_s), said in run.anticipated.items()]
    header = {_KEY: json.dumps({"session": run.session, "anticipated": anticipated})}
    write_whole(path, lambda temporary: save_file(tensors, temporary, header))


def read_run(path: Path) -> ClipRun:
    """What `write_run` wrote. Raises: DataError if it cannot be read as such."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        every = iter(from_tensors(tensors))
        step_ms = tensors["step_ms"].numpy()
        return ClipRun(
            detections=tuple(next(every) for _ in step_ms),
            step_ms=step_ms,
            anticipated={
                (way, horizon_s): tuple(next(every) for _ in range(number))
                for way, horizon_s, number in header["anticipated"]
            },
            session=header["session"],
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected a run that memwarp kept, got something else ({error}); remove it."
        ) from error


def to_tensors(every: Sequence[Detections]) -> dict[str, Tensor]:
    """Detections one after the other, for a file; track ids are left out."""
    return {
        "stamps_ns": torch.tensor([one.stamp_ns for one in every], dtype=torch.int64),
        "counts": torch.tensor([len(one) for one in every], dtype=torch.int64),
        "boxes_xyxy": torch.cat([torch.zeros(0, 4), *(one.boxes_xyxy for one in every)]),
        "scores": torch.cat([torch.zeros(0), *(one.scores for one in every)]),
        "labels": torch.cat([torch.zeros(0, dtype=torch.int64), *(one.labels for one in every)]),
    }


def from_tensors(tensors: Mapping[str, Tensor]) -> list[Detections]:
    """What `to_tensors` was given. Raises: KeyError if something is missing."""
    counts = tensors["counts"].tolist()
    parts = (tensors[key].split(counts) for key in ("boxes_xyxy", "scores", "labels"))
    return [
        Detections(boxes_xyxy=boxes, scores=scores, labels=labels, stamp_ns=stamp_ns)
        for boxes, scores, labels, stamp_ns in zip(*parts, tensors["stamps_ns"].tolist(), strict=True)
    ]


def fingerprint(detector: VideoDetector, settings: str) -> str:
    """A hash that changes with what a run depends on: the detector, its kind of device, and the settings."""
    digest = hashlib.sha256(f"{settings} {detector.device.type} {detector.config.model_dump_json()}".encode())
    for name, tensor in sorted(detector.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
