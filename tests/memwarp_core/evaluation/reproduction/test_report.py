from pathlib import Path

import numpy as np
import yaml

from memwarp_core.data.simulation.config import SimulationConfig
from memwarp_core.evaluation.reproduction.claims import findings
from memwarp_core.evaluation.reproduction.measure import Figures, Measured
from memwarp_core.evaluation.reproduction.report import IMAGENET_VID, write_report
from memwarp_core.evaluation.reproduction.rows import rows
from memwarp_core.training.config import read_training_config


def measured(**map50: float) -> Measured:
    figures = {
        system.replace("_", "-"): Figures(
            map=dict.fromkeys(("all", "slow", "medium", "fast"), np.full(4, value)),
            ms=np.full(4, 40.0),
            ap={"ball": value, "crate": None},
        )
        for system, value in map50.items()
    }
    return Measured(clips=(), truths=(), runs={}, figures=figures, samples=3, device="2 CPU threads")


def written(folder: Path, clips: int = 40, **map50: float) -> str:
    of = measured(**map50)
    write_report(folder / "report.md", of, findings(of.figures), SimulationConfig(clips=clips), figures="figures")
    return (folder / "report.md").read_text()


def test_the_papers_numbers_stand_beside_ours(tmp_path: Path) -> None:
    report = written(tmp_path, rfcn_tiny=80.0, memnet_tiny_6=85.0)
    assert "| MemNet-6 | 75.1 / 85.0 [85.0, 85.0] | 53.8 / 85.0 [85.0, 85.0] |" in report
    assert "| MemNet improves over the per-frame detector | 5.1 | +1.7 | +5.0 [+5.0, +5.0] | **holds** |" in report
    assert "| R-FCN | 73.6 | 80.0 | 80.0 | – |" in report


def test_rows_without_weights_are_not_trained_and_hold_no_number_of_ours(tmp_path: Path) -> None:
    report = written(tmp_path)
    assert report.count("/ not trained") > len(rows())
    assert "**holds**" not in report
    assert "![" not in report


def test_a_report_on_few_clips_says_that_it_proves_nothing(tmp_path: Path) -> None:
    assert "clips are too few" not in written(tmp_path)
    assert "**4 clips are too few" in written(tmp_path, clips=4)


def test_figures_are_shown_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "film.png").write_bytes(b"")
    assert "(figures/film.png)" in written(tmp_path)


def test_the_recipe_for_imagenet_vid_is_the_papers(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(IMAGENET_VID.split("```yaml\n")[1].split("```")[0])
    config = read_training_config(recipe)
    assert yaml.safe_load(recipe.read_text())["detector"] == config.detector.name == "memnet-101-6"
    (stage,) = config.stages
    assert (stage.frames, stage.learning_rate, stage.evidence_dropping) == (6, 1e-3, 0.8)
