"""Video files and folders of images as clips without ground truth, and writing a video."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from memwarp_core.errors import DataError
from memwarp_core.types import Frame

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class VideoClip:
    """A video file, or a folder of images in the order of their names, as a Clip without ground truth.

    Frame i has the stamp i / frame_rate_hz, so the first one has stamp 0. Frames are decoded when they are
    asked for; going forward is fast, and going back in a video file decodes it again from its start, because
    seeking inside of compressed videos is not exact.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, path: Path | str, frame_rate_hz: float | None = None) -> None:
        """Open a video.

        Args:
            path: a file that OpenCV can decode, or a folder with images.
            frame_rate_hz: for a folder (20 if not given), or instead of the rate that a file claims.
        Raises: DataError if there is no such path, it holds no images, or it is not a video.
        """
        self.path = Path(path)
        self.name = self.path.stem
        if not self.path.exists():
            raise DataError(f"{self.path}: no such file or folder; give a video file or a folder of images.")
        self._source = _ImageFolder(self.path) if self.path.is_dir() else _VideoFile(self.path)
        claimed = self._source.frame_rate_hz if frame_rate_hz is None else frame_rate_hz
        if not (math.isfinite(claimed) and claimed > 0):
            raise DataError(f"{self.path}: the frame rate must be above 0 Hz, got {claimed}; give the right one.")
        self.frame_rate_hz = claimed

    def __len__(self) -> int:
        """The number of frames; a damaged file may claim more than it has, and iterating then ends early."""
        return self._source.count

    def __getitem__(self, index: int) -> Frame:
        """Frame `index`, counted from the end if negative.

        Raises: IndexError beyond the last frame; DataError if an image of a folder cannot be decoded.
        """
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: frame {index} of {len(self)}")
        return Frame(
            image=cv2.cvtColor(self._source.read_bgr(index), cv2.COLOR_BGR2RGB),
            stamp_ns=round(index * 1e9 / self.frame_rate_hz),
            boxes_xyxy=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            track_ids=np.zeros(0, np.int64),
        )

    def __iter__(self) -> Iterator[Frame]:
        for index in range(len(self)):
            try:
                yield self[index]
            except IndexError:
                return


class _ImageFolder:
    frame_rate_hz = 20.0

    def __init__(self, path: Path) -> None:
        self._files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        self.count = len(self._files)
        if not self._files:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{path}: no images in this folder; expected files that end in {suffixes}.")

    def read_bgr(self, index: int) -> np.ndarray:
        image = cv2.imread(str(self._files[index]), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{self._files[index]}: not an image that can be decoded; remove or replace it.")
        return image


class _VideoFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened() or not self._capture.grab():
            raise DataError(f"{path}: not a video that OpenCV can decode; convert it, for example to H.264 in an .mp4.")
        self._next = 1
        self.frame_rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if self.count <= 0:  # the container does not say
            while self._capture.grab():
                self._next += 1
            self.count = self._next

    def read_bgr(self, index: int) -> np.ndarray:
        if index < self._next:
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self._path))
            self._next = 0
        while self._next <= index:
            if not self._capture.grab():
                raise IndexError(f"{self._path}: frame {index}; the file ends after {self._next} frames")
            self._next += 1
        _, image = self._capture.retrieve()
        return image


class VideoWriter:
    """Writes an MP4 file; it gets its name only when the `with` block ends without an exception.

    The codec is MPEG-4 part 2, which every build of OpenCV can write and common players show.
    """

    def __init__(self, path: Path, frame_rate_hz: float) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.stem}.partial.mp4")
        self._frame_rate_hz = frame_rate_hz
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, int] = (0, 0)

    def write(self, image_rgb: np.ndarray) -> None:
        """Append a frame.

        Args:
            image_rgb: (H, W, 3), uint8, RGB; all frames have the size of the first one.
        Raises: DataError if the size changes or the file cannot be written.
        """
        height, width = image_rgb.shape[:2]
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._partial), codec, self._frame_rate_hz, (width, height))
            self._size = (width, height)
            if not self._writer.isOpened():
                raise DataError(f"{self._path}: cannot write a video here; check folder and free space.")
        if (width, height) != self._size:
            raise DataError(f"{self._path}: frames must stay {self._size}, got {(width, height)}; crop or pad them.")
        self._writer.write(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None and self._writer is not None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)
