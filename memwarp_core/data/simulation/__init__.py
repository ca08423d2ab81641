"""Simulated scenes: a moving robot camera over procedural objects, rendered with MuJoCo.

Importing this package needs no MuJoCo; `simulate` does.
"""

from memwarp_core.data.simulation.config import CLASS_NAMES, SimulationConfig
from memwarp_core.data.simulation.simulate import simulate

__all__ = ["CLASS_NAMES", "SimulationConfig", "simulate"]
