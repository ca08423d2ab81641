"""The node in its own process and ROS domain: real images go in, what arrives is looked at."""

import signal
from array import array
from dataclasses import fields
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2DArray, LabelInfo

from memwarp_core import load_detector
from memwarp_core.data.bags import read_bag
from memwarp_core.data.clips import Clip
from memwarp_core.export import export_onnx
from memwarp_core.models import load_weights
from memwarp_ros.conversions import image_to_rgb, ns_to_stamp, rgb_to_image, stamp_to_ns
from memwarp_ros.msg import AnticipatedDetections, AnticipationCheck
from memwarp_ros.parameters import LiveParameters

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 192, 320
START_NS = 1_700_000_000_050_000_007
FRAME_NS = 50_000_000
TOPIC = "/camera/image_raw"
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


@cache
def sample() -> Clip:
    return read_bag(Path(get_package_share_directory("memwarp_ros"), "sample"))


def scene(index: int) -> np.ndarray:
    """(192, 320, 3) RGB: the sample recording, over and over."""
    return sample()[index % len(sample())].image


def header(index: int) -> Header:
    return Header(stamp=ns_to_stamp(START_NS + index * FRAME_NS), frame_id="camera_optical_frame")


def frame(index: int) -> Image:
    return rgb_to_image(scene(index), header(index))


def prime(client, camera, current: list[Detection2DArray], *others: list) -> None:
    """Send images from before START_NS until all topics answer and the node is done with them.

    A subscription knows of its publisher a moment before that knows of it, and what is published in between is lost.
    """
    sent = []

    def send() -> None:
        sent.append(len(sent) - 1_000_000)
        camera.publish(frame(sent[-1]))

    timer = client.node.create_timer(0.2, send)
    client.until(lambda: current and all(others), "the first answers")
    client.node.destroy_timer(timer)
    client.until(lambda: current[-1].header == header(sent[-1]), "the answer to the last of the first images")


def set_parameter(client, name: str, value):
    parameters = [Parameter(name, value=value).to_parameter_msg()]
    request = SetParameters.Request(parameters=parameters)
    return client.call(SetParameters, "/detector/set_parameters", request).results[0]


def get_parameter(client, name: str) -> ParameterValue:
    request = GetParameters.Request(names=[name])
    return client.call(GetParameters, "/detector/get_parameters", request).values[0]


def latest_counts(reports: list[DiagnosticArray]) -> dict[str, int]:
    """The counts of the newest diagnostic report."""
    if not reports:
        return {}
    return {pair.key: int(pair.value) for pair in reports[-1].status[0].values if pair.value.isdigit()}


def fresh_counts(client, reports: list[DiagnosticArray]) -> dict[str, int]:
    """The counts of a report that was surely made after this call."""
    known = len(reports)
    client.until(lambda: len(reports) >= known + 2, "two more reports")
    return latest_counts(reports)


