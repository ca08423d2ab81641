"""ImageNet VID, and the images of ImageNet DET that show its classes, in the folders of ILSVRC 2015.

    Data/{VID,DET}/<entry>.JPEG             images
    Annotations/{VID,DET}/<entry>.xml       boxes as in PASCAL VOC, with `trackid` in VID
    ImageSets/[VID/]<list>.txt              which of them to use

The lists are those that FGFA's authors published and others use since; their names begin with VID_ or DET_:

| list | columns |
| --- | --- |
| VID_train_15frames | folder of a clip, a number that is not used, frame (from 0), frames in the clip |
| VID_val_videos | folder of a clip, a number that is not used, 0, frames in the clip: all of its frames |
| VID_val_frames, DET_train_30classes | image, a number that is not used |

Frames of VID have no stamps: they are taken for 30 Hz, so frame f has the stamp f / 30 s. The 15 frames that are listed
of a training clip are spread over it, and so are their stamps; for sequences at the camera's rate, list whole videos.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from memwarp_core.data.bad_entries import BadEntries, box_problem, cut_to_image
from memwarp_core.data.image_file import read_image
from memwarp_core.errors import DataError
from memwarp_core.types import Frame

RATE_HZ = 30
IMAGE_SETS_FOLDER = "ImageSets"
TRAINING_LISTS = ("VID_train_15frames", "DET_train_30classes")

# fmt: off
CLASSES = {
    "n02691156": "airplane", "n02419796": "antelope", "n02131653": "bear", "n02834778": "bicycle", "n01503061": "bird",
    "n02924116": "bus", "n02958343": "car", "n02402425": "cattle", "n02084071": "dog", "n02121808": "domestic_cat",
    "n02503517": "elephant", "n02118333": "fox", "n02510455": "giant_panda", "n02342885": "hamster",
    "n02374451": "horse", "n02129165": "lion", "n01674464": "lizard", "n02484322": "monkey", "n03790512": "motorcycle",
    "n02324045": "rabbit", "n02509815": "red_panda", "n02411705": "sheep", "n01726692": "snake",
    "n02355227": "squirrel", "n02129604": "tiger", "n04468005": "train", "n01662784": "turtle",
    "n04530566": "watercraft", "n02062744": "whale", "n02391049": "zebra",
}
# fmt: on
"""WordNet ids of the 30 classes, in the order of the paper's tables."""

