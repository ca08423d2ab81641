"""Data sets in the CocoVID format: COCO's JSON with videos.

A data set is a folder with `annotations.json` and `images/<clip>/<frame>.jpg`. Beyond COCO, the JSON has `videos`
(id, name), per image `video_id`, `frame_id` (from 0 within the video), `stamp_ns` and `degradation`, and per
annotation `instance_id` and `visible_fraction`. `bbox` is x, y, width, height in continuous pixels: a box that covers
only the corner pixel is 0, 0, 1, 1. Where a simulated data set has displacement fields, that of frame f (to frame
f - 1) is `displacement/<clip>/<frame>.png`; the first frame of a clip has none.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memwarp_core.data.bad_entries import BadEntries, box_problem
from memwarp_core.data.coco_json import read_json, require_keys
from memwarp_core.data.displacement_file import read_displacement
from memwarp_core.data.image_file import read_image
from memwarp_core.errors import DataError
from memwarp_core.files import write_bytes_whole
from memwarp_core.types import Frame

ANNOTATIONS_FILE = "annotations.json"
IMAGES_FOLDER = "images"
DISPLACEMENT_FOLDER = "displacement"


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoVidClip:
    """A video of a CocoVID data set; see `memwarp_core.data.clips.Clip`."""

    name: str
    class_names: tuple[str, ...]
    folder: Path
    """The folder of the whole data set."""
    records: tuple[Frame, ...]
    """The frames with all but their images, which are empty here."""
    files: tuple[str, ...]
    """File names of the images, relative to `images/`."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) that each image should have."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Frame:
        """Read a frame. Raises DataError if its image is missing, broken or of another size than annotated."""
        path = self.folder / IMAGES_FOLDER / self.files[index]
        return replace(self.records[index], image=read_image(path, self.sizes[index], named_in=ANNOTATIONS_FILE))

    def displacement(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The field (H, W, 2) float32 from frame `index` back to the one before it, and its validity (H, W) bool.

        Raises: DataError for the first frame of a clip and for data sets without fields.
        """
        if index % len(self) == 0:
            raise DataError(f"{self.name}: the first frame of a clip has no displacement to an earlier one.")
        return read_displacement((self.folder / DISPLACEMENT_FOLDER / self.files[index]).with_suffix(".png"))


def read_coco_vid(path: Path, *, skip_bad: bool = False) -> list[CocoVidClip]:
    """The clips of the data set in folder `path`, in the order of their ids; images are read when asked for.

    Args:
        skip_bad: leave out and count annotations that do not fit their image or the classes, where they are an error
            else.
    Raises: DataError if the folder or its JSON does not hold what the format promises.
    """
    file = Path(path) / ANNOTATIONS_FILE
    if not file.is_file():
        raise DataError(
            f"{file}: expected the annotations of a CocoVID data set, got no such file; make one with "
            "`memwarp simulate`, or name the folder that holds annotations.json."
        )
    content = read_annotations(file)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    class_names = tuple(str(category["name"]) for category in categories)
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    images: dict[int, dict[str, Any]] = {}
    for image in content["images"]:
        if image["id"] in images:
            raise DataError(f"{file}: image id {image['id']} is there twice; ids must be unique.")
        images[image["id"]] = image
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    bad = BadEntries(path, skip=skip_bad)
    for annotation in content["annotations"]:
        problem = _annotation_problem(annotation, images, label_of)
        if problem:
            bad.add(f"{file}: annotation {annotation['id']}: {problem}")
            continue
        annotations[annotation["image_id"]].append(annotation)
    bad.finish()
    by_video: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for image in images.values():
        by_video[image["video_id"]].append(image)
    unknown = set(by_video) - {video["id"] for video in content["videos"]}
    if unknown:
        raise DataError(f"{file}: images belong to video {min(unknown)}, which is not among the videos.")
    clips: list[CocoVidClip] = []
    for video in sorted(content["videos"], key=lambda video: video["id"]):
        frames = sorted(by_video[video["id"]], key=lambda image: image["frame_id"])
        records = tuple(_record(image, annotations[image["id"]], label_of) for image in frames)
        for before, after in zip(records, records[1:], strict=False):
            if after.stamp_ns <= before.stamp_ns:
                raise DataError(
                    f"{file}: video {video['name']!r}: stamp_ns must grow with frame_id, got {after.stamp_ns} after "
                    f"{before.stamp_ns}."
                )
        clips.append(
            CocoVidClip(
                name=str(video["name"]),
                class_names=class_names,
                folder=Path(path),
                records=records,
                files=tuple(image["file_name"] for image in frames),
                sizes=tuple((image["height"], image["width"]) for image in frames),
            )
        )
    return clips


_REQUIRED = {
    "videos": ("id", "name"),
    "categories": ("id", "name"),
    "images": ("id", "file_name", "width", "height", "video_id", "frame_id", "stamp_ns"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}


def read_annotations(file: Path, required: Mapping[str, Sequence[str]] = _REQUIRED) -> dict[str, Any]:
    """The JSON of a CocoVID file, checked to have everything that is required.

    Args:
        required: from the lists in the file to the keys of their entries; by default, all of a data set.
    Raises: DataError that names the file and what is missing.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a JSON object with {', '.join(required)}, got a {type(content).__name__}.")
    for section, keys in required.items():
        if section not in content:
            raise DataError(f"{file}: expected a list named {section!r}, as CocoVID has it; got none.")
        require_keys(content[section], keys, f"{file}: {section}")
    return content


def _annotation_problem(
    annotation: dict[str, Any], images: dict[int, dict[str, Any]], label_of: dict[int, int]
) -> str | None:
    image = images.get(annotation["image_id"])
    if image is None:
        return f"its image_id {annotation['image_id']} is not among the images."
    if annotation["category_id"] not in label_of:
        return f"its category_id {annotation['category_id']} is not among the categories."
    box = annotation["bbox"]
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)):
        return f"bbox must be four numbers x, y, width, height, got {box!r}."
    x, y, width, height = box
    return box_problem(np.array([x, y, x + width, y + height]), (image["height"], image["width"]))


