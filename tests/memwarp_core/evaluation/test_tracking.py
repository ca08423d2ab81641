from dataclasses import replace

import numpy as np
import pytest
import torch

from memwarp_core import Detections, DetectorState, Frame
from memwarp_core.evaluation.tracking import TrackScore, compare_tracking, score_tracks


def truth(*places: float, tracks: list[int]) -> Frame:
    """Boxes of 10 x 10 pixels that begin at x = each of the places."""
    return Frame(
        image=np.empty((0, 0, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=np.array([[x, 0, x + 10, 10] for x in places], np.float32).reshape(-1, 4),
        labels=np.zeros(len(places), np.int64),
        track_ids=np.array(tracks, np.int64),
    )


def tracked(*places: float, ids: list[int]) -> Detections:
    boxes = torch.from_numpy(truth(*places, tracks=ids).boxes_xyxy)
    return Detections(
        boxes_xyxy=boxes,
        scores=torch.ones(len(ids)),
        labels=torch.zeros(len(ids), dtype=torch.int64),
        stamp_ns=0,
        track_ids=torch.tensor(ids, dtype=torch.int64),
    )


def test_an_object_that_keeps_its_id_never_switches() -> None:
    truths = [truth(0, 50, tracks=[7, 8]), truth(4, 50, tracks=[7, 8])]
    assert score_tracks([tracked(0, 50, ids=[1, 2]), tracked(50, 4, ids=[2, 1])], truths) == TrackScore(
        objects=4, named=4, switches=0, tracks=2
    )


def test_a_new_id_is_a_switch_also_after_frames_in_which_the_object_was_not_found() -> None:
    truths = [truth(0, tracks=[7])] * 3
    said = [tracked(0, ids=[1]), tracked(50, ids=[5]), tracked(0, ids=[2])]
    assert score_tracks(said, truths) == TrackScore(objects=3, named=2, switches=1, tracks=3)


def test_objects_that_exchange_their_ids_are_two_switches() -> None:
    truths = [truth(0, 50, tracks=[7, 8])] * 2
    assert score_tracks([tracked(0, 50, ids=[1, 2]), tracked(0, 50, ids=[2, 1])], truths).switches == 2


def test_detections_without_an_id_count_for_nothing() -> None:
    assert score_tracks([tracked(0, ids=[-1])], [truth(0, tracks=[7])]) == TrackScore(objects=1)


class Rolling:
    """In place of a clip: a ball that moves by 20 pixels per frame, twice its width."""

    name, class_names = "rolling", ("ball",)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Frame:
        return replace(truth(20 * index, tracks=[7]), stamp_ns=index * 50_000_000)


class Seeing:
    """In place of a detector: it finds the ball, and one that it is not sure of, and has measured the motion."""

    def start(self) -> DetectorState:
        return DetectorState()

    def step(self, image: np.ndarray, stamp_ns: int, state: DetectorState) -> tuple[Detections, DetectorState]:
        began = "start" if state.newest_ns is None else None
        seen = replace(tracked(stamp_ns / 2_500_000, 300, ids=[0, 0]), stamp_ns=stamp_ns, track_ids=None)
        seen = replace(seen, scores=torch.tensor([0.9, 0.2]))
        return seen, replace(state, began=began, newest_ns=stamp_ns)

    def follow_boxes(self, boxes: torch.Tensor, since_ns: int, state: DetectorState) -> torch.Tensor:
        assert state.newest_ns is not None
        return boxes + torch.tensor([1.0, 0, 1, 0]) * ((state.newest_ns - since_ns) / 2_500_000)


@pytest.mark.parametrize("every", [1, 2])
def test_standing_boxes_lose_what_moves_further_than_its_size(every: int) -> None:
    scores = compare_tracking(Seeing(), [Rolling(), Rolling()], every)  # type: ignore[arg-type]
    frames = 5 if every == 1 else 3
    assert scores["moved"] == TrackScore(objects=2 * frames, named=2 * frames, switches=0, tracks=2)
    assert scores["standing"].switches == 2 * (frames - 1)
