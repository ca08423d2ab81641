"""A video of what a detector says: solid what is there now, dashed what was said about now before."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from memwarp_core.data.video import VideoWriter
from memwarp_core.timeline import Anticipations, no_objects
from memwarp_core.types import Detections
from memwarp_core.visualization import LegendEntry, draw_detections, draw_legend, horizon_color

_SHOWN_WIDTH = 960
"""Small images are enlarged to about this many pixels, so that text and dashes are crisp."""
_LEGEND_COLOR = (64, 196, 255)


class OverlayVideo:
    """Draws frames with their boxes into an MP4 file, which appears when the `with` block ends without error.

    An anticipated box is shown on the frame that it speaks of, not on the one that it was made from: where it
    lies on the object, the detector was right.
    """

    def __init__(
        self,
        path: Path,
        *,
        frame_rate_hz: float,
        class_names: Sequence[str],
        horizons_s: Sequence[float],
        score_threshold: float = 0.0,
    ) -> None:
        self._writer = VideoWriter(path, frame_rate_hz)
        self._half_interval_ns = round(0.5e9 / frame_rate_hz)
        self._class_names = class_names
        self._score_threshold = score_threshold
        self._anticipations = Anticipations(horizons_s)
        self._legend = [LegendEntry("now", _LEGEND_COLOR, False)]
        for index, horizon_s in enumerate(horizons_s):
            shade = horizon_color(_LEGEND_COLOR, index, len(horizons_s))
            self._legend.append(LegendEntry(f"said {horizon_s:g} s before", shade, True))

    def add(
        self,
        image_rgb: np.ndarray,
        stamp_ns: int,
        detections: Detections | None,
        anticipated: Sequence[Detections] = (),
        note: str = "",
    ) -> np.ndarray:
        """Draw the next frame.

        Args:
            image_rgb: (H, W, 3), uint8, RGB.
            stamp_ns: of the image.
            detections: what was found in it; None if it was not processed.
            anticipated: what was said at this frame about later ones, one per horizon; empty if nothing.
            note: short text below the image, at the right.
        Returns: (H', W', 3), uint8, RGB, the image with boxes as it is in the video, without the legend.
        """
        said_before = self._anticipations.at(stamp_ns, self._half_interval_ns)
        if anticipated:
            self._anticipations.add(anticipated)
        drawn = draw_detections(
            image_rgb,
            no_objects(stamp_ns) if detections is None else detections,
            self._class_names,
            said_before,
            self._score_threshold,
            scale=max(1, round(_SHOWN_WIDTH / image_rgb.shape[1])),
        )
        self._writer.write(draw_legend(drawn, self._legend, note))
        return drawn

    def __enter__(self) -> "OverlayVideo":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
