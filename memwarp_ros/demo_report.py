"""What the demo leaves: a video, a figure and the numbers, all made from the recorded messages."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rosbags.highlevel import AnyReader

from memwarp_core.data.clips import Clip
from memwarp_core.errors import DataError
from memwarp_core.evaluation.horizons import map50_at_their_time, nothing_moved
from memwarp_core.evaluation.plots import HorizonScores, save_overview
from memwarp_core.files import write_bytes_whole
from memwarp_core.overlay import OverlayVideo
from memwarp_core.types import Detections, Frame
from memwarp_ros import demo_topics
from memwarp_ros.conversions import from_detection_array, stamp_to_ns

_STRIP_LENGTH = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One frame as the player published it."""

    index: int
    """Which frame of the clip."""
    clip_stamp_ns: int
    """When it was taken, by the clip."""
    stamp_ns: int
    """When it was published, and what its header says."""


@dataclass(kw_only=True, slots=True)
class Recording:
    """What the node said, by the stamp of the image of which it spoke."""

    class_names: tuple[str, ...] = ()
    model: str = ""
    score_threshold: float = 0.0
    horizons_s: tuple[float, ...] = ()
    detections: dict[int, Detections] = field(default_factory=dict)
    anticipated: dict[int, list[Detections]] = field(default_factory=dict)
    received_ns: dict[int, int] = field(default_factory=dict)
    """When the detections of an image arrived."""


def read_recording(path: Path) -> Recording:
    """Read the node's messages back.

    Raises: DataError if the node never said which classes it knows, or found time for no image.
    """
    recording = Recording()
    topics = (demo_topics.LABEL_INFO, demo_topics.DETECTIONS, demo_topics.ANTICIPATED)
    with AnyReader([path]) as reader:
        messages = [
            (topic, time_ns, reader.deserialize(raw, connection.msgtype))
            for topic in topics  # the classes first
            for connection, time_ns, raw in reader.messages([c for c in reader.connections if c.topic == topic])
        ]
    for topic, time_ns, message in messages:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if topic == demo_topics.LABEL_INFO:
            recording.class_names = tuple(one.class_name for one in message.class_map)
            recording.score_threshold = round(message.threshold, 6)
        elif topic == demo_topics.DETECTIONS:
            recording.detections[stamp_ns] = from_detection_array(message, recording.class_names)
            recording.received_ns[stamp_ns] = time_ns
        else:
            recording.model = f"{message.model} {message.model_version}".strip()
            recording.horizons_s = tuple(stamp_to_ns(one.horizon) / 1e9 for one in message.horizons)
            recording.anticipated[stamp_ns] = [
                from_detection_array(one.detections, recording.class_names) for one in message.horizons
            ]
    if not recording.detections:
        raise DataError(f"{path}: the node published no detections; look into logs/node.log beside it.")
    return recording


