import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from math import atan, degrees, radians, tan
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

MS = 1_000_000


@pytest.fixture(scope="module")
def follow() -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "examples" / "follow_object.py"
    spec = spec_from_file_location("follow_object", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "follow_object", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def detection(name: str, x: float, size: float, track_id: str = "", score: float = 0.9) -> Any:
    """As a vision_msgs/Detection2D has it."""
    return SimpleNamespace(
        id=track_id,
        results=[SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score))],
        bbox=SimpleNamespace(center=SimpleNamespace(position=SimpleNamespace(x=x, y=50.0)), size_x=size, size_y=size),
    )


def array(stamp_ms: int, *detections: Any) -> Any:
    stamp = SimpleNamespace(sec=stamp_ms // 1000, nanosec=stamp_ms % 1000 * MS)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), detections=list(detections))


def test_the_largest_object_of_the_class_is_followed(follow: ModuleType) -> None:
    near, far, other = detection("rover", 10, 40), detection("rover", 90, 20), detection("ball", 50, 80)
    unsure = detection("rover", 200, 90, score=0.3)
    assert follow.choose([unsure, far, near, other], "rover") is near
    assert follow.choose([other], "rover") is None
    assert follow.choose([], "rover") is None


def test_an_object_that_has_an_id_is_not_exchanged_for_a_larger_one(follow: ModuleType) -> None:
    mine, larger = detection("rover", 10, 20, "7"), detection("rover", 90, 60, "8")
    assert follow.choose([larger, mine], "rover", "7") is mine
    assert follow.choose([larger], "rover", "7") is None


def test_sights_follow_one_object_through_the_horizons(follow: ModuleType) -> None:
    first, second = (
        array(1050, detection("rover", 10, 30, "7")),
        array(1100, detection("rover", 99, 60, "8"), detection("rover", 20, 30, "7")),
    )
    sights, track_id = follow.sights_of([first, array(1075), second], "rover")
    assert [(one.stamp_ns, one.x) for one in sights] == [(1050 * MS, 10), (1100 * MS, 20)]
    assert track_id == "7"


@pytest.mark.parametrize(("now_ms", "x"), [(900, 10), (1000, 10), (1025, 15), (1050, 20), (1100, 40), (9000, 40)])
def test_between_horizons_the_object_is_between_its_places(follow: ModuleType, now_ms: int, x: float) -> None:
    sights = [
        follow.Sight(stamp_ns=stamp_ms * MS, x=place, y=0.0) for stamp_ms, place in ((1000, 10), (1050, 20), (1100, 40))
    ]
    assert follow.sight_at(sights, now_ms * MS).x == pytest.approx(x)


def test_pan_is_to_the_left_and_tilt_is_up(follow: ModuleType) -> None:
    camera = follow.Camera.from_field_of_view(320, 192, 60.0)
    assert camera.pan_tilt(follow.Sight(stamp_ns=0, x=160, y=96)) == (0, 0)
    assert degrees(camera.pan_tilt(follow.Sight(stamp_ns=0, x=0, y=96))[0]) == pytest.approx(30)
    assert degrees(camera.pan_tilt(follow.Sight(stamp_ns=0, x=320, y=96))[0]) == pytest.approx(-30)
    focal = 160 / tan(radians(30))
    assert camera.pan_tilt(follow.Sight(stamp_ns=0, x=160, y=0))[1] == pytest.approx(atan(96 / focal))
