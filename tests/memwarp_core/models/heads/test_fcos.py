"""What holds of the FCOS head alone; test_heads.py has what every head does."""

import torch

from memwarp_core.models.config import FCOSHeadConfig
from memwarp_core.models.heads import FCOSHead


def test_a_cell_starts_with_boxes_around_itself() -> None:
    """Distances of 0.6 reference sides of 32 pixels on every side, at cells 8 pixels apart."""
    torch.manual_seed(0)
    head = FCOSHead(32, 8, 2, FCOSHeadConfig(score_threshold=0.0))
    for weight in head.fcos.head.regression_head.bbox_reg.parameters():
        if weight.ndim > 1:
            torch.nn.init.zeros_(weight)
    with torch.no_grad():
        (found,) = head.detect((torch.randn(1, 32, 12, 16),), (96, 128))
    boxes = found["boxes"]
    whole = boxes[(boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < torch.tensor([128, 96])).all(1)]
    assert len(whole) > 0
    torch.testing.assert_close(whole[:, 2:] - whole[:, :2], torch.full((len(whole), 2), 2 * 0.6 * 32))
    centres = (whole[:, 2:] + whole[:, :2]) / 2
    torch.testing.assert_close(centres, (centres / 8).round() * 8)


def test_only_cells_near_an_objects_centre_have_to_find_it() -> None:
    """Within 1.5 strides: of the cells 8 pixels apart, 3x3 around a centre on a cell, for a box of any size."""
    head = FCOSHead(32, 8, 2, FCOSHeadConfig())
    features = torch.randn(1, 32, 12, 16)
    outputs = {}
    original = head.fcos.head.compute_loss

    def keep(targets: list, predicted: dict, anchors: list, matched: list) -> dict:
        outputs["matched"] = matched[0]
        return original(targets, predicted, anchors, matched)

    head.fcos.head.compute_loss = keep
    head.losses((features,), [{"boxes": torch.tensor([[16.0, 8, 112, 88]]), "labels": torch.tensor([1])}], (96, 128))
    rows, columns = torch.where(outputs["matched"].view(12, 16) == 0)
    assert sorted(set(rows.tolist())) == [5, 6, 7]
    assert sorted(set(columns.tolist())) == [7, 8, 9]
    assert len(rows) == 9
