"""What all of COCO's files have in common: JSON, with lists of entries whose keys mean the same everywhere."""

import json
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from memwarp_core.errors import DataError


def read_json(file: Path) -> Any:
    """The content of a file. Raises: DataError if it cannot be read as JSON."""
    try:
        return json.loads(file.read_bytes())
    except OSError as err:
        raise DataError(f"{file}: expected a JSON file, got none that can be read ({err.strerror}).") from err
    except (ValueError, RecursionError) as err:
        raise DataError(f"{file}: expected JSON, got something else ({err}).") from err


def require_keys(entries: object, keys: Sequence[str], where: str) -> None:
    """Check that `entries` is a list of JSON objects that have all the keys.

    Args:
        where: the file and the name of the list, for the message.
    Raises: DataError that names the first entry, counted from 0, that does not.
    """
    if not isinstance(entries, list):
        raise DataError(f"{where}: expected a list, got {brief(entries)}.")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{where}[{position}]: expected an object with {', '.join(keys)}, got {brief(entry)}.")
        missing = [key for key in keys if key not in entry]
        if missing:
            raise DataError(f"{where}[{position}] lacks {', '.join(missing)}.")


def _is_integer(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_from_0_up(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


_INTEGER = (_is_integer, "an integer of 64 bits")
_NANOSECONDS = (_is_integer, "an integer of 64 bits, in nanoseconds")
_NUMBER_FROM_0_UP = (_is_from_0_up, "a finite number from 0 up")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("id", "image_id", "category_id", "video_id", "frame_id", "instance_id"), _INTEGER),
    **dict.fromkeys(("stamp_ns", "available_ns"), _NANOSECONDS),
    **dict.fromkeys(("score", "area"), _NUMBER_FROM_0_UP),
    "bbox": (_is_box, "four finite numbers, x, y, width and height, the last two not negative"),
    "name": (lambda value: isinstance(value, str), "a text"),
    "iscrowd": (lambda value: value in (0, 1), "0 or 1"),
}


def check_values(entries: Sequence[Mapping[str, Any]], keys: Sequence[str], where: str) -> None:
    """Refuse values that break the rule of their key. What is not there is not checked."""
    for position, entry in enumerate(entries):
        for key in keys:
            holds, expected = _RULES[key]
            if key in entry and not holds(entry[key]):
                raise DataError(f"{where}[{position}]: {key} must be {expected}, got {brief(entry[key])}.")


def check_unique(entries: Sequence[Mapping[str, Any]], keys: Sequence[str], where: str) -> None:
    """Refuse two entries that are the same in all of the keys."""
    first: dict[tuple[Any, ...], int] = {}
    for position, entry in enumerate(entries):
        values = tuple(entry[key] for key in keys)
        if first.setdefault(values, position) != position:
            said = " and ".join(f"{key} {value!r}" for key, value in zip(keys, values, strict=True))
            raise DataError(
                f"{where}[{position}]: expected what no other entry has, got {said}, as in [{first[values]}]."
            )


def check_references(entries: Sequence[Mapping[str, Any]], owners: Mapping[str, Container[int]], where: str) -> None:
    """Refuse entries that belong to something that the ground truth does not have."""
    for position, entry in enumerate(entries):
        for key, known in owners.items():
            if entry[key] not in known:
                raise DataError(f"{where}[{position}]: {key} must be one of the ground truth's, got {entry[key]}.")
