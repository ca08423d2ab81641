"""Average precision by COCO's definition, through pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from memwarp_core.types import Detections, Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class AveragePrecision:
    """COCO's average precision over all sizes, up to 100 detections per image and class.

    Means are over the classes that have ground truth; None where none has, and for a class without any.
    """

    map: float | None
    """Mean over classes and the IoU thresholds 0.50:0.05:0.95."""
    map50: float | None
    """Mean over classes at IoU 0.5."""
    map75: float | None
    """Mean over classes at IoU 0.75."""
    ap_per_class: dict[str, float | None]
    """Mean over the IoU thresholds."""
    ap50_per_class: dict[str, float | None]
    """At IoU 0.5."""


def average_precision(
    detections: Sequence[Detections], truths: Sequence[Frame], class_names: Sequence[str]
) -> AveragePrecision:
    """Score the detections of each frame against its ground truth.

    Args:
        detections, truths: the same frames in the same order.
        class_names: what the labels of both mean.
    Raises: ValueError if the numbers of frames differ.
    """
    if len(detections) != len(truths):
        raise ValueError(f"expected the detections of {len(truths)} frames, got {len(detections)}.")
    annotations = [
        {"image_id": image_id, "category_id": label, "bbox": box}
        for image_id, truth in enumerate(truths)
        for box, label in zip(_xywh(truth.boxes_xyxy), truth.labels.tolist(), strict=True)
    ]
    results = [
        {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
        for image_id, found in enumerate(map(Detections.cpu, detections))
        for box, label, score in zip(
            _xywh(found.boxes_xyxy.numpy()), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]
    return coco_average_precision(results, annotations, range(len(truths)), dict(enumerate(class_names)))


def coco_average_precision(
    detections: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int],
    class_names: Mapping[int, str],
) -> AveragePrecision:
    """Score detections against annotations, both as COCO writes them.

    Args:
        detections: each with image_id, category_id, bbox (x, y, width, height) and score.
        annotations: each with image_id, category_id and bbox; area is that of the bbox and iscrowd 0 if not said.
        image_ids: of all images, those without objects among them.
        class_names: by category_id.
    """
    truth, found = COCO(), COCO()
    # Ids count from 1, whatever they are in a file, because pycocotools takes a match with object 0 for none.
    truth.dataset = {
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": category_id, "name": name} for category_id, name in class_names.items()],
        "annotations": [
            {"area": _area(annotation), "iscrowd": 0, **annotation, "id": index}
            for index, annotation in enumerate(annotations, start=1)
        ],
    }
    found.dataset = {
        "annotations": [
            {**detection, "area": _area(detection), "id": index} for index, detection in enumerate(detections, start=1)
        ]
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        only = evaluation.params  # what is reported, of all that pycocotools can
        only.areaRng, only.areaRngLbl, only.maxDets = only.areaRng[:1], only.areaRngLbl[:1], only.maxDets[-1:]
        evaluation.evaluate()
        evaluation.accumulate()
    # (thresholds 0.50, 0.55, ..., recalls, classes); -1 for a class without ground truth.
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    per_class = np.where(precision[0, 0] > -1, precision.mean(axis=1), np.nan)
    names = [class_names[category_id] for category_id in sorted(class_names)]
    at50, at75 = per_class[0], per_class[5]
    return AveragePrecision(
        map=_mean(per_class),
        map50=_mean(at50),
        map75=_mean(at75),
        ap_per_class=dict(zip(names, map(_mean, per_class.T), strict=True)),
        ap50_per_class=dict(zip(names, map(_mean, at50), strict=True)),
    )


def _xywh(boxes_xyxy: np.ndarray) -> list[list[float]]:
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1).tolist()


def _area(entry: Mapping[str, Any]) -> float:
    return entry["bbox"][2] * entry["bbox"][3]


def _mean(figures: np.ndarray) -> float | None:
    """None if all of them are NaN."""
    present = figures[~np.isnan(figures)]
    return float(present.mean()) if present.size else None
