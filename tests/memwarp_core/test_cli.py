"""The memwarp command as a person meets it: files in, files out, one clear message when something is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from typer.testing import CliRunner

from memwarp_core.cli import app
from memwarp_core.data.bags import BagWriter, read_bag
from memwarp_core.data.coco_results import write_coco_results
from memwarp_core.data.simulation.config import CLASS_NAMES
from memwarp_core.data.video import VideoClip, VideoWriter
from memwarp_core.evaluation.reproduction.reproduce import QUICK, Size
from memwarp_core.models import available_models
from memwarp_core.models.zoo import WEIGHTS_FOLDER
from memwarp_core.types import Detections

FRAMES = 4


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A red square that moves over a gray floor."""
    path = tmp_path / "moving.mp4"
    with VideoWriter(path, 10) as writer:
        for index in range(FRAMES):
            image = np.full((96, 160, 3), 110, np.uint8)
            image[30:70, 10 + 20 * index : 50 + 20 * index] = (200, 30, 30)
            writer.write(image)
    return path


def test_detect_writes_video_and_coco_results(runner: CliRunner, video: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["detect", str(video), "--output", str(output), "--device", "cpu", "--score", "0", "--horizon", "0.2"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    written = sorted(file.name for file in output.iterdir())
    assert written == ["anticipated_h200ms.json", "detections.json", "overlay.mp4"]

    overlay = VideoClip(output / "overlay.mp4")
    assert len(overlay) == FRAMES and overlay.frame_rate_hz == 10
    assert overlay[0].image.shape[1] == 960  # enlarged six times

    current = json.loads((output / "detections.json").read_text())
    assert {entry["image_id"] for entry in current} == set(range(1, FRAMES + 1))
    assert set(current[0]) == {"image_id", "category_id", "category_name", "bbox", "score", "stamp_ns"}
    assert {entry["stamp_ns"] for entry in current} == {index * 100_000_000 for index in range(FRAMES)}
    later = json.loads((output / "anticipated_h200ms.json").read_text())
    assert {entry["stamp_ns"] for entry in later if entry["image_id"] == 1} == {200_000_000}


def test_detect_reads_a_folder_at_the_given_rate_and_writes_a_bag(runner: CliRunner, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((64, 64, 3), 50 * index, np.uint8))
    arguments = ["detect", str(folder), "-o", str(tmp_path / "out"), "--rate", "5", "--save", "bag", "--score", "0"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["bag"]
    clip = read_bag(tmp_path / "out" / "bag", ground_truth_topic="/detector/detections")
    assert [frame.stamp_ns for frame in map(clip.__getitem__, range(len(clip)))] == [0, 200_000_000, 400_000_000]
    topics = {connection.topic for connection in clip.reader.connections}
    assert {"/detector/detections", "/detector/anticipated/h100ms", "/detector/label_info"} <= topics
    clip.close()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["detect", "missing.mp4"], 1, "missing.mp4: no such file or folder"),
        (["detect", "{video}", "--model", "yolo"], 1, "neither a file nor a model"),
        (["detect", "{video}", "--device", "toaster"], 1, "toaster"),
        (["export", "--output", "out"], 2, "--build-only"),
        (["detect", "{video}", "--backend", "onnx"], 1, "expected a folder that `memwarp export"),
        (["detect", "{video}", "--rate", "0"], 1, "frame rate must be above 0"),
        (["detect", "{video}", "--score", "2"], 2, "--score"),
        (["detect", "{video}", "--save", "tapes"], 2, "tapes"),
        (["detect"], 2, "INPUT"),
        (["simulate", "-o", "{out}", "--clips", "0"], 1, "clips must be at least 1"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_are_one_message_without_traceback(
    runner: CliRunner, video: Path, tmp_path: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    filled = [argument.format(video=video, out=tmp_path / "out") for argument in arguments]
    if filled[0] == "detect":
        filled += ["--output", str(tmp_path / "out")]
    result = runner.invoke(app, filled)
    assert result.exit_code == exit_code
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_models_lists_what_ships(runner: CliRunner) -> None:
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 0, result.output
    assert available_models() and all(name in result.output for name in available_models())


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], ["rfcn-tiny", "memnet-tiny-6", "clocknet-tiny", "causal-fgfa-tiny", "fgfa-tiny"]),
        (["rfcn-nano"], ["rfcn-nano"]),
        (["systems", "rfcn-nano"], ["rfcn-nano"]),
    ],
)
def test_bench_times_the_systems_that_are_named(runner: CliRunner, arguments: list[str], shown: list[str]) -> None:
    options = ["--width", "64", "--height", "64", "--frames", "1", "--device", "cpu"]
    result = runner.invoke(app, ["bench", *arguments, *options])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in shown)


