from dataclasses import fields

import numpy as np
import pytest
import torch

from memwarp_core import ConfigError, DataError, Detections, StaleFrameError, VideoDetector, load_detector
from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.models.config import AnticipationConfig, FCOSHeadConfig

FRAME_NS = 50_000_000


@pytest.fixture(scope="module")
def detector() -> VideoDetector:
    """Random weights that find something everywhere: enough for all that does not depend on being right."""
    torch.manual_seed(0)
    config = DetectorConfig(
        name="test", class_names=("ball", "crate"), short_side=64, head=FCOSHeadConfig(score_threshold=0.0)
    )
    return VideoDetector(Detector(config), device="cpu")


def images(count: int, size: tuple[int, int] = (64, 96)) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(count)]


def run(detector: VideoDetector, frames: list[np.ndarray], first: int = 0, state=None):  # type: ignore[no-untyped-def]
    state = state or detector.start()
    found = []
    for index, image in enumerate(frames, start=first):
        detections, state = detector.step(image, index * FRAME_NS, state)
        found.append(detections)
    return found, state


def same(first: Detections, second: Detections) -> bool:
    return all(
        torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(Detections) if f.name != "stamp_ns"
    )


def test_detections_carry_the_stamp_of_their_frame(detector: VideoDetector) -> None:
    (found,), _ = run(detector, images(1), first=7)
    assert found.stamp_ns == 7 * FRAME_NS
    assert len(found) > 0


def test_boxes_are_in_pixels_of_the_source_image(detector: VideoDetector) -> None:
    (found,), _ = run(detector, images(1, (360, 600)))
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= torch.tensor([600, 360, 600, 360])).all()
    assert found.boxes_xyxy[:, 2].max() > 400


def test_splitting_a_stream_changes_nothing(detector: VideoDetector) -> None:
    frames = images(5)
    whole, _ = run(detector, frames)
    begin, state = run(detector, frames[:2])
    end, _ = run(detector, frames[2:], first=2, state=state)
    assert all(same(a, b) for a, b in zip(whole, begin + end, strict=True))


def test_a_new_state_is_a_reset(detector: VideoDetector) -> None:
    frames = images(3)
    first, _ = run(detector, frames)
    again, _ = run(detector, frames)
    assert same(first[-1], again[-1])


def test_memory_makes_a_difference(detector: VideoDetector) -> None:
    frames = images(3)
    with_past, _ = run(detector, frames)
    without_past, _ = run(detector, frames[2:], first=2)
    assert not same(with_past[-1], without_past[-1])


def test_the_state_does_not_grow(detector: VideoDetector) -> None:
    _, state = run(detector, images(8))
    _, later = run(detector, images(20))

    def size(of: object) -> int:
        if isinstance(of, torch.Tensor):
            return of.numel()
        if isinstance(of, tuple):
            return sum(map(size, of))
        return sum(size(getattr(of, name)) for name in getattr(of, "__slots__", ()) if name != "detections")

    assert size(later) == size(state) > 0


def test_a_frame_that_is_not_newer_is_refused(detector: VideoDetector) -> None:
    (frame,) = images(1)
    _, state = run(detector, [frame], first=3)
    for stamp_ns in (3 * FRAME_NS, FRAME_NS):
        with pytest.raises(StaleFrameError, match="start()"):
            detector.step(frame, stamp_ns, state)


def test_a_new_image_size_starts_a_new_memory(detector: VideoDetector) -> None:
    _, state = run(detector, images(3))
    (larger,) = images(1, (128, 128))
    found, state = detector.step(larger, 3 * FRAME_NS, state)
    fresh, _ = detector.step(larger, 3 * FRAME_NS, detector.start())
    assert same(found, fresh)
    assert not state.motions


def test_a_long_gap_starts_a_new_memory(detector: VideoDetector) -> None:
    _, state = run(detector, images(3))
    _, state = detector.step(images(1)[0], 60_000_000_000, state)
    assert not state.motions


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_rgb_image_is_refused(detector: VideoDetector, image: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8 RGB"):
        detector.step(image, 0, detector.start())


def test_a_strip_is_refused_instead_of_scaled_to_a_giant(detector: VideoDetector) -> None:
    with pytest.raises(DataError, match="1000x2"):
        detector.step(np.zeros((2, 1000, 3), np.uint8), 0, detector.start())


@pytest.mark.parametrize("source", ["features", "boxes"])
def test_anticipations_have_the_stamps_of_their_horizons(detector: VideoDetector, source: str) -> None:
    _, state = run(detector, images(3))
    how = AnticipationConfig(source=source)  # type: ignore[arg-type]
    coming = detector.anticipate(state, [0.1, 0.25], how)
    assert [one.stamp_ns for one in coming] == [2 * FRAME_NS + 100_000_000, 2 * FRAME_NS + 250_000_000]


def test_a_horizon_of_zero_is_now(detector: VideoDetector) -> None:
    found, state = run(detector, images(3))
    (now,) = detector.anticipate(state, [0.0])
    torch.testing.assert_close(now.boxes_xyxy, found[-1].boxes_xyxy, rtol=1e-3, atol=1e-2)


def test_after_one_frame_nothing_is_expected_to_move(detector: VideoDetector) -> None:
    found, state = run(detector, images(1))
    (boxes,) = detector.anticipate(state, [0.4], AnticipationConfig(source="boxes"))
    assert torch.equal(boxes.boxes_xyxy, found[0].boxes_xyxy)


def test_stamps_decide_how_far_things_move(detector: VideoDetector) -> None:
    """The same images at half the rate: half the speed, so the same place after twice the horizon."""
    frames = images(2)
    how = AnticipationConfig(source="boxes", motion="constant_velocity")
    _, state = detector.step(frames[0], 0, detector.start())
    _, fast = detector.step(frames[1], FRAME_NS, state)
    _, slow = detector.step(frames[1], 2 * FRAME_NS, state)
    (near,), (far,) = detector.anticipate(fast, [0.1], how), detector.anticipate(slow, [0.2], how)
    assert torch.equal(near.boxes_xyxy, far.boxes_xyxy)


def test_anticipation_needs_a_frame_and_a_future(detector: VideoDetector) -> None:
    with pytest.raises(ValueError, match="step()"):
        detector.anticipate(detector.start(), [0.1])
    _, state = run(detector, images(1))
    with pytest.raises(ValueError, match="negative"):
        detector.anticipate(state, [-0.1])
    assert detector.anticipate(state, []) == []


def test_an_unknown_device_or_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="device 'abacus'"):
        load_detector(device="abacus")
    with pytest.raises(ConfigError, match="precision 'fp3'"):
        load_detector(precision="fp3")  # type: ignore[arg-type]
