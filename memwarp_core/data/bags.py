"""Clips in ROS 2 bags (rosbag2, MCAP), read and written without ROS.

A clip's bag has these topics, all with frame_id "camera" and every message with its image's stamp:

| topic | type |
| --- | --- |
| /camera/image_raw/compressed or /camera/image_raw | sensor_msgs/CompressedImage (JPEG) or Image (rgb8) |
| /camera/camera_info | sensor_msgs/CameraInfo |
| /ground_truth | vision_msgs/Detection2DArray: class_id is the class name, id the track id, score 1 |
| /ground_truth/label_info | vision_msgs/LabelInfo, once: the order of the classes |
"""

import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from memwarp_core.errors import DataError, MemwarpError
from memwarp_core.files import write_whole
from memwarp_core.types import Detections, Frame

IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
GROUND_TRUTH_TOPIC = "/ground_truth"
LABEL_INFO_SUFFIX = "/label_info"
"""Appended to the topic of the detections whose class names it lists."""
FRAME_ID = "camera"

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
DETECTIONS_TYPE = "vision_msgs/msg/Detection2DArray"
LABEL_INFO_TYPE = "vision_msgs/msg/LabelInfo"
ANTICIPATED_TYPE = "memwarp_ros/msg/AnticipatedDetections"

METADATA_FILE = "metadata.yaml"

_VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": ("vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"),
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
    "VisionClass": "uint16 class_id\nstring class_name",
    "LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold",
}
"""The messages of vision_msgs 4.x that are used here; on the wire only names and types count."""
_MEMWARP_MSGS = {
    "DetectionsAtHorizon": (
        "builtin_interfaces/Duration horizon\nbuiltin_interfaces/Time target_stamp\n"
        "vision_msgs/Detection2DArray detections"
    ),
    "AnticipatedDetections": (
        "std_msgs/Header header\nstring model\nstring model_version\nmemwarp_ros/DetectionsAtHorizon[] horizons"
    ),
}
"""Those of memwarp_ros, as in msg/."""


