"""Writes what the node would have published into a bag, at the times at which it would have been there."""

from collections.abc import Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import Any

from memwarp_core.data.bags import LABEL_INFO_SUFFIX, BagClip, BagWriter
from memwarp_core.evaluation.replay.kept import CameraResult
from memwarp_core.evaluation.replay.running import ANTICIPATED
from memwarp_core.types import Detections

NODE = "/detector"
_SCORE_THRESHOLD = 0.5
_MAX_DETECTIONS = 100
"""The node's defaults."""

_Entry = tuple[int, int, Any]
"""When a message is logged, its place among those of the same time, and a function that writes it."""


def write_output_bag(
    path: Path,
    results: Sequence[CameraResult],
    clips: Sequence[BagClip],
    class_names: Sequence[str],
    *,
    model: tuple[str, str],
    with_inputs: bool = False,
) -> None:
    """Write a bag with the topics of the detector's node.

    A message is logged when it was there: at the time at which its image was logged, plus the time from the image's
    stamp until then. As in the node, only detections with a score from 0.5 on are in it, at most 100 per image.

    Args:
        results, clips: of each camera of a bag.
        model: its name and version.
        with_inputs: all messages of the bag as well.
    """
    with BagWriter(path) as writer:
        outputs = [
            _outputs(writer, result, clip, class_names, _prefix(clips, clip), model)
            for result, clip in zip(results, clips, strict=True)
        ]
        # As the node, one for all cameras.
        first = min(clips, key=lambda clip: clip.log_times_ns[0])
        write_labels = partial(
            writer.write_label_info,
            class_names,
            first.stamps_ns[0],
            threshold=_SCORE_THRESHOLD,
            topic=NODE + LABEL_INFO_SUFFIX,
        )
        entries = sorted(chain([(first.log_times_ns[0], 1, write_labels)], *outputs), key=_order)
        reader = clips[0].reader
        for log_time_ns, _, write in merge(_inputs(writer, reader) if with_inputs else (), entries, key=_order):
            write(log_time_ns=log_time_ns)


def _order(entry: _Entry) -> tuple[int, int]:
    return entry[:2]


def _prefix(clips: Sequence[BagClip], clip: BagClip) -> str:
    """As the node names its topics: with several cameras, by the last but one part of each image topic."""
    return NODE if len(clips) == 1 else f"{NODE}/{clip.connection.topic.strip('/').split('/')[-2:][0]}"


def _inputs(writer: BagWriter, reader: Any) -> Iterator[_Entry]:
    for connection, time_ns, data in reader.messages():
        yield time_ns, 0, partial(writer.copy, reader, connection, data=data)


def _outputs(
    writer: BagWriter,
    result: CameraResult,
    clip: BagClip,
    class_names: Sequence[str],
    prefix: str,
    model: tuple[str, str],
) -> Iterator[_Entry]:
    logged_ns = dict(zip(clip.stamps_ns, clip.log_times_ns, strict=True))
    run = result.model
    horizons_s = [horizon_s for way, horizon_s in run.anticipated if way == ANTICIPATED]
    for index, (stamp_ns, available_ns) in enumerate(zip(run.stamps_ns, run.available_ns, strict=True)):
        there_ns = logged_ns[stamp_ns] + available_ns - stamp_ns
        later = [_published(run.anticipated[ANTICIPATED, horizon_s][index]) for horizon_s in horizons_s]
        said = {
            f"{prefix}/detections": _published(run.detections[index]),
            f"{prefix}/detections_now": _published(run.now[index]),
            **{
                f"{prefix}/anticipated/h{round(1e3 * horizon_s)}ms": one
                for horizon_s, one in zip(horizons_s, later, strict=True)
            },
        }
        for topic, one in said.items():
            names = [class_names[label] for label in one.labels.tolist()]
            write = partial(
                writer.write_detections,
                one.boxes_xyxy.numpy(),
                names,
                one.stamp_ns,
                scores=one.scores.numpy(),
                topic=topic,
                frame_id=clip.frame_id,
            )
            yield there_ns, 2, write
        topic = f"{prefix}/anticipated"
        write_all = partial(
            writer.write_anticipated, later, class_names, stamp_ns, model=model, topic=topic, frame_id=clip.frame_id
        )
        yield there_ns, 2, write_all


def _published(detections: Detections) -> Detections:
    sure = detections.select(detections.scores >= _SCORE_THRESHOLD)
    return sure.select(slice(_MAX_DETECTIONS))
