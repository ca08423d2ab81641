import numpy as np
import pytest
import torch

from memwarp_core.errors import ConfigError, DataError
from memwarp_core.geometry import warp
from memwarp_core.training.packed_clips import PackedClip
from memwarp_core.training.sequences import Sequences, collate, photometric

SPEED = 8  # pixels per frame, one cell


def moving_square(frames: int = 6) -> PackedClip:
    """A bright 16-pixel square that moves right by a cell per frame over black, with its exact field."""
    images = np.zeros((frames, 64, 96, 3), np.uint8)
    displacement = np.zeros((frames, 2, 8, 12), np.float16)
    valid = np.ones((frames, 1, 8, 12), np.bool_)
    valid[0] = False
    boxes = []
    for t in range(frames):
        left = 8 + SPEED * t
        images[t, 24:40, left : left + 16] = 200
        displacement[t, 0, 3:5, left // 8 : left // 8 + 2] = -1
        boxes.append(np.array([[left, 24, left + 16, 40]], np.float32))
    return PackedClip(images, displacement, valid, boxes, [np.array([1])] * frames)


def sequences(**options: object) -> Sequences:
    return Sequences([moving_square()], **{"frames": 3, "length": 20, "seed": 0, **options})  # type: ignore[arg-type]


def test_items_depend_on_seed_and_number_alone() -> None:
    first, again = sequences()[7], sequences(first=5)[2]
    assert torch.equal(first.images, again.images)
    assert any(not torch.equal(first.images, sequences(seed=1)[i].images) for i in range(5))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("crop", [None, (32, 64)])
def test_boxes_and_fields_fit_the_images_after_every_augmentation(stride: int, crop: tuple[int, int] | None) -> None:
    for item in (sequences(crop=crop, max_temporal_stride=stride)[i] for i in range(20)):
        cells = torch.nn.functional.avg_pool2d(item.images[0].float(), 8)
        for t in range(3):
            for x1, y1, x2, y2 in item.boxes[t].int().tolist():
                assert item.images[0, t, :, y1:y2, x1:x2].min() == 200
            lit = (item.images[0, t, 0] == 200).sum()
            boxes = item.boxes[t]
            if len(boxes):
                assert ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) == lit).all()
        for t in (1, 2):
            moved = warp(cells[t - 1 : t], item.displacement[:, t])
            known = item.valid[0, t, 0] & (cells[t, 0] > 0)
            inside = warp(torch.ones_like(cells[:1]), item.displacement[:, t])[0, 0] > 0.99
            torch.testing.assert_close(moved[0, 0][known & inside], cells[t, 0][known & inside])


def test_the_first_field_of_a_sequence_is_unknown() -> None:
    item = sequences()[3]
    assert not item.valid[0, 0].any()
    assert item.valid[0, 1:].all()


def test_a_temporal_stride_by_itself_is_fixed() -> None:
    clip = moving_square(9)
    for index in range(10):
        item = Sequences([clip], frames=3, length=20, seed=0, temporal_stride=4)[index]
        assert (item.boxes[1] - item.boxes[0])[0, 0].abs() == 4 * SPEED
    with pytest.raises(ValueError, match="3 frames, 5 frames apart, need clips at least as long, got one of 9"):
        Sequences([clip], frames=3, length=20, seed=0, temporal_stride=5)


def test_a_batch_lists_its_frames_sequence_by_sequence() -> None:
    items = [sequences()[i] for i in range(2)]
    batch = collate(items)
    assert batch.images.shape == (2, 3, 3, 64, 96)
    assert torch.equal(batch.boxes[4], items[1].boxes[1])


def test_photometric_changes_are_alike_in_all_frames_of_a_clip() -> None:
    grey = torch.full((2, 3, 3, 4, 4), 100.0)
    changed = photometric(grey, torch.Generator().manual_seed(0))
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert not torch.equal(changed[0], changed[1])
    assert changed.min() >= 0 and changed.max() <= 255


@pytest.mark.parametrize("scales", [(0.5, 0.5), (0.6, 0.9), (1.2, 2.0)])
def test_boxes_and_fields_are_scaled_along_with_the_images(scales: tuple[float, float]) -> None:
    clip = moving_square()
    clip.displacement[:, 0] = -1  # everything moves with the square
    scaled = Sequences([clip], frames=2, length=30, seed=0, scales=scales, crop=(48, 80))
    compared = 0
    for item in (scaled[i] for i in range(30)):
        assert item.images.shape[-2:] == (48, 80)
        whole = []
        for t, box in enumerate(item.boxes):
            if len(box) and box.min() > 0 and box[0, 2] < 80 and box[0, 3] < 48:
                x1, y1, x2, y2 = box[0].round().int().tolist()
                assert item.images[0, t, :, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min() > 190
                whole.append(box)
        if len(whole) == 2:
            field = item.displacement[0, 1, 0][item.valid[0, 1, 0]] * 8
            torch.testing.assert_close(field, (whole[0] - whole[1])[0, 0].expand_as(field))
            low, high = scales
            assert low * 0.9 <= field[0].abs() / SPEED <= high * 1.1
            compared += 1
        assert not item.displacement[0, 1, 1].any()
    assert compared >= 3


def test_images_of_several_sizes_are_padded_to_the_largest() -> None:
    small = moving_square()
    small = PackedClip(
        small.images[:, :48, :80], small.displacement[..., :6, :10], small.valid[..., :6, :10], small.boxes_xyxy,
        small.labels,
    )  # fmt: skip
    both = Sequences([moving_square(), small], frames=3, length=20, seed=0, size_multiple=32)
    batch = collate([both[i] for i in range(20)])
    assert batch.images.shape == (20, 3, 3, 64, 96)
    padded = (batch.images[:, 0, 0, -1, 0] == 127) | (batch.images[:, 0, 0, -1, -1] == 127)
    assert 0 < padded.sum() < 20
    assert not batch.valid[padded][:, 1:, 0, -1].any()


def test_a_still_image_is_repeated_and_drawn_as_often_as_a_frame_of_a_clip() -> None:
    clip = moving_square(19)
    still = PackedClip(
        clip.images[18:] + np.uint8(1), clip.displacement[18:], clip.valid[18:], clip.boxes_xyxy[18:], clip.labels[18:]
    )
    mixed = Sequences([clip, still], frames=3, length=200, seed=0, temporal_stride=2)
    items = [mixed[i] for i in range(200)]
    stills = [item for item in items if item.images.min() == 1]
    assert 3 <= len(stills) <= 20  # 10 are expected
    for item in stills:
        assert torch.equal(item.images[0, 0], item.images[0, 2])
        assert torch.equal(item.boxes[0], item.boxes[2])
        assert not item.valid.any()


def test_clips_that_are_too_short_and_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="sequences of 9 frames need clips at least as long, got one of 6"):
        sequences(frames=9)
    with pytest.raises(ConfigError, match="crop must be multiples of 16"):
        sequences(crop=(64, 100))