def test_every_image_is_answered_under_its_own_header(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "score_threshold:=0.0")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    anticipated = client.collect(AnticipatedDetections, "/detector/anticipated")
    alone = {
        milliseconds: client.collect(Detection2DArray, f"/detector/anticipated/h{milliseconds}ms")
        for milliseconds in (50, 100, 200)
    }
    class_names = set(load_detector(device="cpu").class_names)
    prime(client, camera, current, anticipated, *alone.values())

    for index in range(3):
        source_ns = stamp_to_ns(header(index).stamp)
        expected = [(current, source_ns), (anticipated, source_ns)]
        expected += [(messages, source_ns + milliseconds * 1_000_000) for milliseconds, messages in alone.items()]
        camera.publish(frame(index))
        client.until(
            lambda e=expected: all(stamp_to_ns(messages[-1].header.stamp) == stamp_ns for messages, stamp_ns in e),
            f"all answers to image {index}",
        )

        assert current[-1].header == header(index)
        assert len(current[-1].detections) > 0
        for detection in current[-1].detections:
            assert detection.header == header(index)
            assert detection.id == ""
            assert detection.results[0].hypothesis.class_id in class_names
            assert 0 <= detection.results[0].hypothesis.score <= 1
            centre, box = detection.bbox.center.position, detection.bbox
            assert box.size_x > 0 and box.size_y > 0
            assert centre.x - box.size_x / 2 >= 0 and centre.x + box.size_x / 2 <= WIDTH
            assert centre.y - box.size_y / 2 >= 0 and centre.y + box.size_y / 2 <= HEIGHT

        assert anticipated[-1].header == header(index)
        assert anticipated[-1].model == "memnet-tiny"
        assert len(anticipated[-1].horizons) == 3
        for at_horizon, (milliseconds, messages) in zip(anticipated[-1].horizons, alone.items(), strict=True):
            target_ns = source_ns + milliseconds * 1_000_000
            assert stamp_to_ns(at_horizon.horizon) == milliseconds * 1_000_000
            assert stamp_to_ns(at_horizon.target_stamp) == target_ns
            assert stamp_to_ns(at_horizon.detections.header.stamp) == target_ns
            assert at_horizon.detections.header.frame_id == "camera_optical_frame"
            assert messages[-1] == at_horizon.detections


def test_an_exported_model_answers_as_its_weights_do(start_detector, client, tmp_path: Path) -> None:
    export_onnx(load_weights("memnet-tiny"), tmp_path / "memnet", (HEIGHT, WIDTH))
    start_detector("-r", f"image:={TOPIC}", "-p", "backend:=onnx", "-p", f"model:={tmp_path / 'memnet'}")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    anticipated = client.collect(AnticipatedDetections, "/detector/anticipated")
    prime(client, camera, current, anticipated)

    detector = load_detector("memnet-tiny", device="cpu")
    state = detector.start()
    for index in range(3):
        camera.publish(frame(index))
        client.until(lambda i=index: current[-1].header == header(i), f"the answer to image {index}")
        found, state = detector.step(scene(index), stamp_to_ns(header(index).stamp), state)
        sure = found.select(found.scores >= 0.5)
        boxes = [detection.bbox for detection in current[-1].detections]
        centres = [(box.center.position.x, box.center.position.y) for box in boxes]
        expected = (sure.boxes_xyxy[:, :2] + sure.boxes_xyxy[:, 2:]) / 2
        assert len(sure) > 0
        np.testing.assert_allclose(sorted(centres), sorted(expected.tolist()), atol=0.1)
    client.until(lambda: anticipated[-1].header == header(2), "what is anticipated")
    assert all(at_horizon.detections.detections for at_horizon in anticipated[-1].horizons)


def test_label_info_reaches_a_late_subscriber(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}")
    client.publisher(Image, TOPIC)  # returns when the node is up and listens
    labels = client.collect(LabelInfo, "/detector/label_info", LATCHED)
    client.until(lambda: labels, "label info")
    names = [entry.class_name for entry in labels[0].class_map]
    assert names == list(load_detector(device="cpu").class_names)
    assert [entry.class_id for entry in labels[0].class_map] == list(range(len(names)))


def test_threshold_changes_while_the_node_runs_and_empty_arrays_are_published(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "score_threshold:=0.0")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    labels = client.collect(LabelInfo, "/detector/label_info", LATCHED)
    prime(client, camera, current)
    assert len(current[-1].detections) > 0

    assert set_parameter(client, "score_threshold", 1.0).successful
    camera.publish(frame(0))
    client.until(lambda: current[-1].header == header(0), "an answer")
    assert len(current[-1].detections) == 0
    client.until(lambda: labels and labels[-1].threshold == 1.0, "label info with the new threshold")

    refused = set_parameter(client, "score_threshold", 1.5)
    assert not refused.successful
    assert "score_threshold" in refused.reason and "1.5" in refused.reason


