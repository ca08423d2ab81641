"""Messages go through the real serialization, so that a test sees what a subscriber gets."""

from array import array
from typing import TypeVar

import cv2
import numpy as np
import pytest
import torch
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from memwarp_core import DataError, Detections
from memwarp_ros.conversions import (
    from_detection_array,
    image_to_rgb,
    ns_to_stamp,
    rgb_to_image,
    stamp_to_ns,
    to_anticipated,
    to_detection_array,
    to_label_info,
)
from memwarp_ros.msg import AnticipatedDetections

Message = TypeVar("Message")
CLASS_NAMES = ("ball", "crate", "barrel")
HEADER = Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id="camera/optical")

# Each pixel and each channel has another value.
RGB = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)


def over_the_wire(message: Message) -> Message:
    return deserialize_message(serialize_message(message), type(message))


def image(encoding: str = "rgb8", pixels: np.ndarray = RGB, padding: int = 0, **changes: object) -> Image:
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    message = Image(
        header=HEADER,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )
    for field, value in changes.items():
        setattr(message, field, value)
    return message


def compressed(extension: str, pixels: np.ndarray = RGB, image_format: str | None = None) -> CompressedImage:
    _, data = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return CompressedImage(header=HEADER, format=image_format or extension[1:], data=array("B", data.tobytes()))


ALPHA = np.full((2, 4, 1), 7, np.uint8)
PIXELS_OF = {
    "rgb8": RGB,
    "bgr8": RGB[..., ::-1],
    "rgba8": np.concatenate([RGB, ALPHA], axis=2),
    "bgra8": np.concatenate([RGB[..., ::-1], ALPHA], axis=2),
}


@pytest.mark.parametrize("encoding", PIXELS_OF)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_image_becomes_rgb_and_padding_is_left_out(encoding: str, padding: int) -> None:
    message = over_the_wire(image(encoding, PIXELS_OF[encoding], padding))
    np.testing.assert_array_equal(image_to_rgb(message), RGB)


