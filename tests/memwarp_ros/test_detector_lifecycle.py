"""The lifecycle of detector_node, in its own process: what each transition brings and takes away."""

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from std_srvs.srv import SetBool

pytestmark = pytest.mark.slow


def change(client, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return client.call(ChangeState, "/detector/change_state", request).success


def state(client) -> str:
    return client.call(GetState, "/detector/get_state", GetState.Request()).current_state.label


def test_each_transition_brings_or_takes_its_topics(start_detector, client) -> None:
    detector = start_detector("-p", "autostart:=false")
    listening = lambda: client.node.count_subscribers("/image")  # noqa: E731
    publishing = lambda: client.node.count_publishers("/detector/detections")  # noqa: E731
    assert state(client) == "unconfigured"
    assert not publishing() and not listening()

    assert not change(client, Transition.TRANSITION_ACTIVATE), "there is no model yet"
    assert "refused" in detector.log
    assert state(client) == "unconfigured"

    assert change(client, Transition.TRANSITION_CONFIGURE)
    client.until(publishing, "the topics of the results")
    assert state(client) == "inactive"
    assert not listening()

    for _ in range(2):
        assert change(client, Transition.TRANSITION_ACTIVATE)
        client.until(listening, "the node to listen")
        assert change(client, Transition.TRANSITION_DEACTIVATE)
        client.until(lambda: not listening(), "the node to stop listening")
        assert publishing()

    assert client.call(SetBool, "/detector/enable", SetBool.Request(data=True)).success
    assert not listening(), "~/enable does not activate"

    assert change(client, Transition.TRANSITION_CLEANUP)
    client.until(lambda: not publishing(), "the topics to go")
    assert change(client, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state(client) == "finalized"


def test_a_model_that_does_not_exist_leaves_the_node_unconfigured(start_detector, client) -> None:
    detector = start_detector("-p", "autostart:=false", "-p", "model:=no-such-model")
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    assert "no-such-model" in detector.log
    assert state(client) == "unconfigured"
