"""The `memwarp` command. Everything heavy is imported inside the commands, so that --help answers at once."""

import enum
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from typer.core import TyperGroup

from memwarp_core.big_buffers import keep_big_buffers
from memwarp_core.data.simulation.config import SimulationConfig
from memwarp_core.errors import ConfigError, DataError, MemwarpError

if TYPE_CHECKING:
    from memwarp_core.data.bags import BagWriter
    from memwarp_core.data.clips import Clip
    from memwarp_core.types import Detections, Frame

_OUTPUT = Console()
_ERRORS = Console(stderr=True)
_SIMULATION = SimulationConfig()
_DATA_SETS = (
    "A CocoVID folder, as `simulate` writes it; an ILSVRC folder; folders of images with YOLO labels; or bags with "
    "ground truth."
)
_SPLITS = ("all", "clean", "degraded")
"""Of frames; see evaluation/evaluate.py."""


class _Commands(TyperGroup):
    """Shows errors that a user can cause as one message; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MemwarpError as error:
            _ERRORS.print("[bold red]Error:[/]", end=" ")
            _ERRORS.print(str(error), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


class _BenchCommands(TyperGroup):
    """What is no command of its own belongs to `systems`: `memwarp bench rfcn` is `memwarp bench systems rfcn`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help"):
            args = ["systems", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Video object detection with a memory that moves with the scene: where objects are and will be.",
)

bench = typer.Typer(cls=_BenchCommands, help="Time systems of the paper (the default), a live pair, or the ROS 2 node.")
app.add_typer(bench, name="bench")


def main() -> None:
    """The installed command. Exit codes: 0, 1 for an error, 2 for wrong usage, 130 when interrupted."""
    keep_big_buffers()
    app()


class Save(str, enum.Enum):
    """What `memwarp detect` can write."""

    VIDEO = "video"
    JSON = "json"
    BAG = "bag"


class Backend(str, enum.Enum):
    """What `memwarp detect` can run a model with; see streaming/load.py."""

    TORCH = "torch"
    CUDA_GRAPH = "cuda_graph"
    COMPILED = "compiled"
    ONNX = "onnx"
    TENSORRT = "tensorrt"


class RunPrecision(str, enum.Enum):
    """What a model can compute in; see streaming/load.py."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class ExportPrecision(str, enum.Enum):
    """In which `memwarp export` lets convolutions compute; see export/half.py."""

    FP32 = "fp32"
    FP16 = "fp16"


class SimulatedFormat(str, enum.Enum):
    """What `memwarp simulate` can write; see SimulationConfig.format."""

    COCO_VID = "coco_vid"
    BAG = "bag"


class Metric(str, enum.Enum):
    """What `memwarp score` can measure; see evaluation/score.py."""

    VID = "vid"
    COCO = "coco"
    STREAMING = "streaming"


class ReplayMode(str, enum.Enum):
    """How `memwarp replay` lets time pass; see evaluation/replay."""

    SIMULATED = "simulated"
    OFFLINE = "offline"
    REALTIME = "realtime"


class SavedBag(str, enum.Enum):
    """What `memwarp replay` can write into a bag."""

    OUTPUTS = "outputs"
    ALL = "all"


class Overlap(str, enum.Enum):
    """IoU that a detection needs by ImageNet VID's evaluation."""

    ADAPTIVE = "adaptive"
    HALF = "0.5"


_SIMULATED_FORMAT = SimulatedFormat(_SIMULATION.format)


