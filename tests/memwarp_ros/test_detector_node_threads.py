"""What two threads of the node do at the same time; the node runs in this process so that an inference can be held."""

import sys
import threading
from collections.abc import Iterator

import pytest
import rclpy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray

from memwarp_ros.conversions import ns_to_stamp
from memwarp_ros.detector_node import DetectorNode, make_executor, spin_once, start_up

pytestmark = pytest.mark.slow

SECOND_NS = 1_000_000_000


@pytest.fixture
def node(domain_id: int) -> Iterator[DetectorNode]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = DetectorNode(context)
    assert start_up(node)
    executor = make_executor(node)
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            spin_once(executor)

    spinner = threading.Thread(target=spin)
    spinner.start()
    yield node
    assert spinner.is_alive(), "an error ended the thread of the executor"
    ended.set()
    spinner.join()
    node.stop()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def grey(stamp_ns: int) -> Image:
    header = Header(stamp=ns_to_stamp(stamp_ns))
    return Image(header=header, height=96, width=160, step=160, encoding="mono8", data=bytes(96 * 160))


def test_reset_answers_during_an_inference_whose_memory_it_forgets(node, client, monkeypatch) -> None:
    began, may_end = threading.Event(), threading.Event()
    step = node._detector.step
    states = []

    def held_step(image, stamp_ns, state):
        states.append(state)
        began.set()
        assert may_end.wait(60), "the test did not let go of the inference"
        return step(image, stamp_ns, state)

    monkeypatch.setattr(node._detector, "step", held_step)
    camera = client.publisher(Image, "/image")
    current = client.collect(Detection2DArray, "/detector/detections")
    # Best effort, so the first one may be lost: they are sent until one has begun.
    stamps = iter(range(SECOND_NS, 1000 * SECOND_NS, SECOND_NS // 20))
    timer = client.node.create_timer(0.2, lambda: camera.publish(grey(next(stamps))))
    client.until(began.is_set, "an inference")
    assert client.call(Trigger, "/detector/reset", Trigger.Request()).success
    assert not may_end.is_set() and not current, "the answer came during the inference"

    may_end.set()
    client.until(lambda: len(states) >= 2, "the next inference")
    client.node.destroy_timer(timer)
    assert states[1].stamp_ns is None, "the memory of the image that was in the works at the reset must be gone"


def test_going_round_between_listening_and_not_listening_does_not_end_the_node(node, client) -> None:
    client.publisher(Image, "/image")
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the threads come between one another's steps
    try:
        for _ in range(200):
            node.stop()
            node.start()
    finally:
        sys.setswitchinterval(usual_s)
    assert client.call(Trigger, "/detector/reset", Trigger.Request()).success
