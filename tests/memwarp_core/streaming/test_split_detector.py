import numpy as np
import torch

from memwarp_core.models import Detector, DetectorConfig
from memwarp_core.streaming import SplitVideoDetector, VideoDetector, run_detector

CONFIG = {
    "name": "test",
    "class_names": ["ball", "crate"],
    "short_side": 64,
    "head": {"kind": "fcos", "score_threshold": 0.0, "nms_threshold": 0.9},
    "split": True,
}
FRAMES = [np.random.default_rng(index).integers(0, 255, (64, 128, 3), dtype=np.uint8) for index in range(3)]


def build() -> SplitVideoDetector:
    torch.manual_seed(0)
    detector = run_detector(Detector(DetectorConfig.model_validate(CONFIG)), device="cpu")
    assert isinstance(detector, SplitVideoDetector)
    return detector


def test_each_half_is_a_stream_of_its_own_at_the_scale_of_the_whole() -> None:
    detector = build()
    halves = VideoDetector(detector.network, device="cpu")
    state, left = detector.start(), halves.start()
    for index, image in enumerate(FRAMES):
        found, state = detector.step(image, index, state)
        of_left, left = halves.step(image[:, :64], index, left)
    in_left = found.boxes_xyxy[found.boxes_xyxy[:, 2] <= 64]
    # Each box of the left half is found; boxes of the right half lie beyond the middle.
    assert len(in_left) > 0
    assert (torch.cdist(in_left, of_left.boxes_xyxy).amin(dim=1) < 0.1).all()
    assert (found.boxes_xyxy[found.boxes_xyxy[:, 2] > 64.01][:, 0] >= 63.99).all()
    assert (found.scores.diff() <= 0).all()


def test_what_happens_in_one_half_does_not_reach_the_other() -> None:
    detector = build()
    changed = FRAMES[1].copy()
    changed[:, 70:] = 0
    kept = []
    for second in (FRAMES[1], changed):
        _, state = detector.step(FRAMES[0], 0, detector.start())
        found, state = detector.step(second, 1, state)
        kept.append(found.boxes_xyxy[found.boxes_xyxy[:, 2] <= 64])
    torch.testing.assert_close(kept[0], kept[1])


def test_both_halves_are_anticipated_and_run_as_a_recording() -> None:
    detector = build()
    state, found = detector.start(), []
    for index, image in enumerate(FRAMES):
        detections, state = detector.step(image, index * 50_000_000, state)
        found.append(detections)
    soon, later = detector.anticipate(state, [0.0, 0.1])
    assert later.stamp_ns == 200_000_000
    assert later.boxes_xyxy[:, 0].max() > 64 > later.boxes_xyxy[:, 0].min()
    recording = list(detector.detect_clip((image, index * 50_000_000) for index, image in enumerate(FRAMES)))
    torch.testing.assert_close(recording[-1].boxes_xyxy, found[-1].boxes_xyxy)
