"""The soak run: a short one with the real node, and that it fails where something does not stay as it was."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memwarp_ros.soak import PASSING, Answer, Counts, summarize


@pytest.mark.slow
def test_node_stays_as_it_was_through_a_short_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "memwarp_ros.soak", "--minutes", "0", "--output", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    log = tmp_path / "logs" / "node.log"
    assert (tmp_path / "soak.json").exists(), run.stdout + run.stderr + (log.read_text() if log.exists() else "")
    summary = json.loads((tmp_path / "soak.json").read_text())
    assert list(summary["checks"]) == list(PASSING)
    # How fast it is depends on what else this machine does.
    assert {*failed(summary)} <= {name for name in PASSING if name.endswith("ms")}, run.stdout
    assert run.returncode == (0 if summary["passed"] else 1)
    assert summary["images"]["processed"] > 20
    assert sorted(summary["services"]) == ["change_state", "enable", "get_state", "reset"]


def summary_of(**changes: Any) -> dict[str, Any]:
    """Of a run in which all was well but for the changes."""
    answers = [Answer(index=index, age_ms=80.0, is_right=True) for index in range(1000)]
    parts = {
        "answers": answers,
        "memory_mib": [900.0] * 100,
        "before": Counts(answers=2, processed=2, refused=0, restarts=0),
        "after": Counts(answers=1002, processed=1002, refused=9, restarts=7),
        "response_ms": {"reset": [3.0, 12.0]},
        "transitions_missed": 0,
        "came_and_went": 9,
        "unheard": 0,
        "exit_status": 0,
        **changes,
    }
    return summarize(**parts)


def failed(summary: dict[str, Any]) -> list[str]:
    assert summary["passed"] == all(check["passed"] for check in summary["checks"].values())
    return [name for name, check in summary["checks"].items() if not check["passed"]]


def test_run_in_which_all_was_well_passes() -> None:
    assert failed(summary_of()) == []


LATER = [Answer(index=index, age_ms=80.0 + index / 10, is_right=True) for index in range(1000)]
DISORDERED = [replace(answer, is_right=answer.index != 500) for answer in LATER[:600]]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"memory_mib": [900 + 0.5 * second for second in range(100)]}, "growth of the memory, MiB"),
        ({"answers": LATER}, "growth of the median age, ms"),
        ({"answers": DISORDERED}, "answers out of order or under another header"),
        ({"after": Counts(answers=1001, processed=1002, refused=9, restarts=7)}, "answers lost"),
        ({"after": Counts(answers=1002, processed=1002, refused=0, restarts=7)}, "disturbances that never came"),
        ({"response_ms": {"reset": [3.0, 1200.0]}}, "longest response of a service, ms"),
        ({"transitions_missed": 1}, "transitions missed"),
        ({"unheard": 1}, "subscribers that heard nothing"),
        ({"exit_status": -9}, "exit status"),
    ],
)
def test_what_did_not_stay_as_it_was_is_named(changes: dict[str, Any], name: str) -> None:
    assert failed(summary_of(**changes)) == [name]
