"""Folders of images with labels as YOLO's tools write them, a folder per clip.

    classes.txt or data.yaml        the class names: one a line, or `names` as a list or by number
    <clip>/<frame>.jpg              frames in the order of their names
    <clip>/<frame>.txt              a line per object: class, centre x, centre y, width, height, and a track id if known

Classes count from 0; the rest are fractions of the image's width and height. An image without a label file shows no
object. Frames have no stamps: they are taken for 20 Hz, as folders of images without labels are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from memwarp_core.data.bad_entries import BadEntries
from memwarp_core.data.image_file import read_image
from memwarp_core.data.video import IMAGE_SUFFIXES
from memwarp_core.errors import DataError
from memwarp_core.types import Frame

RATE_HZ = 20
NAME_FILES = ("classes.txt", "data.yaml")

_TOLERANCE = 2e-3
"""Share of the image by which a box may leave it, because tools round; the rest is cut off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class YoloClip:
    """A folder of images; see `memwarp_core.data.clips.Clip`."""

    name: str
    class_names: tuple[str, ...]
    files: tuple[Path, ...]
    boxes: tuple[np.ndarray, ...]
    """Per image (N, 4), xyxy in fractions of its width and height."""
    labels: tuple[np.ndarray, ...]
    track_ids: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Frame:
        """Read a frame. Raises DataError if its image is missing or broken."""
        image = read_image(self.files[index], named_in="the folder when it was opened")
        height, width = image.shape[:2]
        return Frame(
            image=image,
            stamp_ns=range(len(self))[index] * 1_000_000_000 // RATE_HZ,
            boxes_xyxy=self.boxes[index] * np.array([width, height] * 2, np.float32),
            labels=self.labels[index],
            track_ids=self.track_ids[index],
        )


def read_yolo_video(path: Path, *, skip_bad: bool = False) -> list[YoloClip]:
    """The clips in the folders of `path`, in the order of their names. Labels are read and checked at once.

    Args:
        skip_bad: leave out and count bad lines of labels, where they are an error else.
    Raises: DataError naming the label file and its line.
    """
    class_names = _read_class_names(path)
    bad = BadEntries(path, skip=skip_bad)
    clips = []
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        files = tuple(sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES))
        stems = {file.stem for file in files}
        for labels in sorted(folder.glob("*.txt")):
            if labels.stem not in stems:
                bad.add(f"{labels}: there is no image of this name beside the labels; copy it there.")
        if files:
            objects = [_read_labels(file.with_suffix(".txt"), class_names, bad) for file in files]
            clips.append(
                YoloClip(
                    name=folder.name,
                    class_names=class_names,
                    files=files,
                    boxes=tuple(rows[:, 1:5] for rows in objects),
                    labels=tuple(rows[:, 0].astype(np.int64) for rows in objects),
                    track_ids=tuple(rows[:, 5].astype(np.int64) for rows in objects),
                )
            )
    bad.finish()
    return clips


def yolo_files(path: Path) -> list[Path]:
    """The files that `read_yolo_video` and its clips read."""
    read = IMAGE_SUFFIXES | {".txt"}
    names = [path / name for name in NAME_FILES]
    return names + sorted(file for file in path.glob("*/*") if file.suffix.lower() in read)


def _read_class_names(path: Path) -> tuple[str, ...]:
    file = next((path / name for name in NAME_FILES if (path / name).is_file()), None)
    if file is None:
        raise DataError(f"{path}: expected the class names in {' or '.join(NAME_FILES)}.")
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".txt":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        names = yaml.safe_load(text)["names"]
        if isinstance(names, dict):
            names = [names[label] for label in range(len(names))]
        if not isinstance(names, list):
            raise TypeError(f"names is {names!r}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as err:
        raise DataError(f"{file}: expected `names`, a list or by number from 0 ({type(err).__name__}: {err}).") from err
    return tuple(map(str, names))


def _read_labels(file: Path, class_names: Sequence[str], bad: BadEntries) -> np.ndarray:
    """(N, 6), float32: label, xyxy in fractions, track id or -1."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    except (OSError, UnicodeDecodeError) as err:
        bad.add(f"{file}: expected lines of labels ({err}).")
        lines = []
    rows = []
    for position, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_read_line(line.split(), class_names))
        except ValueError as err:
            bad.add(f"{file}, line {position}: {err}, got {line.strip()!r}.")
    return np.array(rows, np.float32).reshape(-1, 6)


def _read_line(columns: list[str], class_names: Sequence[str]) -> list[float]:
    if len(columns) not in (5, 6):
        raise ValueError("expected class, centre x and y, width, height, and perhaps a track id")
    label, track = int(columns[0]), int(columns[5]) if len(columns) == 6 else -1
    x, y, width, height = map(float, columns[1:5])
    if not 0 <= label < len(class_names):
        raise ValueError(f"expected a class from 0 to {len(class_names) - 1}")
    box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    if not (box.min() >= -_TOLERANCE and box.max() <= 1 + _TOLERANCE and width > 0 and height > 0):
        raise ValueError("expected a box that has a size and lies in the image, in fractions of its sides")
    return [label, *box.clip(0, 1), track]
