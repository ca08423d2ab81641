"""Training in two processes on one machine, with gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

# As `memwarp train`, but every process also writes down what it saw and what it ended with.
PROGRAM = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from memwarp_core import cli
from memwarp_core.training.module import StageModule

step, end = StageModule.training_step, StageModule.on_train_end
seen = []

def training_step(self, batch, index):
    seen.append(batch.images.clone())
    return step(self, batch, index)

def on_train_end(self):
    folder = Path(self.trainer.default_root_dir)
    save_file({"images": torch.stack(seen)}, folder / f"seen-{self.global_rank}.safetensors")
    weights = {key: value.clone() for key, value in self.detector.named_parameters()}
    save_file(weights, folder / f"weights-{self.global_rank}.safetensors")
    seen.clear()

StageModule.training_step, StageModule.on_train_end = training_step, on_train_end
if __name__ == "__main__":
    cli.main()
"""
RECIPE = """
detector: {name: small, class_names: [square, bar], short_side: 48}
stages:
  - {name: frames, trains: frames, epochs: 2, steps_per_epoch: 2, batch_size: 2}
  - {name: memory, trains: memory, epochs: 1, steps_per_epoch: 3, batch_size: 1, frames: 3, evidence_dropping: 0.8}
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["devices", "torchrun"])
def test_two_processes_see_different_sequences_and_learn_the_same(data: Path, tmp_path: Path, launcher: str) -> None:
    program, recipe = tmp_path / "train.py", tmp_path / "small.yaml"
    program.write_text(PROGRAM)
    recipe.write_text(RECIPE)
    arguments = ["train", str(recipe), "--data", str(data), "-o", str(tmp_path / "run")]
    arguments += ["--validation", str(data), "--devices", "2"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.run(
        [sys.executable, *(torchrun if launcher == "torchrun" else []), str(program), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, started.stderr
    for stage, batches in (("frames", 4), ("memory", 3)):
        folder = tmp_path / "run" / stage
        seen = [load_file(folder / f"seen-{rank}.safetensors")["images"] for rank in (0, 1)]
        assert len(seen[0]) == batches and not torch.equal(*seen)
        weights = [load_file(folder / f"weights-{rank}.safetensors") for rank in (0, 1)]
        final = load_file(tmp_path / "run" / f"{stage}.safetensors")
        for key, value in weights[0].items():
            assert torch.equal(value, weights[1][key]) and torch.equal(value, final[key])