_LABELS = {wordnet_id: label for label, wordnet_id in enumerate(CLASSES)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetClip:
    """A clip of VID, or a still image of DET; see `memwarp_core.data.clips.Clip`."""

    name: str
    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    """(height, width) that the annotations give for each image."""
    records: tuple[Frame, ...]
    """The frames with all but their images, which are empty here."""
    class_names: tuple[str, ...] = tuple(CLASSES.values())

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Frame:
        """Read a frame. Raises DataError if its image is missing, broken or of another size than annotated."""
        image = read_image(self.files[index], self.sizes[index], named_in="the list or its annotation", as_stored=True)
        return replace(self.records[index], image=image)


def find_root(path: Path) -> Path | None:
    """The folder above ImageSets if `path` is that of an ILSVRC data set or one of its lists."""
    if path.suffix == ".txt":
        return next((folder.parent for folder in path.parents if folder.name == IMAGE_SETS_FOLDER), None)
    return path if (path / IMAGE_SETS_FOLDER).is_dir() and (path / "Data").is_dir() else None


def read_imagenet_vid(path: Path, *, skip_bad: bool = False) -> list[ImageNetClip]:
    """The clips of one list, or those for training: of each VID clip 15 frames, and DET's images as clips of one frame.

    All annotations are read and checked at once, the images when they are asked for. Boxes are cut at the border of
    their image, as in FGFA. Objects of DET's other classes are left out.

    Args:
        path: the folder of the data set, or a list in its folder ImageSets.
        skip_bad: leave out and count broken or missing annotations and bad boxes, where they are an error else.
    Raises: DataError naming the list and its line, or the annotation.
    """
    root = find_root(path)
    if root is None:
        raise DataError(f"{path}: expected an ILSVRC folder, with Data, Annotations and {IMAGE_SETS_FOLDER}.")
    bad = BadEntries(path, skip=skip_bad)
    clips = []
    for file in _lists(path):
        kind = _kind(file)
        listed = _read_list(file).items()
        for name, frames in track(listed, description=f"reading annotations of {file.stem}", transient=True):
            records, files, sizes = [], [], []
            for number, entry in frames:
                try:
                    record, size = _read_annotation(root / "Annotations" / kind / f"{entry}.xml", kind, bad)
                except DataError as err:
                    bad.add(err)
                    continue
                records.append(replace(record, stamp_ns=round(number * 1_000_000_000 / RATE_HZ)))
                files.append(root / "Data" / kind / f"{entry}.JPEG")
                sizes.append(size)
            if records:
                clips.append(ImageNetClip(name=name, files=tuple(files), sizes=tuple(sizes), records=tuple(records)))
    bad.finish()
    return clips


def imagenet_files(path: Path) -> Iterator[Path]:
    """The files that `read_imagenet_vid` and its clips read: lists, annotations and images."""
    root = find_root(path)
    assert root is not None
    for file in _lists(path):
        yield file
        for frames in _read_list(file).values():
            for _, entry in frames:
                yield root / "Annotations" / _kind(file) / f"{entry}.xml"
                yield root / "Data" / _kind(file) / f"{entry}.JPEG"


def _lists(path: Path) -> list[Path]:
    if path.suffix == ".txt":
        return [path]
    folders = [path / IMAGE_SETS_FOLDER / "VID", path / IMAGE_SETS_FOLDER]
    found = [
        next((folder / f"{name}.txt" for folder in folders if (folder / f"{name}.txt").is_file()), None)
        for name in TRAINING_LISTS
    ]
    if found[0] is None:
        there = ", ".join(sorted(file.name for folder in folders for file in folder.glob("*.txt"))) or "none"
        raise DataError(
            f"{path}: expected the list {TRAINING_LISTS[0]}.txt in {IMAGE_SETS_FOLDER}, got {there}; put FGFA's "
            "published lists there, or name one list, such as ImageSets/VID_val_videos.txt, instead of the folder."
        )
    return [file for file in found if file is not None]


def _kind(file: Path) -> str:
    kind = file.name.split("_")[0]
    if kind not in ("VID", "DET"):
        raise DataError(f"{file}: expected a list whose name begins with VID_ or DET_.")
    return kind


def _read_list(file: Path) -> dict[str, list[tuple[int, str]]]:
    """Per clip the numbers and names of its frames, in the order of time."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{file}: expected a list of images ({err}).") from err
    clips: dict[str, dict[int, str]] = defaultdict(dict)
    for position, line in enumerate(lines, start=1):
        columns = line.split()
        try:
            if len(columns) == 4:
                folder, first, length = columns[0], int(columns[2]), int(columns[3])
                whole = file.stem.endswith("_videos")
                for number in range(length) if whole else [first]:
                    clips[folder][number] = f"{folder}/{number:06d}"
            elif len(columns) == 2 and _kind(file) == "DET":
                clips[columns[0]][0] = columns[0]
            elif len(columns) == 2:
                folder, _, number_text = columns[0].rpartition("/")
                clips[folder][int(number_text)] = columns[0]
            elif columns:
                raise ValueError(f"{len(columns)} columns")
        except ValueError as err:
            raise DataError(
                f"{file}, line {position}: expected an image and a number, or a folder and three numbers, "
                f"got {line!r} ({err})."
            ) from err
    return {name: sorted(frames.items()) for name, frames in clips.items()}


def _read_annotation(file: Path, kind: str, bad: BadEntries) -> tuple[Frame, tuple[int, int]]:
    """All but the image and the stamp; and the image's (height, width). Raises: DataError naming the file."""
    tree = _parse(file)
    size = (_whole_number(file, tree, "size/height"), _whole_number(file, tree, "size/width"))
    boxes, labels, tracks = [], [], []
    for position, item in enumerate(tree.findall("object"), start=1):
        name = (item.findtext("name") or "").strip().lower()
        if name not in _LABELS:
            if kind == "VID" or not re.fullmatch(r"n\d{8}", name):
                bad.add(f"{file}: object {position} has the class {name!r}, which is none of VID's 30 WordNet ids.")
            continue
        x0, y0, x1, y1 = (_number(file, item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        # The last row and column are inside of a VOC box, so it ends a pixel further on.
        box = np.array([x0, y0, x1 + 1, y1 + 1], np.float32)
        problem = box_problem(box, size, tolerance=np.inf)
        if problem:
            bad.add(f"{file}: object {position}: {problem}")
            continue
        boxes.append(box)
        labels.append(_LABELS[name])
        tracks.append(_whole_number(file, item, "trackid") if item.find("trackid") is not None else -1)
    record = Frame(
        image=np.empty((0, 0, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=cut_to_image(np.array(boxes, np.float32).reshape(-1, 4), size),
        labels=np.array(labels, np.int64),
        track_ids=np.array(tracks, np.int64),
    )
    return record, size


def _parse(file: Path) -> ElementTree.Element:
    try:
        content = file.read_bytes()
    except OSError as err:
        raise DataError(f"{file}: expected the annotation of an image that a list names ({err.strerror}).") from err
    # VOC needs no entities, and only they make XML from elsewhere dangerous.
    if b"<!ENTITY" in content:
        raise DataError(f"{file}: expected XML without entities.")
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as err:
        raise DataError(f"{file}: expected XML, got something else ({err}).") from err


def _number(file: Path, element: ElementTree.Element, tag: str) -> float:
    text = element.findtext(tag)
    try:
        return float(text or "")
    except ValueError as err:
        raise DataError(f"{file}: expected a number in <{tag}>, got {text!r}.") from err


def _whole_number(file: Path, element: ElementTree.Element, tag: str) -> int:
    number = _number(file, element, tag)
    if not number.is_integer():
        raise DataError(f"{file}: expected a whole number in <{tag}>, got {number:g}.")
    return int(number)
