"""Memory parts: what is carried from frame to frame, and how evidence enters it."""

from memwarp_core.models.config import MemNetConfig, MemoryConfig
from memwarp_core.models.memory.memnet import MemNet
from memwarp_core.models.memory.no_memory import NoMemory
from memwarp_core.models.parts import Memory

__all__ = ["MemNet", "NoMemory", "build_memory"]


def build_memory(channels: tuple[int, ...], config: MemoryConfig) -> Memory:
    """
    Args:
        channels: of each level.
    """
    if config.kind == "none":
        return NoMemory()
    assert isinstance(config, MemNetConfig)
    return MemNet(channels, config)
