"""Runs that are killed, in processes of their own."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

RECIPE = """
detector: {name: small, class_names: [square, bar], short_side: 48}
stages:
  - {name: frames, trains: frames, epochs: 4, steps_per_epoch: 4, batch_size: 2, warmup_steps: 3}
  - {name: memory, trains: memory, epochs: 4, steps_per_epoch: 4, batch_size: 2, frames: 3, evidence_dropping: 0.5}
log_every_steps: 1
"""
STEPS_PER_EPOCH = 4


def start(recipe: Path, data: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "memwarp_core.cli", "train", str(recipe), "--data", str(data), "-o", str(output)]
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def logged(log: Path) -> dict[int, dict[str, str]]:
    """What was logged of each step; a line that is not whole yet is left out."""
    steps: dict[int, dict[str, str]] = {}
    if log.is_file():
        for row in csv.DictReader(log.read_text().splitlines()):
            values = {key: value for key, value in row.items() if value and key not in (None, "step", "epoch")}
            if row["step"] and "loss" in values:
                steps[int(row["step"])] = values
    return steps


def kill_within_an_epoch(process: subprocess.Popen[bytes], stage: Path) -> None:
    """SIGKILL, one step or more behind a checkpoint."""
    while True:
        assert process.poll() is None, process.communicate()[1].decode()
        steps = [step for log in stage.glob("version_*/metrics.csv") for step in logged(log)]
        if (stage / "last.ckpt").is_file() and steps and max(steps) > STEPS_PER_EPOCH:
            break
        time.sleep(0.01)
    process.kill()
    process.communicate()


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    finish(start(recipe, data, unbroken))
    for stage in ("frames", "memory"):
        kill_within_an_epoch(start(recipe, data, killed), killed / stage)
    finish(start(recipe, data, killed))

    for stage in ("frames", "memory"):
        expected = logged(unbroken / stage / "version_0" / "metrics.csv")
        assert sorted(expected) == list(range(4 * STEPS_PER_EPOCH))
        starts = [logged(killed / stage / f"version_{number}" / "metrics.csv") for number in (0, 1)]
        assert 0 in starts[0] and min(starts[1]) % STEPS_PER_EPOCH == 0 and max(starts[1]) == max(expected)
        assert min(starts[1]) <= max(starts[0])
        for steps in starts:
            assert steps == {step: expected[step] for step in steps}
        weights, again = (load_file(run / f"{stage}.safetensors") for run in (unbroken, killed))
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[key], again[key]) for key in weights)
