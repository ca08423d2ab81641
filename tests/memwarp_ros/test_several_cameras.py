"""Several cameras in one node, in its own process: what each of them gets, whatever the others do."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2DArray

from memwarp_core import load_detector
from memwarp_core.data.bags import read_bag
from memwarp_core.data.clips import Clip
from memwarp_ros.conversions import ns_to_stamp, rgb_to_image
from memwarp_ros.msg import AnticipatedDetections

pytestmark = pytest.mark.slow

TOPICS = {"front": "/front/image_raw", "rear": "/rear/image_raw", "arm": "/arm/image", "spare": "/spare/image"}
DETECTOR_ARGUMENTS = [
    word
    for value in (f"image_topics:=[{', '.join(TOPICS.values())}]", "tracking:=true", "enabled:=false")
    for word in ("-p", value)
]
START_NS = 1_700_000_000_000_000_000
FRAME_NS = 50_000_000


@cache
def sample() -> Clip:
    return read_bag(Path(get_package_share_directory("memwarp_ros"), "sample"))


def scene(camera: str, index: int) -> np.ndarray:
    """RGB; each camera is at another place of the sample recording, and the arm's has smaller images."""
    image = sample()[(index + 20 * list(TOPICS).index(camera)) % len(sample())].image
    return np.ascontiguousarray(image[:, :160]) if camera == "arm" else image


def header(camera: str, index: int) -> Header:
    return Header(stamp=ns_to_stamp(START_NS + index * FRAME_NS), frame_id=camera)


def frame(camera: str, index: int) -> Image:
    return rgb_to_image(scene(camera, index), header(camera, index))


class Rig:
    """The cameras and what is said of their images; three of them send, `spare` stays silent."""

    def __init__(self, graph) -> None:
        self.client = graph.client
        request = SetParameters.Request(parameters=[Parameter("enabled", value=True).to_parameter_msg()])
        assert self.client.call(SetParameters, "/detector/set_parameters", request).results[0].successful
        self.current = {name: self.client.collect(Detection2DArray, f"/detector/{name}/detections") for name in TOPICS}
        self.reports = self.client.collect(DiagnosticArray, "/diagnostics")
        self._cameras = {name: self.client.publisher(Image, topic) for name, topic in TOPICS.items()}
        self._next = -1_000_000
        self.connect()

    def connect(self) -> None:
        """Send images of long ago until all that send are answered; the first ones may be lost."""
        sending = [name for name in TOPICS if name != "spare"]

        def send() -> None:
            self._next += 1
            self.send(sending, self._next)

        timer = self.client.node.create_timer(0.2, send)
        self.client.until(lambda: all(self.current[name] for name in sending), "the first answers of all cameras")
        self.client.node.destroy_timer(timer)
        self.answered(sending, self._next)

    def send(self, names: Sequence[str], index: int) -> None:
        for name in names:
            self._cameras[name].publish(frame(name, index))

    def publish(self, name: str, image: Image) -> None:
        self._cameras[name].publish(image)

    def answered(self, names: Sequence[str], index: int) -> None:
        self.client.until(
            lambda: all(self.current[name][-1].header == header(name, index) for name in names),
            f"the answers to image {index} of {', '.join(names)}",
        )

    def status(self, name: str) -> DiagnosticStatus:
        """Of a camera's images, in a report that was surely made after this call."""
        known = len(self.reports)
        self.client.until(lambda: len(self.reports) >= known + 2, "two more reports")
        (status,) = (one for one in self.reports[-1].status if one.name == f"/detector: {TOPICS[name]}")
        return status

    def counts(self, name: str) -> dict[str, int]:
        return {pair.key: int(pair.value) for pair in self.status(name).values if pair.value.isdigit()}


@pytest.fixture(scope="module")
def rig(graph) -> Rig:
    return Rig(graph)


def boxes(message: Detection2DArray) -> np.ndarray:
    """(N, 5): centre, size and score, from left to right."""
    rows = [
        (one.bbox.center.position.x, one.bbox.center.position.y, one.bbox.size_x, one.bbox.size_y, score)
        for one in message.detections
        for score in [one.results[0].hypothesis.score]
    ]
    return np.array(sorted(rows)).reshape(-1, 5)


