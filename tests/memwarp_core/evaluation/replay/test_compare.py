from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from memwarp_core.errors import ConfigError, DataError
from memwarp_core.evaluation.replay import replay as replaying
from memwarp_core.evaluation.replay.compare import compare, print_comparison
from memwarp_core.evaluation.replay.replay import ReplayConfig, replay


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, write_bag: Callable[..., Path], use_detector: Callable[..., object]
) -> Path:
    """The same bags, replayed with little and with much latency."""
    folder = tmp_path_factory.mktemp("reports")
    bags = [write_bag(folder / name, 25) for name in ("a", "b")]
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_detector(monkeypatch)
        monkeypatch.setattr(replaying, "write_page", lambda *_: None)
        for name, latency in (("fast", "20ms"), ("slow", "300ms")):
            replay(bags, ReplayConfig(latency=latency, horizons_s=()), folder / name)
    return folder


def test_what_comes_later_is_worse_and_that_is_no_chance(reports: Path) -> None:
    report = compare(str(reports / "slow"), str(reports / "fast"), samples=200)
    assert (report["cameras"], report["units"], report["unit"]) == (2, 4, "2 s of a bag")
    found = report["streams"]["detections"]["all"]
    assert found["second"] > found["first"]
    assert found["difference"] == pytest.approx(found["second"] - found["first"])
    assert 0 < found["low"] <= found["difference"] <= found["high"]


def test_a_replay_does_not_differ_from_itself(reports: Path) -> None:
    streams = compare(str(reports / "slow"), str(reports / "slow"), samples=50)["streams"]
    assert set(streams) == {"detections", "detections_now", "baseline"}
    assert {found["low"] for by_speed in streams.values() for found in by_speed.values() if found} == {0}


def test_two_streams_of_one_replay_are_compared(reports: Path) -> None:
    first, second = f"{reports / 'slow'}:baseline", f"{reports / 'slow'}:detections_now"
    report = compare(first, second, samples=50)
    assert list(report["streams"]) == ["baseline, detections_now"]
    with (console := Console(width=100)).capture() as printed:
        print_comparison(report, first, second, console)
    assert "B is better" in printed.get()


@pytest.mark.usefixtures("detector", "no_page")
def test_what_cannot_be_compared_is_said(reports: Path, write_bag: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="expected the output folder of `memwarp replay`"):
        compare(str(reports / "slow"), str(reports / "a"))
    with pytest.raises(ConfigError, match="detections_now or baseline after the colon, got 'tracks'"):
        compare(f"{reports / 'slow'}:tracks", str(reports / "fast"))
    replay([write_bag(reports / "c")], ReplayConfig(latency="20ms", baseline=None, horizons_s=()), reports / "other")
    with pytest.raises(DataError, match="no bag with the same reference in common"):
        compare(str(reports / "slow"), str(reports / "other"))
    with pytest.raises(ConfigError, match="a replay with the stream baseline, got detections, detections_now"):
        compare(f"{reports / 'other'}:baseline", str(reports / "other"))
