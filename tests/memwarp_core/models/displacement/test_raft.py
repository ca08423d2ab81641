import pytest
import torch
from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

from memwarp_core.models.config import RaftConfig
from memwarp_core.models.displacement import Raft


def still(halved_height: int, halved_width: int) -> torch.Tensor:
    return torch.zeros(1, 3, halved_height, halved_width)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_a_known_flow_becomes_its_number_of_cells(stride: int) -> None:
    part = Raft(stride, RaftConfig(updates=2)).eval()
    last = part.raft.update_block.flow_head.conv2
    torch.nn.init.zeros_(last.weight)
    # Each of two updates adds half a cell of RAFT's, 8 pixels of its input: 8 and -4 pixels of half resolution.
    last.bias.data = torch.tensor([0.5, -0.25])
    with torch.inference_mode():
        field = part(still(32, 48), still(32, 48))
    expected = torch.tensor([16.0, -8.0])[None, :, None, None] / stride
    torch.testing.assert_close(field, expected.expand(1, 2, 64 // stride, 96 // stride))


@pytest.mark.parametrize("size", [(8, 8), (132, 140), (150, 130)])
def test_images_of_any_size_are_taken(size: tuple[int, int]) -> None:
    part = Raft(8, RaftConfig(updates=1)).eval()
    with torch.inference_mode():
        described = part.describe(torch.rand(1, 3, *size) * 255, None)
        assert part(described, described).shape == (1, 2, -(-size[0] // 8), -(-size[1] // 8))


def test_images_are_halved_and_range_from_minus_one_to_one() -> None:
    image = torch.zeros(1, 3, 2, 4)
    image[..., 2:] = 255
    described = Raft(8, RaftConfig()).describe(image, None)
    torch.testing.assert_close(described, torch.tensor([-1.0, 1.0]).expand(1, 3, 1, 2))


def test_flow_starts_at_the_current_frame() -> None:
    part = Raft(8, RaftConfig(updates=1)).eval()
    seen = []
    part.raft.context_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        part(still(128, 128) + 1, still(128, 128))
    assert seen[0].eq(1).all()


def test_published_weights_fit_by_name() -> None:
    part = Raft(8, RaftConfig())
    part.raft.load_state_dict(raft_small(weights=None).state_dict())
    published = Raft_Small_Weights.DEFAULT.meta["num_params"]
    assert sum(p.numel() for p in part.parameters()) == published == 990_162
