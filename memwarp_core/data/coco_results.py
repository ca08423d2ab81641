"""Detections as COCO results: the JSON list that pycocotools and most evaluation tools read."""

import json
from collections.abc import Sequence
from pathlib import Path

from memwarp_core.files import write_bytes_whole
from memwarp_core.types import Detections


def write_coco_results(
    path: Path, image_ids: Sequence[int], detections: Sequence[Detections], class_names: Sequence[str]
) -> None:
    """Write one list entry per box: image_id, category_id, bbox (x, y, width, height) and score.

    Beyond COCO's own keys an entry has category_name, and stamp_ns, the instant for which the box is valid.

    Args:
        path: the file; it appears whole or not at all.
        image_ids: the image that each of `detections` was made from.
        detections: in source pixels.
        class_names: label i is category i + 1, as in COCO and in the data sets of `memwarp simulate`.
    """
    entries = [
        {
            "image_id": image_id,
            "category_id": int(label) + 1,
            "category_name": class_names[label],
            "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
            "score": round(score, 4),
            "stamp_ns": of_image.stamp_ns,
        }
        for image_id, of_image in zip(image_ids, map(Detections.cpu, detections), strict=True)
        for (x1, y1, x2, y2), score, label in zip(
            of_image.boxes_xyxy.tolist(), of_image.scores.tolist(), of_image.labels.tolist(), strict=True
        )
    ]
    write_bytes_whole(path, ("[" + ",\n".join(json.dumps(entry) for entry in entries) + "]\n").encode())
