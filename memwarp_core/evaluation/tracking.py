"""How well track ids stay with their objects, beside tracks whose boxes stay where they were."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from memwarp_core.data.clips import Clip
from memwarp_core.geometry import match_boxes
from memwarp_core.streaming import Tracker, Tracks, VideoDetector
from memwarp_core.streaming.tracker import associate
from memwarp_core.types import Detections, Frame

_FOUND_IOU = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackScore:
    """Counts over the frames of clips."""

    objects: int = 0
    """True boxes."""
    named: int = 0
    """Of them, those that were found, with an id."""
    switches: int = 0
    """Of them, those whose object had another id when it was named last."""
    tracks: int = 0
    """Ids that were given."""

    def __add__(self, other: "TrackScore") -> "TrackScore":
        return TrackScore(
            objects=self.objects + other.objects,
            named=self.named + other.named,
            switches=self.switches + other.switches,
            tracks=self.tracks + other.tracks,
        )


def score_tracks(tracked: Sequence[Detections], truths: Sequence[Frame]) -> TrackScore:
    """Count how often objects change their id, as CLEAR MOT does.

    Args:
        tracked: with track_ids, of each frame of a clip.
        truths: the same frames.
    """
    last: dict[int, int] = {}
    named = switches = 0
    given: set[int] = set()
    for found, truth in zip(tracked, truths, strict=True):
        assert found.track_ids is not None
        known = found.select(found.track_ids >= 0)
        assert known.track_ids is not None
        given.update(known.track_ids.tolist())
        boxes, labels = torch.from_numpy(truth.boxes_xyxy), torch.from_numpy(truth.labels)
        partners, _ = match_boxes(boxes, labels, known.boxes_xyxy, known.labels, _FOUND_IOU)
        for true_track, partner in zip(truth.track_ids.tolist(), partners.tolist(), strict=True):
            if partner < 0:
                continue
            named += 1
            track_id = int(known.track_ids[partner])
            switches += last.setdefault(true_track, track_id) != track_id
            last[true_track] = track_id
    return TrackScore(
        objects=sum(len(truth.labels) for truth in truths), named=named, switches=switches, tracks=len(given)
    )


def compare_tracking(detector: VideoDetector, clips: Sequence[Clip], every: int = 1) -> dict[str, TrackScore]:
    """Run a detector over clips, and its surer detections, as a node publishes them, through two trackers.

    Args:
        every: only each so-manieth frame is seen, as by a node that cannot keep up.
    Returns: "moved", with boxes that move with the measured displacement, and "standing".
    """
    tracker = Tracker(detector)
    total = {"moved": TrackScore(), "standing": TrackScore()}
    for clip in clips:
        state = detector.start()
        tracks = {name: Tracks() for name in total}
        tracked: dict[str, list[Detections]] = {name: [] for name in total}
        frames = [clip[index] for index in range(0, len(clip), every)]
        for frame in frames:
            found, state = detector.step(frame.image, frame.stamp_ns, state)
            found = found.select(found.scores >= tracker.config.start_score)
            standing = tracks["standing"]
            moved, tracks["moved"] = tracker.step(found, state, tracks["moved"])
            stood, tracks["standing"] = associate(found, standing.boxes_xyxy, standing, tracker.config)
            tracked["moved"].append(moved)
            tracked["standing"].append(stood)
        total = {name: total[name] + score_tracks(tracked[name], frames) for name in total}
    return total