def test_cameras_at_once_are_answered_as_if_each_were_alone(rig) -> None:
    names = ("front", "rear", "arm")
    detector = load_detector(device="cpu")
    states = {name: detector.start() for name in names}  # the images before are too long ago
    seen = 0
    for index in range(4):
        rig.send(names, index)
        rig.answered(names, index)
        for name in names:
            found, states[name] = detector.step(scene(name, index), START_NS + index * FRAME_NS, states[name])
            found = found.select(found.scores >= 0.5)
            x1, y1, x2, y2 = found.boxes_xyxy.unbind(1)
            rows = zip(
                *(of.tolist() for of in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, found.scores)), strict=True
            )
            expected = np.array(sorted(rows)).reshape(-1, 5)
            # A pass for two cameras rounds otherwise than one for each.
            np.testing.assert_allclose(boxes(rig.current[name][-1]), expected, atol=0.02)
            seen += len(expected)
    assert seen > 12


def test_reset_forgets_the_objects_of_all_cameras(rig) -> None:
    names = ("front", "rear")

    def ids(index: int) -> dict[str, set[int]]:
        rig.send(names, index)
        rig.answered(names, index)
        return {name: {int(d.id) for d in rig.current[name][-1].detections if d.id} for name in names}

    before = ids(100), ids(101)
    rig.client.call(Trigger, "/detector/reset", Trigger.Request())
    after = ids(102)
    for name in names:
        assert before[0][name] & before[1][name], f"{name}: objects keep their ids"
        assert after[name] and min(after[name]) > max(before[0][name] | before[1][name])


def test_a_fast_a_broken_and_a_silent_camera_harm_no_other(rig) -> None:
    rear, spare = rig.counts("rear"), rig.status("spare")
    assert spare.level == DiagnosticStatus.WARN and "no image for" in spare.message
    front = iter(range(1_000, 1_000_000))
    timer = rig.client.node.create_timer(0.01, lambda: rig.send(["front"], next(front)))
    answered = len(rig.current["front"])
    for index in range(1_000, 1_006):
        broken = frame("arm", index)
        broken.encoding = "32FC1"
        rig.publish("arm", broken)
        rig.send(["rear"], index)
        rig.answered(["rear"], index)
    rig.client.until(lambda: len(rig.current["front"]) > answered, "answers of the fast camera")
    rig.client.node.destroy_timer(timer)

    new = rig.counts("rear")
    assert new["images processed"] == rear["images processed"] + 6
    assert new["images dropped"] == rear["images dropped"] and new["images refused"] == 0
    assert rig.counts("arm")["images refused"] == 6
    assert rig.counts("front")["images refused"] == 0 and rig.counts("front")["images dropped"] > 0
    names = {one.name for one in rig.reports[-1].status}
    assert {f"/detector: anticipation of {name}" for name in TOPICS} <= names


def test_each_camera_has_its_own_anticipations(rig) -> None:
    anticipated = rig.client.collect(AnticipatedDetections, "/detector/rear/anticipated")
    alone = rig.client.collect(Detection2DArray, "/detector/arm/anticipated/h100ms")
    stream = iter(range(2_000, 1_000_000))

    def send() -> None:
        rig.send(["rear", "arm"], next(stream))

    timer = rig.client.node.create_timer(0.2, send)
    rig.client.until(lambda: anticipated and alone, "anticipations of two cameras")
    rig.client.node.destroy_timer(timer)
    assert anticipated[-1].header.frame_id == "rear" and alone[-1].header.frame_id == "arm"
    assert not rig.client.node.count_publishers("/detector/anticipated")


def test_enable_reaches_all_cameras(rig) -> None:
    rig.client.call(SetBool, "/detector/enable", SetBool.Request(data=False))
    rig.client.until(
        lambda: not any(rig.client.node.count_subscribers(topic) for topic in TOPICS.values()), "the node to be quiet"
    )
    rig.client.until(
        lambda: all(one.message == "disabled" for one in rig.reports[-1].status if "anticipation" not in one.name),
        "a report of all being disabled",
    )
