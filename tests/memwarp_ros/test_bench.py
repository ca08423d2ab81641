"""The benchmark of the node's own cost runs through with few images; its figures are not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memwarp_ros.bench import COUNTS, SIZES, WAYS

pytestmark = pytest.mark.slow


def test_bench_leaves_a_figure_for_every_size_and_way(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "memwarp_ros.bench", "--frames", "3", "--output", str(output)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    results = json.loads(output.read_text())
    assert list(results) == [f"{width}x{height}" for width, height in SIZES]
    for size, by_way in results.items():
        assert f"{size}: latency p95" in printed
        assert sorted(by_way) == sorted(WAYS)
        for figures in by_way.values():
            assert figures["latency_ms"]["p95"] >= figures["latency_ms"]["p50"] > 0
            assert figures["cpu_ms"] > 0
            assert list(figures["publish_ms"]) == [str(count) for count in COUNTS]
