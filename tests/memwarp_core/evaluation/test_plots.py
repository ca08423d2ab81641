"""The overview figure is written whole, with and without scores."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.evaluation.plots import HorizonScores, save_overview

SCORES = HorizonScores(horizons_s=[0.0, 0.1, 0.4], map50=[0.8, 0.7, None], map50_nothing_moved=[None, 0.5, None])


@pytest.mark.parametrize(("scores", "images", "latencies_ms"), [(SCORES, 6, [20.0, 25.0, 90.0]), (None, 2, [])])
def test_overview_is_a_png(
    tmp_path: Path, scores: HorizonScores | None, images: int, latencies_ms: list[float]
) -> None:
    strip = [np.full((96, 160, 3), 40 * index, np.uint8) for index in range(images)]
    save_overview(
        tmp_path / "overview.png",
        title="a run",
        note="solid: now",
        strip=strip,
        captions=[f"{index} s" for index in range(images)],
        latencies_ms=latencies_ms,
        scores=scores,
    )
    assert [file.name for file in tmp_path.iterdir()] == ["overview.png"]
    height, width, _ = cv2.imread(str(tmp_path / "overview.png")).shape
    assert width == 1400 and height > 600
