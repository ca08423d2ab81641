"""Average precision by COCO's definition, through pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from memwarp_core.types import Detections, Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class AveragePrecision:
    """COCO's average precision over all sizes, up to 100 detections per image."""

    map: float | None
    """Mean over classes and the IoU thresholds 0.50:0.05:0.95; None where there is no ground truth."""
    map50: float | None
    """Mean over classes at IoU 0.5."""
    ap50_per_class: dict[str, float | None]
    """At IoU 0.5; None for a class without ground truth."""


def average_precision(
    detections: Sequence[Detections], truths: Sequence[Frame], class_names: Sequence[str]
) -> AveragePrecision:
    """Score the detections of each frame against its ground truth.

    Args:
        detections, truths: the same frames in the same order.
        class_names: what the labels of both mean.
    Raises: ValueError if the numbers of frames differ.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, truth in enumerate(truths):
        images.append({"id": index + 1})
        for box, label in zip(_xywh(truth.boxes_xyxy), truth.labels.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    rows = [_result_rows(index + 1, of_frame) for index, of_frame in enumerate(detections)]
    if len(rows) != len(images):
        raise ValueError(f"expected the detections of {len(images)} frames, got {len(rows)}.")
    results = np.concatenate([np.zeros((0, 7)), *rows])
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        categories = [{"id": index, "name": name} for index, name in enumerate(class_names)]
        truth_set.dataset = {"images": images, "annotations": annotations, "categories": categories}
        truth_set.createIndex()
        if not annotations or not len(results):
            nothing = 0.0 if annotations else None
            present = {annotation["category_id"] for annotation in annotations}
            per_class = {name: 0.0 if index in present else None for index, name in enumerate(class_names)}
            return AveragePrecision(map=nothing, map50=nothing, ap50_per_class=per_class)
        evaluation = COCOeval(truth_set, truth_set.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # (thresholds, recalls, classes), all areas, 100 detections; -1 where a class has no ground truth.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_threshold = np.where((precision > -1).any(axis=(0, 1)), precision.mean(axis=1), np.nan)
    ap50 = per_threshold[0]
    return AveragePrecision(
        map=float(np.nanmean(per_threshold)),
        map50=float(np.nanmean(ap50)),
        ap50_per_class={
            name: None if np.isnan(value) else float(value) for name, value in zip(class_names, ap50, strict=True)
        },
    )


def _xywh(boxes_xyxy: np.ndarray) -> list[list[float]]:
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1).tolist()


def _result_rows(image_id: int, detections: Detections) -> np.ndarray:
    """(N, 7): image id, x, y, w, h, score, class."""
    detections = detections.cpu()
    boxes = np.asarray(_xywh(detections.boxes_xyxy.numpy())).reshape(-1, 4)
    return np.column_stack(
        (np.full(len(boxes), image_id), boxes, detections.scores.numpy(), detections.labels.numpy())
    ).reshape(-1, 7)
