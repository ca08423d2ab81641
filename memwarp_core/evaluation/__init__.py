"""How good a detector is."""

from memwarp_core.evaluation.average_precision import AveragePrecision, average_precision

__all__ = ["AveragePrecision", "average_precision"]
