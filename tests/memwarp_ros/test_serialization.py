"""What serialization.py writes is what rclpy would make of the messages of conversions.py."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from memwarp_core import Detections
from memwarp_core.data.bags import BagWriter
from memwarp_ros.conversions import ns_to_stamp, stamp_to_ns, to_anticipated, to_detection_array
from memwarp_ros.msg import AnticipatedDetections
from memwarp_ros.serialization import serialize_anticipated, serialize_detection_array, stamp_of, with_stamp

STAMPS_NS = st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1)
# Every length modulo 8, because gaps depend on it. A zero would end a string in C.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=17)
NUMBERS = st.floats(-1e6, 1e6, width=32)


@st.composite
def names_and_detections(draw: st.DrawFn, arrays: int) -> tuple[list[str], list[Detections]]:
    names = draw(st.lists(TEXTS, min_size=1, max_size=4))

    def detections() -> Detections:
        ids = st.integers(-1, 2**63 - 1)
        rows = draw(st.lists(st.tuples(*[NUMBERS] * 5, st.integers(0, len(names) - 1), ids), max_size=5))
        values = torch.tensor([row[:5] for row in rows], dtype=torch.float32).reshape(-1, 5)
        return Detections(
            boxes_xyxy=values[:, :4],
            scores=values[:, 4],
            labels=torch.tensor([row[5] for row in rows], dtype=torch.int64),
            stamp_ns=draw(STAMPS_NS),
            track_ids=torch.tensor([row[6] for row in rows], dtype=torch.int64) if draw(st.booleans()) else None,
        )

    return names, [detections() for _ in range(arrays)]


def assert_same_bytes(data: bytes, message: Any) -> None:
    """Each byte is rclpy's, but for gaps: rclpy leaves in them what was in its memory, here they are zero."""
    ours = np.frombuffer(data, np.uint8)
    theirs = np.frombuffer(serialize_message(message), np.uint8).copy()
    assert len(ours) == len(theirs)
    theirs[ours != theirs] = 0
    np.testing.assert_array_equal(ours, theirs)
    assert deserialize_message(theirs.tobytes(), type(message)) == message, "more than a gap differs"


@settings(deadline=None)
@given(names_and_detections(arrays=1), STAMPS_NS, TEXTS)
def test_detection_array_is_rclpys(drawn: tuple[list[str], list[Detections]], stamp_ns: int, frame_id: str) -> None:
    names, [detections] = drawn
    header = Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)
    message = to_detection_array(detections, names, header)
    assert_same_bytes(serialize_detection_array(detections, names, header), message)


@settings(deadline=None)
@given(st.integers(0, 3).flatmap(names_and_detections), st.integers(0, 2**31 * 10**9 - 1), TEXTS, TEXTS, TEXTS)
def test_anticipated_detections_are_rclpys(
    drawn: tuple[list[str], list[Detections]], source_ns: int, frame_id: str, model: str, version: str
) -> None:
    names, later = drawn
    later = [replace(one, stamp_ns=source_ns // 2 + index * 10**8) for index, one in enumerate(later)]
    header = Header(stamp=ns_to_stamp(source_ns // 2), frame_id=frame_id)
    message = to_anticipated(later, names, header, model, version)
    assert_same_bytes(serialize_anticipated(later, names, header, model, version), message)


def test_anticipated_detections_of_a_bag_are_those_of_the_node(tmp_path: Path) -> None:
    later = [
        Detections(
            boxes_xyxy=torch.tensor([[1.0, 2.0, 11.0, 22.0]]),
            scores=torch.tensor([0.75]),
            labels=torch.tensor([1]),
            stamp_ns=2 * 10**9 + horizon_ns,
        )
        for horizon_ns in (10**8, 15 * 10**8)
    ]
    names, model = ["ball", "crate"], ("memnet-tiny", "2.1")
    with BagWriter(tmp_path / "walk") as bag:
        bag.write_anticipated(later, names, 2 * 10**9, model=model, topic="/detector/anticipated", frame_id="front")
    with (tmp_path / "walk" / "walk.mcap").open("rb") as stream:
        ((_, _, logged),) = make_reader(stream).iter_messages()
    message = deserialize_message(logged.data, AnticipatedDetections)
    assert message == to_anticipated(later, names, Header(stamp=ns_to_stamp(2 * 10**9), frame_id="front"), *model)


@given(STAMPS_NS, STAMPS_NS, TEXTS)
def test_the_stamp_of_a_serialized_message_is_read_and_replaced(stamp_ns: int, other_ns: int, frame_id: str) -> None:
    message = CompressedImage(header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id), format="jpeg", data=b"12")
    data = serialize_message(message)
    assert stamp_of(data) == stamp_ns
    changed = deserialize_message(with_stamp(data, other_ns), CompressedImage)
    assert stamp_to_ns(changed.header.stamp) == other_ns
    assert (changed.header.frame_id, changed.format, changed.data) == (frame_id, "jpeg", message.data)


def test_a_big_endian_message_keeps_its_order_of_bytes() -> None:
    data = b"\0\0\0\0" + struct.pack(">iI", 5, 6)
    assert stamp_of(data) == 5_000_000_006
    assert with_stamp(data, 7_000_000_008) == b"\0\0\0\0" + struct.pack(">iI", 7, 8)
