from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memwarp_core.evaluation.motion_iou import motion_iou
from memwarp_core.evaluation.vid_average_precision import VidAveragePrecision, accumulate, judge, vid_average_precision
from memwarp_core.types import Detections, Frame

NAMES = ("ball", "crate", "cone")

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """An object, with a track, or a detection, with a score."""

    box: Box
    label: int = 0
    track: int = 0
    score: float = 0.0


def frame(*things: Thing) -> Frame:
    return Frame(
        image=np.zeros((0, 0, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=np.array([thing.box for thing in things], np.float32).reshape(-1, 4),
        labels=np.array([thing.label for thing in things], np.int64),
        track_ids=np.array([thing.track for thing in things], np.int64),
    )


def found(*things: Thing) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor([thing.box for thing in things], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([thing.label for thing in things], dtype=torch.int64),
        scores=torch.tensor([thing.score for thing in things], dtype=torch.float64),
        stamp_ns=0,
    )


NOTHING = found()
STILL = Thing((0, 0, 40, 20))  # slow, and large enough for a threshold of 0.5
ELSEWHERE: Box = (500, 500, 540, 540)


def there(thing: Thing, score: float, **change: object) -> Thing:
    """A detection exactly on an object."""
    return Thing(**{**vars(thing), "score": score, **change})  # type: ignore[arg-type]


def score(detections: Sequence[Detections], *clip: Frame, **how: bool) -> VidAveragePrecision:
    return vid_average_precision(detections, [clip], NAMES, **how)


# Motion IoU


def test_motion_iou_of_two_boxes_is_their_overlap() -> None:
    clip = [frame(Thing((0, 0, 10, 10))), frame(Thing((0, 2, 10, 12)))]
    assert [speed.tolist() for speed in motion_iou(clip)] == [[80 / 120], [80 / 120]]


def test_motion_iou_is_the_mean_over_the_frames_before_and_after_without_its_own() -> None:
    clip = [frame(Thing((0, 0, 10, 10))), frame(Thing((0, 0, 10, 5))), frame(Thing((0, 0, 10, 2)))]
    assert np.concatenate(motion_iou(clip)) == pytest.approx([(0.5 + 0.2) / 2, (0.5 + 0.4) / 2, (0.2 + 0.4) / 2])


def test_motion_iou_skips_frames_without_the_track() -> None:
    clip = [frame(Thing((0, 0, 10, 10))), frame(), frame(Thing((0, 0, 10, 10), track=1)), frame(Thing((0, 0, 10, 5)))]
    assert motion_iou(clip)[0].tolist() == [0.5]
    assert motion_iou(clip)[1].tolist() == []


def test_motion_iou_looks_ten_frames_far() -> None:
    away, here = frame(Thing((0, 0, 10, 5))), frame(Thing((0, 0, 10, 10)))
    between = [frame()] * 9
    assert motion_iou([away, *between, here])[-1].tolist() == [0.5]
    assert motion_iou([away, frame(), *between, here])[-1].tolist() == [1.0]


def test_motion_iou_looks_as_far_across_missing_frames() -> None:
    away, here = frame(Thing((0, 0, 10, 5))), frame(Thing((0, 0, 10, 10)))
    assert motion_iou([away, here], [3, 13])[-1].tolist() == [0.5]
    assert motion_iou([away, here], [3, 14])[-1].tolist() == [1.0]
    assert motion_iou([away, here, frame()], [0, 1, 2**60])[1].tolist() == [0.5]
    speeds = vid_average_precision([NOTHING] * 2, [[away, here]], NAMES, frame_ids=[[3, 14]]).map
    assert speeds == {"all": 0.0, "slow": 0.0, "medium": None, "fast": None}


def test_motion_iou_of_a_box_alone_is_one_and_without_a_track_unknown() -> None:
    (speeds,) = motion_iou([frame(STILL, Thing(ELSEWHERE, track=-1))])
    assert speeds[0] == 1.0
    assert np.isnan(speeds[1])


def test_motion_iou_takes_a_track_for_the_same_whatever_its_neighbours_are_called() -> None:
    clip = [frame(Thing((0, 0, 10, 10), track=7), Thing((0, 0, 10, 10), track=10**12))] + [
        frame(Thing((0, 0, 10, 5), track=10**12), Thing((0, 0, 10, 2), track=7))
    ]
    assert [speed.tolist() for speed in motion_iou(clip)] == [[0.2, 0.5], [0.5, 0.2]]


def test_motion_iou_does_not_cross_clips() -> None:
    moved = Thing((0, 5, 40, 25))
    of_two_clips = vid_average_precision([NOTHING] * 2, [[frame(STILL)], [frame(moved)]], NAMES)
    assert of_two_clips.map["slow"] == 0.0
    assert of_two_clips.map["fast"] is None
    assert score([NOTHING] * 2, frame(STILL), frame(moved)).map["fast"] == 0.0


# Average precision over all objects


def test_perfect_detections_score_one() -> None:
    crate = Thing(ELSEWHERE, label=1, track=1)
    scored = score([found(there(STILL, 0.9), there(crate, 0.8))], frame(STILL, crate))
    assert scored.map == {"all": 1.0, "slow": 1.0, "medium": None, "fast": None}
    assert scored.ap["crate"] == scored.map


def test_a_class_without_objects_is_absent_and_its_false_detections_do_not_count() -> None:
    scored = score([found(there(STILL, 0.9), there(STILL, 0.8, label=2))], frame(STILL))
    assert scored.ap["cone"] == {"all": None, "slow": None, "medium": None, "fast": None}
    assert scored.map["all"] == 1.0


def test_a_class_without_detections_is_zero() -> None:
    scored = score([found(there(STILL, 0.9))], frame(STILL, Thing(ELSEWHERE, label=1, track=1)))
    assert scored.ap["crate"]["all"] == 0.0
    assert scored.map["all"] == 0.5


def test_without_any_object_everything_is_absent() -> None:
    assert score([found(there(STILL, 0.9))], frame()).map["all"] is None
    assert vid_average_precision([], [], NAMES).map["all"] is None


def test_the_area_lies_under_the_envelope_of_precision() -> None:
    objects = [Thing((100 * k, 0, 100 * k + 40, 40), track=k) for k in range(4)]
    # right, wrong, wrong, right, right: precision 1, 1/2, 1/3, 2/4, 3/5; recall of a quarter each; the fourth is missed
    detections = [
        there(objects[0], 0.9),
        Thing(ELSEWHERE, score=0.8),
        Thing(ELSEWHERE, score=0.7),
        there(objects[1], 0.6),
        there(objects[2], 0.5),
    ]
    assert score([found(*detections)], frame(*objects)).map["all"] == pytest.approx(0.25 * (1 + 0.6 + 0.6), abs=1e-12)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    other = Thing(ELSEWHERE, track=1)
    scored = score([found(there(STILL, 0.9), there(STILL, 0.8), there(other, 0.7))], frame(STILL, other))
    assert scored.map["all"] == pytest.approx(0.5 + 0.5 * 2 / 3, abs=1e-12)


def test_the_higher_score_takes_the_object_in_whatever_order_they_come() -> None:
    better, worse = there(STILL, 0.9), there(STILL, 0.4, box=(0, 0, 40, 15))
    # Were the worse one to take it, the better one would be the wrong one, and first.
    assert score([found(worse, better)], frame(STILL)).map["all"] == 1.0


def test_of_equal_scores_the_earlier_detection_comes_first() -> None:
    beside = Thing(ELSEWHERE, score=0.5)
    assert score([found(there(STILL, 0.5), beside)], frame(STILL)).map["all"] == 1.0
    assert score([found(beside, there(STILL, 0.5))], frame(STILL)).map["all"] == 0.5


def test_of_equal_scores_the_earlier_frame_comes_first() -> None:
    right, wrong = found(there(STILL, 0.5)), found(Thing(ELSEWHERE, score=0.5))
    assert score([right, wrong], frame(STILL), frame(STILL)).map["all"] == 0.5
    assert score([wrong, right], frame(STILL), frame(STILL)).map["all"] == 0.25


def test_a_detection_takes_the_object_that_it_overlaps_most_among_the_free() -> None:
    left, right = Thing((0, 0, 100, 10), track=0), Thing((10, 0, 110, 10), track=1)
    nearer_left = there(left, 0.9, box=(4, 0, 104, 10))
    nearer_left_too = there(left, 0.8, box=(3, 0, 103, 10))
    assert score([found(nearer_left, nearer_left_too)], frame(left, right)).map["all"] == 1.0


def test_a_detection_of_another_class_takes_nothing() -> None:
    assert score([found(there(STILL, 0.9, label=1), there(STILL, 0.8))], frame(STILL)).ap["ball"]["all"] == 1.0
    assert score([found(there(STILL, 0.9, label=1))], frame(STILL)).ap["ball"]["all"] == 0.0


@pytest.mark.parametrize(("height", "right"), [(20, True), (19, False)])
def test_half_an_overlap_is_enough_for_a_large_object(height: int, right: bool) -> None:
    large = Thing((0, 0, 40, 40))
    scored = score([found(there(large, 0.9, box=(0, 0, 40, height)))], frame(large))
    assert scored.map["all"] == float(right)


@pytest.mark.parametrize(("width", "adaptive"), [(3, 1.0), (2, 0.0)])
def test_a_small_object_needs_less_overlap_unless_the_threshold_is_fixed(width: int, adaptive: float) -> None:
    # 10 x 10 pixels: 100 / 400. Three columns of ten overlap by 0.3, two by 0.2.
    small = Thing((0, 0, 10, 10))
    partly = [found(there(small, 0.9, box=(0, 0, width, 10)))]
    assert score(partly, frame(small)).map["all"] == adaptive
    assert score(partly, frame(small), adaptive_iou=False).map["all"] == 0.0


def test_the_adaptive_threshold_itself_is_enough() -> None:
    small = Thing((0, 0, 10, 10))
    assert score([found(there(small, 0.9, box=(0, 0, 5, 5)))], frame(small)).map["all"] == 1.0


def test_numbers_of_frames_must_agree() -> None:
    with pytest.raises(ValueError, match="2 frames, got 1"):
        score([NOTHING], frame(STILL), frame(STILL))


# Splits by speed. A second frame gives the objects their speeds: FAST shares a third with its other place.

FAST = Thing((200, 0, 240, 20), track=1)
FAST_LATER = Thing((200, 10, 240, 30), track=1)
BOTH_SPEEDS = (frame(STILL, FAST), frame(STILL, FAST_LATER))
ALL_FOUND_LATER = found(there(STILL, 0.2), there(FAST_LATER, 0.1))


def test_each_split_counts_its_own_objects() -> None:
    scored = score([found(there(STILL, 0.9)), found(there(STILL, 0.8))], *BOTH_SPEEDS)
    assert scored.map == {"all": 0.5, "slow": 1.0, "medium": None, "fast": 0.0}


@pytest.mark.parametrize(
    ("shared", "speeds"),
    [
        (69, {"fast"}),
        (70, {"fast", "medium"}),
        (71, {"medium"}),
        (89, {"medium"}),
        (90, {"medium", "slow"}),
        (91, {"slow"}),
    ],
)
def test_a_border_belongs_to_both_speeds(shared: int, speeds: set[str]) -> None:
    clip = frame(Thing((0, 0, 10, 100))), frame(Thing((0, 0, 10, shared)))
    scored = score([NOTHING] * 2, *clip)
    assert {speed for speed, value in scored.map.items() if value is not None} == speeds | {"all"}


def test_a_mean_on_the_border_belongs_to_both_speeds_whatever_rounding_did() -> None:
    near, far = Thing((0, 0, 10, 100), label=1), Thing((0, 0, 10, 70))
    for count in range(1, 11):  # in floating point, three 0.7 have a mean below it and six one above
        scored = score([NOTHING] * (count + 1), frame(near), *[frame(far)] * count)
        assert scored.ap["crate"] == {"all": 0.0, "slow": None, "medium": 0.0, "fast": 0.0}


def test_a_detection_that_takes_an_object_of_another_speed_is_forgotten() -> None:
    # In the fast split the still object's detection, with the highest score, is neither right nor wrong.
    scored = score([found(there(STILL, 0.9), there(FAST, 0.8)), ALL_FOUND_LATER], *BOTH_SPEEDS)
    assert scored.map == {"all": 1.0, "slow": 1.0, "medium": None, "fast": 1.0}


def test_objects_of_another_speed_are_candidates_and_so_leave_the_rest_unfound() -> None:
    # It overlaps both enough, the still one more: in the fast split nothing is found, though the fast one is there.
    still, fast = Thing((0, 0, 100, 10), track=0), Thing((0, 0, 80, 10), track=1)
    clip = frame(still, fast), frame(still, Thing((0, 20, 80, 30), track=1))
    scored = score([found(there(still, 0.9)), NOTHING], *clip)
    assert scored.map["slow"] == 0.5
    assert scored.map["fast"] == 0.0


def test_a_wrong_detection_counts_where_the_object_that_it_overlaps_most_belongs() -> None:
    # Too little overlap to take the fast object: wrong among the fast ones, forgotten among the slow ones.
    near_fast = there(FAST, 0.95, box=(200, 0, 240, 5))
    scored = score([found(near_fast, there(STILL, 0.9), there(FAST, 0.8)), ALL_FOUND_LATER], *BOTH_SPEEDS)
    assert scored.map["slow"] == 1.0
    assert scored.map["fast"] == pytest.approx(2 / 3, abs=1e-12)


def test_a_wrong_detection_may_belong_to_an_object_of_another_class_or_one_taken_already() -> None:
    crate = Thing((200, 0, 240, 20), label=1, track=1)
    clip = frame(STILL, crate), frame(STILL, Thing((200, 10, 240, 30), label=1, track=1))
    on_fast_crate = there(crate, 0.95, label=0)
    later = found(there(STILL, 0.2))
    # A "ball" on the fast crate says nothing of slow balls, though it does of all balls.
    scored = score([found(on_fast_crate, there(STILL, 0.9)), later], *clip)
    assert scored.ap["ball"]["slow"] == 1.0
    assert scored.ap["ball"]["all"] == pytest.approx(2 / 3, abs=1e-12)
    twice = score([found(there(STILL, 0.95), there(STILL, 0.9)), later], *clip)
    assert twice.ap["ball"]["slow"] == pytest.approx(0.5 + 0.5 * 2 / 3, abs=1e-12)


def test_a_wrong_detection_that_overlaps_none_counts_by_the_fraction_of_objects_outside_the_split() -> None:
    # Three objects, one of them fast: 1/3 of a wrong one among the slow, 2/3 among the fast, 1 among all.
    second = Thing((100, 0, 140, 20), track=2)
    clip = frame(STILL, second, FAST), frame(FAST_LATER)
    scored = score([found(Thing(ELSEWHERE, score=0.9), there(STILL, 0.8), there(FAST, 0.7)), NOTHING], *clip)
    assert scored.map["slow"] == pytest.approx(0.5 / (1 + 1 / 3), abs=1e-12)
    assert scored.map["fast"] == pytest.approx(0.5 / (1 + 2 / 3), abs=1e-12)
    assert scored.map["all"] == pytest.approx(2 / 4 * 2 / 3, abs=1e-12)


def test_a_wrong_detection_where_no_object_has_the_speed_is_forgotten_whatever_it_overlaps() -> None:
    # The second frame has only a still object.
    clip = frame(FAST), frame(FAST_LATER), frame(STILL)
    detections = [found(there(FAST, 0.8)), found(there(FAST_LATER, 0.7)), found(Thing(ELSEWHERE, score=0.9))]
    assert score(detections, *clip).map["fast"] == 1.0
    assert score(detections, *clip).map["all"] == pytest.approx(2 / 3 * 2 / 3, abs=1e-12)


def test_a_detection_in_an_empty_frame_counts_by_the_fraction_of_all_objects_in_the_split() -> None:
    # Two slow and two fast objects; the empty frame counts as another fast one.
    clip = *BOTH_SPEEDS, frame()
    detections = [found(there(STILL, 0.8), there(FAST, 0.7)), ALL_FOUND_LATER, found(Thing(ELSEWHERE, score=0.9))]
    scored = score(detections, *clip)
    assert scored.map["slow"] == pytest.approx(2 / (2 + 2 / 5), abs=1e-12)
    assert scored.map["fast"] == pytest.approx(2 / (2 + 3 / 5), abs=1e-12)
    assert scored.map["all"] == pytest.approx(4 / 5, abs=1e-12)


def test_objects_without_tracks_count_only_among_all() -> None:
    untracked = Thing((0, 0, 40, 20), track=-1)
    scored = score([found(there(untracked, 0.9))], frame(untracked))
    assert scored.map == {"all": 1.0, "slow": None, "medium": None, "fast": None}


# Against the definitions in exact fractions, one pair of boxes at a time.


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    return x, y, x + draw(st.integers(1, 25)), y + draw(st.integers(1, 25))


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[list[list[Thing]]], list[list[Thing]]]:
    """Objects by clip and frame, and detections by frame; some detections repeat an object's box."""
    clips, detections = [], []
    for _ in range(draw(st.integers(1, 2))):
        clip = []
        for _ in range(draw(st.integers(1, 13))):
            tracks = draw(st.lists(st.integers(-1, 2), max_size=3, unique=True))
            objects = []
            for track in tracks:
                still = st.just((3 * track + 3, 0, 3 * track + 23, 18))
                objects.append(Thing(draw(still | boxes()), draw(st.integers(0, 1)), track))
            clip.append(objects)
            places = st.one_of(boxes(), st.sampled_from([thing.box for thing in objects])) if objects else boxes()
            scored = st.builds(Thing, places, st.integers(0, 2), st.just(0), st.integers(1, 8).map(lambda n: n / 8))
            detections.append(draw(st.lists(scored, max_size=4)))
        clips.append(clip)
    return clips, detections


def exact_iou(one: Box, other: Box) -> Fraction:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = width * height if width > 0 and height > 0 else 0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return Fraction(shared, sum(areas) - shared)


def exact_motion(clip: list[list[Thing]], at: int, thing: Thing) -> Fraction | None:
    if thing.track < 0:
        return None
    shared = [
        exact_iou(thing.box, other.box)
        for index in range(at - 10, at + 11)
        if index != at and 0 <= index < len(clip)
        for other in clip[index]
        if other.track == thing.track
    ]
    return sum(shared, Fraction()) / len(shared) if shared else Fraction(1)


def exact_in_split(motion: Fraction | None, split: str) -> bool:
    if split == "all":
        return True
    low, high = {"slow": (9, 10), "medium": (7, 9), "fast": (0, 7)}[split]
    return motion is not None and Fraction(low, 10) <= motion <= Fraction(high, 10)


def exact_threshold(box: Box) -> Fraction:
    width, height = box[2] - box[0], box[3] - box[1]
    return min(Fraction(1, 2), Fraction(width * height, (width + 10) * (height + 10)))


def exact_ap(
    clips: list[list[list[Thing]]], detections: list[list[Thing]], label: int, split: str, adaptive: bool
) -> Fraction | None:
    frames = [
        [(thing, exact_in_split(exact_motion(clip, at, thing), split)) for thing in objects]
        for clip in clips
        for at, objects in enumerate(clip)
    ]
    entries = [inside for objects in frames for _, inside in objects]
    entries += [split in ("all", "fast") for objects in frames if not objects]
    weight_in_empty = Fraction(sum(entries), len(entries))
    outcomes: list[tuple[float, int, Fraction]] = []
    for objects, of_frame in zip(frames, detections, strict=True):
        taken: set[int] = set()
        for detection in sorted(of_frame, key=lambda thing: -thing.score):
            shared = [exact_iou(detection.box, thing.box) for thing, _ in objects]
            enough = [exact_threshold(thing.box) if adaptive else Fraction(1, 2) for thing, _ in objects]
            candidates = [
                k
                for k, (thing, _) in enumerate(objects)
                if k not in taken and thing.label == detection.label and shared[k] >= enough[k]
            ]
            right, wrong = 0, Fraction()
            if candidates:
                best = max(candidates, key=lambda k: (shared[k], -k))
                taken.add(best)
                right = int(objects[best][1])
            elif not objects:
                wrong = weight_in_empty
            else:
                inside = max((shared[k] for k, (_, is_in) in enumerate(objects) if is_in), default=Fraction(-1))
                outside = max((shared[k] for k, (_, is_in) in enumerate(objects) if not is_in), default=Fraction(-1))
                fraction_outside = Fraction(sum(not is_in for _, is_in in objects), len(objects))
                wrong = fraction_outside if inside == outside else Fraction(inside > outside)
            if detection.label == label:
                outcomes.append((detection.score, right, wrong))
    positives = sum(is_in for objects in frames for thing, is_in in objects if thing.label == label)
    if not positives:
        return None
    outcomes.sort(key=lambda outcome: -outcome[0])
    curve = []
    hits, misses = 0, Fraction()
    for _, right, wrong in outcomes:
        hits, misses = hits + right, misses + wrong
        if hits:
            curve.append((hits, Fraction(hits) / (hits + misses)))
    best_beyond = [
        max((precision for reached, precision in curve if reached >= hit), default=Fraction())
        for hit in range(1, positives + 1)
    ]
    return sum(best_beyond, Fraction()) / positives


@settings(max_examples=40)
@given(data_sets(), st.booleans())
def test_every_figure_is_that_of_the_definitions(
    data: tuple[list[list[list[Thing]]], list[list[Thing]]], adaptive: bool
) -> None:
    clips, detections = data
    scored = vid_average_precision(
        [found(*of_frame) for of_frame in detections],
        [[frame(*objects) for objects in clip] for clip in clips],
        NAMES,
        adaptive_iou=adaptive,
    )
    for speed, mean in scored.map.items():
        exact = [exact_ap(clips, detections, label, speed, adaptive) for label in range(len(NAMES))]
        for name, value in zip(NAMES, exact, strict=True):
            assert scored.ap[name][speed] == (None if value is None else pytest.approx(float(value), abs=1e-9))
        present = [value for value in exact if value is not None]
        assert mean == (pytest.approx(float(sum(present) / len(present)), abs=1e-9) if present else None)


# Judging once, and scoring samples of the frames


@settings(max_examples=20)
@given(data_sets(), st.data())
def test_counting_the_frames_of_a_clip_several_times_is_scoring_copies_of_the_clip(
    data: tuple[list[list[list[Thing]]], list[list[Thing]]], draw: st.DataObject
) -> None:
    # Without empty frames, in which a detection's weight depends on the speeds of the whole data set.
    clips = [[frame(*objects, Thing((900, 900, 940, 920), track=99)) for objects in clip] for clip in data[0]]
    # Nor with equal scores: copies of two detections are ranked in turns, but counting twice keeps each together.
    detections = iter(
        [
            found(*(replace(thing, score=thing.score - 1e-3 * (10 * at + place)) for place, thing in enumerate(things)))
            for at, things in enumerate(data[1])
        ]
    )
    of_clips = [[next(detections) for _ in clip] for clip in clips]
    times = draw.draw(st.lists(st.integers(0, 3), min_size=len(clips), max_size=len(clips)))
    copies = [index for index, count in enumerate(times) for _ in range(count)]
    together = judge([one for of_clip in of_clips for one in of_clip], clips)
    sampled = accumulate(together, NAMES, np.repeat(times, [len(clip) for clip in clips]))
    copied = vid_average_precision(
        [one for index in copies for one in of_clips[index]], [clips[index] for index in copies], NAMES
    )
    for name in NAMES:
        for speed, value in copied.ap[name].items():
            assert sampled.ap[name][speed] == (None if value is None else pytest.approx(value, abs=1e-9))


def test_frames_that_do_not_count_leave_objects_and_detections_out() -> None:
    judged = judge([found(there(STILL, 0.9)), found(there(STILL, 0.8, box=ELSEWHERE))], [[frame(STILL)] * 2])
    assert accumulate(judged, NAMES).map["all"] == 0.5
    assert accumulate(judged, NAMES, np.array([1, 0])).map["all"] == 1.0
    assert accumulate(judged, NAMES, np.array([0, 1])).map["all"] == 0.0