def test_detections_now_speak_of_the_instant_of_publishing(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "score_threshold:=0.0", "-p", "consumer_delay_s:=0.2")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    now = client.collect(Detection2DArray, "/detector/detections_now")
    published_ns, received_ns = {}, {}

    def send() -> None:
        image = frame(len(published_ns))
        image.header.stamp = client.node.get_clock().now().to_msg()
        published_ns[stamp_to_ns(image.header.stamp)] = image.header
        camera.publish(image)

    timer = client.node.create_timer(0.1, send)
    client.until(lambda: len(now) >= 5, "moved detections")
    received_ns = client.node.get_clock().now().nanoseconds
    client.node.destroy_timer(timer)
    client.until(lambda: len(current) >= len(now), "the detections that were moved")

    for array_now in now:
        stamp_ns = stamp_to_ns(array_now.header.stamp)
        assert array_now.header.frame_id == "camera_optical_frame"
        assert all(detection.header == array_now.header for detection in array_now.detections)
        source_ns = max(ns for ns in published_ns if ns < stamp_ns - 200_000_000)
        assert source_ns + 200_000_000 < stamp_ns, "the image's age comes on top of the consumer's delay"
    assert stamp_to_ns(now[4].header.stamp) < received_ns + 1_000_000_000
    assert any(array_now.detections for array_now in now)


def test_detections_now_are_unmoved_when_told_so_or_when_the_image_is_too_old(start_detector, client) -> None:
    detector = start_detector("-r", f"image:={TOPIC}", "-p", "score_threshold:=0.0")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    now = client.collect(Detection2DArray, "/detector/detections_now")
    prime(client, camera, current, now)  # with images of long ago
    client.until(lambda: now[-1].header == current[-1].header, "unmoved detections")
    assert now[-1] == current[-1]
    assert "more than max_image_age_s (1.0)" in detector.log

    assert set_parameter(client, "delay_compensation", "none").successful
    image = frame(0)
    image.header.stamp = client.node.get_clock().now().to_msg()
    camera.publish(image)
    client.until(lambda: now[-1].header == image.header, "unmoved detections of a new image")
    client.until(lambda: current[-1].header == image.header, "its detections")
    assert now[-1] == current[-1]

    refused = set_parameter(client, "delay_compensation", "full")
    assert not refused.successful
    assert "delay_compensation must be one of none, publish_delay, got 'full'" in refused.reason


def test_images_are_answered_while_the_clock_of_a_recording_ticks(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "use_sim_time:=true")
    clock = client.publisher(Clock, "/clock")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    ticks, sent = iter(range(100_000)), []

    def tick() -> None:
        """As `ros2 bag play --clock 100`, and every 0.2 s an image."""
        index = next(ticks)
        now = ns_to_stamp(START_NS + index * 10_000_000)
        clock.publish(Clock(clock=now))
        if index % 20 == 0:
            sent.append(rgb_to_image(scene(len(sent)), Header(stamp=now)))
            camera.publish(sent[-1])

    timer = client.node.create_timer(0.01, tick)
    client.until(lambda: current, "the first answer")
    sent_before, answered_before = len(sent), len(current)
    client.until(lambda: len(sent) - sent_before >= 30, "images to be sent")
    client.node.destroy_timer(timer)
    assert len(current) - answered_before >= 20


