"""Memory parts: what is carried from frame to frame, and how evidence enters it."""

from memwarp_core.models.config import ClockNetConfig, FGFAConfig, MemNetConfig, MemoryConfig
from memwarp_core.models.memory.clocknet import ClockNet
from memwarp_core.models.memory.fgfa import FGFA
from memwarp_core.models.memory.memnet import MemNet
from memwarp_core.models.memory.no_memory import NoMemory
from memwarp_core.models.parts import Memory

__all__ = ["FGFA", "ClockNet", "MemNet", "NoMemory", "build_memory"]


def build_memory(channels: tuple[int, ...], config: MemoryConfig) -> Memory:
    """
    Args:
        channels: of each level.
    """
    if isinstance(config, MemNetConfig):
        return MemNet(channels, config)
    if isinstance(config, ClockNetConfig):
        return ClockNet(channels, config)
    if isinstance(config, FGFAConfig):
        return FGFA(channels, config)
    return NoMemory()