@pytest.mark.parametrize("padding", [0, 3])
def test_grey_image_has_three_equal_channels(padding: int) -> None:
    rgb = image_to_rgb(over_the_wire(image("mono8", RGB[..., :1], padding)))
    np.testing.assert_array_equal(rgb, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("padding", [0, 3])
def test_grey_of_16_bits_keeps_its_full_range(is_bigendian: int, padding: int) -> None:
    values = np.array([[0, 257, 65535, 32896], [128, 129, 65278, 10 * 257]], ">u2" if is_bigendian else "<u2")
    pixels = values.view(np.uint8).reshape(2, 4, 2)
    rgb = image_to_rgb(over_the_wire(image("mono16", pixels, padding, is_bigendian=is_bigendian)))
    expected = np.array([[0, 1, 255, 128], [0, 1, 254, 10]])
    np.testing.assert_array_equal(rgb, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("padding", [0, 3])
def test_bayer_pattern_of_one_colour_is_that_colour_everywhere(pattern: str, padding: int) -> None:
    colour = {"r": 200, "g": 90, "b": 10}
    square = np.array([colour[letter] for letter in pattern], np.uint8).reshape(2, 2, 1)
    rgb = image_to_rgb(over_the_wire(image(f"bayer_{pattern}8", np.tile(square, (4, 6, 1)), padding)))
    np.testing.assert_array_equal(rgb, np.broadcast_to([200, 90, 10], (8, 12, 3)))


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
@pytest.mark.parametrize("padding", [0, 3])
def test_yuv422_has_its_colours_and_its_order(encoding: str, padding: int) -> None:
    """The second pixel is darker than the first; black, white and red of BT.601 with 16 to 235 for luma."""
    blocks = [(16, 16, 128, 128), (235, 16, 128, 128), (81, 81, 90, 240)]
    uyvy = encoding in ("yuv422", "uyvy")
    row = [(u, y0, v, y1) if uyvy else (y0, u, y1, v) for y0, y1, u, v in blocks]
    rgb = image_to_rgb(over_the_wire(image(encoding, np.array([row, row], np.uint8).reshape(2, 6, 2), padding)))
    expected = [(0, 0, 0), (0, 0, 0), (255, 255, 255), (0, 0, 0), (255, 0, 0), (255, 0, 0)]
    np.testing.assert_allclose(rgb.astype(int), [expected, expected], atol=2)  # integers for real factors


def test_byte_order_means_nothing_for_single_bytes() -> None:
    np.testing.assert_array_equal(image_to_rgb(over_the_wire(image(is_bigendian=1))), RGB)


def test_rgb_image_survives_the_way_to_a_message_and_back() -> None:
    message = over_the_wire(rgb_to_image(RGB[:, ::-1], HEADER))
    assert message.header == HEADER
    np.testing.assert_array_equal(image_to_rgb(message), RGB[:, ::-1])


@pytest.mark.parametrize("image_format", ["png", "rgb8; png compressed bgr8"])
def test_png_is_exact(image_format: str) -> None:
    np.testing.assert_array_equal(image_to_rgb(over_the_wire(compressed(".png", RGB, image_format))), RGB)


def test_jpeg_has_its_colours_in_place() -> None:
    red = np.zeros((16, 32, 3), np.uint8)
    red[..., 0] = 250
    decoded = image_to_rgb(over_the_wire(compressed(".jpg", red, "jpeg")))
    np.testing.assert_allclose(decoded.astype(int), red.astype(int), atol=3)  # JPEG rounds


def test_rotation_in_exif_is_not_applied() -> None:
    jpeg = bytes(compressed(".jpg", np.zeros((16, 32, 3), np.uint8)).data)
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tiff
    rotated = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    upright = cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR)
    assert upright.shape == (32, 16, 3), "the file made here must be one that viewers rotate"
    message = CompressedImage(header=HEADER, format="jpeg", data=array("B", rotated))
    assert image_to_rgb(over_the_wire(message)).shape == (16, 32, 3)


JPEG = bytes(compressed(".jpg", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).data)
PNG = bytes(compressed(".png").data)


def jpeg_of_noise(data: bytes, image_format: str = "jpeg") -> CompressedImage:
    return CompressedImage(header=HEADER, format=image_format, data=array("B", data))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (image(encoding="bayer_rggb16"), r"encoding must be one of rgb8.*got 'bayer_rggb16'.*image_proc"),
        (image("mono16", RGB[..., :1]), r"step of a mono16 image .* at least 8 bytes, got 4"),
        (image("yuyv", np.zeros((2, 3, 2), np.uint8)), r"width of a yuyv image must be even, got 3"),
        (image(encoding=""), r"encoding must be one of .* got ''"),
        (image(step=11), r"step .* at least 12 bytes, got 11"),
        (image(step=0), r"step .* got 0"),
        (image(step=13), r"must have 26 bytes, got 24"),
        (image(encoding="rgba8"), r"step .* at least 16 bytes, got 12"),
        (image(data=array("B", RGB.tobytes()[:-1])), r"must have 24 bytes, got 23"),
        (image(data=array("B", RGB.tobytes() + b"\0")), r"must have 24 bytes, got 25"),
        (image(data=array("B")), r"must have 24 bytes, got 0"),
        (image(width=0), r"pixels, got 0 x 2"),
        (image(height=0), r"pixels, got 4 x 0"),
        (image(width=2**32 - 1, height=2**32 - 1), r"pixels, got 4294967295 x 4294967295"),
        (Image(), r"encoding"),
        (CompressedImage(), r"got 0 bytes of format ''"),
        (jpeg_of_noise(b"GIF89a......", "gif"), r"must be JPEG or PNG, got 12 bytes of format 'gif' .* 47 49 46 38"),
        (jpeg_of_noise(PNG, "16UC1; compressedDepth png"), r"must be JPEG or PNG, .*compressedDepth"),
        (jpeg_of_noise(JPEG[: len(JPEG) // 2]), r"JPEG image of \d+ bytes must have an end marker"),
        (jpeg_of_noise(PNG[:-5], "png"), r"PNG image of \d+ bytes must have an end marker"),
        (jpeg_of_noise(JPEG[:4] + JPEG[-2:]), r"JPEG image of 6 bytes could not be decoded"),
        (jpeg_of_noise(PNG[:8] + PNG[-12:], "png"), r"PNG image of 20 bytes could not be decoded"),
    ],
)
def test_damaged_or_unknown_image_is_refused_with_a_reason(message: Image | CompressedImage, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        image_to_rgb(over_the_wire(message))


def test_jpeg_that_a_camera_padded_with_zeros_is_read() -> None:
    assert image_to_rgb(over_the_wire(jpeg_of_noise(JPEG + bytes(10)))).shape == (48, 64, 3)


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789, -1])
def test_stamps_keep_every_nanosecond(stamp_ns: int) -> None:
    assert stamp_to_ns(over_the_wire(ns_to_stamp(stamp_ns))) == stamp_ns


def detections(stamp_ns: int) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 320.0, 192.5]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([2, 0]),
        stamp_ns=stamp_ns,
    )