@app.command()
def detect(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A video file, a folder of images, or a ROS bag.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("out/detect"),
    model: Annotated[
        str,
        typer.Option(
            help="A name that `memwarp models` lists, or a .safetensors file; for onnx and tensorrt, a folder that "
            "`memwarp export` wrote."
        ),
    ] = "memnet-tiny",
    backend: Annotated[Backend, typer.Option(help="What runs the model; docs/export.md.")] = Backend.TORCH,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Boxes with a lower score are neither drawn nor written.")
    ] = 0.4,
    horizon: Annotated[
        list[float], typer.Option(min=0, help="Anticipate so many seconds ahead; repeat it for several.")
    ] = [0.05, 0.1, 0.2],  # noqa: B006 (typer copies it)
    save: Annotated[list[Save], typer.Option(help="What to write; repeat it for several.")] = [  # noqa: B006
        Save.VIDEO,
        Save.JSON,
    ],
    rate: Annotated[
        float | None,
        typer.Option(help="Frames per second of a folder of images (20 if not given), or instead of a video's."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="The image topic of a bag; needed where it has several.")] = None,
) -> None:
    """Detect objects in a video, a folder of images or a bag.

    Writes overlay.mp4 (current boxes solid; dashed, what was said earlier about the frame shown),
    detections.json and anticipated_h<N>ms.json (COCO results), and the folder bag (ROS 2, MCAP).
    """
    from memwarp_core import StaleFrameError, load_detector
    from memwarp_core.data.coco_results import write_coco_results
    from memwarp_core.data.open_clip import frame_rate_of, open_clip
    from memwarp_core.overlay import OverlayVideo

    horizons_s = sorted(set(horizon))
    clip = open_clip(source, rate, topic)
    detector = load_detector(model, device, backend=backend.value)
    horizon_names = [f"h{round(1e3 * horizon_s)}ms" for horizon_s in horizons_s]
    # As the node names them, so that what looks at its topics can look at the bag as well.
    bag_topics = ["/detector/detections", *(f"/detector/anticipated/{name}" for name in horizon_names)]
    current: list[Detections] = []
    anticipated: list[list[Detections]] = []
    with ExitStack() as stack:
        video = bag = None
        if Save.VIDEO in save:
            video = stack.enter_context(
                OverlayVideo(
                    output / "overlay.mp4",
                    frame_rate_hz=frame_rate_of(clip),
                    class_names=detector.class_names,
                    horizons_s=horizons_s,
                )
            )
        if Save.BAG in save:
            from memwarp_core.data.bags import BagWriter  # rosbags is needed for bags alone

            bag = stack.enter_context(BagWriter(output / "bag"))
            bag.write_label_info(detector.class_names, clip[0].stamp_ns, threshold=score, topic="/detector/label_info")
        state = detector.start()
        for frame in _with_progress(clip):
            try:
                found, state = detector.step(frame.image, frame.stamp_ns, state)
            except StaleFrameError:  # a recording that begins again
                found, state = detector.step(frame.image, frame.stamp_ns, detector.start())
            current.append(_above(found, score))
            anticipated.append([_above(later, score) for later in detector.anticipate(state, horizons_s)])
            if video is not None:
                video.add(frame.image, frame.stamp_ns, current[-1], anticipated[-1])
            if bag is not None:
                bag.write_compressed_image(frame.image, frame.stamp_ns)
                said = dict(zip(bag_topics, [current[-1], *anticipated[-1]], strict=True))
                _write_to_bag(bag, said, detector.class_names)

    if Save.JSON in save:
        ids = range(1, len(current) + 1)
        write_coco_results(output / "detections.json", ids, current, detector.class_names)
        for name, later in zip(horizon_names, zip(*anticipated, strict=True), strict=False):
            write_coco_results(output / f"anticipated_{name}.json", ids, later, detector.class_names)
    _OUTPUT.print(f"{len(current)} frames; results are in {output}", highlight=False)


