"""The whole way from weights to the report; what is done is kept, so that an interrupted run goes on."""

from dataclasses import dataclass
from pathlib import Path

from memwarp_core.data.simulation import simulate
from memwarp_core.data.simulation.config import SimulationConfig
from memwarp_core.evaluation.reproduction.claims import findings
from memwarp_core.evaluation.reproduction.draw import draw_all
from memwarp_core.evaluation.reproduction.measure import measure
from memwarp_core.evaluation.reproduction.report import write_report
from memwarp_core.models.zoo import WEIGHTS_FOLDER

REPORT_FILE = "reproduction.md"
FIGURES_FOLDER = "reproduction"
"""Beside the report."""
SEED = 31
"""Of the clips, on which nothing was trained or chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is run."""

    clips: int
    frames: int
    """In each clip."""
    samples: int
    """Of the bootstrap."""


DEFAULT = Size(clips=36, frames=24, samples=1000)
"""At most an hour on two CPU cores."""
QUICK = Size(clips=4, frames=16, samples=200)
"""At most five minutes."""


def reproduce(
    output: Path, report: Path, size: Size = DEFAULT, *, weights: Path = WEIGHTS_FOLDER, device: str = "auto"
) -> Path:
    """Run every row whose weights are there over held-out clips, and write the report with its figures.

    Args:
        output: folder for the clips and for the detections of each row and clip; what is there already is used.
        report: folder for the report, and for the folder of its figures.
        weights: folder of the models, as <name>.safetensors.
    Returns: the report's file.
    Raises:
        ConfigError: a model in the folder is not the one that its row is about.
        DataError: the clips cannot be rendered.
    """
    simulation = SimulationConfig(
        clips=size.clips, frames=size.frames, seed=SEED, degraded_fraction=0.5, fault_strength=3.0
    )
    data = output / f"clips-{size.clips}x{size.frames}"
    simulate(simulation, data)
    measured = measure(data, weights=weights, kept=output / "runs", samples=size.samples, device=device)
    draw_all(report / FIGURES_FOLDER, measured, weights=weights, device=device)
    path = report / REPORT_FILE
    write_report(path, measured, findings(measured.figures), simulation, figures=FIGURES_FOLDER)
    return path
