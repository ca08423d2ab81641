"""Detections as bytes, ready to publish: what conversions.py makes of them, without the messages in between; and the
stamps of messages that are bytes.

rclpy takes the bytes of a serialized message in place of the message. Of a detection in vision_msgs only its box, score
and name are ours; the rest, nine tenths of it a covariance of zeros, is always the same. To build that anew as Python
objects and to walk through them is what costs milliseconds.

Convention: CDR, little-endian, as ROS 2 writes it: a number stands at a multiple of its size, counted from behind the
first four bytes; a string has its length before it and a zero byte behind it. Gaps are filled with zeros. The layout is
that of vision_msgs 4 (Humble and later).
"""

import struct
from collections.abc import Sequence

from std_msgs.msg import Header

from memwarp_core import Detections
from memwarp_ros.conversions import stamp_to_ns, track_names

_LITTLE_ENDIAN_CDR = b"\0\1\0\0"
_STAMP = struct.Struct("<iI")
_BIG_ENDIAN_STAMP = struct.Struct(">iI")
_COUNT = struct.Struct("<I")
_SCORE = struct.Struct("<d")
_BOX = struct.Struct("<5d")
_NO_POSE = struct.pack("<43d", 0, 0, 0, 0, 0, 0, 1, *([0] * 36))
"""Position, orientation (the last one, w, is 1) and covariance."""
_SECOND_NS = 1_000_000_000


def serialize_detection_array(detections: Detections, class_names: Sequence[str], header: Header) -> bytes:
    """The bytes of to_detection_array(detections, class_names, header)."""
    body = bytearray()
    _add_detection_array(body, detections, class_names, stamp_to_ns(header.stamp), header.frame_id)
    return _LITTLE_ENDIAN_CDR + body


def serialize_anticipated(
    anticipated: Sequence[Detections],
    class_names: Sequence[str],
    header: Header,
    model: str,
    model_version: str,
) -> bytes:
    """The bytes of to_anticipated(anticipated, class_names, header, model, model_version)."""
    source_ns = stamp_to_ns(header.stamp)
    body = bytearray(_header(source_ns, header.frame_id))
    body += _string(model)
    body += _string(model_version)
    body += _COUNT.pack(len(anticipated))
    for later in anticipated:
        _align(body, 4)
        body += _stamp(later.stamp_ns - source_ns)
        body += _stamp(later.stamp_ns)
        _add_detection_array(body, later, class_names, later.stamp_ns, header.frame_id)
    return _LITTLE_ENDIAN_CDR + body


def stamp_of(message: bytes) -> int:
    """The stamp in nanoseconds of a serialized message that begins with a header."""
    seconds, nanoseconds = _stamp_in(message).unpack_from(message, len(_LITTLE_ENDIAN_CDR))
    return seconds * _SECOND_NS + nanoseconds


def with_stamp(message: bytes, stamp_ns: int) -> bytes:
    """A serialized message that begins with a header, with another stamp."""
    changed = bytearray(message)
    _stamp_in(message).pack_into(changed, len(_LITTLE_ENDIAN_CDR), *divmod(stamp_ns, _SECOND_NS))
    return bytes(changed)


def _stamp_in(message: bytes) -> struct.Struct:
    """A bag that was recorded elsewhere may be big-endian."""
    return _STAMP if message[1] & 1 else _BIG_ENDIAN_STAMP


def _add_detection_array(
    body: bytearray, detections: Detections, class_names: Sequence[str], stamp_ns: int, frame_id: str
) -> None:
    """Append a Detection2DArray to a body whose length is a multiple of 4."""
    host = detections.cpu()
    header = _header(stamp_ns, frame_id)
    begins = [header + _COUNT.pack(1) + _string(name) for name in class_names]
    body += header
    body += _COUNT.pack(len(host))
    for (x1, y1, x2, y2), score, label, track in zip(
        host.boxes_xyxy.tolist(), host.scores.tolist(), host.labels.tolist(), track_names(host), strict=True
    ):
        _align(body, 4)
        body += begins[label]
        _align(body, 8)
        body += _SCORE.pack(score)
        body += _NO_POSE
        body += _BOX.pack((x1 + x2) / 2, (y1 + y2) / 2, 0.0, x2 - x1, y2 - y1)
        body += _unpadded(track)


def _header(stamp_ns: int, frame_id: str) -> bytes:
    return _stamp(stamp_ns) + _string(frame_id)


def _stamp(stamp_ns: int) -> bytes:
    return _STAMP.pack(*divmod(stamp_ns, _SECOND_NS))


def _string(text: str) -> bytes:
    """A string and the gap behind it, which ends where a number of 4 bytes may stand."""
    string = _unpadded(text)
    return string + bytes(-len(string) % 4)


def _unpadded(text: str) -> bytes:
    encoded = text.encode() + b"\0"
    return _COUNT.pack(len(encoded)) + encoded


def _align(body: bytearray, size: int) -> None:
    body += bytes(-len(body) % size)