@app.command()
def simulate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the data set.")],
    clips: Annotated[int, typer.Option(help="Number of clips.")] = _SIMULATION.clips,
    frames: Annotated[int, typer.Option(help="Frames in each clip.")] = _SIMULATION.frames,
    seed: Annotated[int, typer.Option(help="The same seed gives the same scenes.")] = _SIMULATION.seed,
    width: Annotated[int, typer.Option(help="Image width in pixels.")] = _SIMULATION.width,
    height: Annotated[int, typer.Option(help="Image height in pixels.")] = _SIMULATION.height,
    rate: Annotated[
        int, typer.Option(help="Frames per second: 5, 8, 10, 16, 20, 25, 30, 40 or 50.")
    ] = _SIMULATION.rate_hz,
    fov: Annotated[float, typer.Option(help="Horizontal field of view in degrees.")] = _SIMULATION.horizontal_fov_deg,
    degraded: Annotated[
        float, typer.Option(help="Share of frames with a sensor fault (blur, noise, dark, ...), in bursts.")
    ] = _SIMULATION.degraded_fraction,
    fault_strength: Annotated[
        float, typer.Option(help="The strongest sensor fault: 1 is moderate, 3 leaves next to nothing of some frames.")
    ] = _SIMULATION.fault_strength,
    min_visible: Annotated[
        float, typer.Option(help="An object gets a box if at least this share of it is seen.")
    ] = _SIMULATION.min_visible_fraction,
    min_box: Annotated[
        float, typer.Option(help="... and if its box has at least so many pixels each way.")
    ] = _SIMULATION.min_box_size,
    min_objects: Annotated[int, typer.Option(help="Fewest objects in a scene, 1 to 5.")] = _SIMULATION.min_objects,
    displacement: Annotated[
        bool, typer.Option("--displacement", help="Also write exact displacement fields (coco_vid only).")
    ] = _SIMULATION.displacement,
    jpeg_quality: Annotated[int, typer.Option(help="Quality of the images.")] = _SIMULATION.jpeg_quality,
    format: Annotated[
        SimulatedFormat, typer.Option(help="A CocoVID data set, or a ROS 2 bag (MCAP) per clip.")
    ] = _SIMULATED_FORMAT,
    raw: Annotated[bool, typer.Option("--raw", help="In bags: raw images instead of JPEG.")] = False,
    workers: Annotated[
        int, typer.Option(help="Processes that render in parallel; the result is the same with any number.")
    ] = _SIMULATION.workers,
) -> None:
    """Render a data set of moving objects with exact ground truth; an interrupted run is resumed."""
    config = SimulationConfig(
        clips=clips,
        frames=frames,
        seed=seed,
        width=width,
        height=height,
        rate_hz=rate,
        horizontal_fov_deg=fov,
        degraded_fraction=degraded,
        fault_strength=fault_strength,
        min_visible_fraction=min_visible,
        min_box_size=min_box,
        min_objects=min_objects,
        displacement=displacement,
        jpeg_quality=jpeg_quality,
        format=format.value,
        compressed=not raw,
        workers=workers,
    )
    from memwarp_core.data.simulation import simulate as render

    render(config, output)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A YAML file, a recipe that ships (memnet-tiny, ...), or a system that `memwarp models` lists."
        ),
    ],
    data: Annotated[Path, typer.Option(help=_DATA_SETS)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights, checkpoints and logs.")],
    validation: Annotated[
        Path | None, typer.Option(help="A data set that is scored now and then; never trained on.")
    ] = None,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes per machine, each with a GPU where there are any.")
    ] = 1,
    num_nodes: Annotated[
        int, typer.Option(min=1, help="Machines; start the command on each with torchrun or Slurm's srun.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes per device that read sequences.")] = 0,
) -> None:
    """Train a detector; an interrupted run goes on where it was when it is started again."""
    from memwarp_core.models.systems import systems
    from memwarp_core.training.config import find_recipe, read_training_config, shipped_recipes
    from memwarp_core.training.schedules import default_training
    from memwarp_core.training.train import train as run

    by_system = recipe in systems() and recipe not in shipped_recipes()
    config = default_training(recipe) if by_system else read_training_config(find_recipe(recipe))
    weights = run(config, data, validation, output, devices=devices, num_nodes=num_nodes, workers=workers)
    _OUTPUT.print(f"the weights are in {weights}", highlight=False)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="A data set with labels; docs/training.md says which there are.")],
    model: Annotated[
        list[str],
        typer.Option("--model", "-m", help="A model's name or the path of its weights; repeat it to compare several."),
    ] = ["memnet-tiny"],  # noqa: B006 (typer copies it)
    horizon: Annotated[
        list[float] | None,
        typer.Option(min=0, help="Also score anticipation so many seconds ahead; repeat it for several."),
    ] = None,
    propagation: Annotated[
        int | None,
        typer.Option(
            min=2, help="Also score frames by their age with only every N-th looked at in full; takes N runs."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.json, plots and all detections.")
    ] = None,
) -> None:
    """Score models on a data set: mAP by kind of frame, by speed, per class, and of what they anticipate; and time.

    The models take turns, clip by clip. With --output, an interrupted evaluation goes on where it was when it is
    started again. Where the data set has exact displacement fields, the measured ones are scored as well.
    """
    from memwarp_core import load_detector
    from memwarp_core.evaluation.side_by_side import evaluate_models

    names = [Path(name).name.removesuffix(".safetensors") for name in model]
    if len(set(names)) < len(names):
        names = model
    detectors = {name: load_detector(path, device) for name, path in zip(names, model, strict=True)}
    report = evaluate_models(
        detectors, data, horizons_s=sorted(set(horizon or ())), propagation=propagation or 1, output=output
    )
    _print_evaluation(report)
    if output is not None:
        _OUTPUT.print(f"the report, its plots and all detections are in {output}", highlight=False)


