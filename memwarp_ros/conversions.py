"""Between ROS messages and the types of memwarp_core; the only file that knows both.

Convention: boxes are in pixels of the source image, x to the right, y down, given as centre and size. A header says
when its boxes are valid, so current detections carry the image's header and anticipated ones its frame_id and their
own, later stamp.
"""

from array import array
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
    VisionClass,
)

from memwarp_core import DataError, Detections
from memwarp_core.streaming import Agreement, HorizonCheck
from memwarp_ros.msg import AnticipatedDetections, AnticipationCheck, AnticipationScore, DetectionsAtHorizon
from memwarp_ros.msg import HorizonCheck as HorizonCheckMessage

# Bytes per pixel of an encoding, and OpenCV's code to make RGB of it. cv_bridge uses the same codes, but its compiled
# part does not load where NumPy is not the one that it was built with.
_ENCODINGS = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "mono16": (2, cv2.COLOR_GRAY2RGB),
    # ROS names a Bayer pattern by its first two rows, OpenCV by the square that begins at the second row and column.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
    # Two names each: the second ones are those of ROS since Iron. Two pixels share a colour.
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
}
_PAIRED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")

# First and last bytes. OpenCV fills a truncated image up with grey and says nothing, so the end has to be looked at.
_COMPRESSIONS = {
    "JPEG": (b"\xff\xd8\xff", b"\xff\xd9"),
    "PNG": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
}

_MOST_PIXELS = 1 << 26
"""More than any camera of a robot has; a damaged message asks for more."""


def stamp_to_ns(stamp: Time | Duration) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def ns_to_stamp(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def image_to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """The pixels of a raw or a JPEG or PNG image.

    Bayer patterns are interpolated bilinearly; yuv422 is BT.601 with 16 as black and 235 as white; 65535 of mono16 is
    white, so a camera that fills only 12 of its bits looks dark.

    Returns: (H, W, 3), uint8, RGB; it may share its memory with the message.
    Raises: DataError if the message is not the image that it claims to be, or of a kind that is not read.
    """
    return _decompress(message) if isinstance(message, CompressedImage) else _unpack(message)


def rgb_to_image(image: np.ndarray, header: Header) -> Image:
    """An rgb8 image message of (H, W, 3) uint8 RGB pixels."""
    height, width, channels = image.shape
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        step=width * channels,
        # rclpy checks any other type byte by byte: 0.4 s for a full HD image.
        data=array("B", image.tobytes()),
    )


def to_detection_array(detections: Detections, class_names: Sequence[str], header: Header) -> Detection2DArray:
    """Detections under a header, which is copied into the array and into each detection as it is."""
    host = detections.cpu()
    return Detection2DArray(
        header=header,
        detections=[
            Detection2D(
                header=header,
                results=[
                    ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=class_names[label], score=score))
                ],
                bbox=BoundingBox2D(
                    center=Pose2D(position=Point2D(x=(x1 + x2) / 2, y=(y1 + y2) / 2)),
                    size_x=x2 - x1,
                    size_y=y2 - y1,
                ),
                id=track,
            )
            for (x1, y1, x2, y2), score, label, track in zip(
                host.boxes_xyxy.tolist(), host.scores.tolist(), host.labels.tolist(), track_names(host), strict=True
            )
        ],
    )


def from_detection_array(message: Detection2DArray, class_names: Sequence[str]) -> Detections:
    """What to_detection_array was given, in host memory, without tracks; rosbags' messages will do as well.

    Raises: DataError for a class that is not among the names.
    """
    boxes, scores, labels = [], [], []
    for one in message.detections:
        x, y = one.bbox.center.position.x, one.bbox.center.position.y
        half_width, half_height = one.bbox.size_x / 2, one.bbox.size_y / 2
        boxes.append([x - half_width, y - half_height, x + half_width, y + half_height])
        hypothesis = one.results[0].hypothesis
        if hypothesis.class_id not in class_names:
            raise DataError(f"expected a class of {', '.join(class_names)}, got {hypothesis.class_id!r}.")
        scores.append(hypothesis.score)
        labels.append(class_names.index(hypothesis.class_id))
    return Detections(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
        stamp_ns=stamp_to_ns(message.header.stamp),
    )


def track_names(detections: Detections) -> list[str]:
    """The id of each detection's track as messages have it: decimal, and empty where there is none."""
    if detections.track_ids is None:
        return [""] * len(detections)
    return [str(track) if track >= 0 else "" for track in detections.track_ids.tolist()]


def to_anticipated(
    anticipated: Sequence[Detections],
    class_names: Sequence[str],
    header: Header,
    model: str,
    model_version: str,
) -> AnticipatedDetections:
    """Detections of later instants, nearest first, under the header of the image they were predicted from."""
    source_ns = stamp_to_ns(header.stamp)
    return AnticipatedDetections(
        header=header,
        model=model,
        model_version=model_version,
        horizons=[_at_horizon(later, class_names, header.frame_id, source_ns) for later in anticipated],
    )


