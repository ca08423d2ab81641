from dataclasses import fields

import pytest
import torch

from memwarp_core import Detections
from memwarp_core.streaming import SelfCheck, SelfCheckConfig, SelfCheckState

FRAME_NS = 100_000_000


def boxes_at(*places: float, stamp_ns: int, label: int = 0) -> Detections:
    """Boxes of 10 x 10 pixels that begin at x = each of the places."""
    return Detections(
        boxes_xyxy=torch.tensor([[x, 0.0, x + 10, 10.0] for x in places]).reshape(-1, 4),
        scores=torch.ones(len(places)),
        labels=torch.full((len(places),), label),
        stamp_ns=stamp_ns,
    )


def run(
    check: SelfCheck, speed: float, said_speed: float, frames: int = 20, state: SelfCheckState | None = None
) -> SelfCheckState:
    """An object that moves by `speed` pixels per frame, and anticipations that take it for `said_speed`."""
    state = state or check.start()
    first = state.stamps_ns[-1] // FRAME_NS + 1 if state.stamps_ns else 0
    for frame in range(first, first + frames):
        later = [
            boxes_at(frame * speed + said_speed * horizon_s * 10, stamp_ns=frame * FRAME_NS + round(horizon_s * 1e9))
            for horizon_s in check.horizons_s
        ]
        state = check.step(boxes_at(frame * speed, stamp_ns=frame * FRAME_NS), later, state)
    return state


def test_a_right_anticipation_gains_what_standing_boxes_lose() -> None:
    check = SelfCheck([0.1])
    (of_horizon,) = check.report(run(check, speed=5, said_speed=5))
    assert of_horizon.all_classes.objects == 19  # nothing had been said of the first frame
    assert of_horizon.all_classes.hit_rate == 1
    assert of_horizon.all_classes.mean_iou == pytest.approx(1)
    assert of_horizon.all_classes.mean_iou_unmoved == pytest.approx(1 / 3)  # 5 of 15 pixels
    assert of_horizon.all_classes.gain == pytest.approx(2 / 3)
    assert not of_horizon.is_harmful


def test_a_wrong_anticipation_is_harmful_once_it_has_been_for_the_time_that_was_set() -> None:
    check = SelfCheck([0.1, 0.2], SelfCheckConfig(patience_s=1.0))
    early = run(check, speed=0, said_speed=4, frames=11)
    # The first comparisons are made in the frames at 0.1 and 0.2 s, the last ones at 1 s.
    assert [one.negative_for_s for one in check.report(early)] == pytest.approx([0.9, 0.8])
    assert not any(one.is_harmful for one in check.report(early))
    later = run(check, speed=0, said_speed=4, frames=1, state=early)
    assert [one.is_harmful for one in check.report(later)] == [True, False]


def test_harm_ends_when_the_gain_is_back() -> None:
    check = SelfCheck([0.1], SelfCheckConfig(window=5, patience_s=0.5))
    bad = run(check, speed=0, said_speed=4)
    assert check.report(bad)[0].is_harmful
    good = run(check, speed=0, said_speed=0, frames=10, state=bad)
    assert not check.report(good)[0].is_harmful
    assert check.report(good)[0].negative_for_s == 0


def test_only_the_last_comparisons_count() -> None:
    check = SelfCheck([0.1], SelfCheckConfig(window=5))
    state = run(check, speed=0, said_speed=0, frames=5, state=run(check, speed=0, said_speed=20))
    assert check.report(state)[0].all_classes.objects == 5
    assert check.report(state)[0].all_classes.hit_rate == pytest.approx(4 / 5)  # one was still said by the wrong one


def test_classes_are_told_apart() -> None:
    check = SelfCheck([0.1])
    still, moving = boxes_at(0, stamp_ns=0), boxes_at(50, stamp_ns=0, label=3)

    def together(first: Detections, second: Detections, stamp_ns: int) -> Detections:
        return Detections(
            boxes_xyxy=torch.cat((first.boxes_xyxy, second.boxes_xyxy)),
            scores=torch.ones(2),
            labels=torch.cat((first.labels, second.labels)),
            stamp_ns=stamp_ns,
        )

    now = together(still, moving, 0)
    said = [together(still, boxes_at(55, stamp_ns=0, label=3), FRAME_NS)]
    state = check.step(now, said, check.start())
    state = check.step(together(still, boxes_at(55, stamp_ns=0, label=3), FRAME_NS), [], state)
    (of_horizon,) = check.report(state)
    assert {label: one.gain for label, one in of_horizon.per_class.items()} == pytest.approx({0: 0, 3: 2 / 3})