def _print_evaluation(report: dict[str, Any]) -> None:
    """The report of evaluate_models as tables; figures are in percent."""
    models, runtime = report["models"], report["runtime"]
    first = next(iter(models.values()))
    columns = [*first["map50"], *first["map50_by_speed"], "ms per frame", "ratio"]
    table = Table("mAP@0.5", *columns, title=f"{report['clips']} clips, {report['frames']} frames")
    for name, of in models.items():
        scores = [*of["map50"].values(), *of["map50_by_speed"].values()]
        table.add_row(name, *map(_percent, scores), _number(of["ms_per_frame"], 1), _number(runtime["ratio"][name], 2))
    _OUTPUT.print(table)
    if runtime["clips"] < report["clips"]:
        _OUTPUT.print(
            f"Ratios are of {runtime['clips']} clips, in which the times of all models were taken in the same run; "
            "another --output takes them anew."
        )
    _print_percents(
        "sensor fault", first["map50_by_degradation"], {name: of["map50_by_degradation"] for name, of in models.items()}
    )
    table = Table("class, AP@0.5", *models)
    for name in first["ap50_per_class"]:
        table.add_row(name, *(_percent(of["ap50_per_class"][name]) for of in models.values()))
    _OUTPUT.print(table)
    of_ways = {f"{name}: {way}": scores for name, of in models.items() for way, scores in of["anticipation"].items()}
    _print_percents("seconds ahead", next(iter(of_ways.values()), ()), of_ways)
    of_sources = {
        f"{name}: {source}": scores["map50"]
        for name, of in models.items()
        for source, scores in of["propagation"].items()
    }
    _print_percents("frames since the last evidence", next(iter(of_sources.values()), ()), of_sources)
    if any("displacement" in of for of in models.values()):
        table = Table("displacement, mean error in pixels", "measured", "zero motion")
        for name, of in models.items():
            for where in ("all", "inside_boxes") if "displacement" in of else ():
                errors = (of["displacement"][where][key] for key in ("error", "zero_motion"))
                table.add_row(f"{name}: {where.replace('_', ' ')}", *(_number(error, 2) for error in errors))
        _OUTPUT.print(table)


def _print_percents(title: str, columns: Iterable[str], rows: Mapping[str, Mapping[str, float | None]]) -> None:
    """A row per model; nothing without columns."""
    columns = list(columns)
    if columns:
        table = Table("mAP@0.5", *columns, title=title)
        for name, figures in rows.items():
            table.add_row(name, *(_percent(figures[column]) for column in columns))
        _OUTPUT.print(table)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


