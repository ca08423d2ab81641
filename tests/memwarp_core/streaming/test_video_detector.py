import copy
from collections.abc import Iterator
from dataclasses import replace

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
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("boxes_xyxy", "scores", "labels"))


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
    assert state.began == "size"


def test_a_long_gap_starts_a_new_memory(detector: VideoDetector) -> None:
    _, state = run(detector, images(3))
    _, state = detector.step(images(1)[0], 60_000_000_000, state)
    assert not state.motions
    assert state.began == "gap"


def test_the_state_says_whether_the_memory_began_with_the_newest_frame(detector: VideoDetector) -> None:
    _, state = run(detector, images(1))
    assert state.began == "start"
    _, state = run(detector, images(1), first=1, state=state)
    assert state.began is None


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_rgb_image_is_refused(detector: VideoDetector, image: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8 RGB"):
        detector.step(image, 0, detector.start())


def test_a_strip_is_refused_instead_of_scaled_to_a_giant(detector: VideoDetector) -> None:
    with pytest.raises(DataError, match="1000x2"):
        detector.step(np.zeros((2, 1000, 3), np.uint8), 0, detector.start())


@pytest.mark.parametrize("source", ["features", "proposals", "boxes"])
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


def build(**parts: object) -> VideoDetector:
    torch.manual_seed(0)
    everything = {"kind": "fcos", "score_threshold": 0.0}
    config = {"name": "test", "class_names": ["ball", "crate"], "short_side": 64, "head": everything, **parts}
    return VideoDetector(Detector(DetectorConfig.model_validate(config)), device="cpu")


def close(first: Detections, second: Detections) -> bool:
    """The same boxes, up to what another order of sums in a batch leaves."""
    return len(first) == len(second) and torch.allclose(first.boxes_xyxy, second.boxes_xyxy, atol=0.05)


@pytest.mark.parametrize(
    "memory", [{"kind": "none"}, {"kind": "memnet"}, {"kind": "clocknet"}, {"kind": "fgfa", "past": 2, "future": 0}]
)
def test_cameras_that_share_a_pass_do_not_influence_each_other(memory: dict) -> None:
    detector = build(memory=memory)
    cameras = [images(4), images(4, (64, 96))[::-1], images(4, (64, 64))]
    alone = [run(detector, frames)[0] for frames in cameras]
    states = [detector.start() for _ in cameras]
    for index in range(4):
        # The second camera has been restarted in between: its stream is one frame long when the others' are three.
        if index == 2:
            states[1] = detector.start()
        stepped = detector.step_cameras([frames[index] for frames in cameras], [index * FRAME_NS] * 3, states)
        states = [state for _, state in stepped]
    restarted, _ = run(detector, cameras[1][2:], first=2)
    for (found, _), expected in zip(stepped, [alone[0][-1], restarted[-1], alone[2][-1]], strict=True):
        assert found.stamp_ns == 3 * FRAME_NS
        assert close(found, expected)


def test_one_stale_camera_keeps_all_from_advancing(detector: VideoDetector) -> None:
    frames = images(2)
    _, state = run(detector, frames[:1], first=3)
    with pytest.raises(StaleFrameError):
        detector.step_cameras(frames, [4 * FRAME_NS, 2 * FRAME_NS], [state, state])


def test_evidence_enters_in_every_nth_frame_only() -> None:
    detector = build(propagation={"every": 3})
    parts, expected, state = detector.network, None, detector.start()
    for index, image in enumerate(images(7)):
        _, state = detector.step(image, index * FRAME_NS, state)
        with torch.inference_mode():
            evidence = parts.observe(detector._prepare([image]), withhold=index % 3 > 0)
            step = parts.step(expected, evidence)
        expected = step.state
        assert (evidence.features is None) == (index % 3 > 0)
        torch.testing.assert_close(state.features, step.memory)


def test_between_evidence_boxes_keep_their_scores_and_move() -> None:
    detector = build(propagation={"every": 2, "source": "boxes"})
    found, _ = run(detector, images(3))
    assert found[1].stamp_ns == FRAME_NS
    assert set(found[1].scores.tolist()) <= set(found[0].scores.tolist())
    assert not same(found[0], found[1])
    whole, _ = run(build(), images(3)[:1])
    assert same(found[0], whole[0])


def test_between_evidence_images_may_stay_unseen() -> None:
    """With anticipation, only the stamps of frames in between matter."""
    detector = build(propagation={"every": 3, "source": "anticipation"})
    frames, others = images(5), images(6)
    seen, _ = run(detector, frames[:5])
    unseen, state = run(detector, [frames[0], others[1], others[2], frames[3], others[4]])
    assert all(same(a, b) for a, b in zip(seen, unseen, strict=True))
    assert [one.stamp_ns for one in unseen] == [index * FRAME_NS for index in range(5)]
    assert (state.stamp_ns, state.newest_ns) == (3 * FRAME_NS, 4 * FRAME_NS)
    (now,) = detector.anticipate(state, [0.0])
    assert same(now, unseen[-1])


def test_a_detector_that_looks_ahead_runs_on_recordings_alone() -> None:
    detector = build(memory={"kind": "fgfa", "past": 1, "future": 2})
    with pytest.raises(ConfigError, match="2 frames into the future"):
        detector.start()
    frames = images(5)
    recording = [(image, index * FRAME_NS) for index, image in enumerate(frames)]
    found = list(detector.detect_clip(recording))
    assert [one.stamp_ns for one in found] == [index * FRAME_NS for index in range(5)]
    changed = list(detector.detect_clip([*recording[:4], (images(6)[0], 4 * FRAME_NS)]))
    # The last frame is in the future of frames 2 and 3, and too far ahead of frame 1.
    assert same(found[1], changed[1])
    assert not same(found[2], changed[2])


def test_detections_of_a_recording_come_as_soon_as_they_are_known() -> None:
    detector = build(memory={"kind": "fgfa", "past": 1, "future": 2})
    taken = []

    def recording() -> Iterator[tuple[np.ndarray, int]]:
        for index, image in enumerate(images(5)):
            taken.append(index)
            yield image, index * FRAME_NS

    next(detector.detect_clip(recording()))
    assert taken == [0, 1, 2]


def test_a_causal_detector_does_the_same_on_a_recording_and_on_a_stream(detector: VideoDetector) -> None:
    frames = images(3)
    stream, _ = run(detector, frames)
    recording = detector.detect_clip((image, index * FRAME_NS) for index, image in enumerate(frames))
    assert all(same(a, b) for a, b in zip(stream, recording, strict=True))


def test_a_detector_that_compares_no_frames_expects_objects_to_stay() -> None:
    detector = build(memory={"kind": "none"}, displacement={"kind": "none"})
    (_, last), state = run(detector, images(2))
    for source in ("features", "proposals", "boxes"):
        (later,) = detector.anticipate(state, [0.1], AnticipationConfig(source=source))
        assert same(later, last)
        assert later.stamp_ns == FRAME_NS + 100_000_000


def test_the_long_side_limits_the_scale_and_a_fixed_size_needs_none() -> None:
    assert build(long_side=128)._network_size((100, 400)) == (32, 128)
    assert build()._network_size((100, 400)) == (64, 256)
    fixed = build(fixed_size=(96, 64))
    found, _ = run(fixed, images(1, (100, 400)))
    assert found[0].boxes_xyxy[:, 2].max() > 300


@pytest.mark.parametrize("memory", [{"kind": "clocknet"}, {"kind": "memnet", "aggregation": "adascan"}])
def test_half_precision_finds_about_the_same(memory: dict) -> None:
    full = build(memory=memory)
    half = VideoDetector(copy.deepcopy(full.network), device="cpu", precision="bf16")
    frames = images(3)
    best = [run(detector, frames)[0][-1].scores[:5].mean() for detector in (full, half)]
    assert best[1].dtype == torch.float32
    torch.testing.assert_close(best[0], best[1], rtol=0.05, atol=0.01)


def test_boxes_follow_the_displacement_that_was_measured(detector: VideoDetector) -> None:
    _, state = run(detector, images(2))
    one_cell_left = torch.tensor([1.0, 0.0])[:, None, None].expand_as(state.motions[0].displacement)
    state = replace(state, motions=(replace(state.motions[0], displacement=one_cell_left),))
    cell = detector.network.features.strides[0]
    boxes = torch.tensor([[40.0, 20.0, 60.0, 40.0]])
    shift = torch.tensor([cell, 0, cell, 0])
    torch.testing.assert_close(detector.follow_boxes(boxes, 0, state), boxes - shift)
    torch.testing.assert_close(detector.follow_boxes(boxes, FRAME_NS // 2, state), boxes - shift / 2)
    torch.testing.assert_close(detector.anticipate_boxes(boxes, 0.1, state), boxes - 2 * shift)


def test_boxes_stay_where_nothing_is_known_of_motion(detector: VideoDetector) -> None:
    boxes = torch.tensor([[40.0, 20.0, 60.0, 40.0]])
    _, state = run(detector, images(1))
    assert torch.equal(detector.follow_boxes(boxes, 0, state), boxes)
    assert torch.equal(detector.anticipate_boxes(boxes, 0.1, state), boxes)


def test_boxes_follow_in_pixels_of_the_camera(detector: VideoDetector) -> None:
    """Images of twice the size are scaled to the network's; the same cells are twice the pixels."""
    small, large = (run(detector, images(2, size))[1] for size in ((64, 96), (128, 192)))
    field = large.motions[0]
    boxes = torch.tensor([[20.0, 10.0, 60.0, 40.0]])
    moved = detector.follow_boxes(boxes, 0, replace(small, motions=(field,)))
    torch.testing.assert_close(detector.follow_boxes(2 * boxes, 0, large), 2 * moved)


def test_boxes_that_move_take_their_track_ids_along(detector: VideoDetector) -> None:
    found, state = run(detector, images(2))
    named = replace(found[-1], track_ids=torch.arange(len(found[-1])))
    (later,) = detector.anticipate(replace(state, detections=named), [0.1], AnticipationConfig(source="boxes"))
    assert later.track_ids is not None and set(later.track_ids.tolist()) <= set(range(len(named)))
    assert torch.equal(named.scores[later.track_ids], later.scores)
