import torch

from memwarp_core.geometry import propagate_boxes


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
