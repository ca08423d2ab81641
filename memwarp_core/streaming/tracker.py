"""Ids for objects that last: each detection of a stream gets the id of the track that it continues.

A track's box moves with the displacement that the detector has measured anyway. So it is where its object is when the
next detections come, and it goes on moving while the object is not found. That makes overlap enough to tell objects
of one class apart; there is no motion model and no appearance in here.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from memwarp_core.geometry import match_boxes
from memwarp_core.streaming.video_detector import DetectorState, VideoDetector
from memwarp_core.types import Detections


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerConfig:
    """What makes a track begin, go on and end."""

    start_score: float = 0.5
    """A detection that continues no track begins one if its score is at least this; a lower one can only continue."""
    min_iou: float = 0.3
    """Overlap with the box that is expected of a track from which a detection of its class may continue it."""
    max_missed_s: float = 0.5
    """A track that was not found for longer ends."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_score <= 1:
            raise ValueError(f"start_score must be from 0 to 1, got {self.start_score}.")
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou must be above 0 and at most 1, got {self.min_iou}.")
        if not self.max_missed_s >= 0:
            raise ValueError(f"max_missed_s must not be negative, got {self.max_missed_s}.")


def _integers() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracks:
    """The live tracks of one camera, N of them, in host memory."""

    next_id: int = 1
    """No id from here on was ever given; it only grows, also when all tracks end."""
    stamp_ns: int = 0
    """The instant at which the boxes hold."""
    ids: Tensor = field(default_factory=_integers)
    """(N,), int64."""
    boxes_xyxy: Tensor = field(default_factory=lambda: torch.zeros(0, 4))
    """(N, 4), where each object was found or, since then, is expected."""
    labels: Tensor = field(default_factory=_integers)
    """(N,), int64."""
    found_ns: Tensor = field(default_factory=_integers)
    """(N,), int64, when each was found last."""


class Tracker:
    """Gives ids to what a detector finds; it keeps nothing between calls, a camera is a `Tracks`.

    One set of tracks is used as long as the camera lives, through resets, gaps and recordings that begin again: they
    end the tracks, and ids that were given are not given again.
    """

    def __init__(self, detector: VideoDetector, config: TrackerConfig | None = None) -> None:
        self._detector = detector
        self.config = config or TrackerConfig()

    def step(self, found: Detections, state: DetectorState, tracks: Tracks) -> tuple[Detections, Tracks]:
        """Go on with the tracks of one camera.

        Args:
            found, state: what the detector's `step` returned, every time that it did.
            tracks: what the last call returned; `Tracks()` for a new camera.
        Returns: the detections, in host memory and with track_ids; and the tracks.
        """
        if state.began is not None:
            tracks = Tracks(next_id=tracks.next_id)
        expected = self._detector.follow_boxes(tracks.boxes_xyxy, tracks.stamp_ns, state)
        return associate(found, expected, tracks, self.config)

    def anticipate(self, later: Detections, found: Detections, state: DetectorState) -> Detections:
        """Give what the detector anticipates the ids of what is there now.

        Args:
            later: of what the detector's `anticipate` returned.
            found, state: what this tracker's and the detector's `step` returned.
        Returns: `later` with track_ids, in host memory.
        """
        assert found.track_ids is not None
        horizon_s = (later.stamp_ns - found.stamp_ns) / 1e9
        expected = self._detector.anticipate_boxes(found.boxes_xyxy, horizon_s, state)
        later = later.cpu()
        partners, _ = match_boxes(later.boxes_xyxy, later.labels, expected, found.labels, self.config.min_iou)
        return replace(later, track_ids=_look_up(found.track_ids, partners))


def associate(
    found: Detections, expected_xyxy: Tensor, tracks: Tracks, config: TrackerConfig
) -> tuple[Detections, Tracks]:
    """Continue tracks with detections, by overlap within a class, the largest first; begin tracks and end them.

    Args:
        expected_xyxy: (N, 4), where the boxes of the tracks are expected to be at found.stamp_ns.
    Returns: as Tracker.step.
    """
    found = found.cpu()
    alive = found.stamp_ns - tracks.found_ns <= round(config.max_missed_s * 1e9)
    ids, expected, labels, found_ns = (of[alive] for of in (tracks.ids, expected_xyxy, tracks.labels, tracks.found_ns))
    partners, _ = match_boxes(found.boxes_xyxy, found.labels, expected, labels, config.min_iou)
    track_ids = _look_up(ids, partners)
    begins = (partners < 0) & (found.scores >= config.start_score)
    next_id = tracks.next_id + int(begins.sum())
    track_ids[begins] = torch.arange(tracks.next_id, next_id)

    known = track_ids >= 0
    missed = torch.ones(len(ids), dtype=torch.bool)
    missed[partners[partners >= 0]] = False
    now_ns = torch.full((int(known.sum()),), found.stamp_ns)
    return replace(found, track_ids=track_ids), Tracks(
        next_id=next_id,
        stamp_ns=found.stamp_ns,
        ids=torch.cat((track_ids[known], ids[missed])),
        boxes_xyxy=torch.cat((found.boxes_xyxy[known], expected[missed])),
        labels=torch.cat((found.labels[known], labels[missed])),
        found_ns=torch.cat((now_ns, found_ns[missed])),
    )


def _look_up(ids: Tensor, places: Tensor) -> Tensor:
    """ids[places], and -1 where a place is -1."""
    return torch.cat((ids, ids.new_full((1,), -1)))[places]
