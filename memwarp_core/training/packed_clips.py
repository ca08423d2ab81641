"""Clips decoded once into memory-mapped arrays, so that training waits for no JPEG."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from filelock import FileLock
from rich.progress import track

from memwarp_core.data.bad_entries import BadEntries
from memwarp_core.data.clips import Clip
from memwarp_core.data.coco_vid import DISPLACEMENT_FOLDER, CocoVidClip
from memwarp_core.data.data_set import fingerprint, open_data_set
from memwarp_core.errors import DataError
from memwarp_core.geometry import scale_displacement
from memwarp_core.models.config import PADDING_GREY, scaled_size

STRIDE = 8
"""Image pixels per cell of the packed displacement fields."""

_LAYOUT = 2
"""Of the files below; a cache of another layout is made again."""
_ARRAYS = {"images": np.uint8, "displacement": np.float16, "valid": np.bool_}


@dataclass(frozen=True, slots=True)
class PackedClip:
    """One clip; images and fields are views into files."""

    images: np.ndarray
    """(T, H, W, 3), uint8, RGB; H and W are multiples of 8."""
    displacement: np.ndarray
    """(T, 2, H/8, W/8), float16, from each frame to the one before it, in cells of the feature map."""
    valid: np.ndarray
    """(T, 1, H/8, W/8), bool, where the field is known; nowhere in the first frame, nor without exact fields."""
    boxes_xyxy: list[np.ndarray]
    """Per frame (N, 4), float32."""
    labels: list[np.ndarray]
    """Per frame (N,), int64."""


def pack_clips(
    folder: Path, *, short_side: int | None = None, long_side: int | None = None, skip_bad: bool = False
) -> tuple[list[PackedClip], tuple[str, ...]]:
    """Read a data set through a cache in its subfolder `packed`, made when missing or made from something else.

    The cache gets its name when it is whole. It holds a byte per pixel and colour, so it is far larger than JPEGs.

    Args:
        folder: what open_data_set understands; beside a single file, the cache is in `<its name>.packed`.
        short_side: scale images so that their shorter side has so many pixels, as a detector of this short_side
            does. None keeps their sizes.
        long_side: scale them down further where the longer side would have more pixels.
        skip_bad: leave out and count bad boxes, and frames whose image cannot be read.
    Returns: the clips, of different sizes where the images have such, and the class names.
    Raises: DataError if there are no clips, they differ in class names, or a frame cannot be read.
    """
    has_fields = (folder / DISPLACEMENT_FOLDER).is_dir()
    made_from = [_LAYOUT, fingerprint(folder), has_fields, short_side, long_side, skip_bad]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    cache = folder / "packed" if folder.is_dir() else folder.with_name(f"{folder.name}.packed")
    if not _is_made(cache, key):
        # Of several trainings that begin at once, one packs and the others wait.
        with FileLock(f"{cache}.lock"):
            if not _is_made(cache, key):
                _write_cache(folder, cache, key, (short_side, long_side), skip_bad)
    index = _index(cache)
    arrays = {name: _map(cache / f"{name}.bin", dtype) for name, dtype in _ARRAYS.items()}
    boxes = np.load(cache / "boxes.npy")
    frames = sum(length for length, _, _, _ in index["clips"])
    starts = np.searchsorted(boxes[:, 0], np.arange(frames + 1))
    per_frame = [boxes[first:last] for first, last in zip(starts[:-1], starts[1:], strict=True)]
    clips, first, used = [], 0, dict.fromkeys(_ARRAYS, 0)

    def take(name: str, shape: tuple[int, ...]) -> np.ndarray:
        begin = used[name]
        used[name] += int(np.prod(shape))
        return arrays[name][begin : used[name]].reshape(shape)

    for length, height, width, has_fields in index["clips"]:
        cells = (height // STRIDE, width // STRIDE)
        images = take("images", (length, height, width, 3))
        if has_fields:
            displacement, valid = take("displacement", (length, 2, *cells)), take("valid", (length, 1, *cells))
        else:  # views of one zero
            displacement = np.broadcast_to(np.float16(0), (length, 2, *cells))
            valid = np.broadcast_to(np.False_, (length, 1, *cells))
        of_clip = per_frame[first : first + length]
        clips.append(
            PackedClip(
                images,
                displacement,
                valid,
                [rows[:, 2:].astype(np.float32) for rows in of_clip],
                [rows[:, 1].astype(np.int64) for rows in of_clip],
            )
        )
        first += length
    return clips, tuple(index["class_names"])


def _is_made(cache: Path, key: str) -> bool:
    return (cache / "index.json").is_file() and _index(cache).get("key") == key


def _write_cache(folder: Path, cache: Path, key: str, sides: tuple[int | None, int | None], skip_bad: bool) -> None:
    temporary = cache.with_name(f"{cache.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    _pack(folder, temporary, key, sides, skip_bad)
    shutil.rmtree(cache, ignore_errors=True)
    os.replace(temporary, cache)


def _pack(folder: Path, cache: Path, key: str, sides: tuple[int | None, int | None], skip_bad: bool) -> None:
    clips = open_data_set(folder, skip_bad=skip_bad)
    bad = BadEntries(folder, skip=skip_bad)
    boxes: list[np.ndarray] = []
    summary: list[tuple[int, int, int, bool]] = []
    with ExitStack() as stack:
        files = {name: stack.enter_context((cache / f"{name}.bin").open("wb")) for name in _ARRAYS}
        for clip in track(clips, description=f"packing {folder.name}"):
            if clip.class_names != clips[0].class_names:
                raise DataError(f"{folder}: clip {clip.name} has other class names than {clips[0].name}.")
            has_fields = isinstance(clip, CocoVidClip) and (folder / DISPLACEMENT_FOLDER).is_dir()
            length, size = 0, (0, 0)
            for frame in _scaled_frames(clip, sides, has_fields, bad):
                files["images"].write(frame.image.tobytes())
                if has_fields:
                    files["displacement"].write(frame.displacement.tobytes())
                    files["valid"].write(frame.valid.tobytes())
                number = np.full(len(frame.labels), len(boxes))
                boxes.append(np.column_stack((number, frame.labels, frame.boxes_xyxy)).reshape(-1, 6))
                length, size = length + 1, (frame.image.shape[0], frame.image.shape[1])
            if length:
                summary.append((length, *size, has_fields))
    bad.finish()
    if not summary:
        raise DataError(f"{folder}: expected at least one frame that can be read, got none.")
    np.save(cache / "boxes.npy", np.concatenate(boxes))
    content = {"key": key, "clips": summary, "class_names": list(clips[0].class_names)}
    (cache / "index.json").write_text(json.dumps(content))


@dataclass(frozen=True, slots=True)
class _PackedFrame:
    image: np.ndarray
    displacement: np.ndarray
    valid: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray


def _scaled_frames(
    clip: Clip, sides: tuple[int | None, int | None], has_fields: bool, bad: BadEntries
) -> Iterator[_PackedFrame]:
    """The frames of a clip at the size of training, padded to whole cells."""
    source: tuple[int, ...] | None = None
    follows = False
    for index in range(len(clip)):
        try:
            frame = clip[index]
            if source is not None and frame.image.shape != source:
                raise DataError(
                    f"clip {clip.name}, frame {index}: expected {source[1]}x{source[0]} pixels as before, got "
                    f"{frame.image.shape[1]}x{frame.image.shape[0]}."
                )
        except DataError as err:
            bad.add(err)
            follows = False  # the next field leads to a frame that is not there
            continue
        source = frame.image.shape
        short_side, long_side = sides
        size = (source[0], source[1])
        if short_side is not None:
            size = scaled_size(size, short_side, long_side)
        factors = (size[1] / source[1], size[0] / source[0])
        padding = ((0, -size[0] % STRIDE), (0, -size[1] % STRIDE))
        image = frame.image
        if image.shape[:2] != size:
            image = _resize(image, size)
        cells = ((size[0] + padding[0][1]) // STRIDE, (size[1] + padding[1][1]) // STRIDE)
        displacement, valid = np.zeros((2, *cells), np.float16), np.zeros((1, *cells), np.bool_)
        if has_fields and follows:
            assert isinstance(clip, CocoVidClip)
            displacement, valid = _field(clip, index, factors, size, padding)
        follows = True
        yield _PackedFrame(
            np.pad(image, (*padding, (0, 0)), constant_values=PADDING_GREY),
            displacement,
            valid,
            frame.boxes_xyxy * np.array(factors * 2, np.float32),
            frame.labels,
        )


def _field(
    clip: CocoVidClip,
    index: int,
    factors: tuple[float, float],
    size: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """The exact displacement of one frame on the feature map, the mean over the known part of each cell."""
    field, known = clip.displacement(index)
    field, share = field.astype(np.float32), known.astype(np.float32)
    if share.shape != size:
        field, share = _resize(field, size) * np.array(factors, np.float32), _resize(share, size)
    field, share = np.pad(field, (*padding, (0, 0))), np.pad(share, padding)
    # Unknown places hold zeros, so that the mean over a cell only has to be scaled up.
    mean = scale_displacement(torch.from_numpy(field).permute(2, 0, 1)[None], STRIDE)
    known_share = torch.nn.functional.avg_pool2d(torch.from_numpy(share)[None, None], STRIDE)[0]
    return (mean[0] / known_share.clamp(min=1e-6)).numpy().astype(np.float16), (known_share > 0.5).numpy()


def _resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # As VideoDetector scales its images.
    return cv2.resize(array, size[::-1], interpolation=cv2.INTER_AREA)


def _index(cache: Path) -> dict:
    return json.loads((cache / "index.json").read_text())


def _map(path: Path, dtype: type) -> np.ndarray:
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)
