import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memwarp_core.geometry import follow_boxes, match_boxes, propagate_boxes


def test_a_box_moves_against_the_mean_displacement_inside_it() -> None:
    displacement = torch.zeros(2, 4, 4)
    displacement[0, :2, :2] = -1.5  # cells of 8 pixels; was 12 pixels to the left
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [16.0, 16.0, 32.0, 32.0]])
    moved = propagate_boxes(boxes, displacement, stride=8)
    assert moved.tolist() == [[12.0, 0.0, 28.0, 16.0], [16.0, 16.0, 32.0, 32.0]]


def test_a_box_smaller_than_a_cell_takes_the_cell_around_its_centre() -> None:
    displacement = torch.zeros(2, 4, 4)
    displacement[1, 1, 2] = 0.5
    moved = propagate_boxes(torch.tensor([[18.0, 10.0, 19.0, 11.0]]), displacement, stride=8)
    assert moved.tolist() == [[18.0, 6.0, 19.0, 7.0]]


def test_no_boxes_stay_no_boxes() -> None:
    assert propagate_boxes(torch.zeros(0, 4), torch.zeros(2, 4, 4), stride=8).shape == (0, 4)


def test_each_image_of_a_batch_has_its_own_field() -> None:
    torch.manual_seed(0)
    displacement = torch.randn(3, 2, 4, 6)
    corners = torch.rand(3, 5, 2) * 30
    boxes = torch.cat((corners, corners + torch.rand(3, 5, 2) * 20), dim=-1)
    apart = [propagate_boxes(*of_image, stride=8) for of_image in zip(boxes, displacement, strict=True)]
    torch.testing.assert_close(propagate_boxes(boxes, displacement, stride=8), torch.stack(apart))


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.sampled_from([4, 8, 16]))
def test_a_slow_loop_over_cells_agrees(seed: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    displacement = torch.randn(2, 5, 7, generator=generator)
    corners = torch.rand(4, 2, generator=generator) * 140 - 20
    boxes = torch.cat((corners, corners + torch.rand(4, 2, generator=generator) * 60), dim=1)
    expected = torch.stack([slow_propagation(box, displacement, stride) for box in boxes])
    torch.testing.assert_close(propagate_boxes(boxes, displacement, stride), expected, rtol=1e-5, atol=1e-4)


def slow_propagation(box: torch.Tensor, displacement: torch.Tensor, stride: int) -> torch.Tensor:
    x1, y1, x2, y2 = box.tolist()
    if x2 - x1 < stride:
        x1, x2 = (x1 + x2 - stride) / 2, (x1 + x2 + stride) / 2
    if y2 - y1 < stride:
        y1, y2 = (y1 + y2 - stride) / 2, (y1 + y2 + stride) / 2
    inside = [
        displacement[:, row, column]
        for row in range(displacement.shape[1])
        for column in range(displacement.shape[2])
        if x1 <= (column + 0.5) * stride < x2 and y1 <= (row + 0.5) * stride < y2
    ]
    return box - torch.stack(inside).mean(0).repeat(2) * stride if inside else box


def test_a_box_beside_the_map_stays() -> None:
    boxes = torch.tensor([[100.0, 0.0, 120.0, 16.0]])
    assert propagate_boxes(boxes, torch.ones(2, 4, 4), stride=8).equal(boxes)


def test_gradients_reach_boxes_and_displacement() -> None:
    torch.manual_seed(0)
    displacement = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[1.0, 2.0, 17.0, 21.0], [9.0, 9.0, 11.0, 12.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b, d: propagate_boxes(b, d, 8), (boxes, displacement))


def test_a_box_follows_its_object_and_not_what_the_object_uncovers() -> None:
    """An object of two by two cells that moved by one cell, before a background at rest."""
    displacement = torch.zeros(2, 4, 8)
    displacement[0, 1:3, 2:4] = -1.0
    boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0], [40.0, 0.0, 56.0, 16.0]])
    assert follow_boxes(boxes, displacement, stride=8).tolist() == [[16.0, 8.0, 32.0, 24.0], [40.0, 0.0, 56.0, 16.0]]


def test_a_box_follows_further_than_its_own_size() -> None:
    displacement = torch.zeros(2, 4, 8)
    displacement[0, 1, 6] = -5.0
    displacement[0, 1, 1] = -1.0  # what was behind the object came from elsewhere
    moved = follow_boxes(torch.tensor([[8.0, 8.0, 16.0, 16.0]]), displacement, stride=8)
    assert moved.tolist() == [[48.0, 8.0, 56.0, 16.0]]


def test_a_box_outside_of_the_map_stays() -> None:
    boxes = torch.tensor([[-40.0, 0.0, -20.0, 16.0]])
    assert torch.equal(follow_boxes(boxes, torch.zeros(2, 4, 4), stride=8), boxes)
    assert follow_boxes(boxes[:0], torch.zeros(2, 4, 4), stride=8).shape == (0, 4)


def test_following_undoes_a_displacement_of_the_whole_map() -> None:
    displacement = torch.tensor([1.25, -0.5])[:, None, None].expand(2, 6, 8)
    moved = follow_boxes(torch.tensor([[16.0, 16.0, 32.0, 24.0]]), displacement, stride=8)
    assert moved.tolist() == [[6.0, 20.0, 22.0, 28.0]]


def boxes_at(*places: float) -> torch.Tensor:
    return torch.tensor([[x, 0.0, x + 10, 10.0] for x in places]).reshape(-1, 4)


def test_boxes_are_paired_one_to_one_the_largest_overlap_first() -> None:
    zeros = torch.zeros(2, dtype=torch.int64)
    partners, ious = match_boxes(boxes_at(2, 0), zeros, boxes_at(0, 5), zeros)
    assert partners.tolist() == [1, 0]
    torch.testing.assert_close(ious, torch.tensor([7 / 13, 1.0]))


def test_boxes_of_another_class_or_with_too_little_overlap_are_not_paired() -> None:
    labels = torch.tensor([0, 1, 2])
    partners, ious = match_boxes(boxes_at(0, 20, 40), labels, boxes_at(0, 25, 40), torch.tensor([1, 1, 2]), 0.5)
    assert partners.tolist() == [-1, -1, 2]
    assert ious.tolist() == [0, 0, 1]


def test_boxes_that_only_touch_are_not_paired() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    assert match_boxes(boxes_at(0), zero, boxes_at(10), zero)[0].tolist() == [-1]
    assert match_boxes(boxes_at(), zero[:0], boxes_at(10), zero)[0].tolist() == []
    assert match_boxes(boxes_at(0), zero, boxes_at(), zero[:0])[0].tolist() == [-1]
