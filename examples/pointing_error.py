#!/usr/bin/env python3
"""How far beside the object a follower points, by what it follows: measured on what the real node published over DDS.

    make demo                                         # or: python -m memwarp_ros.demo --output out/demo --model ...
    ros_from_pip/run python examples/pointing_error.py --recording out/demo --class-name rover

Reads the recording of a demo with ground truth, and does at each instant what follow_object.py would have done, with
the messages that had been received by then. At the stamp of every published image, the direction that it points to is
held against where the object truly is. Writes pointing_error.png and pointing_error.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import degrees, hypot
from pathlib import Path

import numpy as np
from follow_object import Camera, Sight, sight_at, sights_of
from matplotlib.figure import Figure
from rosbags.highlevel import AnyReader

from memwarp_core.data.open_clip import open_clip
from memwarp_core.evaluation.plots import INK, MUTED, dress
from memwarp_core.types import Frame

SOURCES = ("detections", "detections_now", "anticipated")
_LOST_AFTER_NS = 500_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A message of the detector as a follower understands it."""

    received_ns: int
    sights: list[Sight]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, default=Path("out/demo"), help="output folder of a demo")
    parser.add_argument("--clip", type=Path, default=Path("memwarp_ros/sample"), help="what the demo played")
    parser.add_argument("--class-name", default="rover", help="what is followed")
    parser.add_argument("--horizontal-fov", type=float, default=65.0, help="degrees, of the camera")
    arguments = parser.parse_args()
    stamps_ns, heard = read(arguments.recording / "detections.mcap", arguments.class_name)
    clip = open_clip(arguments.clip)
    label = clip.class_names.index(arguments.class_name)
    height, width = clip[0].image.shape[:2]
    camera = Camera.from_field_of_view(width, height, arguments.horizontal_fov)
    truths = [true_sight(clip[index], stamp_ns, label) for index, stamp_ns in enumerate(stamps_ns)]
    errors = {source: errors_deg(messages, truths, camera) for source, messages in heard.items() if messages}
    # Only instants at which every follower points somewhere: none gains by being silent.
    common = ~np.isnan(np.stack(list(errors.values()))).any(axis=0)
    summary = {
        source: {
            "median_deg": round(float(np.median(of[common])), 3),
            "p95_deg": round(float(np.percentile(of[common], 95)), 3),
        }
        for source, of in errors.items()
    }
    summary["instants"] = int(common.sum())
    (arguments.recording / "pointing_error.json").write_text(json.dumps(summary, indent=2) + "\n")
    plot(arguments.recording / "pointing_error.png", errors, common, arguments.class_name)
    print(json.dumps(summary, indent=2))
    return 0


def read(recording: Path, class_name: str) -> tuple[list[int], dict[str, list[Heard]]]:
    """The stamps of the published images, and what was heard from each source, oldest first."""
    topics = {f"/detector/{source}": source for source in SOURCES}
    stamps_ns: list[int] = []
    heard: dict[str, list[Heard]] = {source: [] for source in SOURCES}
    with AnyReader([recording]) as reader:
        wanted = [c for c in reader.connections if c.topic in topics or c.topic.endswith("/compressed")]
        for connection, received_ns, raw in reader.messages(wanted):
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic not in topics:
                stamps_ns.append(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)
                continue
            source = topics[connection.topic]
            arrays = [one.detections for one in message.horizons] if source == "anticipated" else [message]
            sights, _ = sights_of(arrays, class_name)
            if sights:
                heard[source].append(Heard(received_ns=received_ns, sights=sights))
    return sorted(stamps_ns), heard


def true_sight(frame: Frame, stamp_ns: int, label: int) -> Sight | None:
    """The largest object of the class; None if there is none."""
    boxes = frame.boxes_xyxy[frame.labels == label]
    if not len(boxes):
        return None
    x1, y1, x2, y2 = max(boxes.tolist(), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return Sight(stamp_ns=stamp_ns, x=(x1 + x2) / 2, y=(y1 + y2) / 2)


def errors_deg(heard: Sequence[Heard], truths: Sequence[Sight | None], camera: Camera) -> np.ndarray:
    """Angle between where a follower points and where the object is, per instant; NaN where either has no direction.

    Args:
        heard: by growing time of receipt.
        truths: at growing instants.
    """
    received_ns = [one.received_ns for one in heard]
    errors = []
    for truth in truths:
        error = np.nan
        newest = int(np.searchsorted(received_ns, truth.stamp_ns, side="right")) - 1 if truth is not None else -1
        if truth is not None and newest >= 0:
            sights = heard[newest].sights
            if truth.stamp_ns - sights[-1].stamp_ns <= _LOST_AFTER_NS:
                pointed = camera.pan_tilt(sight_at(sights, truth.stamp_ns))
                true = camera.pan_tilt(truth)
                error = degrees(hypot(pointed[0] - true[0], pointed[1] - true[1]))
        errors.append(error)
    return np.array(errors)


def plot(path: Path, errors: dict[str, np.ndarray], common: np.ndarray, class_name: str) -> None:
    """Write the share of instants by error, one line per source."""
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    share = np.arange(1, common.sum() + 1) / max(common.sum(), 1)
    for (source, of), color in zip(errors.items(), ("#b4bcc6", "#e07b39", "#1f78d1"), strict=False):
        name = f"~/{source}, median {np.median(of[common]):.2f}°"
        axes.plot(np.sort(of[common]), share, color=color, linewidth=2, label=name)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.set_xlabel("degrees", color=MUTED)
    axes.legend(loc="lower right", fontsize=10, frameon=False, labelcolor=INK)
    dress(axes, f"Share of instants at which a follower of the {class_name} points at most so far beside it")
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
