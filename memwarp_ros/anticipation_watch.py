"""Whether the anticipations of one camera are worth publishing, and the diagnostic status that says so."""

from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticStatus

from memwarp_core import Detections, DetectorState
from memwarp_core.streaming import HorizonCheck, SelfCheck, SelfCheckConfig
from memwarp_ros.conversions import to_status


class AnticipationWatch:
    """Checks each frame's anticipations when their time has come, and says at which horizons they do harm."""

    def __init__(self, horizons_s: Sequence[float], patience_s: float) -> None:
        self._check = SelfCheck(horizons_s, SelfCheckConfig(patience_s=patience_s))
        self._state = self._check.start()
        self.checks = self._check.report(self._state)
        """Per horizon, as of the last `look`."""

    @property
    def horizons_s(self) -> tuple[float, ...]:
        return self._check.horizons_s

    def step(self, found: Detections, anticipated: Sequence[Detections], state: DetectorState) -> None:
        """Take what would be published of a frame, and of its horizons; nothing of these where nobody listens."""
        check = self._state if state.began is None else self._check.forget(self._state)
        self._state = self._check.step(found, anticipated, check)

    def look(self) -> list[HorizonCheck]:
        """Bring `checks` up to date; once per second is enough."""
        self.checks = self._check.report(self._state)
        return self.checks

    def is_harmful(self, horizon_s: float) -> bool:
        """Whether standing boxes have been better so far ahead, by the check of the nearest horizon."""
        nearest = min(range(len(self.checks)), key=lambda i: abs(self.horizons_s[i] - horizon_s), default=None)
        return nearest is not None and self.checks[nearest].is_harmful


def anticipation_status(
    checks: Sequence[HorizonCheck], horizons_s: Sequence[float], *, name: str, hardware_id: str, falls_back: bool
) -> DiagnosticStatus:
    """A warning where anticipating has done harm for some time.

    Args:
        falls_back: whether the node then publishes unmoved boxes.
    """
    values = {}
    for horizon_s, check in zip(horizons_s, checks, strict=True):
        agreement = check.all_classes
        values |= {
            f"{horizon_s:g} s: objects compared": str(agreement.objects),
            f"{horizon_s:g} s: hit rate": f"{agreement.hit_rate:.2f}",
            f"{horizon_s:g} s: mean IoU": f"{agreement.mean_iou:.3f}",
            f"{horizon_s:g} s: mean IoU if nothing moved": f"{agreement.mean_iou_unmoved:.3f}",
            f"{horizon_s:g} s: gain": f"{agreement.gain:+.3f}",
        }
    level, message = DiagnosticStatus.OK, "nothing to compare yet: nobody listens to anticipations, or nothing is seen"
    if any(check.all_classes.objects for check in checks):
        gains = ", ".join(f"{check.all_classes.gain:+.2f}" for check in checks)
        message = f"gain in IoU over standing boxes: {gains}"
    if harmful := harm(checks, horizons_s):
        level, message = DiagnosticStatus.WARN, harmful + ("; standing boxes are published" if falls_back else "")
    return to_status(level, message, values, name=name, hardware_id=hardware_id)


def harm(checks: Sequence[HorizonCheck], horizons_s: Sequence[float]) -> str:
    """The horizons at which anticipating does harm, and for how long; empty where it does none."""
    harmful = [
        f"{horizon_s:g} s (for {check.negative_for_s:.0f} s)"
        for horizon_s, check in zip(horizons_s, checks, strict=True)
        if check.is_harmful
    ]
    return f"anticipating is worse than standing boxes at {', '.join(harmful)}" if harmful else ""