def _record(image: dict[str, Any], annotations: list[dict[str, Any]], label_of: dict[int, int]) -> Frame:
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Frame(
        image=np.empty((0, 0, 3), np.uint8),
        stamp_ns=int(image["stamp_ns"]),
        boxes_xyxy=boxes,
        labels=np.array([label_of[annotation["category_id"]] for annotation in annotations], np.int64),
        track_ids=np.array([annotation.get("instance_id", -1) for annotation in annotations], np.int64),
        degradation=str(image.get("degradation", "none")),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipAnnotations:
    """What is written about one clip: all but the images themselves."""

    name: str
    frames: tuple[dict[str, Any], ...]
    """Per frame: file_name, width, height, stamp_ns, degradation, and `objects`, each with label, bbox (x, y, width,
    height), instance_id and visible_fraction."""


def frame_annotations(frame: Frame, file_name: str, visible_fractions: np.ndarray | None = None) -> dict[str, Any]:
    """One entry of `ClipAnnotations.frames`. Fractions default to 1."""
    height, width = frame.image.shape[:2]
    fractions = np.ones(len(frame.labels)) if visible_fractions is None else visible_fractions
    objects = []
    for box, label, track, fraction in zip(frame.boxes_xyxy, frame.labels, frame.track_ids, fractions, strict=True):
        x0, y0, x1, y1 = (float(v) for v in box)
        objects.append(
            {
                "label": int(label),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "instance_id": int(track),
                "visible_fraction": round(float(fraction), 4),
            }
        )
    return {
        "file_name": file_name,
        "width": width,
        "height": height,
        "stamp_ns": frame.stamp_ns,
        "degradation": frame.degradation,
        "objects": objects,
    }


def write_coco_vid(folder: Path, clips: Sequence[ClipAnnotations], class_names: Sequence[str]) -> None:
    """Write `folder`/annotations.json for images that are already in place. Ids count from 1."""
    content: dict[str, Any] = {
        "videos": [{"id": index + 1, "name": clip.name} for index, clip in enumerate(clips)],
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(class_names)],
        "images": [],
        "annotations": [],
    }
    for video, clip in enumerate(clips, start=1):
        for frame_id, frame in enumerate(clip.frames):
            image = {key: value for key, value in frame.items() if key != "objects"}
            image_id = len(content["images"]) + 1
            content["images"].append({"id": image_id, "video_id": video, "frame_id": frame_id, **image})
            for item in frame["objects"]:
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": item["label"] + 1,
                        "bbox": item["bbox"],
                        "area": item["bbox"][2] * item["bbox"][3],
                        "iscrowd": 0,
                        "instance_id": item["instance_id"],
                        "visible_fraction": item["visible_fraction"],
                    }
                )
    write_bytes_whole(folder / ANNOTATIONS_FILE, json.dumps(content).encode())
