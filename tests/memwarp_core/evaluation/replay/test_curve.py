from collections.abc import Callable
from pathlib import Path

import pytest

from memwarp_core.data.video import VideoClip
from memwarp_core.errors import DataError
from memwarp_core.evaluation.replay.curve import save_curve
from memwarp_core.evaluation.replay.replay import ReplayConfig, replay

pytestmark = pytest.mark.usefixtures("detector", "no_page")


def test_replays_of_several_latencies_are_one_plot(tmp_path: Path, write_bag: Callable[..., Path]) -> None:
    bag = write_bag(tmp_path / "walk")
    reports = [
        replay([bag], ReplayConfig(latency=latency, horizons_s=()), tmp_path / latency) for latency in ("250ms", "50ms")
    ]
    save_curve(tmp_path / "plots" / "curve.png", reports)
    assert VideoClip(tmp_path / "plots")[0].image.std() > 5
    offline = replay([bag], ReplayConfig(mode="offline", horizons_s=()), tmp_path / "offline")
    with pytest.raises(DataError, match="expected replays in simulated time with a reference"):
        save_curve(tmp_path / "curve.png", [*reports, offline])
