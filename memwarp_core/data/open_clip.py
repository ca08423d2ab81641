"""Opens whatever a person points at: a bag, a video file or a folder of images."""

from pathlib import Path

from memwarp_core.data.clips import Clip
from memwarp_core.data.video import VideoClip

_BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
_FRAME_RATE_OF_ONE_FRAME_HZ = 20.0


def open_clip(path: Path, frame_rate_hz: float | None = None, image_topic: str | None = None) -> Clip:
    """Open a recording as a clip; only a bag can have ground truth.

    Args:
        path: a bag (a folder with metadata.yaml, or its .mcap, .db3 or .bag file), a video file, or a folder of
            images.
        frame_rate_hz: for a folder of images, or instead of a video's own; bags have stamps.
        image_topic: of a bag, needed where it has several.
    Raises: DataError if it cannot be read.
    """
    if path.suffix in _BAG_SUFFIXES or (path / "metadata.yaml").is_file():
        from memwarp_core.data.bags import read_bag  # rosbags is needed for bags alone

        return read_bag(path, image_topic=image_topic)
    return VideoClip(path, frame_rate_hz)


def frame_rate_of(clip: Clip) -> float:
    """Frames per second of a clip: a video's own, otherwise the average from the first to the last stamp."""
    if isinstance(clip, VideoClip):
        return clip.frame_rate_hz
    if len(clip) < 2:
        return _FRAME_RATE_OF_ONE_FRAME_HZ
    return 1e9 * (len(clip) - 1) / (clip[len(clip) - 1].stamp_ns - clip[0].stamp_ns)
