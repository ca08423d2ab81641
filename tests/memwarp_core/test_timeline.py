"""Finding what belongs to an instant."""

import torch

from memwarp_core.timeline import Anticipations, half_interval_ns, index_at
from memwarp_core.types import Detections

FRAME_NS = 50_000_000


def said(frame: int, stamp_ns: int) -> Detections:
    """What was said at a frame of stamp_ns: a box whose left edge is the frame's number."""
    return Detections(
        boxes_xyxy=torch.tensor([[float(frame), 0.0, 100.0, 100.0]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        stamp_ns=stamp_ns,
    )


def test_index_at_takes_the_nearest_within_the_tolerance() -> None:
    stamps = [0, 100, 200]
    assert [index_at(stamps, at, 49) for at in (-49, 0, 51, 149, 249)] == [0, 0, 1, 1, 2]
    assert [index_at(stamps, at, 49) for at in (-50, 50, 150, 250)] == [None] * 4
    assert index_at([], 0, 10) is None


def test_half_interval_ignores_a_single_long_gap() -> None:
    assert half_interval_ns([0, 10, 20, 1000]) == 5
    assert half_interval_ns([7]) == 0


def test_anticipations_are_found_at_their_time() -> None:
    anticipations = Anticipations([0.1, 0.2])
    for frame in range(4):
        stamp_ns = frame * FRAME_NS
        anticipations.add([said(frame, stamp_ns + 100_000_000), said(frame, stamp_ns + 200_000_000)])
    near, far = anticipations.at(3 * FRAME_NS, FRAME_NS // 2)
    assert near.boxes_xyxy[0, 0] == 1  # said at frame 1 about frame 3
    assert len(far) == 0  # nobody said anything about frame 3 before frame 0
    assert anticipations.at(4 * FRAME_NS, FRAME_NS // 2)[1].boxes_xyxy[0, 0] == 0
