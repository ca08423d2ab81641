"""Whether an exported detector says what PyTorch says."""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from memwarp_core.errors import ExportError
from memwarp_core.export.onnx_graph import load_onnx
from memwarp_core.geometry.boxes import match_boxes
from memwarp_core.models import Detector
from memwarp_core.streaming.video_detector import VideoDetector
from memwarp_core.types import Detections

BOX_TOLERANCE = 0.1
"""Image pixels, of every side of a box."""
SCORE_TOLERANCE = 0.005
MOST_DIFFERING = {"fp32": 0.005, "fp16": 0.02}
"""Share of the detections in the frames, by the precision of the export; docs/export.md has what was measured. Pooling
rounds regions to pixels, and suppression compares overlaps with a threshold: there the last bit of a sum decides, and
all of a box may be another."""
MOST_DIFFERING_LATER = 0.02
"""Of what is anticipated. Behind the edge of a moved map nothing is seen, and boxes have nearly equal scores."""
HORIZON_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Between the detections of two runs over the same images."""

    instants: int
    detections: int
    """Of both runs together."""
    differing: int
    """Those that the other run has none of within BOX_TOLERANCE and SCORE_TOLERANCE."""
    box: float
    """The largest difference of a side among the others, image pixels."""
    score: float
    """The largest difference of a score among the others."""

    @property
    def share(self) -> float:
        """Of the detections that differ."""
        return self.differing / max(1, self.detections)


def check_onnx(
    detector: Detector, folder: Path, frames: Iterable[tuple[np.ndarray, int]]
) -> tuple[Difference, Difference]:
    """Run a clip through PyTorch and through the exported files, each with its own memory.

    Args:
        detector: that was exported to `folder`.
        frames: (image, stamp_ns).
    Returns: the difference of what is found in the frames, and of what is anticipated HORIZON_S after each.
    Raises: ExportError if more than MOST_DIFFERING of the one or MOST_DIFFERING_LATER of the other differ.
    """
    exported = load_onnx(folder)
    original = copy(detector)
    original.config = exported.config  # the one size of the export
    runs = [VideoDetector(network, "cpu", "fp32") for network in (original, exported)]
    states = [run.start() for run in runs]
    now: list[tuple[Detections, Detections]] = []
    later: list[tuple[Detections, Detections]] = []
    for image, stamp_ns in frames:
        stepped = [run.step(image, stamp_ns, state) for run, state in zip(runs, states, strict=True)]
        states = [state for _, state in stepped]
        # Of one state: where two cells move to one place, the last bit of a displacement decides which is seen there.
        ahead = [run.anticipate(states[0], [HORIZON_S])[0] for run in runs]
        now.append((stepped[0][0], stepped[1][0]))
        later.append((ahead[0], ahead[1]))
    differences = [compare(pairs, exported.config.head.score_threshold) for pairs in (now, later)]
    limits = (MOST_DIFFERING[exported.precision], MOST_DIFFERING_LATER)
    for what, difference, limit in zip(("in the frames", "anticipated"), differences, limits, strict=True):
        if difference.share > limit:
            raise ExportError(
                f"{folder}: expected all but {limit:.1%} of the detections {what} within {BOX_TOLERANCE} pixels and "
                f"{SCORE_TOLERANCE} in score of PyTorch's, got {difference}; do not use these files, and report it "
                "with the versions of torch, onnxscript and onnxruntime."
            )
    return differences[0], differences[1]


def compare(pairs: Sequence[tuple[Detections, Detections]], threshold: float = 0.0) -> Difference:
    """What two runs said of the same instants; detections of a class are paired by their overlap.

    Args:
        threshold: the runs' own; a detection without partner whose score is at it does not count.
    """
    detections, differing, box, score = 0, 0, 0.0, 0.0
    for these, those in pairs:
        partners, _ = match_boxes(these.boxes_xyxy, these.labels, those.boxes_xyxy, those.labels, min_iou=0.5)
        paired = partners >= 0
        others = those.select(partners[paired])
        sides = (these.boxes_xyxy[paired] - others.boxes_xyxy).abs().amax(1)
        scores = (these.scores[paired] - others.scores).abs()
        near = (sides <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE)
        alone = torch.ones(len(those), dtype=torch.bool)
        alone[partners[paired]] = False
        unpaired = torch.cat((these.scores[~paired], those.scores[alone])) > threshold + SCORE_TOLERANCE
        detections += len(these) + len(those)
        differing += 2 * int((~near).sum()) + int(unpaired.sum())
        box = max([box, *sides[near].tolist()])
        score = max([score, *scores[near].tolist()])
    return Difference(instants=len(pairs), detections=detections, differing=differing, box=box, score=score)
