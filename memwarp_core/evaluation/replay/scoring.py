"""Figures of what was said of cameras, and when."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from memwarp_core.evaluation.average_precision import average_precision
from memwarp_core.evaluation.replay.kept import CameraResult
from memwarp_core.evaluation.replay.running import CameraRun
from memwarp_core.evaluation.vid_average_precision import vid_average_precision
from memwarp_core.timeline import half_interval_ns, index_at, no_objects
from memwarp_core.types import Detections, Frame

DETECTIONS, NOW, BASELINE = "detections", "detections_now", "baseline"
"""The streams that are compared at each instant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What a stream says at the instant of each truth of a camera."""

    said: tuple[Detections, ...]
    """The newest that was there by then; without boxes where nothing was."""
    ages_ns: tuple[int, ...]
    """From the image that each answer was made of to its instant; without those that were none."""


def answers(result: CameraResult, stream: str) -> Answers:
    """What one of the streams says at each instant of the reference, which must be there; see Li et al., ECCV 2020."""
    run = result.baseline if stream == BASELINE else result.model
    assert run is not None and result.truths is not None
    outputs = run.now if stream == NOW else run.detections
    # An output that comes just at an instant counts for it.
    counts = [bisect_right(run.available_ns, truth.stamp_ns) for truth in result.truths]
    return Answers(
        said=tuple(
            outputs[count - 1] if count else no_objects(truth.stamp_ns)
            for count, truth in zip(counts, result.truths, strict=True)
        ),
        ages_ns=tuple(
            truth.stamp_ns - run.stamps_ns[count - 1]
            for count, truth in zip(counts, result.truths, strict=True)
            if count
        ),
    )


def streams(results: Sequence[CameraResult]) -> tuple[str, ...]:
    """Those that there are."""
    return (DETECTIONS, NOW, BASELINE) if all(one.baseline is not None for one in results) else (DETECTIONS, NOW)


def score_cameras(results: Sequence[CameraResult], class_names: Sequence[str], *, timed: bool) -> dict[str, Any]:
    """Figures over all of the cameras. A figure is None where there is nothing to find.

    Args:
        class_names: what the labels mean.
        timed: processing took time, so that answers have an age; without it, streams are left out.
    Returns: JSON-ready:
        "images", "processed", "refused" and "dropped", how many there are, and "instants" of the reference;
        "processing_ms" of each processed image, and "latency_ms" from its stamp to its detections: "mean", "p50",
            "p95" and "max";
        "problems", by camera;
        and, of cameras with a reference:
        "processed_frames", what is said of the processed images, whenever it was there: by DETECTIONS and BASELINE the
            figures of `_score`;
        "streaming", what the newest output says at each instant of the reference: by stream the figures of `_score`;
        "age_ms" of these answers, by stream, and "without_answer", how many instants had none;
        "horizons", by way and seconds ahead, mAP@0.5 of what was said of that instant.
    """
    runs = [result.model for result in results]
    processed = sum(len(run.stamps_ns) for run in runs)
    refused = sum(len(run.refused) for run in runs)
    images = sum(len(result.stamps_ns) for result in results)
    figures: dict[str, Any] = {
        "images": images,
        "processed": processed,
        "refused": refused,
        "dropped": images - processed - refused,
        "processing_ms": _spread(_differences(runs, "begun_ns")),
        "latency_ms": _spread(_differences(runs, "stamps_ns")),
        "problems": {result.name: problems for result in results if (problems := _problems(result))},
    }
    known = [result for result in results if result.truths is not None]
    figures["instants"] = sum(len(result.truths or ()) for result in known)
    if not known:
        return figures
    figures["processed_frames"] = {
        stream: _score_processed(known, stream, class_names) for stream in streams(known) if stream != NOW
    }
    if timed:
        said = {stream: [answers(result, stream) for result in known] for stream in streams(known)}
        figures["streaming"] = {
            stream: _score(
                [of_camera.said for of_camera in of_stream],
                [result.truths or () for result in known],
                [result.stamps_ns for result in known],
                class_names,
            )
            for stream, of_stream in said.items()
        }
        ages = {stream: [*chain(*(one.ages_ns for one in of_stream))] for stream, of_stream in said.items()}
        figures["age_ms"] = {stream: _spread(of_stream) for stream, of_stream in ages.items()}
        figures["without_answer"] = {stream: figures["instants"] - len(of_stream) for stream, of_stream in ages.items()}
    figures["horizons"] = _score_horizons(known, class_names)
    return figures


def _problems(result: CameraResult) -> list[str]:
    problems = list(result.problems)
    if refused := result.model.refused:
        problems.append(f"{len(refused)} images could not be used; the first: {refused[0]}")
    return problems


def _differences(runs: Sequence[CameraRun], since: str) -> list[int]:
    return [
        available_ns - since_ns
        for run in runs
        for available_ns, since_ns in zip(run.available_ns, getattr(run, since), strict=True)
    ]


def _spread(times_ns: Sequence[int]) -> dict[str, float] | None:
    if not times_ns:
        return None
    ms = np.array(times_ns) / 1e6
    return {
        "mean": float(ms.mean()),
        "p50": float(np.percentile(ms, 50)),
        "p95": float(np.percentile(ms, 95)),
        "max": float(ms.max()),
    }


def _score(
    said: Sequence[Sequence[Detections]],
    truths: Sequence[Sequence[Frame]],
    stamps_ns: Sequence[Sequence[int]],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """ "map" and "map50" of COCO, its "ap50_per_class", and "vid": ImageNet VID's mAP@0.5 by the speed of objects.

    Args:
        said, truths: of the same instants, per camera.
        stamps_ns: of all images of each camera: frames in which speed is measured.
    """
    everything, frames = [*chain(*said)], [*chain(*truths)]
    coco = average_precision(everything, frames, class_names)
    ids = [frame_ids(of_camera, stamps) for of_camera, stamps in zip(truths, stamps_ns, strict=True)]
    vid = vid_average_precision(everything, truths, class_names, adaptive_iou=False, frame_ids=ids)
    return {"map": coco.map, "map50": coco.map50, "ap50_per_class": coco.ap50_per_class, "vid": vid.map}


def frame_ids(truths: Sequence[Frame], stamps_ns: Sequence[int]) -> list[int]:
    """Their places among the images; where two are at one, the later is said to be at the next."""
    ids: list[int] = []
    for truth in truths:
        place = bisect_right(stamps_ns, truth.stamp_ns)
        ids.append(max(place, ids[-1] + 1) if ids else place)
    return ids


def _score_processed(results: Sequence[CameraResult], stream: str, class_names: Sequence[str]) -> dict[str, Any]:
    met = [
        _meet((result.baseline if stream == BASELINE else result.model).detections, result)  # type: ignore[union-attr]
        for result in results
    ]
    stamps = [result.stamps_ns for result in results]
    return {
        "frames": sum(len(said) for said, _ in met),
        **_score([said for said, _ in met], [truths for _, truths in met], stamps, class_names),
    }


def _score_horizons(results: Sequence[CameraResult], class_names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    scores: dict[str, dict[str, float | None]] = {}
    for way, horizon_s in results[0].model.anticipated:
        met = [_meet(result.model.anticipated[way, horizon_s], result) for result in results]
        said, truths = ([*chain(*part)] for part in zip(*met, strict=True))
        scores.setdefault(way, {})[f"{horizon_s:g}"] = average_precision(said, truths, class_names).map50
    return scores


def _meet(said: Sequence[Detections], result: CameraResult) -> tuple[list[Detections], list[Frame]]:
    """Bring together what was said of instants and what is true of them, up to half an interval of images beside."""
    truths = result.truths or ()
    tolerance_ns = half_interval_ns(result.stamps_ns)
    stamps_ns = [truth.stamp_ns for truth in truths]
    indices = [index_at(stamps_ns, one.stamp_ns, tolerance_ns) for one in said]
    met = [(one, truths[index]) for one, index in zip(said, indices, strict=True) if index is not None]
    return [one for one, _ in met], [truth for _, truth in met]
