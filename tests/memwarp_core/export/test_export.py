"""Exported detectors say what PyTorch says; their parts are checked without exporting where that is enough."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from memwarp_core.cli import app
from memwarp_core.errors import ConfigError, ExportError
from memwarp_core.evaluation.benchmark import moving_images
from memwarp_core.export import check_onnx, export_onnx, load_onnx, static_head
from memwarp_core.export.check import compare
from memwarp_core.export.half import to_half
from memwarp_core.export.onnx_file import CONFIG_KEY, PRECISION_KEY
from memwarp_core.export.static_head import StaticRFCNHead, psroi_pool_by_products
from memwarp_core.export.step import TensorStep
from memwarp_core.export.tensorrt_engine import check_types
from memwarp_core.geometry import psroi_pool
from memwarp_core.models import Detector, build_detector, load_weights
from memwarp_core.models.systems import find_system
from memwarp_core.streaming import load_detector
from memwarp_core.streaming.video_detector import VideoDetector
from memwarp_core.types import Detections

SIZE = (64, 96)


def small(name: str) -> Detector:
    """A system with random weights at a small size."""
    torch.manual_seed(0)
    return build_detector(find_system(name).config.model_copy(update={"fixed_size": SIZE})).eval()


def frames(count: int) -> Iterator[tuple[np.ndarray, int]]:
    return islice(moving_images(SIZE), count)


def test_pooling_by_products_is_position_sensitive_pooling() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 5 * 9, 12, 16, generator=generator)
    corners = torch.rand(200, 2, generator=generator) * 140 - 20  # some lie outside the map
    rois = torch.cat((torch.zeros(200, 1), corners, corners + torch.rand(200, 2, generator=generator) * 90), 1)
    expected = psroi_pool(features, rois, 3, 1 / 8)
    torch.testing.assert_close(psroi_pool_by_products(features, rois, 3, 1 / 8), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at_once", [100, 3840])
def test_static_head_rates_the_boxes_of_the_head(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_head, "_MOST_AT_ONCE", at_once)
    detector = load_weights("rfcn-tiny")
    head = detector.head
    static = StaticRFCNHead(96, 8, 7, head.config).eval()
    static.load_state_dict(head.state_dict())
    # Far apart, so that boxes are thin, empty, clipped and missing as well.
    levels = (20 * torch.randn(1, 96, 12, 16, generator=torch.Generator().manual_seed(0)),)
    with torch.no_grad():
        for expected, got in zip(head.rate(levels, (96, 128)), static.rate(levels, (96, 128)), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", ["rfcn-tiny", "memnet-tiny-6", "memnet-tiny-6-wgts", "clocknet-tiny"])
def test_step_of_tensors_is_the_step_of_the_detector(name: str) -> None:
    detector = small(name)
    step = TensorStep(detector, SIZE)
    images = VideoDetector(detector, "cpu")._prepare
    state, tensors = None, step.start()
    with torch.no_grad():
        for image, _ in frames(10):  # the slowest axis of ClockNet ticks in frames 0 and 8
            expected = detector.step(state, detector.observe(images([image])))
            state = expected.state
            got = dict(zip(step.output_names, step(images([image]), *tensors), strict=True))
            tensors = [got[f"next_{name}"] for name in step.input_names[1:]]
            torch.testing.assert_close(got["features_0"], expected.memory[0], atol=1e-5, rtol=1e-4)
            if expected.displacement is not None:
                torch.testing.assert_close(got["displacement"], expected.displacement, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["fgfa-tiny", "clocknet-tiny-composed", "memnet-tiny-6-featprop-4", "rfcn-nano-split"])
def test_parts_that_cannot_be_exported_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="Run it with PyTorch"):
        TensorStep(small(name), SIZE)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_onnx(load_weights("memnet-tiny"), folder, SIZE)
    return folder


@pytest.mark.slow
def test_onnxruntime_says_what_pytorch_says_over_a_clip(exported: Path) -> None:
    for difference in check_onnx(load_weights("memnet-tiny"), exported, frames(10)):
        assert difference.instants == 10 and difference.detections > 100
        assert difference.box < 0.01 and difference.score < 1e-3


@pytest.mark.slow
def test_detect_runs_exported_files(exported: Path, tmp_path: Path) -> None:
    for index, (image, _) in enumerate(frames(3)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image[..., ::-1])
    arguments = ["detect", str(tmp_path), "-o", str(tmp_path / "out"), "--save", "json", "--score", "0"]
    result = CliRunner().invoke(app, [*arguments, "--backend", "onnx", "--model", str(exported)])
    assert result.exit_code == 0, result.output
    assert {entry["image_id"] for entry in json.loads((tmp_path / "out/detections.json").read_text())} == {1, 2, 3}


@pytest.mark.slow
def test_graphs_are_standard_have_fixed_shapes_and_say_what_they_are(exported: Path) -> None:
    for name in ("step.onnx", "anticipation.onnx"):
        model = onnx.load(exported / name)
        onnx.checker.check_model(model)
        check_types((exported / name).read_bytes(), exported / name)  # float64 above all
        assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
        shapes = [one.type.tensor_type.shape.dim for one in (*model.graph.input, *model.graph.output)]
        assert all(dim.dim_value > 0 for shape in shapes for dim in shape)
        assert "GridSample" in {node.op_type for node in model.graph.node}
    assert sorted(file.name for file in exported.iterdir()) == ["anticipation.onnx", "step.onnx"]
    detector = load_detector(exported, backend="onnx")
    assert detector.config.name == "memnet-tiny" and detector.config.fixed_size == (192, 288)


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {one.key: one.value for one in model.metadata_props}


@pytest.mark.slow
def test_half_precision_says_nearly_what_pytorch_says(exported: Path, tmp_path: Path) -> None:
    for name in ("step.onnx", "anticipation.onnx"):
        model = onnx.load(exported / name)
        onnx.helper.set_model_props(model, {CONFIG_KEY: metadata(model)[CONFIG_KEY], PRECISION_KEY: "fp16"})
        to_half(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, tmp_path / name)
        assert check_types((tmp_path / name).read_bytes(), tmp_path / name)
        assert (tmp_path / name).stat().st_size < 0.9 * (exported / name).stat().st_size
    now, _ = check_onnx(load_weights("memnet-tiny"), tmp_path, frames(4))
    assert now.detections > 100
    with pytest.raises(ConfigError, match="expected precision auto or fp16"):
        load_detector(tmp_path, backend="onnx", precision="fp32")


@pytest.mark.slow
def test_an_export_of_other_weights_fails_its_check(exported: Path) -> None:
    other = load_weights("memnet-tiny")
    with torch.no_grad():
        other.head.box_maps.bias += 0.5
    with pytest.raises(ExportError, match="do not use these files"):
        check_onnx(other, exported, frames(2))


def test_a_folder_without_or_with_broken_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memwarp export"):
        load_onnx(tmp_path)
    (tmp_path / "step.onnx").write_bytes(b"cut off")
    with pytest.raises(ConfigError, match="cannot read it"):
        load_onnx(tmp_path)


def test_the_backend_onnx_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device cpu"):
        load_detector(tmp_path, device="cuda", backend="onnx")
    with pytest.raises(ConfigError, match="torch or cuda_graph or compiled or onnx or tensorrt"):
        load_detector(tmp_path, backend="abacus")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got a folder; one that `memwarp export` wrote runs with other backends"):
        load_detector(tmp_path)


def some(boxes: Tensor, scores: list[float]) -> Detections:
    return Detections(
        boxes_xyxy=boxes, scores=torch.tensor(scores), labels=torch.zeros(len(scores), dtype=torch.int64), stamp_ns=0
    )


def test_differences_are_counted_on_both_sides() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]])
    one = some(boxes, [0.9, 0.8, 0.0011])
    nudged = some(boxes[:2] + torch.tensor([[0.01], [1.0]]), [0.9, 0.8])
    difference = compare([(one, nudged)], threshold=0.001)
    # The second box of each is too far off; the third one is at the threshold, where one run may leave it out.
    assert (difference.detections, difference.differing) == (5, 2)
    assert difference.box == pytest.approx(0.01, abs=1e-4) and difference.share == 0.4
    assert compare([(one, replace(nudged, labels=nudged.labels + 1))]).share == 0.8


def test_missing_packages_are_named_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript.*pip install 'memwarp\[export\]'"):
        export_onnx(small("rfcn-tiny"), Path("nowhere"), SIZE)
