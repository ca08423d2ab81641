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

from memwarp_core import StaleFrameError
from memwarp_ros.conversions import ns_to_stamp, stamp_to_ns
from memwarp_ros.detector_node import DetectorNode, make_executor, spin_once, start_up

pytestmark = pytest.mark.slow

SECOND_NS = 1_000_000_000


@pytest.fixture
def node(domain_id: int, request: pytest.FixtureRequest) -> Iterator[DetectorNode]:
    """The node, with the parameters that a test gives it indirectly."""
    context = rclpy.Context()
    arguments = [word for value in getattr(request, "param", []) for word in ("-p", value)]
    rclpy.init(args=["--ros-args", *arguments], context=context, domain_id=domain_id)
    node = DetectorNode(context=context)
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
    step_cameras = node._detector.step_cameras
    states = []

    def held_step(images, stamps_ns, of_cameras):
        states.extend(of_cameras)
        began.set()
        assert may_end.wait(60), "the test did not let go of the inference"
        return step_cameras(images, stamps_ns, of_cameras)

    monkeypatch.setattr(node._detector, "step_cameras", held_step)
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


@pytest.mark.parametrize("node", [["image_topics:=[/front/image, /rear/image]"]], indirect=True)
def test_two_cameras_share_a_pass_and_a_bad_image_costs_the_other_nothing(node, client, monkeypatch) -> None:
    may_begin = threading.Semaphore(0)
    step_cameras = node._detector.step_cameras
    passes: list[tuple[int, ...]] = []  # the stamps of each
    failed: list[tuple[int, ...]] = []

    def held_step(images, stamps_ns, states):
        assert may_begin.acquire(timeout=60), "the test did not let go of the inference"
        try:
            stepped = step_cameras(images, stamps_ns, states)
        except StaleFrameError:
            failed.append(stamps_ns)
            raise
        passes.append(stamps_ns)
        return stepped

    monkeypatch.setattr(node._detector, "step_cameras", held_step)
    front, rear = (client.publisher(Image, f"/{name}/image") for name in ("front", "rear"))
    of_front, of_rear = (client.collect(Detection2DArray, f"/detector/{name}/detections") for name in ("front", "rear"))
    stamps_ns = iter(range(SECOND_NS, 1000 * SECOND_NS, SECOND_NS // 20))
    repeated_ns: list[int] = []

    def send() -> None:
        """An image of each camera comes while an inference is held; then it may go on."""
        stamp_ns = next(stamps_ns)
        front.publish(grey(stamp_ns))
        rear.publish(grey(repeated_ns[0] if repeated_ns else stamp_ns))
        may_begin.release()

    timer = client.node.create_timer(0.1, send)
    client.until(lambda: [one for one in passes if len(one) == 2], "a pass for both")
    client.until(lambda: of_front and of_rear, "answers of both")
    repeated_ns.append(next(stamps_ns))
    client.until(lambda: [one for one in failed if len(one) == 2], "a pass that fails because of the repeated image")
    (of_good_ns,) = {*next(one for one in failed if len(one) == 2)} - {*repeated_ns}
    client.until(lambda: of_good_ns in [stamp_to_ns(one.header.stamp) for one in of_front], "the good one's answer")
    client.node.destroy_timer(timer)
    may_begin.release(1000)
    client.until(lambda: tuple(repeated_ns) in failed, "the repeated image to be refused")
    assert [stamp_to_ns(one.header.stamp) for one in of_rear].count(repeated_ns[0]) <= 1
