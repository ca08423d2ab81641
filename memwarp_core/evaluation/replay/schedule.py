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


def newest_wins(stamps_ns: Sequence[Sequence[int]], latencies_ns: Iterator[int]) -> list[Turn]:
    """One detector for all cameras: whenever it is free it takes a newest image, and older ones are dropped.

    An image arrives at its stamp. Where images of several cameras wait, it is the turn of the camera that had none for
    the longest time.

    Args:
        stamps_ns: of each camera, increasing.
        latencies_ns: how long each turn takes.
    """
    turns: list[Turn] = []
    last_index = [-1] * len(stamps_ns)
    last_turn = [-1] * len(stamps_ns)
    coming = [camera for camera, of_camera in enumerate(stamps_ns) if of_camera]
    now_ns = min((stamps_ns[camera][0] for camera in coming), default=0)
    while coming:
        newest = {camera: bisect_right(stamps_ns[camera], now_ns) - 1 for camera in coming}
        waiting = [camera for camera in coming if newest[camera] > last_index[camera]]
        if not waiting:
            now_ns = min(stamps_ns[camera][last_index[camera] + 1] for camera in coming)
            continue
        camera = min(waiting, key=lambda camera: (last_turn[camera], camera))
        available_ns = now_ns + next(latencies_ns)
        turns.append(Turn(camera=camera, index=newest[camera], begun_ns=now_ns, available_ns=available_ns))
        last_index[camera], last_turn[camera] = newest[camera], len(turns)
        coming = [one for one in coming if last_index[one] + 1 < len(stamps_ns[one])]
        now_ns = available_ns
    return turns