def make_typestore() -> Any:
    """The messages of ROS 2 Jazzy and those of vision_msgs and memwarp_ros, for rosbags."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for package, definitions in (("vision_msgs", _VISION_MSGS), ("memwarp_ros", _MEMWARP_MSGS)):
        for name, definition in definitions.items():
            types.update(get_types_from_msg(definition, f"{package}/msg/{name}"))
    store.register(types)
    return store


def offered_qos(is_latched: bool) -> Qos:
    """What `ros2 bag play` shall offer for a topic; a latched one reaches who subscribes late, too."""
    durability = QosDurability.TRANSIENT_LOCAL if is_latched else QosDurability.VOLATILE
    for_ever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        1 if is_latched else 10,
        QosReliability.RELIABLE,
        durability,
        for_ever,
        for_ever,
        QosLiveliness.AUTOMATIC,
        for_ever,
        False,
    )


class BagWriter:
    """Writes a bag that appears at its path, whole, when the `with` block ends without an error.

    A message is logged at its stamp, unless another time is given. The store file is named after the folder:
    `clip/clip.mcap`.
    """

    def __init__(self, path: Path) -> None:
        """Raises: DataError if there is a bag at `path` already."""
        self._path = Path(path)
        if (self._path / METADATA_FILE).exists() or self._path.is_file():
            raise DataError(f"{self._path}: expected a path for a new bag, but it exists; delete it first.")
        self._store = make_typestore()
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> "BagWriter":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._workplace = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
        # Version 8 of the metadata is the oldest that rosbags writes, so the most readers know it.
        self._writer = Writer(self._workplace / self._path.name, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._path.mkdir(exist_ok=True)
                # The metadata comes last: a folder that has it is complete.
                finished = sorted((self._workplace / self._path.name).iterdir(), key=lambda p: p.suffix == ".yaml")
                for file in finished:
                    file.replace(self._path / file.name)
        finally:
            shutil.rmtree(self._workplace, ignore_errors=True)

    def write_compressed_image(
        self, image: np.ndarray, stamp_ns: int, *, topic: str = COMPRESSED_TOPIC, jpeg_quality: int = 92
    ) -> None:
        """Write (H, W, 3) uint8 RGB as a JPEG."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        message = self._type(COMPRESSED_TYPE)(
            header=self._header(stamp_ns), format="rgb8; jpeg compressed bgr8", data=content.reshape(-1)
        )
        self._write(topic, COMPRESSED_TYPE, message, stamp_ns)

    def write_image(self, image: np.ndarray, stamp_ns: int, *, topic: str = IMAGE_TOPIC) -> None:
        """Write (H, W, 3) uint8 RGB as it is, with encoding rgb8."""
        height, width = image.shape[:2]
        message = self._type(IMAGE_TYPE)(
            header=self._header(stamp_ns), height=height, width=width, encoding="rgb8", is_bigendian=0,
            step=3 * width, data=np.ascontiguousarray(image).reshape(-1),
        )  # fmt: skip
        self._write(topic, IMAGE_TYPE, message, stamp_ns)

    def write_camera_info(
        self, width: int, height: int, focal: float, stamp_ns: int, *, topic: str = CAMERA_INFO_TOPIC
    ) -> None:
        """Write a pinhole camera without distortion; `focal` in pixels, the principal point in the middle."""
        # ROS puts pixel centres at integers, so the middle of the image is half a pixel less than half its size.
        cx, cy = (width - 1) / 2.0, (height - 1) / 2.0
        roi = self._type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self._type(CAMERA_INFO_TYPE)(
            header=self._header(stamp_ns), height=height, width=width, distortion_model="plumb_bob",
            d=np.zeros(5), k=np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0]), r=np.eye(3).reshape(-1),
            p=np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0]), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip
        self._write(topic, CAMERA_INFO_TYPE, message, stamp_ns)

    def write_detections(
        self,
        boxes_xyxy: np.ndarray,
        names: Sequence[str],
        stamp_ns: int,
        *,
        scores: np.ndarray | None = None,
        track_ids: Sequence[int] | None = None,
        topic: str = GROUND_TRUTH_TOPIC,
        frame_id: str = FRAME_ID,
        log_time_ns: int | None = None,
    ) -> None:
        """Write boxes (N, 4) with their class names; scores default to 1, without track ids `id` is empty."""
        message = self._detection_array(boxes_xyxy, names, stamp_ns, scores, track_ids, frame_id)
        self._write(topic, DETECTIONS_TYPE, message, stamp_ns if log_time_ns is None else log_time_ns)

    def write_anticipated(
        self,
        later: Sequence[Detections],
        class_names: Sequence[str],
        stamp_ns: int,
        *,
        model: tuple[str, str],
        topic: str,
        frame_id: str = FRAME_ID,
        log_time_ns: int | None = None,
    ) -> None:
        """Write every horizon of an image in one memwarp_ros/AnticipatedDetections.

        Args:
            later: in host memory, one per horizon, nearest first.
            stamp_ns: of the image.
            model: its name and version.
        """
        horizons = [
            self._type("memwarp_ros/msg/DetectionsAtHorizon")(
                horizon=self._time("Duration", one.stamp_ns - stamp_ns),
                target_stamp=self._time("Time", one.stamp_ns),
                detections=self._detection_array(
                    one.boxes_xyxy.numpy(),
                    [class_names[label] for label in one.labels.tolist()],
                    one.stamp_ns,
                    one.scores.numpy(),
                    None,
                    frame_id,
                ),
            )
            for one in later
        ]
        name, version = model
        message = self._type(ANTICIPATED_TYPE)(
            header=self._header(stamp_ns, frame_id), model=name, model_version=version, horizons=horizons
        )
        self._write(topic, ANTICIPATED_TYPE, message, stamp_ns if log_time_ns is None else log_time_ns)

    def write_label_info(
        self,
        class_names: Sequence[str],
        stamp_ns: int,
        *,
        threshold: float = 0.0,
        topic: str = GROUND_TRUTH_TOPIC + LABEL_INFO_SUFFIX,
        log_time_ns: int | None = None,
    ) -> None:
        """Write which names the detections use, in the order of their labels, and from which score on they are."""
        make = self._type("vision_msgs/msg/VisionClass")
        message = self._type(LABEL_INFO_TYPE)(
            header=self._header(stamp_ns),
            class_map=[make(class_id=index, class_name=name) for index, name in enumerate(class_names)],
            threshold=threshold,
        )
        self._write(topic, LABEL_INFO_TYPE, message, stamp_ns if log_time_ns is None else log_time_ns)

    def copy(self, reader: Any, connection: Any, log_time_ns: int, data: bytes) -> None:
        """Write a message of another bag as it is.

        Args:
            reader: rosbags' AnyReader of that bag.
            connection, log_time_ns, data: what its `messages` gave.
        """
        if connection.topic not in self._connections:
            self._connections[connection.topic] = self._writer.add_connection(
                connection.topic,
                connection.msgtype,
                typestore=reader.typestore,
                offered_qos_profiles=connection.ext.offered_qos_profiles,
            )
        self._writer.write(self._connections[connection.topic], log_time_ns, data)

    def _detection_array(
        self,
        boxes_xyxy: np.ndarray,
        names: Sequence[str],
        stamp_ns: int,
        scores: np.ndarray | None,
        track_ids: Sequence[int] | None,
        frame_id: str,
    ) -> Any:
        header = self._header(stamp_ns, frame_id)
        detections = [
            self._detection(
                header,
                box,
                name,
                1.0 if scores is None else float(scores[index]),
                "" if track_ids is None else str(track_ids[index]),
            )
            for index, (box, name) in enumerate(zip(boxes_xyxy, names, strict=True))
        ]
        return self._type(DETECTIONS_TYPE)(header=header, detections=detections)

    def _detection(self, header: Any, box: np.ndarray, name: str, score: float, track: str) -> Any:
        x0, y0, x1, y1 = (float(v) for v in box)
        point = self._type("geometry_msgs/msg/Point")(x=0.0, y=0.0, z=0.0)
        turn = self._type("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
        result = self._type("vision_msgs/msg/ObjectHypothesisWithPose")(
            hypothesis=self._type("vision_msgs/msg/ObjectHypothesis")(class_id=name, score=score),
            pose=self._type("geometry_msgs/msg/PoseWithCovariance")(
                pose=self._type("geometry_msgs/msg/Pose")(position=point, orientation=turn),
                covariance=np.zeros(36),
            ),
        )
        center = self._type("vision_msgs/msg/Pose2D")(
            position=self._type("vision_msgs/msg/Point2D")(x=(x0 + x1) / 2.0, y=(y0 + y1) / 2.0), theta=0.0
        )
        bbox = self._type("vision_msgs/msg/BoundingBox2D")(center=center, size_x=x1 - x0, size_y=y1 - y0)
        return self._type("vision_msgs/msg/Detection2D")(header=header, results=[result], bbox=bbox, id=track)

    def _type(self, name: str) -> Any:
        return self._store.types[name]

    def _header(self, stamp_ns: int, frame_id: str = FRAME_ID) -> Any:
        return self._type("std_msgs/msg/Header")(stamp=self._time("Time", stamp_ns), frame_id=frame_id)

    def _time(self, kind: str, time_ns: int) -> Any:
        sec, nanosec = divmod(time_ns, 1_000_000_000)
        return self._type(f"builtin_interfaces/msg/{kind}")(sec=sec, nanosec=nanosec)

    def _write(self, topic: str, kind: str, message: Any, log_time_ns: int) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic,
                kind,
                typestore=self._store,
                offered_qos_profiles=[offered_qos(is_latched=kind == LABEL_INFO_TYPE)],
            )
        self._writer.write(self._connections[topic], log_time_ns, self._store.serialize_cdr(message, kind))


