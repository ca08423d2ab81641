"""Opens whatever data set a person points at."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from memwarp_core.data.bad_entries import BadEntries, box_problem, cut_to_image
from memwarp_core.data.clips import Clip
from memwarp_core.data.coco_vid import ANNOTATIONS_FILE, read_coco_vid
from memwarp_core.data.imagenet_vid import find_root, imagenet_files, read_imagenet_vid
from memwarp_core.data.yolo_video import NAME_FILES, read_yolo_video, yolo_files
from memwarp_core.errors import DataError

if TYPE_CHECKING:
    from memwarp_core.data.bags import BagClip

_BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})


def open_data_set(path: Path, *, skip_bad: bool = False) -> list[Clip]:
    """The clips of a data set; images are read when they are asked for, all else is read and checked at once.

    Args:
        path: one of
            a CocoVID folder (annotations.json and images/), as `memwarp simulate` writes it;
            an ILSVRC folder with ImageNet VID and DET, or one of its lists in ImageSets;
            a folder of folders of images with YOLO labels, and classes.txt or data.yaml;
            a bag with ground truth (a folder with metadata.yaml, or its file), or a folder of such bags; images
            that have none are left out.
        skip_bad: leave out boxes outside of their image or without a size, unknown classes and broken annotations,
            and log how many they were. Without it, the first one is an error.
    Raises: DataError that names the file and what is wrong, or says what is understood.
    """
    clips: Sequence[Clip]
    if (path / ANNOTATIONS_FILE).is_file():
        clips = read_coco_vid(path, skip_bad=skip_bad)
    elif find_root(path) is not None:
        clips = read_imagenet_vid(path, skip_bad=skip_bad)
    elif bags := _find_bags(path):
        clips = _open_bags(path, bags, skip_bad)
    elif any((path / name).is_file() for name in NAME_FILES):
        clips = read_yolo_video(path, skip_bad=skip_bad)
    else:
        came = "no such file or folder" if not path.exists() else "none of these"
        raise DataError(
            f"{path}: expected a data set, got {came}. What is understood: a CocoVID folder ({ANNOTATIONS_FILE}); an "
            "ILSVRC folder (Data, Annotations, ImageSets) or a list in its ImageSets; a folder of clips with YOLO "
            f"labels ({' or '.join(NAME_FILES)} at its top); a bag with ground truth, or a folder of them."
        )
    if not clips:
        raise DataError(f"{path}: expected at least one clip, got none.")
    return list(clips)


def fingerprint(path: Path) -> str:
    """A hash that changes when the data set does: of CocoVID's annotations, else of all names, sizes and times."""
    if (path / ANNOTATIONS_FILE).is_file():
        return hashlib.sha256((path / ANNOTATIONS_FILE).read_bytes()).hexdigest()
    files: Iterable[Path]
    if find_root(path) is not None:
        files = imagenet_files(path)
    elif bags := _find_bags(path):
        files = (file for bag in bags for file in ([bag] if bag.is_file() else sorted(bag.iterdir())))
    else:
        files = yolo_files(path)
    digest = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
            digest.update(f"{file}\0{status.st_size} {status.st_mtime_ns}\n".encode())
        except FileNotFoundError:
            digest.update(f"{file}\0missing\n".encode())
    return digest.hexdigest()


def _find_bags(path: Path) -> list[Path]:
    if _is_bag(path):
        return [path]
    return sorted(entry for entry in path.iterdir() if _is_bag(entry)) if path.is_dir() else []


def _is_bag(path: Path) -> bool:
    return (path.is_file() and path.suffix in _BAG_SUFFIXES) or (path / "metadata.yaml").is_file()


def _open_bags(path: Path, bags: Sequence[Path], skip_bad: bool) -> "list[BagClip]":
    from memwarp_core.data.bags import read_bag  # rosbags is needed for bags alone

    clips = [read_bag(bag) for bag in bags]
    # Bags without a LabelInfo have the names that occur in them, so all get the names of all.
    names = tuple(dict.fromkeys(name for clip in clips for name in clip.class_names))
    bad = BadEntries(path, skip=skip_bad)
    checked = []
    for clip in clips:
        if clip.class_names != names:
            clip.close()
            clip = read_bag(clip.path, class_names=names)
        if not any(clip.labelled):
            bad.add(
                f"{clip.path}: expected ground truth as vision_msgs/Detection2DArray on /ground_truth with the stamps "
                "of the images, got none."
            )
            clip.close()
            continue
        checked.append(_labelled_part(clip, bad))
    bad.finish()
    return checked


def _labelled_part(clip: "BagClip", bad: BadEntries) -> "BagClip":
    """Only the images that have ground truth: it is not known that the others show nothing."""
    height, width = clip[0].image.shape[:2]
    chosen = [index for index, labelled in enumerate(clip.labelled) if labelled]
    truths = []
    for index in chosen:
        boxes, labels, tracks = clip.truths[index]
        problems = [box_problem(box, (height, width)) for box in boxes]
        for problem in filter(None, problems):
            bad.add(f"{clip.path}: ground truth at {clip.stamps_ns[index]} ns: {problem}")
        good = [problem is None for problem in problems]
        truths.append((cut_to_image(boxes[good], (height, width)), labels[good], tracks[good]))
    return replace(
        clip,
        log_times_ns=tuple(clip.log_times_ns[index] for index in chosen),
        stamps_ns=tuple(clip.stamps_ns[index] for index in chosen),
        truths=tuple(truths),
        labelled=(True,) * len(chosen),
    )
