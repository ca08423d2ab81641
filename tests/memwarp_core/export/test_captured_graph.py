"""What is recorded says what PyTorch says, and could be recorded: nothing in it waits for the device.

The recording itself needs a GPU; without one the same functions run from the same memory.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models.detection._utils import BoxCoder as TorchvisionBoxCoder
from torchvision.ops import nms

from memwarp_core.errors import ConfigError
from memwarp_core.evaluation.benchmark import moving_images
from memwarp_core.export.captured_graph import CapturedDetector, CapturedGraph
from memwarp_core.export.check import compare
from memwarp_core.export.static_head import CapturableRFCNHead, suppressed_in_rounds
from memwarp_core.export.step import TensorAnticipation, TensorMovedProposals, TensorStep
from memwarp_core.geometry import MotionSample, predict_displacement, splat
from memwarp_core.models import Detector, build_detector, load_weights
from memwarp_core.models.heads.box_coder import BoxCoder
from memwarp_core.models.systems import find_system
from memwarp_core.streaming import load_detector, run_detector
from memwarp_core.streaming.video_detector import VideoDetector
from memwarp_core.types import Detections

SIZE = (96, 160)


def frames(count: int) -> Iterator[tuple[np.ndarray, int]]:
    return islice(moving_images(SIZE), count)


def differences(first: VideoDetector, second: VideoDetector, count: int) -> Iterator[tuple[int, int]]:
    """Detections, and those that differ: in the frames, and anticipated by each source."""
    states = [run.start() for run in (first, second)]
    pairs: dict[str, list[tuple[Detections, Detections]]] = {"now": [], "features": [], "proposals": [], "boxes": []}
    for image, stamp_ns in frames(count):
        stepped = [run.step(image, stamp_ns, state) for run, state in zip((first, second), states, strict=True)]
        states = [state for _, state in stepped]
        pairs["now"].append((stepped[0][0], stepped[1][0]))
        for source in ("features", "proposals", "boxes"):
            how = first.config.anticipation.model_copy(update={"source": source})
            ahead = [run.anticipate(states[0], [0.05, 0.2], how) for run in (first, second)]
            pairs[source] += zip(*ahead, strict=True)
    for of_source in pairs.values():
        difference = compare(of_source, first.config.head.score_threshold)
        yield difference.detections, difference.differing


@pytest.mark.parametrize("name", ["rfcn-tiny", "memnet-tiny", "clocknet-tiny", "memnet-wgts-tiny"])
def test_a_captured_detector_says_what_pytorch_says(name: str) -> None:
    captured = CapturedDetector(load_weights(name), torch.device("cpu"), torch.float32)
    for detections, differing in differences(load_detector(name, "cpu"), VideoDetector(captured, "cpu", "fp32"), 10):
        assert detections > 100 and differing == 0


def test_cameras_of_several_sizes_keep_apart() -> None:
    network = load_weights("memnet-tiny")
    captured = VideoDetector(CapturedDetector(network, torch.device("cpu"), torch.float32), "cpu", "fp32")
    cut = [(image[:, 40:120], stamp) for image, stamp in frames(4)]
    alone = list(captured.detect_clip(frames(4))), list(captured.detect_clip(cut))
    states, together = [captured.start(), captured.start()], []
    for (image, stamp), (other, _) in zip(frames(4), cut, strict=True):
        stepped = captured.step_cameras([image, other], [stamp, stamp], states)
        together.append([detections for detections, _ in stepped])
        states = [state for _, state in stepped]
    for camera, expected in enumerate(alone):
        for detections, of_frame in zip(expected, together, strict=True):
            assert torch.equal(detections.boxes_xyxy, of_frame[camera].boxes_xyxy)


def test_results_are_tensors_of_their_own() -> None:
    graph = CapturedGraph(lambda x: (x, x + 1), {"x": torch.zeros(2)}, ("same", "more"), torch.float32)
    first = graph.run({"x": torch.ones(2)})
    graph.run({"x": torch.full((2,), 5.0)})
    assert first["same"].tolist() == [1, 1] and first["more"].tolist() == [2, 2]
    assert graph.zeros()["x"].tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torch.compile needs a compiler")
def test_a_compiled_detector_says_what_pytorch_says() -> None:
    network = load_weights("memnet-tiny")
    compiled = run_detector(network, "cpu", backend="compiled")
    results = dict(
        zip(("now", "features", "proposals"), differences(load_detector(device="cpu"), compiled, 3), strict=False)
    )
    for detections, differing in results.values():
        assert detections > 30 and differing <= 0.01 * detections


def small(name: str) -> Detector:
    torch.manual_seed(0)
    return build_detector(find_system(name).config.model_copy(update={"fixed_size": SIZE})).eval()


class NothingCrosses(TorchDispatchMode):
    """Fails where host and device tensors meet: a copy between them waits, or cannot be recorded."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)}
        assert len(devices) <= 1, f"{func} has tensors on {devices}"
        return result


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", ["rfcn-tiny", "memnet-tiny-6", "memnet-tiny-6-wgts", "clocknet-tiny", "memnet-101-6"])
def test_nothing_that_is_recorded_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that is not there: tensors without values, so what depends on values fails, as does `item()`."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)  # some of its operators run with values only
    step = TensorStep(small(name), SIZE, CapturableRFCNHead)
    values = [torch.zeros(1, 3, *SIZE), *step.start()]
    with torch.no_grad():
        known = dict(zip(step.output_names, step(*values), strict=True))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        step = step.to("cuda")
        values = [value.to("cuda") for value in values]
        features = torch.zeros(known["features_0"].shape, device="cuda")
        field = features.new_zeros(1, 2, *features.shape[-2:])
        proposals = torch.zeros(3, *known["boxes"].shape[1:], device="cuda")
        step(*values)  # warm-up, in which anchors move to the device
        with NothingCrosses():
            boxes, *_ = step(*values)
            TensorAnticipation(step)(field, features)
            TensorMovedProposals(step)(field.expand(3, -1, -1, -1), proposals, features)
            sample = MotionSample(displacement=field, interval_ns=50_000_000)
            splat(torch.cat(predict_displacement([sample] * 4, [0.1, 0.2], "robust")))
    assert boxes.device.type == "cuda" and boxes.shape == known["boxes"].shape