def test_horizons_change_while_the_node_runs(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    anticipated = client.collect(AnticipatedDetections, "/detector/anticipated")
    prime(client, camera, client.collect(Detection2DArray, "/detector/detections"), anticipated)
    assert len(anticipated[-1].horizons) == 3

    assert set_parameter(client, "horizons_s", [0.3]).successful
    client.until(lambda: not client.node.count_publishers("/detector/anticipated/h50ms"), "the old topics to go")
    alone = client.collect(Detection2DArray, "/detector/anticipated/h300ms")
    stream = iter(range(1_000_000))
    client.node.create_timer(0.2, lambda: camera.publish(frame(next(stream))))
    client.until(lambda: alone, "anticipated detections on the new topic")
    assert [stamp_to_ns(at_horizon.horizon) for at_horizon in anticipated[-1].horizons] == [300_000_000]

    refused = set_parameter(client, "horizons_s", [0.2, 0.1])
    assert not refused.successful
    assert "horizons_s must be increasing" in refused.reason


def test_the_way_of_anticipating_changes_while_the_node_runs(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "horizons_s:=[0.1]", "-p", "anticipation:=boxes")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    anticipated = client.collect(AnticipatedDetections, "/detector/anticipated")
    prime(client, camera, current, anticipated)

    def scores_after(index: int) -> tuple[set[float], set[float]]:
        """Of the image, and of what is anticipated."""
        camera.publish(frame(index))
        client.until(lambda: anticipated[-1].header == header(index), f"what is anticipated of image {index}")
        client.until(lambda: current[-1].header == header(index), f"detections of image {index}")
        arrays = (current[-1], anticipated[-1].horizons[0].detections)
        now, later = ({found.results[0].hypothesis.score for found in array.detections} for array in arrays)
        return now, later

    for index in range(3):
        now, later = scores_after(index)
    assert later and later <= now, "moved boxes keep their scores"
    assert set_parameter(client, "anticipation", "proposals").successful
    now, later = scores_after(3)
    assert later and not later & now, "looked at again"
    refused = set_parameter(client, "anticipation", "guess")
    assert not refused.successful and "anticipation must be one of auto, features" in refused.reason


def test_refused_images_are_counted_and_the_node_lives_on(start_detector, client) -> None:
    detector = start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    reports = client.collect(DiagnosticArray, "/diagnostics")
    prime(client, camera, current)

    unknown, wrong_step, truncated, empty = (frame(index) for index in range(4))
    unknown.encoding = "32FC1"
    wrong_step.step -= 1
    truncated.data = truncated.data[:-1]
    empty.width, empty.height, empty.step, empty.data = 0, 0, 0, array("B")
    for count, damaged in enumerate([unknown, wrong_step, truncated, empty, Image()], start=1):
        camera.publish(damaged)
        client.until(
            lambda n=count: latest_counts(reports).get("images refused") == n, f"a report of {count} refused images"
        )
    assert f"{TOPIC}: image of {START_NS / 1e9:.3f} s refused (1 so far): image encoding" in detector.log

    camera.publish(frame(5))
    client.until(lambda: current[-1].header == header(5), "detections of a good image")
    assert not {stamp_to_ns(m.header.stamp) for m in current} & {stamp_to_ns(header(i).stamp) for i in range(4)}


def test_a_recording_that_begins_again_gets_a_new_memory(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    reports = client.collect(DiagnosticArray, "/diagnostics")
    prime(client, camera, current)

    def send(*indices: int) -> int:
        """How often the memory has begun anew after these images."""
        for index in indices:
            camera.publish(frame(index))
            client.until(lambda i=index: current[-1].header == header(i), f"the answer to image {index}")
        return fresh_counts(client, reports)["memory restarts"]

    restarts = send(20, 21)
    assert send(0, 1) == restarts + 1

    answers = len(current)
    camera.publish(frame(1))
    client.until(lambda: latest_counts(reports).get("images refused") == 1, "the repeated image to be refused")
    assert latest_counts(reports)["memory restarts"] == restarts + 1
    assert len(current) == answers


def test_a_gap_and_another_size_begin_a_new_memory_and_say_so(start_detector, client) -> None:
    detector = start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    prime(client, camera, current)
    camera.publish(frame(0))
    client.until(lambda: f"{TOPIC}: image of {START_NS / 1e9:.3f} s came after a gap" in detector.log, "word of a gap")
    client.until(lambda: current[-1].header == header(0), "the answer to the image after the gap")

    camera.publish(rgb_to_image(np.ascontiguousarray(scene(1)[:, :160]), header(1)))
    client.until(lambda: current[-1].header == header(1), "the answer to the narrow image")
    # Warnings are throttled, so ask what is always counted.
    reports = client.collect(DiagnosticArray, "/diagnostics")
    assert fresh_counts(client, reports)["memory restarts"] == 2

    def show_another_scene(index: int) -> int:
        """How often the memory has begun anew after an image of the scene and one of another."""
        blots = np.random.default_rng(index).integers(0, 256, (4, 8, 3), np.uint8)
        for at, image in ((index, scene(index)), (index + 1, cv2.resize(blots, scene(0).shape[1::-1]))):
            camera.publish(rgb_to_image(image, header(at)))
            client.until(lambda i=at: current[-1].header == header(i), f"the answer to image {at}")
        return fresh_counts(client, reports)["memory restarts"]

    assert show_another_scene(2) == 3  # by the size of the first one
    assert set_parameter(client, "reset_at_cuts", True).successful
    assert show_another_scene(4) == 4


def test_objects_keep_their_ids_and_get_new_ones_after_a_reset(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "tracking:=true")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    anticipated = client.collect(AnticipatedDetections, "/detector/anticipated")
    prime(client, camera, current, anticipated)

    def ids(index: int) -> set[str]:
        camera.publish(frame(index))
        client.until(lambda: anticipated[-1].header == header(index), f"the answer to image {index}")
        client.until(lambda: current[-1].header == header(index), f"detections of image {index}")
        for horizon in anticipated[-1].horizons:
            assert {d.id for d in horizon.detections.detections} - {""} <= {d.id for d in current[-1].detections}
        return {detection.id for detection in current[-1].detections} - {""}

    seen = [ids(index) for index in range(4)]
    assert seen[0] and seen[0] & seen[3]
    client.call(Trigger, "/detector/reset", Trigger.Request())
    after = ids(4)
    assert after and min(map(int, after)) > max(int(one) for of_image in seen for one in of_image)


def test_times_and_the_model_are_told(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "max_image_age_s:=0.5")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    reports = client.collect(DiagnosticArray, "/diagnostics")
    names = ("processing_time", "pipeline_latency", "cyclic_time")
    processing, latency, cycle = times = [client.collect(Float64, f"/detector/debug/{name}_ms") for name in names]
    prime(client, camera, current, *times)
    now_ns = client.node.get_clock().now().nanoseconds
    for index in range(2):
        stamp = ns_to_stamp(now_ns - 2_000_000_000 + index)
        camera.publish(rgb_to_image(scene(index), Header(stamp=stamp, frame_id="camera")))
        client.until(lambda stamp=stamp: current[-1].header.stamp == stamp, f"the answer to image {index}")
    # The images before were years old.
    client.until(lambda: len([one for one in latency if 2000 < one.data < 1e6]) == 2, "the latency of both images")
    client.until(lambda: len(cycle) == len(latency) == len(processing), "their other times")
    assert 0 < processing[-1].data < latency[-1].data - 2000 and cycle[-1].data > 0
    client.until(lambda: any("s old on arrival" in r.status[0].message for r in reports), "a warning about old images")
    values = {pair.key: pair.value for pair in reports[-1].status[0].values}
    detector = load_detector(device="cpu")
    assert values["model"] == f"{detector.name} {detector.version}"
    assert float(values["memory of the process [MiB]"]) > 50
    assert float(values["processing time, p50 [ms]"]) <= float(values["processing time, p95 [ms]"])


def test_past_anticipations_are_checked_and_do_better_than_standing_boxes(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "horizons_s:=[0.05, 0.1]")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    checks = client.collect(AnticipationCheck, "/detector/anticipation_check")
    reports = client.collect(DiagnosticArray, "/diagnostics")
    prime(client, camera, current)
    for index in range(40):
        camera.publish(frame(index))
        client.until(lambda i=index: current[-1].header == header(i), f"the answer to image {index}")

    known = len(checks)
    client.until(lambda: len(checks) >= known + 2, "a report of all that was compared")
    for check, horizon_ns in zip(checks[-1].horizons, (50_000_000, 100_000_000), strict=True):
        assert (check.horizon.sec, check.horizon.nanosec) == (0, horizon_ns)
        agreement = check.all_classes
        assert agreement.class_id == "" and agreement.objects == sum(one.objects for one in check.per_class)
        assert agreement.gain == pytest.approx(agreement.mean_iou - agreement.mean_iou_unmoved, abs=1e-6)
        assert agreement.gain > 0 and not check.is_harmful
    known = len(reports)
    client.until(lambda: len(reports) > known + 1, "another report")
    image, anticipation = reports[-1].status
    assert "gain in IoU over standing boxes" in anticipation.message and image.name != anticipation.name
    assert any(pair.key == "0.1 s: hit rate" for pair in anticipation.values)


def test_standing_boxes_are_published_where_anticipating_does_harm(start_detector, client) -> None:
    choices = ("horizons_s:=[0.1]", "self_check_patience_s:=0.0", "fall_back_to_unmoved:=true")
    detector = start_detector("-r", f"image:={TOPIC}", *(word for choice in choices for word in ("-p", choice)))
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    anticipated = client.collect(AnticipatedDetections, "/detector/anticipated")
    checks = client.collect(AnticipationCheck, "/detector/anticipation_check")
    prime(client, camera, current, anticipated)

    def send(index: int) -> None:
        # To and fro: two images later everything is where it was.
        camera.publish(rgb_to_image(scene(4 * (index % 2)), header(index)))
        client.until(lambda: anticipated[-1].header == header(index), f"the answer to image {index}")
        client.until(lambda: current[-1].header == header(index), f"detections of image {index}")

    for index in range(12):
        send(index)
    client.until(lambda: checks and checks[-1].horizons[0].is_harmful, "harm to be noticed")
    send(12)
    [later] = anticipated[-1].horizons
    assert [d.bbox for d in later.detections.detections] == [d.bbox for d in current[-1].detections]
    assert later.detections.header.stamp == later.target_stamp
    assert "anticipating is worse than standing boxes at 0.1 s" in detector.log


def test_silence_is_explained_by_what_the_graph_shows(start_detector, client) -> None:
    detector = start_detector("-r", f"image:={TOPIC}", "-p", "image_qos:=reliable")
    reports = client.collect(DiagnosticArray, "/diagnostics")

    def message() -> str:
        return reports[-1].status[0].message if reports else ""

    client.until(lambda: "nobody publishes sensor_msgs/msg/Image on /camera/image_raw" in message(), "no publisher")
    client.node.create_publisher(Image, TOPIC, QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT))
    client.until(lambda: "set image_qos: sensor_data" in message(), "a publisher whose QoS does not fit")
    assert "no image arrives: nobody publishes" in detector.log


def test_the_newest_image_wins_and_the_others_are_counted(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    reports = client.collect(DiagnosticArray, "/diagnostics")
    prime(client, camera, current)
    before = fresh_counts(client, reports)
    answers_before = len(current)

    sent = 60
    for index in range(sent):
        camera.publish(frame(index))
    client.until(lambda: current[-1].header == header(sent - 1), "the answer to the last image")
    stamps = [stamp_to_ns(message.header.stamp) for message in current[answers_before:]]
    assert stamps == sorted(stamps)
    assert len(stamps) < sent

    after = fresh_counts(client, reports)
    new = {name: after[name] - before[name] for name in after}
    assert new["images processed"] == new["images received"] == len(stamps)
    assert new["images dropped"] == new["images dropped: replaced by a newer one"] == sent - len(stamps)
    assert new["images dropped: lost on the way"] == 0


def test_services_answer_while_images_are_processed(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    stream = iter(range(1_000_000))
    client.node.create_timer(0.02, lambda: camera.publish(frame(next(stream))))
    client.until(lambda: len(current) >= 2, "a running stream")

    assert client.call(Trigger, "/detector/reset", Trigger.Request()).success
    assert client.call(SetBool, "/detector/enable", SetBool.Request(data=False)).message == "disabled"
    client.until(lambda: client.node.count_subscribers(TOPIC) == 0, "the node to stop listening")
    assert get_parameter(client, "enabled").bool_value is False
    assert set_parameter(client, "enabled", True).successful
    before = len(current)
    client.until(lambda: len(current) > before, "answers again")
    assert set_parameter(client, "enabled", False).successful
    client.until(lambda: client.node.count_subscribers(TOPIC) == 0, "the node to stop listening")
    assert client.call(SetBool, "/detector/enable", SetBool.Request(data=True)).message == "enabled"
    assert get_parameter(client, "enabled").bool_value is True
    before = len(current)
    client.until(lambda: len(current) > before, "answers once more")


def test_compressed_images_follow_the_remapping_and_are_drawn_on_for_who_listens(start_detector, client) -> None:
    start_detector("-r", f"image:={TOPIC}", "-p", "image_transport:=compressed", "-p", "score_threshold:=0.0")
    camera = client.publisher(CompressedImage, f"{TOPIC}/compressed")
    current = client.collect(Detection2DArray, "/detector/detections")
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(scene(0), cv2.COLOR_RGB2BGR))
    stream = iter(range(1_000_000))

    def send() -> None:
        camera.publish(CompressedImage(header=header(next(stream)), format="jpeg", data=array("B", jpeg.tobytes())))

    client.node.create_timer(0.2, send)
    client.until(lambda: current and current[-1].detections, "detections")
    assert current[0].header.frame_id == "camera_optical_frame"

    drawn = client.collect(Image, "/detector/debug_image")
    client.until(lambda: drawn, "a debug image")
    assert drawn[0].header in [message.header for message in current]
    picture = image_to_rgb(drawn[0])
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(picture.astype(int) - scene(0)).max() > 50, "nothing was drawn"


def test_every_parameter_has_a_default_in_the_installed_file_and_says_what_it_means(start_detector, client) -> None:
    start_detector()
    with open(f"{get_package_share_directory('memwarp_ros')}/config/detector.yaml") as file:
        defaults = yaml.safe_load(file)["/**"]["ros__parameters"]
    response = client.call(
        DescribeParameters, "/detector/describe_parameters", DescribeParameters.Request(names=list(defaults))
    )
    assert [descriptor.name for descriptor in response.descriptors] == list(defaults)
    for descriptor in response.descriptors:
        assert descriptor.type != ParameterType.PARAMETER_NOT_SET, f"{descriptor.name} is not a parameter"
        assert descriptor.description, f"{descriptor.name} is not described"
        assert descriptor.read_only == (descriptor.name not in {field.name for field in fields(LiveParameters)})


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("model:=no-such-model", "no-such-model"),
        ("backend:=onnx", "expected a folder that `memwarp export MODEL --output FOLDER` wrote"),
        ("score_threshold:=2.0", "score_threshold"),
    ],
)
def test_node_that_cannot_start_says_why_and_fails(start_detector, argument: str, reason: str) -> None:
    detector = start_detector("-p", argument)
    assert detector.wait() == 1
    assert reason in detector.log
    assert "Traceback" not in detector.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_in_the_middle_of_a_stream_ends_the_node_well(start_detector, client, number: signal.Signals) -> None:
    detector = start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    current = client.collect(Detection2DArray, "/detector/detections")
    stream = iter(range(1_000_000))
    client.node.create_timer(0.02, lambda: camera.publish(frame(next(stream))))
    client.until(lambda: len(current) >= 3, "a running stream")
    assert detector.end(number) == 0
    assert "Traceback" not in detector.log


def test_an_unset_stamp_is_named_when_it_repeats(start_detector, client) -> None:
    """A driver that leaves the stamp at zero: its first image works, the next one tells what is wrong."""
    detector = start_detector("-r", f"image:={TOPIC}")
    camera = client.publisher(Image, TOPIC)
    image = frame(0)
    image.header.stamp = Time()
    client.node.create_timer(0.2, lambda: camera.publish(image))
    client.until(lambda: "refused" in detector.log, "a warning")
    assert "image of 0.000 s refused (1 so far): frame stamp 0 ns is not after" in detector.log