def write_report(
    recording_file: Path,
    clip: Clip,
    published: Sequence[Published],
    *,
    rate_hz: float,
    shown_score: float,
    output: Path,
) -> dict[str, Any]:
    """Write overlay.mp4, overview.png and summary.json.

    Args:
        recording_file: the .mcap file.
        clip: what was played; scored only if it has ground truth.
        published: its frames in the order in which they were published.
        rate_hz: at which they were published.
        shown_score: boxes with a lower score are not drawn.
        output: the folder.
    Returns: what is in summary.json.
    """
    recording = read_recording(recording_file)
    summary = summarize(recording, clip, published, rate_hz)
    strip, captions = _write_overlay(output / "overlay.mp4", recording, clip, published, rate_hz, shown_score)
    scores = None
    if summary["map50"] is not None:
        later = summary["anticipated"]
        scores = HorizonScores(
            horizons_s=[0.0, *(one["horizon_s"] for one in later)],
            map50=[summary["map50"], *(one["map50"] for one in later)],
            map50_nothing_moved=[None, *(one["map50_nothing_moved"] for one in later)],
        )
    save_overview(
        output / "overview.png",
        title=f"{recording.model} on {clip.name}: {len(published)} frames at {rate_hz:g} Hz over ROS 2",
        note="solid: now; dashed: what was said of this frame "
        + ", ".join(f"{horizon_s:g}" for horizon_s in recording.horizons_s)
        + " s before",
        strip=strip,
        captions=captions,
        latencies_ms=_latencies_ms(recording),
        scores=scores,
    )
    write_bytes_whole(output / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def show_table(summary: dict[str, Any], output: Path, console: Console) -> None:
    """Print the summary and where everything is."""
    table = Table(title=f"{summary['model']} on {summary['source']}", title_justify="left", show_header=False)
    frames = summary["frames"]
    table.add_row("published / processed / dropped", " / ".join(str(value) for value in frames.values()) + " frames")
    latency = " / ".join(f"{value:.0f}" for value in summary["latency_ms"].values())
    table.add_row("latency p50 / p95 / p99", f"{latency} ms from publishing")
    if summary["map50"] is not None:
        table.add_row("mAP@0.5 now", f"{summary['map50']:.3f}")
        for one in summary["anticipated"]:
            values = (one["map50"], one["map50_nothing_moved"])
            shown = ["-" if value is None else f"{value:.3f}" for value in values]
            label = f"mAP@0.5 said {one['horizon_s']:g} s before"
            table.add_row(label, f"{shown[0]} ({shown[1]} if nothing had moved)")
    console.print(table)
    for name in ("overlay.mp4", "overview.png", "detections.mcap", "summary.json"):
        console.print(f"  {output / name}", highlight=False, soft_wrap=True)


def summarize(recording: Recording, clip: Clip, published: Sequence[Published], rate_hz: float) -> dict[str, Any]:
    """The numbers of a run, ready for JSON; mAP is None where the clip has no ground truth."""
    class_names, truths = _truths(clip, published, recording.class_names)
    current = list(recording.detections.values())
    latencies_ms = _latencies_ms(recording)
    anticipated = []
    for index, horizon_s in enumerate(recording.horizons_s):
        said = [one[index] for one in recording.anticipated.values()]
        anticipated.append(
            {
                "horizon_s": horizon_s,
                "map50": map50_at_their_time(said, truths, class_names),
                "map50_nothing_moved": map50_at_their_time(nothing_moved(current, horizon_s), truths, class_names),
            }
        )
    return {
        "source": clip.name,
        "model": recording.model,
        "rate_hz": rate_hz,
        "score_threshold": recording.score_threshold,
        "frames": {
            "published": len(published),
            "processed": len(current),
            "dropped": len(published) - len(current),
        },
        "latency_ms": {
            f"p{percentile}": round(float(np.percentile(latencies_ms, percentile)), 2) for percentile in (50, 95, 99)
        },
        "map50": map50_at_their_time(current, truths, class_names),
        "anticipated": anticipated,
    }


def _truths(clip: Clip, published: Sequence[Published], known: tuple[str, ...]) -> tuple[tuple[str, ...], list[Frame]]:
    """Class names of detector and clip together, and the ground truth with the stamps of publishing, no images."""
    class_names = known + tuple(name for name in clip.class_names if name not in known)
    label_of = np.array([class_names.index(name) for name in clip.class_names], np.int64)
    truths = []
    for one in published:
        frame = clip[one.index]
        labels = label_of[frame.labels] if len(frame.labels) else frame.labels
        truths.append(replace(frame, image=frame.image[:0], stamp_ns=one.stamp_ns, labels=labels))
    return class_names, truths


def _write_overlay(
    path: Path,
    recording: Recording,
    clip: Clip,
    published: Sequence[Published],
    rate_hz: float,
    shown_score: float,
) -> tuple[list[np.ndarray], list[str]]:
    """Write the video; returns frames from all over it, as they are drawn there, and their captions."""
    processed = [position for position, one in enumerate(published) if one.stamp_ns in recording.detections]
    evenly = np.linspace(0, len(processed) - 1, _STRIP_LENGTH + 1).round().astype(int)[1:]
    chosen = {processed[place] for place in evenly}
    strip, captions = [], []
    with OverlayVideo(
        path,
        frame_rate_hz=rate_hz,
        class_names=recording.class_names,
        horizons_s=recording.horizons_s,
        score_threshold=shown_score,
    ) as video:
        for position, one in enumerate(published):
            time_s = (one.stamp_ns - published[0].stamp_ns) / 1e9
            detections = recording.detections.get(one.stamp_ns)
            drawn = video.add(
                clip[one.index].image,
                one.stamp_ns,
                detections,
                recording.anticipated.get(one.stamp_ns, ()),
                note=f"{time_s:.2f} s" if detections is not None else f"{time_s:.2f} s, dropped",
            )
            if position in chosen:
                strip.append(drawn)
                captions.append(f"{time_s:.2f} s")
    return strip, captions


def _latencies_ms(recording: Recording) -> list[float]:
    return [(received - stamp) / 1e6 for stamp, received in recording.received_ns.items()]
