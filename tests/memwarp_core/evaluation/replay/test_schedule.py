from collections.abc import Iterator
from itertools import cycle, repeat

import pytest

from memwarp_core.evaluation.replay.schedule import Turn, every_image, newest_wins


def always(latency: int) -> Iterator[tuple[int, int]]:
    return repeat((latency, latency))


def indices(turns: list[Turn]) -> list[int]:
    return [turn.index for turn in turns]


def test_offline_takes_every_image_at_its_stamp() -> None:
    turns = every_image([[0, 10], [5]])
    assert [(turn.camera, turn.index, turn.begun_ns, turn.available_ns) for turn in turns] == [
        (0, 0, 0, 0),
        (1, 0, 5, 5),
        (0, 1, 10, 10),
    ]


def test_a_fast_detector_takes_every_image_when_it_comes() -> None:
    turns = newest_wins([[100, 110, 120]], always(3))
    assert indices(turns) == [0, 1, 2]
    assert [(turn.begun_ns, turn.available_ns) for turn in turns] == [(100, 103), (110, 113), (120, 123)]


def test_a_slow_detector_takes_the_newest_image_that_waits_and_drops_the_others() -> None:
    turns = newest_wins([list(range(0, 100, 10))], always(25))
    assert indices(turns) == [0, 2, 5, 7, 9]
    assert [turn.begun_ns for turn in turns] == [0, 25, 50, 75, 100]  # it never waits while an image does


@pytest.mark.parametrize(("latency", "taken"), [(20, [0, 2, 4]), (21, [0, 2, 4]), (19, [0, 1, 3, 4])])
def test_an_image_that_comes_just_when_the_detector_is_free_is_taken(latency: int, taken: list[int]) -> None:
    assert indices(newest_wins([[0, 10, 20, 30, 40]], always(latency))) == taken


def test_a_gap_in_the_images_is_waited_for() -> None:
    turns = newest_wins([[0, 10, 500]], always(5))
    assert [turn.begun_ns for turn in turns] == [0, 10, 500]


def test_cameras_take_turns_in_one_detector() -> None:
    stamps = list(range(0, 100, 10))
    turns = newest_wins([stamps, stamps], always(10))
    assert [turn.camera for turn in turns[:6]] == [0, 1, 0, 1, 0, 1]
    assert all(before.available_ns <= after.begun_ns for before, after in zip(turns, turns[1:], strict=False))


def test_a_camera_without_images_takes_no_turn() -> None:
    assert [turn.camera for turn in newest_wins([[], [0, 10]], always(1))] == [1, 1]
    assert newest_wins([[]], always(1)) == newest_wins([], always(1)) == []


def test_every_turn_takes_its_own_time() -> None:
    turns = newest_wins([list(range(0, 60, 10))], cycle([(5, 5), (25, 25)]))
    assert [turn.available_ns - turn.begun_ns for turn in turns] == [5, 25, 5, 25, 5]
    assert indices(turns) == [0, 1, 3, 4, 5]


def test_a_detector_that_is_busy_after_it_has_spoken_takes_the_next_image_later() -> None:
    turns = newest_wins([list(range(0, 60, 10))], repeat((5, 15)))
    assert indices(turns) == [0, 1, 3, 4, 5]
    assert [(turn.begun_ns, turn.available_ns) for turn in turns] == [(0, 5), (15, 20), (30, 35), (45, 50), (60, 65)]
