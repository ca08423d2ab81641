"""Streaming average precision: how good a detector is when its time counts (Li, Wang and Ramanan, ECCV 2020).

The world does not wait for a detector. So at the instant of every image it is asked what it says *now*, and its answer
is the newest output that was there by then, made from an image of the past; that answer is scored against what is
true now, by COCO's average precision. The newest output is the one that was there last; of outputs that were there at
the same instant, it is that of the later image. One that comes just at the instant of an image counts for it. Times are
integer nanoseconds, since rounded ones would decide such a tie by chance.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memwarp_core.evaluation.average_precision import AveragePrecision, coco_average_precision


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamingAveragePrecision:
    """What a stream of detections is worth at its time, and what it would be worth if it took no time."""

    streaming: AveragePrecision
    """Of the newest output at the instant of each image."""
    offline: AveragePrecision
    """Of each image's own output, whenever it was there; an image that was not processed has no detections."""
    mean_age_ms: float | None
    """Mean time from the image that an answer was made from to the instant at which it was asked for; None if there
    never was an answer."""
    frames_without_output: int
    """Images at whose instant nothing had been said yet."""


def streaming_average_precision(
    detections: Sequence[Mapping[str, Any]],
    available_ns: Mapping[int, int],
    annotations: Sequence[Mapping[str, Any]],
    videos: Sequence[Mapping[int, int]],
    class_names: Mapping[int, str],
) -> StreamingAveragePrecision:
    """Score the newest output at the instant of every image.

    Args:
        detections: as coco_average_precision takes them, each with the image_id of the image that was processed.
        available_ns: by id of an image that was processed, whether anything was found in it or not: when its output
            was there.
        annotations: as coco_average_precision takes them.
        videos: of each, from the ids of all its images to their stamps in nanoseconds; ids are unique in all videos.
        class_names: by category_id.
    """
    found_in: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for detection in detections:
        found_in[detection["image_id"]].append(detection)
    ages_ns: list[int] = []
    answers: list[dict[str, Any]] = []
    for stamps_ns in videos:
        for image_id, source_id in newest_outputs(stamps_ns, available_ns).items():
            ages_ns.append(stamps_ns[image_id] - stamps_ns[source_id])
            answers += [{**detection, "image_id": image_id} for detection in found_in[source_id]]
    image_ids = [image_id for stamps_ns in videos for image_id in stamps_ns]
    return StreamingAveragePrecision(
        streaming=coco_average_precision(answers, annotations, image_ids, class_names),
        offline=coco_average_precision(detections, annotations, image_ids, class_names),
        mean_age_ms=sum(ages_ns) / (len(ages_ns) * 1_000_000) if ages_ns else None,
        frames_without_output=len(image_ids) - len(ages_ns),
    )


def newest_outputs(stamps_ns: Mapping[int, int], available_ns: Mapping[int, int]) -> dict[int, int]:
    """From each image of a video to the one whose output is the newest at its instant; without those that have none.

    Args:
        stamps_ns: by id of each image of the video.
        available_ns: when the outputs were there, by id of the image they are from; those of other videos have no
            part in this.
    """
    outputs = sorted(
        (available_ns[source_id], stamps_ns[source_id], source_id)
        for source_id in stamps_ns.keys() & available_ns.keys()
    )
    there_ns = [output[0] for output in outputs]
    there_by = {image_id: bisect_right(there_ns, stamp_ns) for image_id, stamp_ns in stamps_ns.items()}
    return {image_id: outputs[count - 1][2] for image_id, count in there_by.items() if count}