@app.command()
def tracks(
    data: Annotated[Path, typer.Argument(help="A data set with tracks; docs/training.md says which there are.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or the path of its weights.")] = (
        "memnet-tiny"
    ),
    every: Annotated[int, typer.Option(min=1, help="See only every N-th frame, as a busy machine does.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
) -> None:
    """Count how often objects change their track id: with boxes that move with the displacement, and without."""
    from memwarp_core import load_detector
    from memwarp_core.data.data_set import open_data_set
    from memwarp_core.evaluation.tracking import compare_tracking

    clips = open_data_set(data)
    table = Table("boxes of tracks", "objects", "named", "ids", "switches", title=f"{model} on {len(clips)} clips")
    for name, of in compare_tracking(load_detector(model, device), clips, every).items():
        table.add_row(name, *map(str, (of.objects, of.named, of.tracks, of.switches)))
    _OUTPUT.print(table)


@app.command()
def score(
    metric: Annotated[
        Metric,
        typer.Option(help="vid: ImageNet VID's, by speed. coco: COCO's. streaming: sAP, which counts the delay."),
    ],
    ground_truth: Annotated[Path, typer.Option(help="CocoVID, as annotations.json of `simulate`; no images needed.")],
    detections: Annotated[Path, typer.Option(help="COCO results, as `detect` writes them.")],
    iou: Annotated[
        Overlap, typer.Option(help="For vid: adaptive asks less overlap of a small object; 0.5 of all the same.")
    ] = Overlap.ADAPTIVE,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for all figures.")] = None,
) -> None:
    """Score a file of detections, of any detector, against a file of ground truth.

    For streaming, images have stamp_ns and detections available_ns, when they were there. To count processed images
    without detections as well, DETECTIONS may be {"detections": [...], "outputs": [{"image_id", "available_ns"}, ...]}.
    """
    from memwarp_core.evaluation.score import score as run
    from memwarp_core.files import write_bytes_whole

    if iou is not Overlap.ADAPTIVE and metric is not Metric.VID:
        raise typer.BadParameter(f"--iou is for --metric vid; {metric.value} averages over IoUs of 0.50:0.05:0.95.")
    figures = run(metric.value, ground_truth, detections, adaptive_iou=iou is Overlap.ADAPTIVE)
    if metric is Metric.VID:
        table = Table("class", *figures["map"], title=f"AP in percent, IoU {iou.value}")
        for name, by_speed in figures["ap"].items():
            table.add_row(name, *map(_percent, by_speed.values()))
        table.add_section()
        table.add_row("mean", *map(_percent, figures["map"].values()))
    elif metric is Metric.COCO:
        table = Table("COCO", "percent")
        for key in ("AP", "AP50", "AP75"):
            table.add_row(key, _percent(figures[key]))
        table.add_section()
        for name, value in figures["ap_per_class"].items():
            table.add_row(f"AP of {name}", _percent(value))
    else:
        table = Table("streaming", "percent")
        for key in ("sAP", "sAP50", "sAP75", "offline_AP"):
            table.add_row(key.replace("_", " "), _percent(figures[key]))
        table.add_section()
        age_ms = figures["mean_age_ms"]
        table.add_row("mean age", "-" if age_ms is None else f"{age_ms:.1f} ms")
        table.add_row("frames without output", str(figures["frames_without_output"]))
    _OUTPUT.print(table)
    if json_file is not None:
        write_bytes_whole(json_file, json.dumps(figures, indent=1).encode())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


@app.command()
def reproduce(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for clips and detections, which are kept.")] = (
        Path("out/reproduction")
    ),
    report: Annotated[
        Path | None, typer.Option(help="Folder for reproduction.md and its figures; the output folder by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few short clips, to see that all works.")] = False,
    clips: Annotated[int | None, typer.Option(min=1, help="Another number of clips.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of models to run, as NAME.safetensors, instead of those that ship.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
) -> None:
    """Make the paper's tables and figures in small, and say which of its claims hold; takes up to an hour.

    An interrupted run goes on where it was when it is started again.
    """
    from memwarp_core.evaluation.reproduction.reproduce import DEFAULT, QUICK
    from memwarp_core.evaluation.reproduction.reproduce import reproduce as run
    from memwarp_core.models.zoo import WEIGHTS_FOLDER

    size = QUICK if quick else DEFAULT
    size = replace(size, clips=clips or size.clips)
    written = run(output, report or output, size, weights=weights or WEIGHTS_FOLDER, device=device)
    _OUTPUT.print(f"the report is {written}", highlight=False)


@bench.command("systems")
def bench_systems(
    systems: Annotated[
        list[str] | None, typer.Argument(help="Of `memwarp models`; the first is compared with.")
    ] = None,
    width: Annotated[int, typer.Option(min=32, help="Image width in the network.")] = 320,
    height: Annotated[int, typer.Option(min=32, help="Image height in the network.")] = 192,
    frames: Annotated[int, typer.Option(min=1, help="Frames that are timed per system.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    precision: Annotated[
        RunPrecision, typer.Option(help="Of convolutions; auto is fp16 on a GPU and fp32 on a CPU.")
    ] = RunPrecision.AUTO,
    backend: Annotated[
        list[Backend] | None, typer.Option(help="One of PyTorch's; of several, each system runs with each.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for benchmark.json, .md and .png; also measures what --sweep says."
        ),
    ] = None,
    sweep: Annotated[
        str, typer.Option(help="With --output: the system whose cost by stream length, horizons, cameras, size counts.")
    ] = "memnet-tiny-6",
    stream: Annotated[int, typer.Option(min=10, help="With --output: frames of the long stream.")] = 1000,
    compare: Annotated[
        Path | None, typer.Option(metavar="OLD.json", help="With --output: an earlier benchmark.json to compare with.")
    ] = None,
) -> None:
    """Time systems of the paper side by side, whole and by part, with random weights: milliseconds per frame.

    roof: the share of a part's time that its work would take at the device's best matrix product and copy.
    """
    from memwarp_core.evaluation.benchmark import Runs, benchmark
    from memwarp_core.evaluation.benchmark_report import compare_reports, read_report, run_benchmark, write_report

    names = systems or ["rfcn-tiny", "memnet-tiny-6", "clocknet-tiny", "causal-fgfa-tiny", "fgfa-tiny"]
    if compare is not None and output is None:
        raise typer.BadParameter("--compare is for whole reports; give --output as well.")
    old = None if compare is None else read_report(compare)
    runs = Runs(device, precision.value, tuple(one.value for one in backend or [Backend.TORCH]))
    if output is None:
        _print_timings([asdict(timing) for timing in benchmark(names, (height, width), frames, runs)], width, height)
        return
    report = run_benchmark(names, (height, width), frames, runs, sweep, stream)
    write_report(report, output)
    _print_timings(report["systems"], width, height)
    for key in ("stream", "horizons", "moved_proposals", "moved_boxes", "cameras", "sizes"):
        table = Table(key.replace("_", " "), "ms", "p95", title=sweep)
        for row in report[key]:
            table.add_row(str(row["at"]), f"{row['median_ms']:.1f}", f"{row['p95_ms']:.1f}")
        _OUTPUT.print(table)
    if old is not None:
        table = Table("system", "before", "now", "clearly different", title=str(compare))
        for name, before, now, clear in compare_reports(old, report):
            table.add_row(name, f"{before:.1f}", f"{now:.1f}", "yes" if clear else "no")
        _OUTPUT.print(table)
    _OUTPUT.print(f"benchmark.json, .md and .png are in {output}", highlight=False)


def _print_timings(systems: Sequence[Mapping[str, Any]], width: int, height: int) -> None:
    """Timings as dictionaries: of whole frames, then by part."""
    columns = ("ms per frame", "quartiles apart", "p95", "ratio")
    table = Table(Column("system", no_wrap=True), *columns, title=f"{width}x{height} pixels")
    parts = Table(Column("system", no_wrap=True), "part", "ms", "GFLOP", "MB", "roof")
    for of in systems:
        figures = (f"{of[key]:.1f}" for key in ("median_ms", "spread_ms", "p95_ms"))
        table.add_row(of["name"], *figures, f"{of['ratio']:.2f}")
        for part in of["parts"]:
            work = (f"{part['flops'] / 1e9:.2f}", f"{part['bytes'] / 1e6:.1f}", f"{part['of_roof']:.0%}")
            parts.add_row(of["name"], part["name"], f"{part['median_ms']:.1f}", *work)
        parts.add_section()
    _OUTPUT.print(table)
    _OUTPUT.print(parts)


@bench.command("pair")
def bench_pair(
    pair: Annotated[str, typer.Argument(help="A fast and strong pair, by its name or the path of its weights.")] = (
        "rfcn-nano+clocknet-tiny-featprop"
    ),
    fast_device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    strong_device: Annotated[str, typer.Option(help="Of the strong detector; auto takes the second GPU.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="For each of them on a CPU; 0 leaves it to torch.")] = 1,
    width: Annotated[int, typer.Option(min=32, help="Image width.")] = 320,
    height: Annotated[int, typer.Option(min=32, help="Image height.")] = 192,
    frames: Annotated[int, typer.Option(min=1, help="Frames that are timed, alone and beside the strong one.")] = 200,
) -> None:
    """Time the fast detector of a pair, alone and with the strong one at work beside it."""
    from memwarp_core.evaluation.pair_benchmark import benchmark_pair

    timing = benchmark_pair(pair, (height, width), frames, (fast_device, strong_device), threads)
    table = Table("fast detector", "ms per frame", "p95", "ratio", title=f"{width}x{height} pixels")
    table.add_row("alone", f"{timing.alone_ms:.1f}", f"{timing.alone_p95_ms:.1f}", "1.00")
    ratio = timing.beside_ms / timing.alone_ms
    table.add_row("with the strong one", f"{timing.beside_ms:.1f}", f"{timing.beside_p95_ms:.1f}", f"{ratio:.2f}")
    _OUTPUT.print(table)
    _OUTPUT.print(
        f"{timing.boosted:.0%} of the frames borrowed, {timing.lag_frames:g} frames late (median); "
        f"the strong detector takes {timing.strong_ms:.0f} ms per frame."
    )


@bench.command("ros")
def bench_ros(
    frames: Annotated[int, typer.Option(min=1, help="Images that are counted, per size, transport and way.")] = 300,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH", help="Of the images; repeat it for several. 640x480, 1280x720 and 1920x1080 if not given."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file for all figures.")] = None,
) -> None:
    """Time what the ROS 2 node costs beside its model, and what a plain rclpy node costs: milliseconds per image."""
    needed = subprocess.run(
        [sys.executable, "-c", "import rclpy, memwarp_ros.msg"], capture_output=True, text=True, check=False
    )
    if needed.returncode:
        error = "".join(needed.stderr.strip().splitlines()[-1:])
        raise ConfigError(
            f"bench ros needs ROS 2 (rclpy) and the package memwarp_ros, got {error!r}; source the workspace that has "
            "them (source install/setup.bash) or, in a clone, run: make build && ros_from_pip/run memwarp bench ros"
        )
    command = [sys.executable, "-m", "memwarp_ros.bench", "--frames", str(frames)]
    for one in size or ():
        command += ["--size", one]
    if output is not None:
        command += ["--output", str(output)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def models() -> None:
    """List the models that ship with memwarp, and the systems of the paper that can be trained."""
    from memwarp_core.models.overview import shipped_models, system_overview

    shipped = shipped_models()
    if not shipped:
        raise DataError("no model ships with this copy of memwarp; install it whole, with its weights.")
    table = Table(Column("model", no_wrap=True), "version", Column("weights", no_wrap=True), "classes", *_SPLITS)
    for model in shipped:
        scores = (_percent(model.map50.get(split)) for split in _SPLITS)
        table.add_row(model.name, model.version, _millions(model.parameters), ", ".join(model.class_names), *scores)
    _OUTPUT.print(table)
    _OUTPUT.print("all, clean, degraded: mAP@0.5 in percent on such frames of clips that no training has seen.")
    _OUTPUT.print(f"The model cards are in {shipped[0].folder}\n", highlight=False, soft_wrap=True)

    for start_from, group in groupby(system_overview(), key=lambda system: system.start_from):
        table = Table(
            Column("system", no_wrap=True),
            Column("in the paper", overflow="fold"),
            "table",
            *(Column(title, no_wrap=True) for title in ("weights", "stride", "every")),
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            title=f"to be trained from {start_from}",
        )
        for system in group:
            strides = "+".join(map(str, system.strides))
            every = ",".join(map(str, system.time_strides)) or "-"
            table.add_row(system.name, system.row, system.tables, _millions(system.parameters), strides, every)
        _OUTPUT.print(table)
    _OUTPUT.print("table: the paper's 1 to 3, and S1, S2a, S2b of its supplement.")
    _OUTPUT.print("stride: image pixels per memory cell. every: frames between two updates, for each time axis.")
    _OUTPUT.print("Detectors of torchvision run with a memory, too: fasterrcnn_resnet50_fpn+memnet, for one.")


@app.command()
def export(
    model: Annotated[
        str | None, typer.Argument(help="A name that `memwarp models` lists, or a .safetensors file.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for step.onnx and anticipation.onnx.")],
    width: Annotated[int, typer.Option(min=32, help="Width of the camera's images.")] = 320,
    height: Annotated[int, typer.Option(min=32, help="Height of the camera's images.")] = 192,
    precision: Annotated[
        ExportPrecision, typer.Option(help="Of the convolutions; fp16 is for GPUs.")
    ] = ExportPrecision.FP32,
    check: Annotated[
        Path | None,
        typer.Option(metavar="INPUT", help="A video, folder of images or bag to check with, instead of noise."),
    ] = None,
    build_only: Annotated[
        bool,
        typer.Option("--build-only", help="Instead: build the TensorRT engines of the files in --output, on this GPU."),
    ] = False,
    device: Annotated[str, typer.Option(help="Of --build-only: auto, cuda:0, ...")] = "auto",
) -> None:
    """Write a detector as ONNX: one step with its memory as inputs and outputs, and the head for anticipation.

    What onnxruntime makes of the files is compared with PyTorch over a clip, and the command fails if it is not the
    same. docs/export.md says what goes in and comes out.
    """
    if build_only == (model is not None):
        raise typer.BadParameter("expected either a model, or --build-only with files that are in --output already.")
    if model is None:
        from memwarp_core.export import load_tensorrt
        from memwarp_core.export.engine_cache import cache_folder

        load_tensorrt(output, device)
        _OUTPUT.print(f"the engines of {output} are in {cache_folder()}", highlight=False, soft_wrap=True)
        return
    from memwarp_core.data.open_clip import open_clip
    from memwarp_core.evaluation.benchmark import moving_images
    from memwarp_core.export import check_onnx, export_onnx
    from memwarp_core.models import load_weights

    clip = None if check is None else open_clip(check)
    detector = load_weights(model)
    written = export_onnx(detector, output, (height, width), precision.value)
    # ClockNet's slowest axis ticks for the second time in the ninth frame.
    noise = islice(moving_images((height, width)), 10)
    frames = noise if clip is None else ((frame.image, frame.stamp_ns) for frame in _with_progress(clip))
    now, later = check_onnx(detector, output, frames)
    _OUTPUT.print(
        f"{written.step} and {written.anticipation.name}: {now.differing} of {now.detections} detections in "
        f"{now.instants} frames differ from PyTorch's, and {later.differing} of {later.detections} anticipated ones; "
        f"the others by at most {max(now.box, later.box):.4f} pixels and {max(now.score, later.score):.5f} in score",
        highlight=False,
        soft_wrap=True,
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


@app.command()
def replay(
    bag: Annotated[
        list[Path] | None,
        typer.Argument(help="ROS 2 bags, folders of bags, or .txt files with the path of a bag per line."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or the path of its weights.")] = (
        "memnet-tiny"
    ),
    baseline: Annotated[
        str, typer.Option(help="A detector that gets the same images and the same time; none for none.")
    ] = "rfcn-tiny",
    mode: Annotated[
        ReplayMode,
        typer.Option(
            help="simulated: on a virtual clock; the newest image wins. realtime: as long as it takes here. offline: "
            "every image, in no time."
        ),
    ] = ReplayMode.SIMULATED,
    latency: Annotated[
        str | None,
        typer.Option(
            help="Of simulated: a time, as 40ms; a JSON list of milliseconds to draw from; or measured (the default), "
            "as long as the model takes here."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws of latencies.")] = 0,
    horizon: Annotated[
        list[float], typer.Option(min=0, help="Score anticipation so many seconds ahead; repeat it for several.")
    ] = [0.05, 0.1, 0.2],  # noqa: B006 (typer copies it)
    topic: Annotated[
        list[str] | None, typer.Option(help="Image topic; repeat it for several cameras with one detector.")
    ] = None,
    ground_truth: Annotated[
        list[str] | None,
        typer.Option(
            help="Topic of Detection2DArray, one per image topic (/ground_truth where there is one), or a CocoVID file "
            "with the stamps of the images."
        ),
    ] = None,
    pseudo: Annotated[
        str | None,
        typer.Option(help="Without ground truth: agreement with this model's detections in every image; or self."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that replay a bag each.")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report and what was said.")] = Path(
        "out/replay"
    ),
    save_bag: Annotated[
        SavedBag | None,
        typer.Option(help="Also write a bag of what the node would have published; all: beside what is in the bag."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Instead: is the difference of two replays real? Their output folders, or FOLDER:STREAM for one of "
            "detections, detections_now and baseline.",
        ),
    ] = None,
) -> None:
    """Score a model on bags with the time that it takes: now, moved to now, and ahead; docs/replay.md explains it.

    An interrupted replay goes on where it was when it is started again. A broken bag is reported, and the others go on.
    """
    from memwarp_core.evaluation.replay.latency import MEASURED
    from memwarp_core.evaluation.replay.replay import ReplayConfig
    from memwarp_core.evaluation.replay.replay import replay as run
    from memwarp_core.evaluation.replay.tables import print_report

    if compare is not None:
        from memwarp_core.evaluation.replay.compare import compare as run_comparison
        from memwarp_core.evaluation.replay.compare import print_comparison

        if bag:
            raise typer.BadParameter("--compare takes two folders of reports and no bags.")
        print_comparison(run_comparison(*compare), *compare, _OUTPUT)
        return
    if not bag:
        raise typer.BadParameter("expected at least one bag, or --compare with two folders of reports; got neither.")
    if mode is not ReplayMode.SIMULATED and latency is not None:
        raise typer.BadParameter("--latency is for --mode simulated; in others, processing takes no or its own time.")
    truth = ground_truth or []
    # A topic has no suffix, and a folder or file of a data set exists.
    truth_file = Path(truth[0]) if len(truth) == 1 and (truth[0].endswith(".json") or Path(truth[0]).exists()) else None
    config = ReplayConfig(
        model=model,
        baseline=None if baseline == "none" else baseline,
        mode=mode.value,
        latency=latency or MEASURED,
        seed=seed,
        horizons_s=tuple(sorted(set(horizon))),
        topics=tuple(topic or ()),
        truth_topics=() if truth_file else tuple(truth),
        truth_file=truth_file,
        pseudo=pseudo,
        device=device,
    )
    report = run(bag, config, output, jobs=jobs, save=None if save_bag is None else save_bag.value)
    print_report(report, _OUTPUT)
    _OUTPUT.print(f"all figures, and a page to look at, are in {output}", highlight=False)
    if report["failed"]:
        raise typer.Exit(1)


def _write_to_bag(bag: "BagWriter", said: dict[str, "Detections"], class_names: Sequence[str]) -> None:
    """Write detections under their topics."""
    for topic, one in said.items():
        names = [class_names[label] for label in one.labels.tolist()]
        bag.write_detections(one.boxes_xyxy.numpy(), names, one.stamp_ns, scores=one.scores.numpy(), topic=topic)


def _above(detections: "Detections", score: float) -> "Detections":
    """In host memory, without boxes of a lower score."""
    host = detections.cpu()
    return host.select(host.scores >= score)


def _with_progress(clip: "Clip") -> Iterator["Frame"]:
    """The frames of a clip, with a bar on the terminal that says how long it will take."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_ERRORS) as progress:
        task = progress.add_task(clip.name, total=len(clip))
        for index in range(len(clip)):
            try:
                frame = clip[index]
            except IndexError:  # a damaged video that holds less than it claims
                return
            yield frame
            progress.advance(task)


if __name__ == "__main__":
    main()
