"""Opens bags for a replay: the images of each camera and what is true of them, as far as they can be read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np

from memwarp_core.data.bags import BagClip, image_topics, read_bag, read_truths, salvage_mcap
from memwarp_core.errors import ConfigError, DataError
from memwarp_core.evaluation.score_files import by_image, read_ground_truth
from memwarp_core.timeline import half_interval_ns, index_at
from memwarp_core.types import Frame

_STORES = (".mcap", ".db3")
_SAME_STAMP_NS = 1_000_000
"""Stamps that went through a floating number of seconds differ by less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """One stream of images in a bag."""

    name: str
    """That of the bag, and the topic where it has several cameras."""
    clip: BagClip
    """Its stamps grow."""
    truths: tuple[Frame, ...] | None
    """By growing stamps, which need not be those of images; without images. None where nothing is said of them."""
    problems: tuple[str, ...]
    """Why not all is here that should be."""


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """The bags that are meant by paths of bags, of folders with bags in them, and of .txt files with a path per line.

    Raises: DataError where there is none.
    """
    found: list[Path] = []
    for path in paths:
        if path.suffix == ".txt" and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [path.parent / line.strip() for line in lines if line.strip()]
        elif path.is_dir() and not _is_bag(path):
            inside = sorted(entry for entry in path.iterdir() if _is_bag(entry))
            if not inside:
                raise DataError(
                    f"{path}: expected a bag or a folder of bags (folders with metadata.yaml, or .mcap and .db3 "
                    "files), got neither."
                )
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def bag_name(path: Path) -> str:
    """That of its folder, or of its file without the suffix."""
    return path.name if path.is_dir() else path.stem


def _is_bag(path: Path) -> bool:
    if path.is_file():
        return path.suffix in _STORES
    return path.is_dir() and any(
        file.name == "metadata.yaml" or file.suffix in _STORES for file in path.iterdir() if file.is_file()
    )


def open_cameras(
    path: Path,
    class_names: Sequence[str],
    *,
    topics: Sequence[str] = (),
    truth_topics: Sequence[str] = (),
    truth_file: Path | None = None,
    workplace: Path,
) -> list[Camera]:
    """Open the cameras of a bag.

    Args:
        class_names: of the detector, which are those of the ground truth as well.
        topics: of images; the only one by default.
        truth_topics: of Detection2DArray, one per camera; `/ground_truth` by default, where there is but one camera.
        truth_file: CocoVID, instead of topics; the video with stamps of this bag is taken.
        workplace: a folder for a whole copy of a bag that breaks off.
    Raises: DataError if nothing of the bag can be used; ConfigError for numbers of topics that do not fit.
    """
    if truth_topics and len(truth_topics) != max(len(topics), 1):
        raise ConfigError(
            f"expected a ground truth topic for each of {max(len(topics), 1)} image topics, got {len(truth_topics)}."
        )
    whole, problems = _whole_bag(path, workplace)
    cameras = []
    for number, topic in enumerate(topics or _only_topic(path, whole)):
        name = bag_name(path) if len(topics) < 2 else f"{bag_name(path)} {topic}"
        clip = read_bag(whole, topic, class_names=class_names)
        clip, of_images = _growing(replace(clip, name=name))
        try:
            truths: list[Frame] | None = None
            if truth_file is not None:
                truths = _truths_of_file(truth_file, clip, class_names)
            elif truth_topics or len(topics) < 2:
                truths = read_truths(whole, truth_topics[number] if truth_topics else None, class_names)
            kept, of_truths = (None, []) if truths is None else _line_up(truths, clip)
        except BaseException:
            clip.close()
            raise
        cameras.append(Camera(name=name, clip=clip, truths=kept, problems=(*problems, *of_images, *of_truths)))
    return cameras


def _only_topic(path: Path, whole: Path) -> list[str]:
    topics = image_topics(whole)
    if not topics:
        raise DataError(f"{path}: expected images (sensor_msgs/Image or CompressedImage), got no topic with any.")
    if len(topics) > 1:
        raise DataError(
            f"{path}: expected one image topic, got {len(topics)} ({', '.join(topics)}); name them, as --topic "
            f"{topics[0]}."
        )
    return topics


def _whole_bag(path: Path, workplace: Path) -> tuple[Path, list[str]]:
    """A path that can be read, and what is wrong with the one given."""
    problems = []
    store = path
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        stores = sorted(file for file in path.iterdir() if file.suffix in _STORES)
        if len(stores) != 1:
            raise DataError(
                f"{path}: expected a bag with its metadata.yaml, got none and {len(stores)} .mcap or .db3 files; "
                "`ros2 bag reindex` makes it anew."
            )
        (store,) = stores
        problems.append("metadata.yaml is missing")
    try:
        image_topics(store)
    except DataError as error:
        files = sorted(store.glob("*.mcap")) if store.is_dir() else [store]
        if len(files) != 1 or files[0].suffix != ".mcap" or not files[0].is_file():
            raise
        copy = workplace / f"{bag_name(path)}-{crc32(str(path).encode()):08x}.mcap"
        salvage_mcap(files[0], copy)
        if not image_topics(copy):
            raise DataError(f"{path}: it breaks off before its first images ({error})") from error
        return copy, [*problems, f"the file breaks off; what is whole of it was read ({error})"]
    return store, problems