def test_suppression_in_rounds_is_suppression() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(600, 2, generator=generator) * 60
    boxes = torch.cat((corners, corners + 20 * torch.rand(600, 2, generator=generator)), 1)
    boxes[::50] = 0
    kept = torch.ones(600, dtype=torch.bool)
    kept[nms(boxes, torch.arange(600, 0, -1).float(), 0.5)] = False
    assert torch.equal(suppressed_in_rounds(boxes, 0.5), kept) and 100 < int(kept.sum()) < 500
    # Each of a row of boxes overlaps the next: every other one is dropped, as far as the rounds go.
    row = torch.tensor([[0.0, 0.0, 10.0, 10.0]]) + 3 * torch.arange(8)[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert suppressed_in_rounds(row, 0.5, rounds=8).tolist() == [False, True] * 4
    assert suppressed_in_rounds(row, 0.5, rounds=2).tolist() != [False, True] * 4


def test_boxes_are_decoded_as_by_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = 5 * torch.randn(500, 4, generator=generator)
    corners = 100 * torch.rand(500, 2, generator=generator)
    boxes = torch.cat((corners, corners + 50 * torch.rand(500, 2, generator=generator)), 1)
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        expected = TorchvisionBoxCoder(weights).decode_single(codes, boxes)
        assert torch.equal(BoxCoder(weights).decode_single(codes, boxes), expected)


def test_what_cannot_be_captured_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a GPU"):
        load_detector("memnet-tiny", device="cpu", backend="cuda_graph")
    with pytest.raises(ConfigError, match="runs exported files; expected torch, cuda_graph or compiled"):
        run_detector(small("rfcn-tiny"), "cpu", backend="onnx")
    with pytest.raises(ConfigError, match="Run it with PyTorch"):
        run_detector(small("fgfa-tiny"), "cpu", backend="compiled")
