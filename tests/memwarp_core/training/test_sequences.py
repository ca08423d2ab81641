import numpy as np
import pytest
import torch

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


def test_clips_that_are_too_short_and_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="sequences of 9 frames need clips at least as long, got one of 6"):
        sequences(frames=9)
    with pytest.raises(ValueError, match="crop must be multiples of 16"):
        sequences(crop=(64, 100))
