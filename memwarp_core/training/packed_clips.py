"""Clips of one size, decoded once into memory-mapped arrays, so that training waits for no JPEG."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from memwarp_core.data.coco_vid import CocoVidClip, read_coco_vid
from memwarp_core.errors import DataError
from memwarp_core.geometry import scale_displacement

STRIDE = 8
"""Image pixels per cell of the packed displacement fields."""


@dataclass(frozen=True, slots=True)
class PackedClip:
    """One clip; images and fields are views into files."""

    images: np.ndarray
    """(T, H, W, 3), uint8, RGB."""
    displacement: np.ndarray
    """(T, 2, H/8, W/8), float16, from each frame to the one before it, in cells of the feature map."""
    valid: np.ndarray
    """(T, 1, H/8, W/8), bool, where the field is known; nowhere in the first frame."""
    boxes_xyxy: list[np.ndarray]
    """Per frame (N, 4), float32."""
    labels: list[np.ndarray]
    """Per frame (N,), int64."""


def pack_clips(folder: Path) -> tuple[list[PackedClip], tuple[str, ...]]:
    """Read a CocoVID folder with displacement fields through a cache in its subfolder `packed`, made when missing.

    Returns: the clips and the class names.
    Raises: DataError if there are no clips, or they differ in size or class names.
    """
    digest = hashlib.sha256((folder / "annotations.json").read_bytes()).hexdigest()
    cache = folder / "packed"
    if not (cache / "index.json").is_file() or _index(cache)["annotations_sha256"] != digest:
        _write_cache(folder, cache, digest)
    index = _index(cache)
    arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("images", "displacement", "valid")}
    boxes = np.load(cache / "boxes.npy")
    starts = np.searchsorted(boxes[:, 0], np.arange(len(arrays["images"]) + 1))
    per_frame = [boxes[first:last] for first, last in zip(starts[:-1], starts[1:], strict=True)]
    clips, first = [], 0
    for length in index["lengths"]:
        frames = slice(first, first + length)
        clips.append(
            PackedClip(
                arrays["images"][frames],
                arrays["displacement"][frames],
                arrays["valid"][frames],
                [rows[:, 2:].astype(np.float32) for rows in per_frame[frames]],
                [rows[:, 1].astype(np.int64) for rows in per_frame[frames]],
            )
        )
        first += length
    return clips, tuple(index["class_names"])


def _write_cache(folder: Path, cache: Path, digest: str) -> None:
    clips = read_coco_vid(folder)
    if not clips:
        raise DataError(f"{folder}: expected at least one clip, got none.")
    height, width = clips[0][0].image.shape[:2]
    if height % STRIDE or width % STRIDE:
        raise DataError(f"{folder}: image sides must be multiples of {STRIDE}, got {width}x{height}.")
    temporary = folder / "packed.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    frames = sum(len(clip) for clip in clips)
    cells = (height // STRIDE, width // STRIDE)
    images = _new_array(temporary / "images.npy", (frames, height, width, 3), np.uint8)
    displacement = _new_array(temporary / "displacement.npy", (frames, 2, *cells), np.float16)
    valid = _new_array(temporary / "valid.npy", (frames, 1, *cells), np.bool_)
    boxes: list[np.ndarray] = []
    position = 0
    for clip in track(clips, description=f"packing {folder.name}"):
        if clip.class_names != clips[0].class_names:
            raise DataError(f"{folder}: clip {clip.name} has other class names than {clips[0].name}.")
        for index in range(len(clip)):
            frame = clip[index]
            if frame.image.shape[:2] != (height, width):
                raise DataError(
                    f"{folder}: expected {width}x{height} in every clip, got "
                    f"{frame.image.shape[1]}x{frame.image.shape[0]} in {clip.name}; train on one size at a time."
                )
            images[position] = frame.image
            displacement[position], valid[position] = _field(clip, index, cells)
            rows = np.column_stack((np.full(len(frame.labels), position), frame.labels, frame.boxes_xyxy))
            boxes.append(rows.reshape(-1, 6))
            position += 1
    np.save(temporary / "boxes.npy", np.concatenate(boxes))
    for array in (images, displacement, valid):
        array.flush()
    summary = {
        "annotations_sha256": digest,
        "lengths": [len(clip) for clip in clips],
        "class_names": list(clips[0].class_names),
    }
    (temporary / "index.json").write_text(json.dumps(summary))
    shutil.rmtree(cache, ignore_errors=True)
    os.replace(temporary, cache)


def _field(clip: CocoVidClip, index: int, cells: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The exact displacement of one frame on the feature map, the mean over the known part of each cell."""
    if index == 0:
        return np.zeros((2, *cells), np.float16), np.zeros((1, *cells), np.bool_)
    field, known = clip.displacement(index)
    share = torch.from_numpy(known.astype(np.float32))[None, None]
    # Unknown places hold zeros, so that the mean over a cell only has to be scaled up.
    mean = scale_displacement(torch.from_numpy(field).permute(2, 0, 1)[None], STRIDE)
    known_share = torch.nn.functional.avg_pool2d(share, STRIDE)[0]
    return (mean[0] / known_share.clamp(min=1e-6)).numpy().astype(np.float16), (known_share > 0.5).numpy()


def _index(cache: Path) -> dict:
    return json.loads((cache / "index.json").read_text())


def _new_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