def test_a_box_of_another_class_is_no_match() -> None:
    check = SelfCheck([0.1])
    state = check.step(boxes_at(0, stamp_ns=0, label=1), [boxes_at(0, stamp_ns=FRAME_NS, label=1)], check.start())
    state = check.step(boxes_at(0, stamp_ns=FRAME_NS, label=2), [], state)
    assert check.report(state)[0].all_classes.mean_iou == 0


@pytest.mark.parametrize(("horizon_s", "expected"), [(0.11, 5.0), (0.149, 5.0), (0.151, 10.0), (0.2, 10.0)])
def test_the_frame_nearest_to_the_instant_counts(horizon_s: float, expected: float) -> None:
    check = SelfCheck([horizon_s])
    said = boxes_at(expected, stamp_ns=round(horizon_s * 1e9))
    state = check.step(boxes_at(0, stamp_ns=0), [said], check.start())
    for frame in (1, 2):
        state = check.step(boxes_at(frame * 5.0, stamp_ns=frame * FRAME_NS), [], state)
    assert check.report(state)[0].all_classes.mean_iou == pytest.approx(1)


def test_instants_that_no_frame_is_near_are_left_out() -> None:
    check = SelfCheck([0.2])
    state = run(check, speed=0, said_speed=0, frames=10)
    compared = check.report(state)[0].all_classes.objects
    # After a gap: what was said of 1.0 s and 1.1 s has no frame within 0.05 s.
    state = check.step(boxes_at(0, stamp_ns=20 * FRAME_NS), [], state)
    assert check.report(state)[0].all_classes.objects == compared
    assert state.waiting == ((),)


def test_nothing_said_and_nothing_found_are_no_comparison() -> None:
    check = SelfCheck([0.1])
    state = check.start()
    for frame in range(5):
        state = check.step(boxes_at(stamp_ns=frame * FRAME_NS), [], state)
    (of_horizon,) = check.report(state)
    assert (of_horizon.all_classes.objects, of_horizon.all_classes.gain, of_horizon.per_class) == (0, 0, {})
    assert not of_horizon.is_harmful


def test_memory_is_bounded() -> None:
    check = SelfCheck([0.1, 0.5], SelfCheckConfig(window=10))

    def size(of: object) -> int:
        if isinstance(of, torch.Tensor):
            return of.numel()
        if isinstance(of, tuple):
            return sum(map(size, of))
        return sum(size(getattr(of, f.name)) for f in fields(of)) if hasattr(of, "__dataclass_fields__") else 1

    assert size(run(check, 1, 1, frames=30)) == size(run(check, 1, 1, frames=90))


def test_forgetting_keeps_what_was_compared_and_takes_any_stamp() -> None:
    check = SelfCheck([0.1])
    state = run(check, speed=5, said_speed=5)
    again = check.forget(state)
    assert check.report(again)[0].all_classes == check.report(state)[0].all_classes
    assert again.waiting == ((),)
    check.step(boxes_at(0, stamp_ns=0), [], again)


def test_what_does_not_fit_is_refused() -> None:
    check = SelfCheck([0.1])
    state = check.step(boxes_at(0, stamp_ns=FRAME_NS), [], check.start())
    with pytest.raises(ValueError, match="start()"):
        check.step(boxes_at(0, stamp_ns=FRAME_NS), [], state)
    with pytest.raises(ValueError, match="1 horizons, got 2"):
        check.step(boxes_at(0, stamp_ns=2 * FRAME_NS), [boxes_at(0, stamp_ns=3 * FRAME_NS)] * 2, state)
    with pytest.raises(ValueError, match="window"):
        SelfCheckConfig(window=0)
    with pytest.raises(ValueError, match="patience_s"):
        SelfCheckConfig(patience_s=-1)
