import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus

from memwarp_core import Detections, DetectorState
from memwarp_ros.anticipation_watch import AnticipationWatch, anticipation_status, harm

FRAME_NS = 100_000_000
HORIZONS_S = (0.1, 0.2)


def at(x: float, frame: int) -> Detections:
    """One box of 20 pixels."""
    box = torch.tensor([[x, 0.0, x + 20.0, 20.0]])
    return Detections(
        boxes_xyxy=box, scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.int64), stamp_ns=frame * FRAME_NS
    )


def watched(*, anticipated_speed: float, frames: int = 6) -> AnticipationWatch:
    """An object moves 5 pixels per frame and is anticipated to move at another speed."""
    watch = AnticipationWatch(HORIZONS_S, patience_s=0.2)
    for frame in range(frames):
        x = 5.0 * frame
        later = [at(x + anticipated_speed * ahead, frame + ahead) for ahead in (1, 2)]
        watch.step(at(x, frame), later, DetectorState(began="start" if frame == 0 else None))
    watch.look()
    return watch


def status(watch: AnticipationWatch, falls_back: bool = False) -> DiagnosticStatus:
    return anticipation_status(
        watch.checks, watch.horizons_s, name="detector: anticipation", hardware_id="cpu", falls_back=falls_back
    )


def test_good_anticipations_are_no_harm() -> None:
    watch = watched(anticipated_speed=5.0)
    assert not watch.is_harmful(0.1) and harm(watch.checks, HORIZONS_S) == ""
    # 15 of 25 pixels overlap after one frame, 10 of 30 after two.
    assert status(watch).message == "gain in IoU over standing boxes: +0.40, +0.67"
    assert status(watch).level == DiagnosticStatus.OK


def test_the_nearest_horizon_decides_about_harm() -> None:
    watch = watched(anticipated_speed=-5.0)
    assert watch.is_harmful(0.0) and watch.is_harmful(0.17) and watch.is_harmful(3.0)
    assert status(watch).level == DiagnosticStatus.WARN
    assert status(watch).message.startswith("anticipating is worse than standing boxes at 0.1 s (for 0 s), 0.2 s")
    assert status(watch, falls_back=True).message.endswith("; standing boxes are published")


@pytest.mark.parametrize("horizons_s", [(), HORIZONS_S])
def test_without_anything_to_compare_nothing_is_harmful(horizons_s: tuple[float, ...]) -> None:
    watch = AnticipationWatch(horizons_s, patience_s=0.0)
    assert not watch.is_harmful(0.1)
    assert status(watch).level == DiagnosticStatus.OK and "nothing to compare yet" in status(watch).message


def test_a_stream_that_begins_anew_may_go_back_in_time() -> None:
    watch = watched(anticipated_speed=5.0)
    compared = watch.checks[0].all_classes.objects
    watch.step(at(0.0, 0), [], DetectorState(began="start"))
    assert watch.look()[0].all_classes.objects == compared
