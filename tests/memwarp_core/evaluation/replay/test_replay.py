"""Bags in, figures out, with a detector that is always right about its image, so that all errors are those of time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memwarp_core.errors import ConfigError, DataError
from memwarp_core.evaluation.replay import replay as replaying
from memwarp_core.evaluation.replay.replay import REPORT_FILE, RUNS_FOLDER, ReplayConfig, replay

TWO_INTERVALS = "200ms"
WriteBag = Callable[..., Path]


def config(**options: Any) -> ReplayConfig:
    return ReplayConfig(**{"horizons_s": (), **options})


pytestmark = pytest.mark.usefixtures("detector", "no_page")


def test_offline_sees_every_image_and_has_no_streams(tmp_path: Path, write_bag: WriteBag) -> None:
    report = replay([write_bag(tmp_path / "walk")], config(mode="offline"), tmp_path / "out")
    figures = report["all"]
    assert (figures["images"], figures["processed"], figures["dropped"]) == (8, 8, 0)
    assert figures["processed_frames"]["detections"]["map"] == pytest.approx(1)
    assert "streaming" not in figures and report["latency_ms"] is None


def test_what_is_moved_to_now_is_better_than_what_was_seen_by_the_time_it_is_there(
    tmp_path: Path, write_bag: WriteBag
) -> None:
    report = replay([write_bag(tmp_path / "walk", 21)], config(latency=TWO_INTERVALS), tmp_path / "out")
    figures = report["all"]
    assert (figures["images"], figures["processed"], figures["dropped"]) == (21, 11, 10)
    assert figures["processing_ms"]["mean"] == figures["latency_ms"]["p95"] == 200
    assert figures["processed_frames"]["detections"]["map"] == pytest.approx(1)
    streaming = figures["streaming"]
    assert streaming["detections_now"]["map"] > streaming["detections"]["map"] + 0.1
    assert streaming["baseline"] == streaming["detections"]  # the same detector here
    # From frame 2 on the answer is 2 and 3 intervals old, in turn.
    assert figures["age_ms"]["detections"] == {"mean": pytest.approx(4700 / 19), "p50": 200, "p95": 300, "max": 300}
    assert figures["without_answer"] == {"detections": 2, "detections_now": 2, "baseline": 2}


def test_each_horizon_is_scored_against_standing_boxes(tmp_path: Path, write_bag: WriteBag) -> None:
    settings = config(mode="offline", horizons_s=(0.2, 0.4))
    figures = replay([write_bag(tmp_path / "walk", 12)], settings, tmp_path / "out")["all"]["horizons"]
    assert figures["anticipated"]["0.2"] > 0.8  # in the first frame, nothing is known of motion
    assert figures["nothing moved"]["0.2"] < 0.1  # 8 pixels beside, of 12
    assert set(figures["box propagation"]) == {"0.2", "0.4"}


def test_a_replay_is_the_same_to_the_last_bit(tmp_path: Path, write_bag: WriteBag) -> None:
    write_bag(tmp_path / "walk")
    times = tmp_path / "times.json"
    times.write_text("[50, 120, 250]")
    kept = []
    for name in ("first", "second"):
        replay([tmp_path / "walk"], config(latency=str(times), seed=5), tmp_path / name)
        (file,) = (tmp_path / name / RUNS_FOLDER).iterdir()
        kept.append((file.name, file.read_bytes(), (tmp_path / name / REPORT_FILE).read_bytes()))
    assert kept[0] == kept[1]


def test_a_broken_bag_is_reported_and_the_others_go_on(tmp_path: Path, write_bag: WriteBag) -> None:
    write_bag(tmp_path / "bags" / "good")
    (write_bag(tmp_path / "bags" / "bad") / "bad.mcap").write_bytes(b"no bag")
    report = replay([tmp_path / "bags"], config(mode="offline"), tmp_path / "out")
    assert list(report["bags"]) == ["good"] and list(report["failed"]) == ["bad"]
    assert "expected an MCAP file" in report["failed"]["bad"]
    with pytest.raises(DataError, match="no bag could be used:\n.*bad: "):
        replay([tmp_path / "bags" / "bad"], config(mode="offline"), tmp_path / "other")


def test_a_replay_goes_on_with_what_it_kept(
    tmp_path: Path, write_bag: WriteBag, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(latency=TWO_INTERVALS)
    bags = [write_bag(tmp_path / "a"), write_bag(tmp_path / "b")]
    replay(bags[:1], settings, tmp_path / "out")
    seen: list[str] = []
    original = replaying._replay_bag
    monkeypatch.setattr(replaying, "_replay_bag", lambda bag, *rest: (seen.append(bag.name), original(bag, *rest))[1])
    report = replay(bags, settings, tmp_path / "out")
    assert seen == ["b"] and list(report["bags"]) == ["a", "b"]
    assert report["all"]["images"] == 16
    replay(bags, config(latency="150ms"), tmp_path / "out")
    assert seen == ["b", "a", "b"]


def test_a_pseudo_reference_is_labelled(tmp_path: Path, write_bag: WriteBag) -> None:
    bag = write_bag(tmp_path / "walk", truth_offset_ns=None)
    report = replay([bag], config(pseudo="self", latency=TWO_INTERVALS), tmp_path / "out")
    assert report["reference"] == {"kind": "pseudo", "of": "memnet-tiny"}
    assert report["all"]["instants"] == 8 and report["all"]["streaming"]["detections_now"]["map50"] > 0


def test_without_a_reference_there_are_times_alone(tmp_path: Path, write_bag: WriteBag) -> None:
    bag = write_bag(tmp_path / "walk", 9, truth_offset_ns=None)
    report = replay([bag], config(latency=TWO_INTERVALS), tmp_path / "out")
    assert report["reference"] is None and "streaming" not in report["all"]
    assert report["all"]["latency_ms"]["mean"] == 200


def test_an_image_that_cannot_be_decoded_is_refused_and_counted(
    tmp_path: Path, write_bag: WriteBag, detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = detector.step

    def step(image: object, stamp_ns: int, state: tuple[int, ...]) -> object:
        if len(state) == 2:
            raise DataError("image is no image")
        return whole(image, stamp_ns, state)

    monkeypatch.setattr(detector, "step", step)
    settings = config(mode="offline", baseline=None)
    report = replay([write_bag(tmp_path / "walk", 4)], settings, tmp_path / "out")
    assert (report["all"]["processed"], report["all"]["refused"], report["all"]["dropped"]) == (2, 2, 0)
    assert report["partial"] == {"walk": {"walk": ["2 images could not be used; the first: image is no image"]}}


def test_two_cameras_share_one_detector(tmp_path: Path, write_bag: WriteBag) -> None:
    bag = write_bag(tmp_path / "walk", topics=["/front", "/rear"])
    both = ("/front", "/rear")
    settings = config(topics=both, truth_topics=("/ground_truth",) * 2, latency="100ms")
    report = replay([bag], settings, tmp_path / "out")
    assert report["all"]["images"] == 16 and report["all"]["processed"] == 9  # each camera every second frame
    assert report["all"]["instants"] == 16


def test_measured_latencies_are_kept_for_the_next_time(tmp_path: Path, write_bag: WriteBag) -> None:
    bag = write_bag(tmp_path / "walk")
    first = replay([bag], config(), tmp_path / "out")["latency_ms"]
    assert len(first) == 3  # without the first five, in which a detector warms up
    assert replay([bag], config(), tmp_path / "out")["latency_ms"] == first


def test_two_references_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="expected one reference, got a ground truth file and a pseudo reference"):
        config(truth_file=Path("truth.json"), pseudo="self")


def test_the_report_is_json(tmp_path: Path, write_bag: WriteBag) -> None:
    report = replay([write_bag(tmp_path / "walk")], config(latency="1ms"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / REPORT_FILE).read_text()) == json.loads(json.dumps(report))


def test_bags_of_the_same_name_are_told_apart(tmp_path: Path, write_bag: WriteBag) -> None:
    bags = [write_bag(tmp_path / day / "walk.1", frames=3) for day in ("monday", "tuesday")]
    report = replay(bags, config(mode="offline"), tmp_path / "out")
    monday, tuesday = report["bags"]
    assert monday.endswith("monday_walk.1") and tuesday.endswith("tuesday_walk.1")
    assert report["all"]["images"] == 6
    assert list(replay(bags[:1], config(mode="offline"), tmp_path / "out")["bags"]) == ["walk.1"]
