from pathlib import Path

import pytest
import torch

from memwarp_core.evaluation.reproduction.reproduce import Size, reproduce
from memwarp_core.models.config import CorrelationConfig
from memwarp_core.models.systems import find_system
from memwarp_core.models.zoo import build_detector, save_weights

SIZE = Size(clips=2, frames=6, samples=5)


@pytest.mark.slow
def test_a_report_comes_of_weights_alone_and_a_second_start_finds_everything_done(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = find_system("rfcn-tiny").config.model_copy(update={"displacement": CorrelationConfig()})
    save_weights(build_detector(config), tmp_path / "weights" / "rfcn-tiny.safetensors")

    def start() -> str:
        report = reproduce(tmp_path / "out", tmp_path / "docs", SIZE, weights=tmp_path / "weights", device="cpu")
        return report.read_text()

    first = start()
    assert "| FGFA | 76.2 / not trained |" in first
    assert {path.name for path in (tmp_path / "docs" / "reproduction").iterdir()} == {"film.png", "tradeoff.png"}
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert len(kept) == SIZE.clips
    again = start()
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert again == first