def to_anticipation_check(
    checks: Sequence[HorizonCheck], horizons_s: Sequence[float], class_names: Sequence[str], header: Header
) -> AnticipationCheck:
    """What a detector's check of its own anticipations says, per horizon."""
    return AnticipationCheck(
        header=header,
        horizons=[
            HorizonCheckMessage(
                horizon=_to_duration(round(horizon_s * 1e9)),
                all_classes=_to_score("", check.all_classes),
                per_class=[_to_score(class_names[label], of_class) for label, of_class in check.per_class.items()],
                negative_for_s=check.negative_for_s,
                is_harmful=check.is_harmful,
            )
            for horizon_s, check in zip(horizons_s, checks, strict=True)
        ],
    )


def to_status(
    level: bytes, message: str, values: Mapping[str, str], *, name: str, hardware_id: str
) -> DiagnosticStatus:
    """A diagnostic status; `level` is one of DiagnosticStatus's."""
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id, values=pairs)


def to_label_info(class_names: Sequence[str], header: Header, score_threshold: float) -> LabelInfo:
    """What a detector can find; detections carry the name itself, this maps the index to it."""
    return LabelInfo(
        header=header,
        class_map=[VisionClass(class_id=index, class_name=name) for index, name in enumerate(class_names)],
        threshold=score_threshold,
    )


def _at_horizon(later: Detections, class_names: Sequence[str], frame_id: str, source_ns: int) -> DetectionsAtHorizon:
    target = ns_to_stamp(later.stamp_ns)
    return DetectionsAtHorizon(
        horizon=_to_duration(later.stamp_ns - source_ns),
        target_stamp=target,
        detections=to_detection_array(later, class_names, Header(stamp=target, frame_id=frame_id)),
    )


def _to_score(class_id: str, agreement: Agreement) -> AnticipationScore:
    return AnticipationScore(
        class_id=class_id,
        objects=agreement.objects,
        hit_rate=agreement.hit_rate,
        mean_iou=agreement.mean_iou,
        mean_iou_unmoved=agreement.mean_iou_unmoved,
        gain=agreement.gain,
    )


def _to_duration(nanoseconds: int) -> Duration:
    return Duration(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def _unpack(message: Image) -> np.ndarray:
    height, width, step = message.height, message.width, message.step
    if message.encoding not in _ENCODINGS:
        raise DataError(
            f"image encoding must be one of {', '.join(_ENCODINGS)}, got {message.encoding!r}; "
            "convert it before, for instance with image_proc."
        )
    _check_size(width, height)
    pixel_bytes, to_rgb = _ENCODINGS[message.encoding]
    row_bytes = width * pixel_bytes
    if step < row_bytes:
        raise DataError(
            f"step of a {message.encoding} image {width} pixels wide must be at least {row_bytes} bytes, "
            f"got {step}; the driver has to set it to the length of a row."
        )
    if message.encoding in _PAIRED and width % 2:
        raise DataError(f"width of a {message.encoding} image must be even, got {width}; choose another at the camera.")
    if len(message.data) != step * height:
        raise DataError(
            f"data of an image with {height} rows of {step} bytes must have {step * height} bytes, "
            f"got {len(message.data)}; the message was cut or its size is wrong."
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)[:, :row_bytes]
    pixels = _to_8_bit(rows, message.is_bigendian) if message.encoding == "mono16" else rows
    pixels = pixels.reshape(height, width, -1)
    return pixels if to_rgb is None else cv2.cvtColor(pixels, to_rgb)


def _to_8_bit(rows: np.ndarray, is_bigendian: bool) -> np.ndarray:
    """(H, W) uint8 of (H, 2 W) bytes; the full range of 16 bits becomes that of 8, as in cv_bridge."""
    values = np.ascontiguousarray(rows).view(">u2" if is_bigendian else "<u2").astype(np.uint16, copy=False)
    return cv2.convertScaleAbs(values, alpha=255 / 65535)


def _decompress(message: CompressedImage) -> np.ndarray:
    data = bytes(message.data)
    kind = next((name for name, (begin, _) in _COMPRESSIONS.items() if data.startswith(begin)), None)
    if kind is None or "compressedDepth" in message.format:
        raise DataError(
            f"compressed image must be JPEG or PNG, got {len(data)} bytes of format {message.format!r} "
            f"that begin with {data[:4].hex(' ') or 'nothing'}; choose one of them at the camera."
        )
    if not data.rstrip(b"\0").endswith(_COMPRESSIONS[kind][1]):  # some cameras pad with zeros
        raise DataError(f"{kind} image of {len(data)} bytes must have an end marker, got none; it was cut.")
    # Detections are in pixels as they came, so a rotation in the EXIF data is not applied.
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise DataError(f"{kind} image of {len(data)} bytes could not be decoded; it is damaged.")
    _check_size(pixels.shape[1], pixels.shape[0])
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= _MOST_PIXELS:
        raise DataError(
            f"image must have 1 to {_MOST_PIXELS} pixels, got {width} x {height}; look at the camera's settings."
        )
