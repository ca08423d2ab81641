"""Score a detector on clips, frame by frame as a stream, and what it said of the frames to come."""

from collections.abc import Sequence
from typing import Any

from rich.progress import track

from memwarp_core.data.clips import Clip
from memwarp_core.evaluation.running import ground_truth, run_clip
from memwarp_core.evaluation.scoring import score_runs
from memwarp_core.streaming import VideoDetector


def evaluate(detector: VideoDetector, clips: Sequence[Clip], horizons_s: Sequence[float] = ()) -> dict[str, Any]:
    """Run a detector through every clip, each from a new state; see run_clip and, for what comes back, score_runs."""
    bar = track(clips, description=f"evaluating {detector.name}", transient=True)
    runs = [run_clip(detector, clip, horizons_s) for clip in bar]
    return score_runs(runs, [ground_truth(clip) for clip in clips], detector.class_names)