@dataclass(frozen=True, kw_only=True, slots=True)
class BagClip:
    """The images of one topic of a bag; see `memwarp_core.data.clips.Clip`. Holds the bag open until `close`."""

    name: str
    class_names: tuple[str, ...]
    """Empty where there is no ground truth."""
    has_ground_truth: bool
    """Whether the bag has a topic with ground truth at all."""
    path: Path
    reader: Any
    connection: Any
    """rosbags' connection of the image topic."""
    frame_id: str
    """Of the first image's header."""
    log_times_ns: tuple[int, ...]
    stamps_ns: tuple[int, ...]
    """Of the images' headers."""
    truths: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    """Boxes (N, 4), labels (N,) and track ids (N,) of each image."""
    labelled: tuple[bool, ...]
    """Whether the bag says what is in an image, be it nothing."""

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def __getitem__(self, index: int) -> Frame:
        """Read a frame. Raises DataError if its image cannot be decoded."""
        time = self.log_times_ns[index]
        with _reading(self.path):
            for connection, _, data in self.reader.messages([self.connection], start=time, stop=time + 1):
                message = self.reader.deserialize(data, connection.msgtype)
                if _stamp_ns(message) != self.stamps_ns[index]:
                    continue
                boxes, labels, tracks = self.truths[index]
                return Frame(
                    image=_decode(message, connection.msgtype, f"{self.path}: {connection.topic}"),
                    stamp_ns=self.stamps_ns[index],
                    boxes_xyxy=boxes,
                    labels=labels,
                    track_ids=tracks,
                )
        raise DataError(f"{self.path}: the image logged at {time} ns is no longer there; the bag was changed.")

    def close(self) -> None:
        self.reader.close()