def nothing(stamp_ns: int) -> Detections:
    return Detections(
        boxes_xyxy=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64), stamp_ns=stamp_ns
    )


def test_detections_carry_the_images_header_their_name_and_their_box() -> None:
    message: Detection2DArray = over_the_wire(
        to_detection_array(detections(stamp_to_ns(HEADER.stamp)), CLASS_NAMES, HEADER)
    )
    assert message.header == HEADER
    barrel, ball = message.detections
    assert [barrel.header, ball.header] == [HEADER, HEADER]
    assert (barrel.bbox.center.position.x, barrel.bbox.center.position.y) == (20.0, 40.0)
    assert (barrel.bbox.size_x, barrel.bbox.size_y, barrel.bbox.center.theta) == (20.0, 40.0, 0.0)
    assert (ball.bbox.center.position.x, ball.bbox.center.position.y) == (160.0, 96.25)
    assert [(d.results[0].hypothesis.class_id, d.results[0].hypothesis.score) for d in (barrel, ball)] == [
        ("barrel", 0.75),
        ("ball", 0.5),
    ]
    assert [(d.id, len(d.results)) for d in (barrel, ball)] == [("", 1), ("", 1)]


def test_no_detections_are_an_empty_array_with_the_header() -> None:
    message = over_the_wire(to_detection_array(nothing(0), CLASS_NAMES, HEADER))
    assert message.header == HEADER
    assert list(message.detections) == []


def test_anticipated_detections_say_from_when_for_when_and_by_whom() -> None:
    source_ns = stamp_to_ns(HEADER.stamp)
    horizons_ns = [100_000_000, 900_000_000, 1_500_000_000]
    message: AnticipatedDetections = over_the_wire(
        to_anticipated(
            [detections(source_ns + horizons_ns[0]), *(nothing(source_ns + h) for h in horizons_ns[1:])],
            CLASS_NAMES,
            HEADER,
            "memnet-tiny",
            "1",
        )
    )
    assert (message.header, message.model, message.model_version) == (HEADER, "memnet-tiny", "1")
    for horizon_ns, at_horizon in zip(horizons_ns, message.horizons, strict=True):
        assert stamp_to_ns(at_horizon.horizon) == horizon_ns
        assert stamp_to_ns(at_horizon.target_stamp) == source_ns + horizon_ns
        assert at_horizon.detections.header == Header(stamp=at_horizon.target_stamp, frame_id="camera/optical")
    assert [len(at_horizon.detections.detections) for at_horizon in message.horizons] == [2, 0, 0]


def test_label_info_maps_index_to_name() -> None:
    message: LabelInfo = over_the_wire(to_label_info(CLASS_NAMES, HEADER, 0.25))
    assert message.header == HEADER
    assert [(c.class_id, c.class_name) for c in message.class_map] == [(0, "ball"), (1, "crate"), (2, "barrel")]
    assert message.threshold == 0.25


def test_detections_come_back_from_their_message() -> None:
    given = Detections(
        boxes_xyxy=torch.tensor([[1.0, 2.0, 11.5, 22.0], [3.0, 4.0, 5.0, 6.0]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([2, 0]),
        stamp_ns=stamp_to_ns(HEADER.stamp),
    )
    back = from_detection_array(over_the_wire(to_detection_array(given, CLASS_NAMES, HEADER)), CLASS_NAMES)
    assert back.stamp_ns == given.stamp_ns
    for one, other in zip(
        (back.boxes_xyxy, back.scores, back.labels), (given.boxes_xyxy, given.scores, given.labels), strict=True
    ):
        assert one.equal(other)


def test_a_class_that_is_not_known_is_refused() -> None:
    given = Detections(boxes_xyxy=torch.zeros(1, 4), scores=torch.ones(1), labels=torch.tensor([2]), stamp_ns=0)
    message = to_detection_array(given, CLASS_NAMES, HEADER)
    with pytest.raises(DataError, match="expected a class of ball, crate, got 'barrel'"):
        from_detection_array(message, CLASS_NAMES[:2])
