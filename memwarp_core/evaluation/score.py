"""Scores a file of detections against a file of ground truth; nothing else has to be there, no images and no model."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memwarp_core.evaluation.average_precision import coco_average_precision
from memwarp_core.evaluation.score_files import (
    Entry,
    GroundTruth,
    Metric,
    Results,
    by_image,
    read_ground_truth,
    read_results,
)
from memwarp_core.evaluation.streaming_average_precision import streaming_average_precision
from memwarp_core.evaluation.vid_average_precision import vid_average_precision
from memwarp_core.types import Detections, Frame


def score(metric: Metric, ground_truth: Path, detections: Path, *, adaptive_iou: bool = True) -> dict[str, Any]:
    """Read both files and score the detections.

    Args:
        metric: vid: ImageNet VID's, by the speed of the objects; see vid_average_precision.
            coco: COCO's, by pycocotools.
            streaming: Li et al.'s, with the time that each output took; see streaming_average_precision.
        ground_truth: CocoVID; plain COCO for coco.
        detections: COCO results, or an object that has them as "detections" and, for streaming, as "outputs" the
            image_id and available_ns of every image that was processed.
        adaptive_iou: of vid: a small object asks for less overlap.
    Returns: JSON-ready; figures are in [0, 1] and None where there is no ground truth.
        vid: "map" and, by class name, "ap", each for "all", "slow", "medium" and "fast" objects.
        coco: "AP", "AP50", "AP75" and, by class name, "ap_per_class".
        streaming: "sAP", "sAP50", "sAP75", "mean_age_ms", "frames_without_output" and "offline_AP".
    Raises: DataError for a file that does not hold what the metric needs.
    """
    truth = read_ground_truth(ground_truth, metric)
    results = read_results(detections, metric, truth)
    if metric == "vid":
        return _vid(truth, results, adaptive_iou)
    return _coco(truth, results) if metric == "coco" else _streaming(truth, results)


def _vid(truth: GroundTruth, results: Results, adaptive_iou: bool) -> dict[str, Any]:
    labels = {category_id: label for label, category_id in enumerate(truth.class_names)}
    clips = truth.clips("frame_id")
    objects, found = by_image(truth.annotations), by_image(results.detections)
    scored = vid_average_precision(
        [_detections(found[image["id"]], labels) for clip in clips for image in clip],
        [[_frame(objects[image["id"]], labels) for image in clip] for clip in clips],
        list(truth.class_names.values()),
        adaptive_iou=adaptive_iou,
        frame_ids=[[image["frame_id"] for image in clip] for clip in clips],
    )
    return asdict(scored)


def _coco(truth: GroundTruth, results: Results) -> dict[str, Any]:
    scored = coco_average_precision(results.detections, truth.annotations, list(truth.images), truth.class_names)
    return {"AP": scored.map, "AP50": scored.map50, "AP75": scored.map75, "ap_per_class": scored.ap_per_class}


def _streaming(truth: GroundTruth, results: Results) -> dict[str, Any]:
    scored = streaming_average_precision(
        results.detections,
        results.available_ns,
        truth.annotations,
        [{image["id"]: image["stamp_ns"] for image in clip} for clip in truth.clips("stamp_ns")],
        truth.class_names,
    )
    return {
        "sAP": scored.streaming.map,
        "sAP50": scored.streaming.map50,
        "sAP75": scored.streaming.map75,
        "mean_age_ms": scored.mean_age_ms,
        "frames_without_output": scored.frames_without_output,
        "offline_AP": scored.offline.map,
    }


# Both in double precision, where a detector has single: a file says more digits, and overlaps are compared with limits.


def _detections(entries: Sequence[Entry], labels: dict[int, int]) -> Detections:
    return Detections(
        boxes_xyxy=torch.from_numpy(_boxes_xyxy(entries)),
        scores=torch.tensor([entry["score"] for entry in entries], dtype=torch.float64),
        labels=torch.tensor([labels[entry["category_id"]] for entry in entries], dtype=torch.int64),
        stamp_ns=0,
    )


def _frame(entries: Sequence[Entry], labels: dict[int, int]) -> Frame:
    return Frame(
        image=np.zeros((0, 0, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=_boxes_xyxy(entries),
        labels=np.array([labels[entry["category_id"]] for entry in entries], np.int64),
        track_ids=np.array([entry["instance_id"] for entry in entries], np.int64),
    )


def _boxes_xyxy(entries: Sequence[Entry]) -> np.ndarray:
    boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
