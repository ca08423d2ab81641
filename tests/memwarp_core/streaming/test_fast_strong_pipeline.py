import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

from memwarp_core import ConfigError
from memwarp_core.models import Detector, DetectorConfig, FastStrong, build_detector
from memwarp_core.streaming import Boost, FastStrongPipeline, VideoDetector, fast_strong_pipeline, strong_worker

FRAME_NS = 50_000_000
WAIT_S = 200.0


def build(source: str = "features", lag: int = 2) -> FastStrong:
    """A pair of random weights that finds something everywhere."""
    torch.manual_seed(0)
    common = {"class_names": ["ball", "crate"], "short_side": 64}
    strong = {**common, "name": "strong", "memory": {"kind": "clocknet"}, "head": {"kind": "fcos"}}
    if source == "boxes":
        strong["head"] = {"kind": "fcos", "score_threshold": 0.0}
    fast = {
        **common,
        "name": "fast",
        "features": {"kind": "tiny", "widths": [16, 32, 48, 64]},
        "memory": {"kind": "none"},
        "head": {"kind": "fcos", "score_threshold": 0.0},
        "strong": {"detector": strong, "lag": lag, "source": source},
    }
    detector = build_detector(DetectorConfig.model_validate(fast))
    assert isinstance(detector, FastStrong)
    return detector.eval()


def images(count: int, size: tuple[int, int] = (64, 96)) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def live() -> Iterator[FastStrongPipeline]:
    with FastStrongPipeline(build(), ("cpu", "cpu"), strong_threads=1, patience_s=WAIT_S) as pipeline:
        yield pipeline


def wait_until_looked_at(pipeline: FastStrongPipeline, state, frame: int) -> None:  # type: ignore[no-untyped-def]
    assert pipeline._worker.wait_for(state.memory.number, frame, WAIT_S) is not None, pipeline.report


@pytest.mark.parametrize("source", ["features", "boxes"])
@pytest.mark.slow
def test_with_an_imposed_lag_it_is_the_pair_in_step(source: str) -> None:
    in_step = VideoDetector(build(source), device="cpu")
    frames = images(6)
    wanted = []
    state = in_step.start()
    for index, image in enumerate(frames):
        found, state = in_step.step(image, index * FRAME_NS, state)
        wanted.append(found)
    with FastStrongPipeline(build(source), ("cpu", "cpu"), lag_frames=2, patience_s=WAIT_S) as pipeline:
        state = pipeline.start()
        for index, (image, expected) in enumerate(zip(frames, wanted, strict=True)):
            found, state = pipeline.step(image, index * FRAME_NS, state)
            torch.testing.assert_close(found.boxes_xyxy, expected.boxes_xyxy)
            torch.testing.assert_close(found.scores, expected.scores)
            boost = Boost(stamp_ns=(index - 2) * FRAME_NS, lag_frames=2) if index >= 2 else None
            assert pipeline.boost(state) == boost


@pytest.mark.slow
def test_features_in_bfloat16_are_lent() -> None:
    with FastStrongPipeline(build(lag=1), ("cpu", "cpu"), "bf16", lag_frames=1, patience_s=WAIT_S) as pipeline:
        first, second = images(2)
        _, state = pipeline.step(first, 0, pipeline.start())
        _, state = pipeline.step(second, FRAME_NS, state)
        assert pipeline.boost(state) == Boost(stamp_ns=0, lag_frames=1)


def test_a_step_borrows_what_is_there(live: FastStrongPipeline) -> None:
    first, second, third = images(3)
    _, state = live.step(first, 0, live.start())
    assert live.boost(state) is None
    wait_until_looked_at(live, state, 0)
    _, boosted = live.step(second, FRAME_NS, state)
    assert live.boost(boosted) == Boost(stamp_ns=0, lag_frames=1)
    # As the features of the fast one alone, and those of the strong one, warped: not the former alone.
    alone = live.network.observe(live._prepare([second])).fast.features[0]
    assert not torch.allclose(boosted.features[0], alone)
    wait_until_looked_at(live, boosted, 1)
    _, state = live.step(third, 2 * FRAME_NS, boosted)
    assert live.boost(state) == Boost(stamp_ns=FRAME_NS, lag_frames=1)


def test_what_is_too_old_is_not_borrowed(live: FastStrongPipeline) -> None:
    _, state = live.step(images(1)[0], 0, live.start())
    wait_until_looked_at(live, state, 0)
    _, in_time = live.step(images(1)[0], 1_000_000_000, state)
    assert live.boost(in_time) is not None
    _, late = live.step(images(1)[0], 1_000_000_001, state)
    assert live.boost(late) is None


def test_what_is_too_many_frames_behind_is_not_borrowed(live: FastStrongPipeline) -> None:
    _, state = live.step(images(1)[0], 0, live.start())
    wait_until_looked_at(live, state, 0)
    live._worker.offer, offer = lambda look: None, live._worker.offer  # type: ignore[method-assign]
    try:
        for frame in range(1, 14):
            _, state = live.step(images(1)[0], frame * 1000, state)
            assert (live.boost(state) is not None) is (frame <= 12)
    finally:
        live._worker.offer = offer  # type: ignore[method-assign]


