"""The benchmark of the node's own cost runs through with few images; its figures are not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memwarp_ros.bench import COUNTS, TOPICS, WAYS

pytestmark = pytest.mark.slow


def test_bench_leaves_a_figure_for_every_transport_and_way(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "memwarp_ros.bench", "--frames", "3", "--size", "320x240", "--output", str(output)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    [(size, by_way)] = json.loads(output.read_text()).items()
    assert size == "320x240" and sorted(by_way) == sorted(WAYS)
    for figures in by_way.values():
        assert list(figures) == [*TOPICS, "publish_ms"]
        for transport in TOPICS:
            assert f"320x240 {transport}: latency p95" in printed
            assert figures[transport]["latency_ms"]["p95"] >= figures[transport]["latency_ms"]["p50"] > 0
            assert figures[transport]["latency_ms"]["p50"] > figures[transport]["callback_ms"]["p50"] > 0
            assert figures[transport]["cpu_ms"] > 0
        assert list(figures["publish_ms"]) == [str(count) for count in COUNTS]
