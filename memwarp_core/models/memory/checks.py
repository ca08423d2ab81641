"""What every memory refuses, with errors that say what was expected, what came and what to do."""

from collections.abc import Sequence

from torch import Tensor

from memwarp_core.models.parts import Evidence, Levels


def contents(evidence: Evidence | None) -> tuple[Levels | None, Tensor]:
    """A new frame's features, None where they are withheld, and what it is compared by.

    Raises: ValueError if there is no new frame, or it cannot be compared.
    """
    if evidence is None:
        raise ValueError("a step needs the evidence of a new frame, got None; this memory owes nothing after the last.")
    if evidence.motion is None:
        raise ValueError("a memory compares frames, but the evidence has no motion; give the detector a displacement.")
    return evidence.features, evidence.motion


def check_start(features: Levels | None) -> Levels:
    """
    Raises: ValueError unless a stream's first frame has features.
    """
    if features is None:
        raise ValueError("the first frame needs features, got none; withhold them from the second frame on.")
    return features


def check_sizes(memory: Levels, evidence: Levels) -> None:
    """
    Raises: ValueError unless the evidence lies on the memory's grids.
    """
    kept, new = ([(level.shape[0], *level.shape[-2:]) for level in levels] for levels in (memory, evidence))
    if kept != new:
        raise ValueError(
            f"evidence must have the memory's batch, height and width per level, {kept}, got {new}; "
            "start a new stream when the resolution changes."
        )


def check_displacements(displacements: Sequence[Tensor], expected: int) -> None:
    """
    Raises: ValueError unless as many displacements came as pairs were asked for.
    """
    if len(displacements) != expected:
        raise ValueError(f"expected {expected} displacements, one per entry of pairs(), got {len(displacements)}.")
