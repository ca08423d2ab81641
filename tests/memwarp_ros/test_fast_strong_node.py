"""fast_strong_node in its own process, with the shipped pair: what it borrows, and what comes when the helper dies."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from memwarp_ros.conversions import ns_to_stamp, rgb_to_image, stamp_to_ns
from memwarp_ros.msg import StrongFeatures

pytestmark = pytest.mark.slow


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for child in (task / "children").read_text().split()
    ]


def test_images_are_answered_whatever_the_strong_detector_does(start_detector, client) -> None:
    # Reliable, so that each image arrives, once the first one has.
    node = start_detector("-p", "strong_threads:=1", "-p", "image_qos:=reliable", executable="fast_strong_node")
    camera = client.publisher(Image, "/image")
    detections = client.collect(Detection2DArray, "/fast_strong/detections")
    borrowed = client.collect(StrongFeatures, "/fast_strong/strong_features")
    diagnostics = client.collect(DiagnosticArray, "/diagnostics")
    sent: list[int] = []

    def send() -> None:
        sent.append(50_000_000 * (len(sent) + 1))
        header = Header(stamp=ns_to_stamp(sent[-1]), frame_id="camera")
        camera.publish(rgb_to_image(np.full((120, 160, 3), len(sent) % 200, np.uint8), header))

    def answered() -> bool:
        return all(answers and stamp_to_ns(answers[-1].header.stamp) == sent[-1] for answers in (detections, borrowed))

    def strong() -> dict[str, str]:
        """The newest status of the strong detector."""
        found = [one for array in diagnostics for one in array.status if one.name.endswith("strong detector")]
        return {"condition": found[-1].message, **{one.key: one.value for one in found[-1].values}} if found else {}

    def send_until_it_borrows(what: str) -> None:
        for _ in range(1000):
            send()
            client.until(answered, f"an answer {what}")
            if borrowed[-1].borrowed:
                return
            client.until(lambda: strong().get("condition") == "running", f"the strong detector {what}")
        raise AssertionError(f"nothing was borrowed {what}")

    timer = client.node.create_timer(0.2, send)
    client.until(lambda: detections and borrowed, "the first answers")
    client.node.destroy_timer(timer)
    send_until_it_borrows("at the start")

    (process,) = children(node.process.pid)
    os.kill(process, signal.SIGKILL)
    for _ in range(5):
        send()
        client.until(answered, "an answer without the strong detector")
    client.until(lambda: strong().get("started again") == "1", "a report of the failure")
    assert "the strong detector failed" in node.log
    for _ in range(20):  # until what was said before is too old
        send()
        client.until(answered, "an answer while it starts")
    send_until_it_borrows("after it was started again")
    newest = borrowed[-1]
    assert newest.header == detections[-1].header
    assert stamp_to_ns(newest.source_stamp) == sent[-1 - newest.lag_images]

    (process,) = children(node.process.pid)
    assert node.end() == 0
    assert not Path(f"/proc/{process}").exists()


def test_a_model_that_borrows_from_none_is_refused(start_detector) -> None:
    node = start_detector("-p", "model:=rfcn-nano", executable="fast_strong_node")
    assert node.wait() == 1
    assert "rfcn-nano: expected a fast detector that borrows from a strong one" in node.log