def read_bag(
    path: Path,
    image_topic: str | None = None,
    ground_truth_topic: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> BagClip:
    """The images of a bag with the ground truth that has the same stamps.

    Args:
        path: folder of a rosbag2 (any storage that rosbags reads), or an .mcap file.
        image_topic: of type Image or CompressedImage; may be left out if there is only one.
        ground_truth_topic: of type Detection2DArray; left out, `/ground_truth` is taken where there is one.
        class_names: the order of the labels; left out, that of the LabelInfo beside the ground truth, or the
            names found, sorted.
    Raises: DataError that says what the bag holds instead.
    """
    path = Path(path)
    reader = _open(path)
    try:
        with _reading(path):
            return _open_clip(path, reader, image_topic, ground_truth_topic, class_names)
    except BaseException:
        reader.close()
        raise


def image_topics(path: Path) -> list[str]:
    """The topics of a bag that hold images, in the order of their names. Raises: DataError if it cannot be read."""
    with closing(_open(Path(path))) as reader:
        return sorted({c.topic for c in reader.connections if c.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE)})


def read_truths(path: Path, topic: str | None, class_names: Sequence[str]) -> list[Frame] | None:
    """The ground truth of a bag by increasing stamps of its messages, without images, whether these are there or not.

    Args:
        topic: of type Detection2DArray; None takes `/ground_truth` where there is one.
        class_names: what its labels will mean.
    Returns: None where no topic is named and none is there.
    Raises: DataError that says what the bag holds instead.
    """
    path = Path(path)
    with closing(_open(path)) as reader, _reading(path):
        if topic is None and all(c.topic != GROUND_TRUTH_TOPIC for c in reader.connections):
            return None
        truth = _choose_topic(path, reader, topic or GROUND_TRUTH_TOPIC, (DETECTIONS_TYPE,), "ground truth")
        found = _read_detections(reader, truth)
    label_of = {name: label for label, name in enumerate(class_names)}
    arrays = {stamp_ns: _as_arrays(path, found[stamp_ns], label_of) for stamp_ns in sorted(found)}
    return [
        Frame(image=np.empty((0, 0, 3), np.uint8), stamp_ns=stamp_ns, boxes_xyxy=boxes, labels=labels, track_ids=tracks)
        for stamp_ns, (boxes, labels, tracks) in arrays.items()
    ]


