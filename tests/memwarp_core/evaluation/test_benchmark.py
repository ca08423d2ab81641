"""What the benchmark counts and compares; how long anything takes is not tested."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from memwarp_core.cli import app
from memwarp_core.errors import DataError
from memwarp_core.evaluation.benchmark import Runs, moving_images, random_detector
from memwarp_core.evaluation.benchmark_parts import PartMeter, Roof, measure_roof
from memwarp_core.evaluation.benchmark_report import compare_reports, read_report, run_benchmark, write_report
from memwarp_core.models.systems import find_system
from memwarp_core.streaming import VideoDetector

SIZE = (64, 96)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run_benchmark(["rfcn-tiny", "clocknet-tiny"], SIZE, 1, Runs("cpu"), "memnet-tiny-6", stream_frames=10)


def steps(detector: VideoDetector, count: int) -> None:
    state = detector.start()
    for _, (image, stamp_ns) in zip(range(count), moving_images(SIZE), strict=False):
        _, state = detector.step(image, stamp_ns, state)


def test_work_of_parts_adds_up_and_is_that_of_their_layers() -> None:
    detector = random_detector(find_system("memnet-tiny-6").config, SIZE, Runs("cpu"))
    meter = PartMeter(detector)
    with meter.work() as one:
        steps(detector, 1)
    with meter.work() as two:
        steps(detector, 2)
    assert np.allclose(two["features"], 2 * one["features"])  # the second frame costs what the first did
    assert set(two) == {"transfer", "features", "displacement", "warp + aggregation", "head", "NMS"}
    assert two["displacement"][0] > one["displacement"][0]  # nothing to compare with in the first frame
    assert two["NMS"][0] == 0 and two["head"][0] > 0
    maps = detector.network.head.class_maps
    cells = (SIZE[0] // 8) * (SIZE[1] // 8)
    assert one["head"][0] > 2 * maps.weight.numel() * cells


def test_a_meter_changes_no_boxes_and_counts_only_when_asked() -> None:
    torch.manual_seed(0)
    image = next(moving_images(SIZE))[0]
    detector = random_detector(find_system("memnet-tiny-6").config, SIZE, Runs("cpu"))
    expected, _ = detector.step(image, 0, detector.start())
    meter = PartMeter(detector)
    with meter.milliseconds() as spent:
        metered, _ = detector.step(image, 0, detector.start())
    assert torch.equal(metered.boxes_xyxy, expected.boxes_xyxy)
    before = {name: value.copy() for name, value in spent.items()}
    assert all(value[0] >= 0 for value in before.values()) and before["features"][0] > 0
    steps(detector, 1)
    assert spent == before


def test_the_roof_counts_the_slower_of_computing_and_moving() -> None:
    roof = Roof(flops_per_s=1e9, bytes_per_s=1e8)
    assert roof.least_ms(1e7, 1e5) == pytest.approx(10)
    assert roof.least_ms(1e5, 1e7) == pytest.approx(100)
    measured = measure_roof(torch.device("cpu"), repetitions=1)
    assert measured.flops_per_s > 1e8 and measured.bytes_per_s > 1e7


def test_a_report_has_every_part_and_sweep(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path)
    assert read_report(tmp_path / "benchmark.json") == json.loads(json.dumps(report))
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    assert "| clocknet-tiny | displacement |" in (tmp_path / "benchmark.md").read_text()
    assert [system["name"] for system in report["systems"]] == ["rfcn-tiny", "clocknet-tiny"]
    assert report["systems"][0]["ratio"] == 1
    parts = [part["name"] for part in report["systems"][1]["parts"]]
    assert {"features", "displacement", "warp + aggregation", "head", "NMS", "transfer", "other"} == set(parts)
    assert [row["at"] for row in report["horizons"]] == ["step", 1, 2, 4, 8]
    assert [row["at"] for row in report["moved_proposals"]] == [1, 2, 4, 8]
    assert [row["at"] for row in report["moved_boxes"]] == [1, 2, 4, 8]
    assert [row["at"] for row in report["sizes"]] == ["48x32", "96x64", "192x128"]
    assert report["stream"][-1]["at"] == 10 and report["peak_memory_bytes"] > 10e6


def test_comparing_says_which_differences_are_clear(report: dict[str, Any]) -> None:
    slower = copy.deepcopy(report)
    for system in slower["systems"]:
        system["spread_ms"] = 1.0
    slower["systems"][1]["median_ms"] += 1000
    (first, *_, first_clear), (second, before, now, second_clear) = compare_reports(report, slower)
    assert (first, first_clear) == ("rfcn-tiny", False)
    assert (second, second_clear) == ("clocknet-tiny", True) and now - before == pytest.approx(1000)
    slower["environment"]["threads"] += 1
    with pytest.raises(DataError, match="threads"):
        compare_reports(report, slower)


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"systems": []}')
    for name in ("old.json", "nothing.json"):
        with pytest.raises(DataError, match=r"benchmark\.json of"):
            read_report(tmp_path / name)
    arguments = ["bench", "systems", "--output", str(tmp_path), "--compare", str(tmp_path / "old.json")]
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert CliRunner().invoke(app, ["bench", "systems", "--compare", "x.json"]).exit_code == 2
