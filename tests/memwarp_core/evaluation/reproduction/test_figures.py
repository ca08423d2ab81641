from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memwarp_core.evaluation.reproduction.bootstrap import Interval
from memwarp_core.evaluation.reproduction.figures import (
    Point,
    fastest_pairs,
    most_faults,
    paint_displacement,
    save_curves,
    save_tradeoff,
)
from memwarp_core.types import Frame


def frame(degradation: str = "none", x: float = 0.0, objects: int = 1) -> Frame:
    return Frame(
        image=np.zeros((0, 0, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=np.array([[x, 0, x + 10, 10]] * objects, np.float32).reshape(-1, 4),
        labels=np.zeros(objects, np.int64),
        track_ids=np.arange(objects),
        degradation=degradation,
    )


def test_opposite_motions_have_complementary_colours_and_none_is_white() -> None:
    right, left, still = paint_displacement(np.array([[[5.0, 0.0], [-5.0, 0.0], [0.0, 0.0]]]), 5.0)[0]
    assert right == pytest.approx([0.98, 0, 0])
    assert left == pytest.approx([0, 0.98, 0.98])
    assert still == pytest.approx([0.98] * 3)


def test_the_strip_shows_most_faults_after_a_clean_frame() -> None:
    clips = [
        [frame(), frame(), frame("noise"), frame("noise")],
        [frame("noise"), frame("noise"), frame("noise"), frame()],
    ]
    assert most_faults(clips, 3) == (0, 1)
    with pytest.raises(ValueError):
        most_faults(clips, 5)


def test_the_fastest_pair_of_each_clip_comes_from_clean_frames() -> None:
    clips = [
        [frame(x=0), frame(x=3), frame(x=4)],
        [frame(x=0), frame("noise", x=50), frame(x=51), frame(x=60)],
        [frame("noise"), frame()],
    ]
    assert fastest_pairs(clips, 5) == [(1, 3), (0, 1)]


def test_plots_are_written_whole(tmp_path: Path) -> None:
    point = Point(label="MemNet", map=Interval(value=80, low=75, high=84), ms=50, paper_map=75.1, paper_ms=122)
    save_tradeoff(tmp_path / "tradeoff.png", [point])
    save_curves(tmp_path / "curves.png", {"MemNet": [80, 70, float("nan")]}, {"MemNet": {0: 75.1, 4: 68.9, 8: 56.1}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "tradeoff.png"]
    assert Image.open(tmp_path / "tradeoff.png").size[0] > 1000
