"""Reads what `memwarp score` compares: ground truth as CocoVID, detections as COCO results. No image is needed.

Of each file only what the metric uses is asked for and checked, so that plain COCO will do for COCO's own metric.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Literal

from memwarp_core.data.coco_json import check_references, check_unique, check_values, read_json, require_keys
from memwarp_core.data.coco_vid import read_annotations
from memwarp_core.errors import DataError

Metric = Literal["vid", "coco", "streaming"]
Entry = Mapping[str, Any]
"""Of a list in one of the files; its bbox is x, y, width, height in continuous pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundTruth:
    """A ground-truth file whose every entry holds what the metric uses."""

    class_names: dict[int, str]
    """By category id, in the order of the ids."""
    images: dict[int, Entry]
    """By id, in the order of the file."""
    annotations: tuple[Entry, ...]

    def clips(self, order: str) -> list[list[Entry]]:
        """The images of each video, by what `order` names; the videos come by their ids."""
        of_video: dict[int, list[Entry]] = defaultdict(list)
        for image in self.images.values():
            of_video[image["video_id"]].append(image)
        return [sorted(of_video[video], key=lambda image: image[order]) for video in sorted(of_video)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A detections file whose every entry belongs to an image and a class of the ground truth."""

    detections: tuple[Entry, ...]
    available_ns: dict[int, int]
    """By the id of the image that was processed: when its output was there. Empty but for streaming."""


def by_image(entries: Iterable[Entry]) -> defaultdict[int, list[Entry]]:
    """Annotations or detections by the id of their image, each in the order of the file."""
    grouped: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry["image_id"]].append(entry)
    return grouped


_COCO: dict[str, tuple[str, ...]] = {
    "categories": ("id", "name"),
    "images": ("id",),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}
_REQUIRED: dict[Metric, dict[str, tuple[str, ...]]] = {
    "coco": _COCO,
    "vid": {
        **_COCO,
        "videos": ("id",),
        "images": ("id", "video_id", "frame_id"),
        "annotations": (*_COCO["annotations"], "instance_id"),
    },
    "streaming": {**_COCO, "videos": ("id",), "images": ("id", "video_id", "stamp_ns")},
}
_OPTIONAL = {"annotations": ("area", "iscrowd")}
_ORDER: dict[Metric, str] = {"vid": "frame_id", "streaming": "stamp_ns"}
"""What says in which order the images of a video come."""


def read_ground_truth(file: Path, metric: Metric) -> GroundTruth:
    """Raises: DataError that names the file, the entry and what the metric expects of it."""
    content = read_annotations(file, _REQUIRED[metric])
    sections: dict[str, dict[int, Entry]] = {}
    for section, required in _REQUIRED[metric].items():
        check_values(content[section], (*required, *_OPTIONAL.get(section, ())), f"{file}: {section}")
        check_unique(content[section], ("id",), f"{file}: {section}")
        sections[section] = {entry["id"]: entry for entry in content[section]}
    categories, images = sections["categories"], sections["images"]
    check_unique(content["categories"], ("name",), f"{file}: categories")
    if metric != "coco":
        check_references(content["images"], {"video_id": sections["videos"]}, f"{file}: images")
        check_unique(content["images"], ("video_id", _ORDER[metric]), f"{file}: images")
    check_references(content["annotations"], {"image_id": images, "category_id": categories}, f"{file}: annotations")
    for position, annotation in enumerate(content["annotations"]):
        where = f"{file}: annotations[{position}]"
        if min(annotation["bbox"][2:]) <= 0:
            raise DataError(f"{where}: width and height of an object must be above 0, got bbox {annotation['bbox']}.")
        if metric == "vid" and annotation.get("iscrowd"):
            raise DataError(f"{where}: expected a single object, got a crowd, which ImageNet VID has none of.")
    return GroundTruth(
        class_names={category_id: categories[category_id]["name"] for category_id in sorted(categories)},
        images=images,
        annotations=tuple(content["annotations"]),
    )


def read_results(file: Path, metric: Metric, truth: GroundTruth) -> Results:
    """Read a list of detections, or an object that has it as "detections" and, for streaming, may have "outputs".

    Raises: DataError that names the file, the entry and what the metric expects of it.
    """
    content = read_json(file)
    parts = content if isinstance(content, dict) else {"detections": content}
    if "detections" not in parts:
        raise DataError(f'{file}: expected a list of detections, or an object with "detections"; got {brief(content)}.')
    owners: dict[str, Container[int]] = {"image_id": truth.images, "category_id": truth.class_names}
    lists: dict[str, tuple[str, ...]] = {"detections": ("image_id", "category_id", "bbox", "score")}
    if metric == "streaming" and "outputs" in parts:
        lists["outputs"] = ("image_id", "available_ns")
    for name, keys in lists.items():
        require_keys(parts[name], keys, f"{file}: {name}")
        check_values(parts[name], keys, f"{file}: {name}")
        check_references(parts[name], {key: owners[key] for key in keys if key in owners}, f"{file}: {name}")
    available_ns = _available_ns(parts, truth, file) if metric == "streaming" else {}
    return Results(detections=tuple(parts["detections"]), available_ns=available_ns)


def _available_ns(parts: Mapping[str, list[Entry]], truth: GroundTruth, file: Path) -> dict[int, int]:
    """Results.available_ns, from outputs and detections, which have to agree."""
    check_unique(parts.get("outputs", []), ("image_id",), f"{file}: outputs")
    check_values(parts["detections"], ("available_ns",), f"{file}: detections")
    available_ns: dict[int, int] = {}
    for name in ("outputs", "detections"):
        for position, entry in enumerate(parts.get(name, [])):
            where, image_id = f"{file}: {name}[{position}]", entry["image_id"]
            if "available_ns" not in entry:
                if image_id not in available_ns:
                    raise DataError(
                        f"{where} lacks available_ns, the time in nanoseconds at which it was there; give it, or name "
                        f"image {image_id} in outputs."
                    )
                continue
            said, stamp_ns = entry["available_ns"], truth.images[image_id]["stamp_ns"]
            if said < stamp_ns:
                raise DataError(
                    f"{where}: available_ns must not be before stamp_ns {stamp_ns} of image {image_id}, got {said}; "
                    "both are nanoseconds of one clock."
                )
            if available_ns.setdefault(image_id, said) != said:
                raise DataError(
                    f"{where}: an image is one output, there all at once; got available_ns {said}, and "
                    f"{available_ns[image_id]} before, for image {image_id}."
                )
    return available_ns