def test_bench_ros_says_what_it_needs_where_there_is_no_ros(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    result = runner.invoke(app, ["bench", "ros"])
    assert result.exit_code == 1
    assert "ROS 2 (rclpy)" in result.output and "ros_from_pip/run memwarp bench ros" in result.output


def test_help_needs_neither_torch_nor_a_renderer() -> None:
    code = (
        "import sys, typer.testing, memwarp_core.cli as cli\n"
        "assert typer.testing.CliRunner().invoke(cli.app, ['--help']).exit_code == 0\n"
        "print(sorted({'torch', 'mujoco', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_coco_results_are_what_pycocotools_reads(tmp_path: Path) -> None:
    one = Detections(
        boxes_xyxy=torch.tensor([[1.0, 2.0, 11.0, 22.0]]),
        scores=torch.tensor([0.75]),
        labels=torch.tensor([1]),
        stamp_ns=5,
    )
    write_coco_results(tmp_path / "detections.json", [7], [one], ["ball", "crate"])
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 2, "name": "crate"}], "info": {}}
    truth.createIndex()
    (loaded,) = truth.loadRes(str(tmp_path / "detections.json")).loadAnns([1])
    assert (loaded["image_id"], loaded["category_id"], loaded["bbox"]) == (7, 2, [1.0, 2.0, 10.0, 20.0])
    assert loaded["score"] == 0.75


@pytest.fixture
def labelled_folder(tmp_path: Path) -> Path:
    """Two dark images with YOLO labels and the classes of the shipped model."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "classes.txt").write_text("\n".join(CLASS_NAMES))
    for index in range(2):
        cv2.imwrite(str(tmp_path / "clip" / f"{index}.png"), np.zeros((96, 128, 3), np.uint8))
        (tmp_path / "clip" / f"{index}.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    return tmp_path


def test_evaluate_compares_models_on_any_labelled_data_set(runner: CliRunner, labelled_folder: Path) -> None:
    output = labelled_folder.with_name("report")
    mine = shutil.copy(WEIGHTS_FOLDER / "memnet-tiny.safetensors", labelled_folder / "mine.safetensors")
    options = ["--model", "memnet-tiny", "--model", str(mine), "--device", "cpu", "--output", str(output)]
    result = runner.invoke(app, ["evaluate", str(labelled_folder), *options])
    assert result.exit_code == 0, result.output
    assert "1 clips, 2 frames" in result.output
    report = json.loads((output / "report.json").read_text())
    assert list(report["models"]) == ["memnet-tiny", "mine"]
    assert report["frames"] == report["models"]["memnet-tiny"]["frames"] == 2
    assert "displacement" not in report["models"]["memnet-tiny"]


def test_evaluate_refuses_other_classes(runner: CliRunner, labelled_folder: Path) -> None:
    (labelled_folder / "classes.txt").write_text("cat\ndog")
    result = runner.invoke(app, ["evaluate", str(labelled_folder), "--device", "cpu"])
    assert result.exit_code == 1
    assert "expected the classes of memnet-tiny, ball" in result.output and "got cat, dog" in result.output


@pytest.fixture
def found_box(tmp_path: Path) -> list[str]:
    """Options that name a ground truth of one box in the second of two images, and the detection of it in the first."""
    box = {"category_id": 1, "bbox": [0, 0, 40, 20]}
    truth = {
        "videos": [{"id": 1}],
        "categories": [{"id": 1, "name": "ball"}, {"id": 2, "name": "cone"}],
        "images": [{"id": n, "video_id": 1, "frame_id": n, "stamp_ns": n * 100_000_000} for n in (0, 1)],
        "annotations": [{"id": 1, "image_id": 1, "instance_id": 1, **box}],
    }
    files = {
        "--ground-truth": truth,
        "--detections": [{"image_id": 0, "score": 0.9, "available_ns": 50_000_000, **box}],
    }
    for option, content in files.items():
        (tmp_path / f"{option}.json").write_text(json.dumps(content))
    return [argument for option in files for argument in (option, str(tmp_path / f"{option}.json"))]


@pytest.mark.parametrize(
    ("metric", "printed", "keys"),
    [
        ("vid", "mean", {"map", "ap"}),
        ("coco", "AP of ball", {"AP", "AP50", "AP75", "ap_per_class"}),
        (
            "streaming",
            "100.0 ms",
            {"sAP", "sAP50", "sAP75", "mean_age_ms", "frames_without_output", "offline_AP"},
        ),
    ],
)
def test_score_prints_a_table_and_writes_all_figures(
    runner: CliRunner, found_box: list[str], tmp_path: Path, metric: str, printed: str, keys: set[str]
) -> None:
    output = tmp_path / "new" / "figures.json"
    result = runner.invoke(app, ["score", "--metric", metric, *found_box, "--json", str(output)])
    assert result.exit_code == 0, result.output
    assert printed in result.output
    figures = json.loads(output.read_text())
    assert set(figures) == keys
    if metric == "streaming":
        assert figures["sAP"] == pytest.approx(1) and figures["offline_AP"] == 0


@pytest.mark.parametrize(("iou", "ap"), [("adaptive", "100.0"), ("0.5", "0.0")])
def test_score_takes_the_overlap_that_vid_asks_for(runner: CliRunner, found_box: list[str], iou: str, ap: str) -> None:
    truth, detections = (Path(file) for file in found_box[1::2])
    truth.write_text(truth.read_text().replace("[0, 0, 40, 20]", "[0, 0, 10, 10]"))
    found = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 3], "score": 0.9}
    detections.write_text(json.dumps([found]))
    result = runner.invoke(app, ["score", "--metric", "vid", "--iou", iou, *found_box])
    assert f"│ mean  │ {ap}" in result.output


def test_score_takes_no_overlap_for_another_metric(runner: CliRunner, found_box: list[str]) -> None:
    result = runner.invoke(app, ["score", "--metric", "coco", "--iou", "0.5", *found_box])
    assert result.exit_code == 2 and "--iou is for --metric vid" in result.output


def test_score_says_in_one_message_what_is_wrong_with_a_file(runner: CliRunner, found_box: list[str]) -> None:
    Path(found_box[-1]).write_text('[{"image_id": 0}]')
    result = runner.invoke(app, ["score", "--metric", "coco", *found_box])
    assert result.exit_code == 1
    assert "detections[0] lacks category_id, bbox, score." in result.output


def test_reproduce_takes_a_number_of_clips_and_reports_into_the_output_folder(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def reproduce(output: Path, report: Path, size: Size, **_: object) -> Path:
        asked.extend((output, report, size))
        return report / "reproduction.md"

    monkeypatch.setattr("memwarp_core.evaluation.reproduction.reproduce.reproduce", reproduce)
    result = runner.invoke(app, ["reproduce", "--quick", "--clips", "3", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert asked == [tmp_path, tmp_path, Size(clips=3, frames=QUICK.frames, samples=QUICK.samples)]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Four dark images in which a ball is said to lie."""
    with BagWriter(tmp_path / "dark") as writer:
        for index in range(4):
            stamp_ns = 1_000_000_000 + index * 100_000_000
            writer.write_image(np.full((96, 128, 3), 20 * index, np.uint8), stamp_ns)
            writer.write_detections(np.array([[40, 40, 60, 60]]), ["ball"], stamp_ns, track_ids=[1])
    return tmp_path / "dark"


