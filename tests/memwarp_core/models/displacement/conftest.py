from collections.abc import Callable

import pytest

from memwarp_core.models.parts import Features


@pytest.fixture
def features() -> Callable[..., Features]:
    """Makes what a displacement part has to know of a backbone."""

    def make(stride: int = 8, early_stride: int = 4, early_channels: int = 16) -> Features:
        part = Features()
        part.strides, part.channels = (stride,), (32,)
        part.early_stride, part.early_channels = early_stride, early_channels
        part.size_multiple = 16
        return part

    return make