@pytest.mark.parametrize("size", [(64, 96), (64, 128)], ids=["reset", "another size"])
def test_a_new_memory_borrows_nothing_of_the_old_one(live: FastStrongPipeline, size: tuple[int, int]) -> None:
    _, old = live.step(images(1)[0], 0, live.start())
    wait_until_looked_at(live, old, 0)
    anew = live.start() if size == (64, 96) else old
    _, state = live.step(images(1, size)[0], FRAME_NS, anew)
    assert live.boost(state) is None
    wait_until_looked_at(live, state, 0)
    _, state = live.step(images(1, size)[0], 2 * FRAME_NS, state)
    assert live.boost(state) == Boost(stamp_ns=FRAME_NS, lag_frames=1)


def test_several_cameras_borrow_each_their_own(live: FastStrongPipeline) -> None:
    states = [live.start(), live.start()]
    looked = live.step_cameras(images(2), [0, 10], states)
    states = [state for _, state in looked]
    for state in states:
        wait_until_looked_at(live, state, 0)
    looked = live.step_cameras(images(2), [FRAME_NS, FRAME_NS + 10], states)
    assert [live.boost(state) for _, state in looked] == [
        Boost(stamp_ns=0, lag_frames=1),
        Boost(stamp_ns=10, lag_frames=1),
    ]


def test_once_closed_it_goes_on_without_the_strong_one() -> None:
    threads = set(threading.enumerate())
    pipeline = FastStrongPipeline(build(), ("cpu", "cpu"))
    _, state = pipeline.step(images(1)[0], 0, pipeline.start())
    pipeline.close()
    assert pipeline.report.condition == "closed"
    found, state = pipeline.step(images(1)[0], FRAME_NS, state)
    assert len(found) > 0 and pipeline.boost(state) is None
    assert set(threading.enumerate()) <= threads
    assert pipeline._worker._process is None


MOODY = """
import os, random, sys, time
from multiprocessing.connection import Connection
import numpy as np

connection = Connection(int(sys.argv[1]))
connection.send(None)
chance = random.Random(os.getpid())
while True:
    _, image = connection.recv()
    mood = chance.random()
    if mood < 0.02:
        os._exit(1)
    elif mood < 0.04:
        connection.send("RuntimeError: out of memory")
    elif mood < 0.06:
        time.sleep(1000)
    time.sleep(chance.choice((0.0, 0.0, 0.01, 0.05)))
    connection.send(((np.full((1, 96, 8, 12), image[0, 0, 0], np.float32),), None))
"""
"""Says the shade of the image at once or after a while, complains, ends or hangs, as chance has it."""


@pytest.mark.slow
def test_whatever_the_strong_one_does_no_step_is_lost_or_waits_and_nothing_leaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strong_worker, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(strong_worker, "_LONGEST_PAUSE_S", 0.05)
    moody = partial(strong_worker.StrongWorker, program=(sys.executable, "-c", MOODY))
    monkeypatch.setattr(fast_strong_pipeline, "StrongWorker", moody)
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    patience_s = 2.0
    chance = random.Random(0)
    pipeline = FastStrongPipeline(build(), ("cpu", "cpu"), patience_s=patience_s)
    alone = VideoDetector(pipeline.network, "cpu")
    state, slowest_s, boosted, stood_alone = pipeline.start(), 0.0, 0, 0
    for index in range(1000):
        image = np.full((64, 96, 3), index % 256, np.uint8)
        began_s = time.monotonic()
        found, state = pipeline.step(image, index * FRAME_NS, state)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert found.stamp_ns == index * FRAME_NS and len(found) > 0
        boost = pipeline.boost(state)
        if boost is None:
            stood_alone += 1
            torch.testing.assert_close(found.boxes_xyxy, alone.step(image, 0, alone.start())[0].boxes_xyxy)
        else:
            boosted += 1
            assert 1 <= boost.lag_frames <= 12 and boost.stamp_ns == (index - boost.lag_frames) * FRAME_NS
        loan = pipeline._worker.newest(state.memory.number)
        if loan is not None:
            assert (loan.late.features[0] == loan.frame % 256).all()  # the answer belongs to the frame
        time.sleep(chance.choice((0.0, 0.002, 0.01)))
    assert boosted > 0 and stood_alone > 0 and pipeline.report.failures > 0
    assert slowest_s < patience_s  # nobody waited for a frame that hung
    pipeline.close()
    assert set(threading.enumerate()) <= threads and len(os.listdir("/proc/self/fd")) == files


def test_a_detector_that_borrows_from_none_is_refused() -> None:
    alone = Detector(DetectorConfig(name="alone", class_names=("ball",)))
    with pytest.raises(ConfigError, match="alone: expected a fast detector that borrows"):
        FastStrongPipeline(alone)  # type: ignore[arg-type]
