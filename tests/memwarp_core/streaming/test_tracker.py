import pytest
import torch
from torch import Tensor

from memwarp_core import Detections
from memwarp_core.streaming import DetectorState, Tracker, TrackerConfig, Tracks
from memwarp_core.streaming.tracker import associate

FRAME_NS = 50_000_000
CONFIG = TrackerConfig()


def found(
    *places: tuple[float, float], frame: int = 0, labels: list[int] | None = None, scores: list[float] | None = None
) -> Detections:
    """Boxes of 10 x 10 pixels that begin at each (x, y)."""
    return Detections(
        boxes_xyxy=torch.tensor([[x, y, x + 10, y + 10] for x, y in places]).reshape(-1, 4).float(),
        scores=torch.tensor(scores or [0.9] * len(places)),
        labels=torch.tensor(labels or [0] * len(places), dtype=torch.int64),
        stamp_ns=frame * FRAME_NS,
    )


def run(*frames: Detections, config: TrackerConfig = CONFIG, tracks: Tracks | None = None) -> tuple[list, Tracks]:
    """Ids per frame, where nothing is expected to move."""
    tracks, ids = tracks or Tracks(), []
    for one in frames:
        named, tracks = associate(one, tracks.boxes_xyxy, tracks, config)
        assert named.track_ids is not None
        ids.append(named.track_ids.tolist())
    return ids, tracks


def test_an_object_keeps_its_id() -> None:
    ids, _ = run(found((0, 0), (50, 0)), found((51, 0), (2, 0), frame=1))
    assert ids == [[1, 2], [2, 1]]


def test_a_box_is_looked_for_where_it_is_expected() -> None:
    named, tracks = associate(found((0, 0)), torch.zeros(0, 4), Tracks(), CONFIG)
    expected = tracks.boxes_xyxy + torch.tensor([30.0, 0, 30, 0])
    far, _ = associate(found((30, 0), frame=1), expected, tracks, CONFIG)
    lost, _ = associate(found((30, 0), frame=1), tracks.boxes_xyxy, tracks, CONFIG)
    assert far.track_ids.tolist() == named.track_ids.tolist() == [1]
    assert lost.track_ids.tolist() == [2]


def test_objects_of_different_classes_never_share_a_track() -> None:
    ids, _ = run(found((0, 0), labels=[0]), found((0, 0), frame=1, labels=[1]))
    assert ids == [[1], [2]]


def test_each_track_goes_to_one_detection_the_one_that_overlaps_most() -> None:
    ids, _ = run(found((0, 0)), found((3, 0), (1, 0), frame=1))
    assert ids == [[1], [2, 1]]


def test_an_id_survives_a_short_miss_and_not_a_long_one() -> None:
    frames = [found((0, 0)), *(found(frame=index) for index in range(1, 10))]
    assert run(*frames, found((0, 0), frame=10))[0][-1] == [1]
    ids, tracks = run(*frames, found(frame=10), found((0, 0), frame=11))
    assert ids[-1] == [2]
    assert tracks.ids.tolist() == [2]


def test_a_missed_track_goes_on_moving() -> None:
    _, tracks = run(found((0, 0)))
    shift = torch.tensor([5.0, 0, 5, 0])
    for frame in range(1, 6):
        _, tracks = associate(found(frame=frame), tracks.boxes_xyxy + shift, tracks, CONFIG)
    back, _ = associate(found((30, 0), frame=6), tracks.boxes_xyxy + shift, tracks, CONFIG)
    assert back.track_ids.tolist() == [1]


def test_an_unsure_detection_continues_a_track_and_begins_none() -> None:
    ids, tracks = run(
        found((0, 0)), found((0, 0), (50, 0), frame=1, scores=[0.2, 0.2]), found((0, 0), (50, 0), frame=2)
    )
    assert ids == [[1], [1, -1], [1, 2]]
    assert tracks.next_id == 3


def test_no_detections_are_no_tracks() -> None:
    ids, tracks = run(found(), found(frame=1))
    assert ids == [[], []]
    assert (tracks.next_id, len(tracks.ids)) == (1, 0)


@pytest.mark.parametrize("options", [{"start_score": 1.1}, {"min_iou": 0.0}, {"max_missed_s": -1.0}])
def test_impossible_settings_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TrackerConfig(**options)


class Camera:
    """In place of a detector: everything moves to the right, 20 pixels per frame."""

    def follow_boxes(self, boxes: Tensor, since_ns: int, state: DetectorState) -> Tensor:
        assert state.newest_ns is not None
        return self._move(boxes, (state.newest_ns - since_ns) / FRAME_NS)

    def anticipate_boxes(self, boxes: Tensor, horizon_s: float, state: DetectorState) -> Tensor:
        return self._move(boxes, horizon_s * 1e9 / FRAME_NS)

    def _move(self, boxes: Tensor, frames: float) -> Tensor:
        return boxes + torch.tensor([20.0, 0, 20, 0]) * frames


def state(frame: int, began: str | None = None) -> DetectorState:
    return DetectorState(newest_ns=frame * FRAME_NS, stamp_ns=frame * FRAME_NS, began=began)  # type: ignore[arg-type]


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(Camera())  # type: ignore[arg-type]


def test_tracks_move_with_what_the_detector_has_measured(tracker: Tracker) -> None:
    _, tracks = tracker.step(found((0, 0)), state(0, "start"), Tracks())
    _, tracks = tracker.step(found(frame=1), state(1), tracks)
    named, _ = tracker.step(found((41, 0), frame=2), state(2), tracks)
    assert named.track_ids.tolist() == [1]


@pytest.mark.parametrize("began", ["start", "gap", "size"])
def test_ids_are_not_reused_when_a_memory_begins_anew(tracker: Tracker, began: str) -> None:
    _, tracks = tracker.step(found((0, 0), (50, 0), frame=8), state(8, "start"), Tracks())
    named, tracks = tracker.step(found((20, 0)), state(0, began), tracks)
    assert named.track_ids.tolist() == [3]
    assert tracks.ids.tolist() == [3]


def test_what_is_anticipated_has_the_ids_of_what_is_there(tracker: Tracker) -> None:
    now, _ = tracker.step(found((0, 0), (60, 0)), state(0, "start"), Tracks())
    later = found((101, 0), (300, 0), (39, 0), frame=2)
    assert tracker.anticipate(later, now, state(0)).track_ids.tolist() == [2, -1, 1]
