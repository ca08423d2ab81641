"""What happened to the images of one stream, as counts, times and a diagnostic status."""

from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from memwarp_ros.conversions import to_status

_RECENT = 100
_SILENCE_S = 2.0
"""Without an image for so long, the status is a warning."""
_UNKNOWN = "unknown"


class StreamStatistics:
    """Counts of one stream since the node started, and the times of its last images.

    Times called `now` are of a clock that neither jumps nor stands still, as time.monotonic_ns(); ages are by the
    node's own clock, which may be that of a recording.
    """

    def __init__(self, now_ns: int) -> None:
        self.received = 0
        self.processed = 0
        self.refused = 0
        self.dropped = 0
        """Sent but never received; 0 where images have no numbers."""
        self.lost = 0
        """Of the dropped ones, those that the middleware says were lost on the way."""
        self.restarts = 0
        """New memories because a stamp went back in time, after a gap, or with another image size."""
        self.cycle_ns = 0
        """From the image before to the last one."""
        self.age_ns = 0
        """Of the last image, on arrival."""
        self._last_sequence_number: int | None = None
        self._has_numbers = True
        self._tells_of_losses = False
        self._last_received_ns = now_ns
        self._processing_ns: deque[int] = deque(maxlen=_RECENT)
        self._oldest_ns = 0
        self._reported_ns = now_ns
        self._reported_processed = 0
        self._reported_refused = 0

    def receive(self, now_ns: int, age_ns: int, sequence_number: int | None) -> None:
        """Count an image and, by the number that its publisher gave it, those missed before it.

        Args:
            age_ns: from the image's stamp to its arrival.
            sequence_number: None where the middleware has none (Humble), then nothing is known of dropped images.
        """
        self.received += 1
        self.cycle_ns, self._last_received_ns = now_ns - self._last_received_ns, now_ns
        self.age_ns = age_ns
        self._oldest_ns = max(self._oldest_ns, age_ns)
        self._has_numbers = sequence_number is not None
        if sequence_number is None:
            return
        if self._last_sequence_number is not None:
            # A number that goes back is a new publisher's.
            self.dropped += max(sequence_number - self._last_sequence_number - 1, 0)
        self._last_sequence_number = sequence_number

    def lose(self, count: int) -> None:
        """Count images of which the middleware says that they were sent and never arrived.

        Those before the first image that was received are not counted: nobody knows how many there were.
        """
        if self._last_sequence_number is not None:
            self.lost += count

    def new_subscription(self, now_ns: int, tells_of_losses: bool = False) -> None:
        """Images that passed while nobody subscribed are not dropped ones, and no silence was it either.

        Args:
            tells_of_losses: whether the middleware does; otherwise a dropped image was lost, or replaced by a newer
                one before it was taken, and nobody knows which.
        """
        self._last_sequence_number = None
        self._last_received_ns = now_ns
        self._tells_of_losses = tells_of_losses

    def process(self, took_ns: int) -> None:
        self.processed += 1
        self._processing_ns.append(took_ns)

    def is_silent(self, now_ns: int) -> bool:
        """Whether the last image came too long ago."""
        return now_ns - self._last_received_ns > _SILENCE_S * 1e9

    def report(
        self, now_ns: int, *, name: str, hardware_id: str, enabled: bool, max_age_s: float, why_silent: str = ""
    ) -> DiagnosticStatus:
        """The status since the last report: a warning when images stay away, were refused or came too old.

        Args:
            max_age_s: images that are older on arrival are too old.
            why_silent: what explains that images stay away.
        """
        elapsed_s = max((now_ns - self._reported_ns) / 1e9, 1e-9)
        silence_s = (now_ns - self._last_received_ns) / 1e9
        oldest_s, self._oldest_ns = self._oldest_ns / 1e9, 0
        new_processed, new_refused = (
            self.processed - self._reported_processed,
            self.refused - self._reported_refused,
        )
        self._reported_ns = now_ns
        self._reported_processed, self._reported_refused = self.processed, self.refused

        level, message = DiagnosticStatus.OK, f"{new_processed / elapsed_s:.1f} images per second"
        if not enabled:
            message = "disabled"
        elif new_refused:
            level, message = DiagnosticStatus.WARN, f"images refused: {new_refused}"
        elif self.is_silent(now_ns):
            level, message = DiagnosticStatus.WARN, f"no image for {silence_s:.0f} s"
            if why_silent:
                message += f": {why_silent}"
        elif oldest_s > max_age_s:
            level, message = DiagnosticStatus.WARN, f"images up to {oldest_s:.2f} s old on arrival"
        p50, p95 = np.percentile(self._processing_ns or [0], (50, 95))
        values = {
            "rate [Hz]": f"{new_processed / elapsed_s:.2f}",
            "image age on arrival [ms]": f"{self.age_ns / 1e6:.1f}",
            "processing time, p50 [ms]": f"{p50 / 1e6:.1f}",
            "processing time, p95 [ms]": f"{p95 / 1e6:.1f}",
            "processing time, longest [ms]": f"{max(self._processing_ns, default=0) / 1e6:.1f}",
            "images received": str(self.received),
            "images processed": str(self.processed),
            "images refused": str(self.refused),
            **self._drops(),
            "memory restarts": str(self.restarts),
        }
        return to_status(level, message, values, name=name, hardware_id=hardware_id)

    def _drops(self) -> dict[str, str]:
        """By reason, where it is known; numbers that the middleware does not tell are not made up."""
        if not self._has_numbers:
            return {"images dropped": _UNKNOWN}
        lost, replaced = _UNKNOWN, _UNKNOWN
        if self._tells_of_losses:
            # An image that is told to be lost is missed in the numbers only when the next one has come.
            told = min(self.lost, self.dropped)
            lost, replaced = str(told), str(self.dropped - told)
        return {
            "images dropped": str(self.dropped),
            "images dropped: replaced by a newer one": replaced,
            "images dropped: lost on the way": lost,
        }