def test_replay_scores_what_is_said_by_the_time_it_is_there(runner: CliRunner, bag: Path) -> None:
    output = bag.with_name("report")
    options = ["--latency", "150ms", "--device", "cpu", "--output", str(output), "--horizon", "0.1"]
    result = runner.invoke(app, ["replay", str(bag), *options])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("memnet-tiny, simulated", "detections_now", "rfcn-tiny"))
    report = json.loads((output / "report.json").read_text())
    assert report["config"]["latency"] == "150ms" and report["reference"]["kind"] == "ground truth"
    assert (report["all"]["images"], report["all"]["dropped"]) == (4, 1)


def test_replay_never_calls_a_pseudo_reference_accuracy(runner: CliRunner, bag: Path) -> None:
    options = ["--pseudo", "self", "--mode", "offline", "--baseline", "none", "--device", "cpu", "--horizon", "0.1"]
    result = runner.invoke(app, ["replay", str(bag), *options, "--output", str(bag.with_name("report"))])
    assert result.exit_code == 0, result.output
    assert "offline: agreement with what memnet-tiny finds (a pseudo reference; this is no accuracy)" in result.output


def test_replay_takes_a_latency_on_the_virtual_clock_alone(runner: CliRunner, bag: Path) -> None:
    result = runner.invoke(app, ["replay", str(bag), "--mode", "offline", "--latency", "1ms"])
    assert result.exit_code == 2 and "--latency is for --mode simulated" in result.output


@pytest.mark.slow
def test_replay_says_the_same_in_any_number_of_processes(runner: CliRunner, bag: Path) -> None:
    bags = [str(bag), str(shutil.copytree(bag, bag.with_name("again")))]
    said = []
    for jobs in ("1", "2"):
        output = bag.with_name(f"jobs{jobs}")
        options = ["--latency", "150ms", "--device", "cpu", "--horizon", "0.1", "--jobs", jobs, "--output", str(output)]
        result = runner.invoke(app, ["replay", *bags, *options])
        assert result.exit_code == 0, result.output
        said.append({file.name: file.read_bytes() for file in (output / "runs").iterdir()})
    assert len(said[0]) == 2 and said[0] == said[1]
