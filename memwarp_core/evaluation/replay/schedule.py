"""A virtual clock: which image is processed when, on a computer that takes a given time for each.

Times are integer nanoseconds. Nothing here looks at an image or at a real clock, so the same stamps and latencies give
the same schedule on every machine.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One image of one camera in the detector."""

    camera: int
    index: int
    """Of the image among those of its camera."""
    begun_ns: int
    available_ns: int
    """When what is said of it is there."""


def every_image(stamps_ns: Sequence[Sequence[int]]) -> list[Turn]:
    """Every image at its stamp, as if processing took no time.

    Args:
        stamps_ns: of each camera, increasing.
    """
    turns = [
        Turn(camera=camera, index=index, begun_ns=stamp_ns, available_ns=stamp_ns)
        for camera, of_camera in enumerate(stamps_ns)
        for index, stamp_ns in enumerate(of_camera)
    ]
    return sorted(turns, key=lambda turn: (turn.begun_ns, turn.camera))


class Arrivals:
    """Images of cameras that arrive at their stamps; those that wait are taken newest first, and older ones dropped."""

    def __init__(self, stamps_ns: Sequence[Sequence[int]]) -> None:
        """
        Args:
            stamps_ns: of each camera, increasing.
        """
        self._stamps_ns = stamps_ns
        self._last_index = [-1] * len(stamps_ns)
        self._last_turn = [-1] * len(stamps_ns)
        self._turns = 0

    def next_ns(self) -> int | None:
        """When the next image has arrived that none was taken after; None if there is none."""
        coming = (
            of_camera[last + 1]
            for of_camera, last in zip(self._stamps_ns, self._last_index, strict=True)
            if last + 1 < len(of_camera)
        )
        return min(coming, default=None)

    def take(self, now_ns: int) -> tuple[int, int] | None:
        """Camera and index of an image that waits; None if none does.

        Where images of several cameras wait, it is the turn of the camera that had none for the longest time.
        """
        newest = [bisect_right(of_camera, now_ns) - 1 for of_camera in self._stamps_ns]
        waiting = [camera for camera, index in enumerate(newest) if index > self._last_index[camera]]
        if not waiting:
            return None
        camera = min(waiting, key=lambda camera: (self._last_turn[camera], camera))
        self._last_index[camera], self._last_turn[camera] = newest[camera], self._turns
        self._turns += 1
        return camera, newest[camera]


def newest_wins(stamps_ns: Sequence[Sequence[int]], latencies_ns: Iterator[tuple[int, int]]) -> list[Turn]:
    """One detector for all cameras: whenever it is free it takes an image by the rules of Arrivals.

    Args:
        stamps_ns: of each camera, increasing.
        latencies_ns: how long each turn takes until what is said is there, and until the detector is free.
    """
    arrivals, turns = Arrivals(stamps_ns), list[Turn]()
    free_ns: int | None = None
    while (next_ns := arrivals.next_ns()) is not None:
        now_ns = next_ns if free_ns is None else max(free_ns, next_ns)
        taken = arrivals.take(now_ns)
        assert taken is not None  # one has arrived
        until_there_ns, until_free_ns = next(latencies_ns)
        turns.append(Turn(camera=taken[0], index=taken[1], begun_ns=now_ns, available_ns=now_ns + until_there_ns))
        free_ns = now_ns + until_free_ns
    return turns
