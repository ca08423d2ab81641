import re
from collections.abc import Callable
from pathlib import Path

import pytest

from memwarp_core.evaluation.replay.kept import read_results
from memwarp_core.evaluation.replay.page import worst_instants
from memwarp_core.evaluation.replay.replay import PAGE_FILE, RUNS_FOLDER, ReplayConfig, replay

pytestmark = pytest.mark.usefixtures("detector")
WriteBag = Callable[..., Path]


def test_the_page_has_everything_in_itself(tmp_path: Path, write_bag: WriteBag) -> None:
    replay([write_bag(tmp_path / "walk <b>", 12)], ReplayConfig(latency="250ms"), tmp_path / "out")
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', page)
    assert len(sources) == 4 and all(source.startswith("data:image/") for source in sources)
    assert "http" not in page and "<script" not in page
    assert "Accuracy at each instant" in page and "Where detections_now is furthest off" in page
    assert "walk &lt;b&gt;" in page and "walk <b>" not in page


def test_a_pseudo_reference_is_no_accuracy_on_the_page(tmp_path: Path, write_bag: WriteBag) -> None:
    bag = write_bag(tmp_path / "walk", truth_offset_ns=None)
    replay([bag], ReplayConfig(latency="100ms", pseudo="self", horizons_s=()), tmp_path / "out")
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    assert "Agreement at each instant" in page and "not who is right" in page
    assert "accuracy" not in re.sub("this is no accuracy", "", page.lower())


def test_what_failed_and_what_is_partial_is_on_the_page(tmp_path: Path, write_bag: WriteBag) -> None:
    bags = [write_bag(tmp_path / "good", truth_offset_ns=30_000_000), tmp_path / "missing.mcap"]
    replay(bags, ReplayConfig(mode="offline", horizons_s=()), tmp_path / "out")
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    assert "<b>missing</b> could not be used" in page
    assert "<b>good</b>: ground truth of 8 of 8 stamps is over 1 ms beside" in page


@pytest.mark.usefixtures("no_page")
def test_the_worst_instants_have_the_most_mistakes_and_are_apart(tmp_path: Path, write_bag: WriteBag) -> None:
    replay([write_bag(tmp_path / "walk", 30)], ReplayConfig(latency="350ms", horizons_s=()), tmp_path / "out")
    (file,) = (tmp_path / "out" / RUNS_FOLDER).iterdir()
    results = read_results(file)
    worst = worst_instants(results, "detections")
    assert [one.mistakes for one in worst] == sorted((one.mistakes for one in worst), reverse=True)
    assert worst[0].mistakes == 2  # the object is missed, and the box is on none
    instants = sorted(one.instant for one in worst)
    assert all(after - before > 10 for before, after in zip(instants, instants[1:], strict=False))