def salvage_mcap(broken: Path, path: Path) -> None:
    """Copy what is whole of an .mcap file that breaks off, so that it can be read; its end and index were not written.

    Raises: DataError if not even its beginning is there.
    """

    def write(temporary: Path) -> None:
        with broken.open("rb") as source, temporary.open("wb") as target:
            if (magic := source.read(len(_MCAP_MAGIC))) != _MCAP_MAGIC:
                raise DataError(f"{broken}: expected an MCAP file, got one that begins with {magic!r}.")
            target.write(magic)
            while len(head := source.read(9)) == 9 and head[0] not in (_MCAP_DATA_END, _MCAP_FOOTER):
                (size,) = struct.unpack("<Q", head[1:])
                content = source.read(size)
                if len(content) < size:
                    break
                target.write(head + content)
            # Without a summary in the footer, a reader goes through all records.
            target.write(struct.pack("<BQI", _MCAP_DATA_END, 4, 0))
            target.write(struct.pack("<BQQQI", _MCAP_FOOTER, 20, 0, 0, 0) + _MCAP_MAGIC)

    write_whole(path, write)


_MCAP_MAGIC = b"\x89MCAP0\r\n"
_MCAP_DATA_END, _MCAP_FOOTER = 0x0F, 0x02


def _open(path: Path) -> Any:
    if not path.exists():
        raise DataError(f"{path}: expected a bag (a folder with metadata.yaml, or an .mcap file), got no such file.")
    with _reading(path):
        reader = AnyReader([path], default_typestore=make_typestore())
        reader.open()
    return reader


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say of which bag an error is."""
    try:
        yield
    except MemwarpError:
        raise
    except Exception as err:  # whatever a broken file makes of rosbags, sqlite3, zstd and lz4
        raise DataError(f"{path}: cannot be read as a ROS 2 bag ({err}).") from err


def _open_clip(
    path: Path,
    reader: Any,
    image_topic: str | None,
    ground_truth_topic: str | None,
    class_names: Sequence[str] | None,
) -> BagClip:
    images = _choose_topic(path, reader, image_topic, (IMAGE_TYPE, COMPRESSED_TYPE), "image")
    if ground_truth_topic is None and any(c.topic == GROUND_TRUTH_TOPIC for c in reader.connections):
        ground_truth_topic = GROUND_TRUTH_TOPIC
    found: dict[int, list[_Item]] = {}
    if ground_truth_topic is not None:
        truth = _choose_topic(path, reader, ground_truth_topic, (DETECTIONS_TYPE,), "ground truth")
        found = _read_detections(reader, truth)
        if class_names is None:
            class_names = _read_class_names(reader, ground_truth_topic + LABEL_INFO_SUFFIX)
        if class_names is None:
            class_names = sorted({name for items in found.values() for _, name, _ in items})
    label_of = {name: label for label, name in enumerate(class_names or ())}
    log_times, stamps, truths, frame_ids = [], [], [], []
    for _, log_time, data in reader.messages([images]):
        message = reader.deserialize(data, images.msgtype)
        stamp = _stamp_ns(message)
        frame_ids.append(str(message.header.frame_id))
        log_times.append(log_time)
        stamps.append(stamp)
        truths.append(_as_arrays(path, found.get(stamp, []), label_of))
    if not stamps:
        raise DataError(f"{path}: topic {images.topic} holds no image.")
    return BagClip(
        name=path.stem,
        class_names=tuple(class_names or ()),
        has_ground_truth=ground_truth_topic is not None,
        path=path,
        reader=reader,
        connection=images,
        frame_id=frame_ids[0],
        log_times_ns=tuple(log_times),
        stamps_ns=tuple(stamps),
        truths=tuple(truths),
        labelled=tuple(stamp in found for stamp in stamps),
    )


def _choose_topic(path: Path, reader: Any, topic: str | None, types: tuple[str, ...], what: str) -> Any:
    fitting = [c for c in reader.connections if c.msgtype in types and topic in (None, c.topic)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(f"{c.topic} ({c.msgtype})" for c in reader.connections) or "no topic"
    wanted = f"topic {topic}" if topic else f"one {what} topic"
    if fitting:
        names = ", ".join(sorted(c.topic for c in fitting))
        raise DataError(f"{path}: expected {wanted}, got {len(fitting)} ({names}); name the one to use.")
    raise DataError(f"{path}: expected {wanted} of type {' or '.join(types)}, got {there}.")


def _read_class_names(reader: Any, topic: str) -> list[str] | None:
    connections = [c for c in reader.connections if c.topic == topic and c.msgtype == LABEL_INFO_TYPE]
    if not connections:
        return None
    for _, _, data in reader.messages(connections):
        entries = reader.deserialize(data, LABEL_INFO_TYPE).class_map
        return [entry.class_name for entry in sorted(entries, key=lambda entry: int(entry.class_id))]
    return None


_Item = tuple[tuple[float, float, float, float], str, str]
"""xyxy, the name of the class and that of the track."""


def _read_detections(reader: Any, connection: Any) -> dict[int, list[_Item]]:
    """By stamp."""
    found = {}
    for _, _, data in reader.messages([connection]):
        message = reader.deserialize(data, connection.msgtype)
        found[_stamp_ns(message)] = [_read_detection(item) for item in message.detections]
    return found


def _read_detection(item: Any) -> _Item:
    x, y = item.bbox.center.position.x, item.bbox.center.position.y
    half_width, half_height = item.bbox.size_x / 2.0, item.bbox.size_y / 2.0
    name = item.results[0].hypothesis.class_id if item.results else ""
    return (x - half_width, y - half_height, x + half_width, y + half_height), name, item.id


def _as_arrays(
    path: Path,
    items: Sequence[_Item],
    label_of: dict[str, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    unknown = sorted({name for _, name, _ in items} - set(label_of))
    if unknown:
        raise DataError(
            f"{path}: the ground truth names the class {unknown[0]!r}, which is not among {', '.join(label_of)}."
        )
    return (
        np.array([box for box, _, _ in items], np.float32).reshape(-1, 4),
        np.array([label_of[name] for _, name, _ in items], np.int64),
        # A track id is any text in the message; only numbers mean something here.
        np.array([int(track) if track.isdecimal() else -1 for _, _, track in items], np.int64),
    )


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _decode(message: Any, kind: str, place: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or CompressedImage."""
    where = f"{place} at {_stamp_ns(message)} ns"
    if kind == COMPRESSED_TYPE:
        image = cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_COLOR) if len(message.data) else None
        if image is None:
            raise DataError(f"{where}: expected a JPEG or PNG image, got {len(message.data)} bytes of something else.")
        return cast(np.ndarray, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    channels = {"rgb8": 3, "bgr8": 3, "mono8": 1}.get(message.encoding)
    if channels is None:
        raise DataError(f"{where}: expected encoding rgb8, bgr8 or mono8, got {message.encoding!r}.")
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height < 1 or step < width * channels or width < 1 or len(message.data) < height * step:
        raise DataError(
            f"{where}: expected {height} rows of {step} bytes with {width} pixels of {message.encoding} each, "
            f"got {len(message.data)} bytes."
        )
    rows = np.asarray(message.data, np.uint8)[: height * step].reshape(height, step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels)
    if message.encoding == "mono8":
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels if message.encoding == "rgb8" else pixels[..., ::-1])