def _growing(clip: BagClip) -> tuple[BagClip, list[str]]:
    """Without images whose stamps are not after those of all before them."""
    stamps_ns = np.array(clip.stamps_ns)
    newest_before = np.concatenate(([np.iinfo(np.int64).min], np.maximum.accumulate(stamps_ns)[:-1]))
    kept = np.flatnonzero(stamps_ns > newest_before)
    if len(kept) == len(clip):
        return clip, []
    if len(kept) < 2:
        clip.close()
        raise DataError(
            f"{clip.path}: expected images with growing stamps, got {len(clip)} of which none is after the first "
            f"({clip.stamps_ns[0]} ns); set the stamps of the camera driver."
        )
    first = int(np.flatnonzero(stamps_ns <= newest_before)[0])
    problem = (
        f"{len(clip) - len(kept)} of {len(clip)} images are left out, whose stamps are not after those before them; "
        f"the first is image {first} of {clip.stamps_ns[first]} ns"
    )
    return (
        replace(
            clip,
            log_times_ns=tuple(clip.log_times_ns[index] for index in kept),
            stamps_ns=tuple(clip.stamps_ns[index] for index in kept),
            truths=tuple(clip.truths[index] for index in kept),
            labelled=tuple(clip.labelled[index] for index in kept),
        ),
        [problem],
    )


def _truths_of_file(file: Path, clip: BagClip, class_names: Sequence[str]) -> list[Frame]:
    """The frames of the one video of a CocoVID file that has stamps of this camera."""
    file = file / "annotations.json" if file.is_dir() else file
    truth = read_ground_truth(file, "streaming")
    unknown = sorted(set(truth.class_names.values()) - set(class_names))
    if unknown:
        raise DataError(f"{file}: it has the class {unknown[0]!r}, which is not among {', '.join(class_names)}.")
    label_of = {category: class_names.index(name) for category, name in truth.class_names.items()}
    objects = by_image(truth.annotations)
    first_ns, last_ns = clip.stamps_ns[0], clip.stamps_ns[-1]
    fitting = [
        images
        for images in truth.clips("stamp_ns")
        if any(first_ns <= image["stamp_ns"] <= last_ns for image in images)
    ]
    if len(fitting) != 1:
        raise DataError(
            f"{file}: expected one video with stamps from {first_ns} to {last_ns} ns, as the images of {clip.name} "
            f"have, got {len(fitting)}."
        )
    frames = []
    for image in fitting[0]:
        of_image = objects[image["id"]]
        boxes = np.array([entry["bbox"] for entry in of_image], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        frames.append(
            Frame(
                image=np.empty((0, 0, 3), np.uint8),
                stamp_ns=image["stamp_ns"],
                boxes_xyxy=boxes,
                labels=np.array([label_of[entry["category_id"]] for entry in of_image], np.int64),
                track_ids=np.array([entry.get("instance_id", -1) for entry in of_image], np.int64),
            )
        )
    return frames


def _line_up(truths: Sequence[Frame], clip: BagClip) -> tuple[tuple[Frame, ...], list[str]]:
    """Ground truth of the time in which there are images, with boxes that are some."""
    half_ns = half_interval_ns(clip.stamps_ns)
    first_ns, last_ns = clip.stamps_ns[0] - half_ns, clip.stamps_ns[-1] + half_ns
    kept = [truth for truth in truths if first_ns <= truth.stamp_ns <= last_ns]
    if not kept:
        came = f"from {truths[0].stamp_ns} to {truths[-1].stamp_ns} ns" if truths else "none"
        raise DataError(
            f"{clip.path}: expected ground truth with stamps of the images, which are from {clip.stamps_ns[0]} to "
            f"{clip.stamps_ns[-1]} ns; got {came}. Compare the clocks of the two."
        )
    problems = []
    if len(kept) < len(truths):
        problems.append(f"ground truth of {len(truths) - len(kept)} of {len(truths)} stamps is of no image's time")
    astray = sum(index_at(clip.stamps_ns, truth.stamp_ns, _SAME_STAMP_NS) is None for truth in kept)
    if astray:
        problems.append(f"ground truth of {astray} of {len(kept)} stamps is over 1 ms beside the nearest image")
    boxes = [truth.boxes_xyxy for truth in kept]
    good = [np.isfinite(of_one).all(axis=1) & (of_one[:, 2:] > of_one[:, :2]).all(axis=1) for of_one in boxes]
    bad = sum(int((~of_one).sum()) for of_one in good)
    if bad:
        problems.append(f"{bad} boxes of the ground truth are left out, which have no size")
        kept = [
            replace(
                truth,
                boxes_xyxy=truth.boxes_xyxy[of_one],
                labels=truth.labels[of_one],
                track_ids=truth.track_ids[of_one],
            )
            for truth, of_one in zip(kept, good, strict=True)
        ]
    return tuple(kept), problems
