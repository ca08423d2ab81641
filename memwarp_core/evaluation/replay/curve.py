"""What several replays of the same bags say about slower and faster computers, as one plot.

python -m memwarp_core.evaluation.replay.curve out/replay-1 out/replay-2 out/replay-4 --output replay.png
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure

from memwarp_core.data.coco_json import read_json
from memwarp_core.errors import DataError
from memwarp_core.evaluation.plots import INK, dress
from memwarp_core.evaluation.replay.page import COLORS
from memwarp_core.evaluation.replay.replay import REPORT_FILE
from memwarp_core.evaluation.replay.scoring import DETECTIONS, NOW
from memwarp_core.evaluation.replay.tables import stream_name
from memwarp_core.files import write_whole


def save_curve(file: Path, reports: Sequence[Mapping[str, Any]]) -> None:
    """Write streaming AP by the mean time that processing takes.

    Raises: DataError if a replay took no time or has no reference.
    """
    if not reports or any("streaming" not in report["all"] for report in reports):
        raise DataError("expected replays in simulated time with a reference, got others; see docs/replay.md.")
    reports = sorted(reports, key=lambda report: report["all"]["processing_ms"]["mean"])
    ms = [report["all"]["processing_ms"]["mean"] for report in reports]
    figure = Figure(figsize=(10.4, 3.8), dpi=110, layout="constrained", facecolor="white")
    panels = {
        "streaming AP, in percent": lambda score: score["map"],
        "... at an IoU of 0.5": lambda score: score["map50"],
        "... of fast objects": lambda score: score["vid"]["fast"],
    }
    for axes, (title, figure_of) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for stream, color in COLORS.items():
            scores = [report["all"]["streaming"].get(stream) for report in reports]
            values = [np.nan if score is None else 100 * (figure_of(score) or np.nan) for score in scores]
            name = stream_name(stream, reports[0]["config"]) if scores[0] else None
            axes.plot(ms, values, "o-", color=color, label=name)
            if stream == DETECTIONS:  # its numbers would cover those of the baseline
                continue
            above = 6 if stream == NOW else -14
            for at, value in zip(ms, values, strict=True):
                where = {"xytext": (0, above), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"{value:.0f}", (at, value), color=color, fontsize=8, **where)
        axes.set_ylim(0, 105)
        axes.margins(x=0.12)
        axes.set_xlabel("ms per image", color=INK)
        dress(axes, title)
        axes.title.set_fontsize(11)
    axes.legend(loc="upper right", frameon=False, fontsize=9)
    write_whole(file, figure.savefig)


def main(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of `memwarp replay`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .png file.")] = Path("out/replay.png"),
) -> None:
    save_curve(output, [read_json(folder / REPORT_FILE) for folder in folders])


if __name__ == "__main__":
    typer.run(main)
