import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memwarp_core.errors import DataError
from memwarp_core.evaluation.score import score
from memwarp_core.evaluation.score_files import Metric

MS = 1_000_000

# Two videos, no images. The ball stands still; the crate moves so that its two boxes share a third.
TRUTH: dict[str, Any] = {
    "videos": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 9, "name": "crate"}, {"id": 4, "name": "ball"}, {"id": 6, "name": "cone"}],
    "images": [
        {"id": 11, "video_id": 1, "frame_id": 1, "stamp_ns": 100 * MS},
        {"id": 10, "video_id": 1, "frame_id": 0, "stamp_ns": 0},
        {"id": 20, "video_id": 2, "frame_id": 0, "stamp_ns": 0},
    ],
    "annotations": [
        {"id": 1, "image_id": 10, "category_id": 4, "bbox": [0, 0, 40, 20], "instance_id": 1},
        {"id": 2, "image_id": 11, "category_id": 4, "bbox": [0, 0, 40, 20], "instance_id": 1},
        {"id": 3, "image_id": 10, "category_id": 9, "bbox": [100, 0, 40, 20], "instance_id": 2},
        {"id": 4, "image_id": 11, "category_id": 9, "bbox": [100, 10, 40, 20], "instance_id": 2},
    ],
}
DETECTIONS: list[dict[str, Any]] = [
    {"image_id": 10, "category_id": 4, "bbox": [0, 0, 40, 20], "score": 0.9, "available_ns": 50 * MS},
    {"image_id": 11, "category_id": 4, "bbox": [0, 0, 40, 20], "score": 0.8, "available_ns": 150 * MS},
    {"image_id": 11, "category_id": 9, "bbox": [100, 10, 40, 20], "score": 1, "available_ns": 150 * MS},
]
METRICS: tuple[Metric, ...] = ("vid", "coco", "streaming")


class Files:
    """Ground truth and detections that a test may change before they are scored."""

    def __init__(self, folder: Path) -> None:
        self.truth, self.results = folder / "truth.json", folder / "results.json"
        self.write(TRUTH, DETECTIONS)

    def write(self, truth: object, results: object) -> None:
        self.truth.write_text(json.dumps(truth))
        self.results.write_text(json.dumps(results))

    def score(self, metric: Metric, **how: bool) -> dict[str, Any]:
        return score(metric, self.truth, self.results, **how)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# Figures


def test_vid_gives_figures_by_speed_and_class(files: Files) -> None:
    absent = {"all": None, "slow": None, "medium": None, "fast": None}
    assert files.score("vid") == {
        "map": {"all": 0.75, "slow": 1.0, "medium": None, "fast": 0.5},
        "ap": {
            "ball": {**absent, "all": 1.0, "slow": 1.0},
            "cone": absent,
            "crate": {**absent, "all": 0.5, "fast": 0.5},
        },
    }


@pytest.mark.parametrize(("adaptive", "ap"), [(True, 1.0), (False, 0.0)])
def test_vid_asks_less_overlap_of_a_small_object_or_half_of_all(files: Files, adaptive: bool, ap: float) -> None:
    truth = {**TRUTH, "annotations": [{**TRUTH["annotations"][0], "bbox": [0, 0, 10, 10]}]}
    files.write(truth, [{**DETECTIONS[0], "bbox": [0, 0, 10, 3]}])
    assert files.score("vid", adaptive_iou=adaptive)["map"]["all"] == ap


def test_vid_overlaps_are_as_exact_as_the_file(files: Files) -> None:
    # Half of the object and a billionth of a pixel less: single precision would take it for half.
    for width, ap in ((20.0, 1.0), (20.0 - 1e-9, 0.0)):
        files.write({**TRUTH, "annotations": TRUTH["annotations"][:1]}, [{**DETECTIONS[0], "bbox": [0, 0, width, 20]}])
        assert files.score("vid", adaptive_iou=False)["map"]["all"] == ap


def test_vid_scores_that_differ_in_the_last_digits_are_in_their_order(files: Files) -> None:
    right, wrong = DETECTIONS[0], {**DETECTIONS[0], "bbox": [500, 0, 9, 9]}
    files.write({**TRUTH, "annotations": TRUTH["annotations"][:1]}, [{**wrong, "score": 0.9 - 1e-12}, right])
    assert files.score("vid")["map"]["all"] == 1.0


def test_vid_measures_speed_over_frame_ids_and_not_over_the_images_that_are_there(files: Files) -> None:
    truth = copy.deepcopy(TRUTH)
    truth["images"][0]["frame_id"] = 11  # too far for the two boxes of the crate to be compared
    files.write(truth, DETECTIONS)
    assert files.score("vid")["map"] == {"all": 0.75, "slow": 0.75, "medium": None, "fast": None}


def test_coco_gives_the_three_figures_and_those_of_each_class(files: Files) -> None:
    scored = files.score("coco")
    half = 51 / 101  # recall up to 0.5, on COCO's curve of 101 points
    assert scored == {
        "AP": pytest.approx((1 + half) / 2, abs=1e-9),
        "AP50": pytest.approx((1 + half) / 2, abs=1e-9),
        "AP75": pytest.approx((1 + half) / 2, abs=1e-9),
        "ap_per_class": {"ball": pytest.approx(1), "cone": None, "crate": pytest.approx(half, abs=1e-9)},
    }


def test_coco_needs_plain_coco_alone(files: Files) -> None:
    plain = {key: TRUTH[key] for key in ("categories", "annotations")}
    files.write({**plain, "images": [{"id": image["id"]} for image in TRUTH["images"]]}, DETECTIONS)
    assert files.score("coco")["ap_per_class"]["ball"] == pytest.approx(1)


def test_coco_knows_crowds(files: Files) -> None:
    truth = copy.deepcopy(TRUTH)
    truth["annotations"][2]["iscrowd"] = 1  # the crate that is not found
    files.write(truth, DETECTIONS)
    assert files.score("coco")["ap_per_class"]["crate"] == pytest.approx(1)


def test_streaming_gives_what_was_known_in_time(files: Files) -> None:
    half = 51 / 101
    assert files.score("streaming") == {
        # The output of image 10 answers for 11: the ball's second box is right.
        "sAP": pytest.approx(half / 2, abs=1e-9),
        "sAP50": pytest.approx(half / 2, abs=1e-9),
        "sAP75": pytest.approx(half / 2, abs=1e-9),
        "mean_age_ms": 100.0,
        "frames_without_output": 2,
        "offline_AP": pytest.approx(files.score("coco")["AP"], abs=1e-12),
    }


def test_streaming_counts_outputs_without_detections(files: Files) -> None:
    empty = {"image_id": 20, "available_ns": 0}
    files.write(TRUTH, {"detections": DETECTIONS, "outputs": [empty]})
    scored = files.score("streaming")
    assert (scored["frames_without_output"], scored["mean_age_ms"]) == (1, 50.0)


def test_streaming_takes_the_time_from_outputs_where_detections_have_none(files: Files) -> None:
    expected = files.score("streaming")
    bare = [{key: value for key, value in one.items() if key != "available_ns"} for one in DETECTIONS]
    outputs = [{"image_id": 10, "available_ns": 50 * MS}, {"image_id": 11, "available_ns": 150 * MS}]
    files.write(TRUTH, {"detections": bare, "outputs": outputs})
    assert files.score("streaming") == expected


@pytest.mark.parametrize("metric", METRICS)
def test_an_object_with_detections_is_scored_as_the_list_alone(files: Files, metric: Metric) -> None:
    expected = files.score(metric)
    files.write(TRUTH, {"detections": DETECTIONS})
    assert files.score(metric) == expected


def test_no_detections_score_zero_where_there_are_objects(files: Files) -> None:
    files.write(TRUTH, [])
    assert files.score("vid")["map"] == {"all": 0.0, "slow": 0.0, "medium": None, "fast": 0.0}
    assert files.score("coco")["AP"] == 0.0
    assert files.score("streaming")["sAP"] == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_images_categories_and_annotations_means_nothing(files: Files, metric: Metric) -> None:
    expected = files.score(metric)
    files.write({section: entries[::-1] for section, entries in TRUTH.items()}, DETECTIONS)
    assert files.score(metric) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_without_ground_truth_every_figure_is_absent(files: Files, metric: Metric) -> None:
    files.write({**TRUTH, "annotations": []}, DETECTIONS)
    scored = files.score(metric)
    figures = {"vid": ["map"], "coco": ["AP", "AP50", "AP75"], "streaming": ["sAP", "sAP50", "sAP75", "offline_AP"]}
    for figure in figures[metric]:
        assert scored[figure] in (None, {"all": None, "slow": None, "medium": None, "fast": None})


# Files that are not what they should be. A change gets the ground truth and the detections as an object.

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def refuse(files: Files, metric: Metric, change: Change, message: str) -> None:
    truth, results = copy.deepcopy(TRUTH), {"detections": copy.deepcopy(DETECTIONS)}
    change(truth, results)
    files.write(truth, results)
    with pytest.raises(DataError, match=message):
        files.score(metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: t.pop("images"), r"truth\.json: expected a list named 'images'"),
        (lambda t, r: t.update(images={}), r"truth\.json: images: expected a list, got \{\}"),
        (lambda t, r: t["images"].append(7), r"images\[3\]: expected an object with id.*got 7"),
        (lambda t, r: t["images"][1].pop("id"), r"images\[1\] lacks id"),
        (lambda t, r: t["images"][1].update(id="a"), r"images\[1\]: id must be an integer .*got 'a'"),
        (lambda t, r: t["images"][1].update(id=True), r"images\[1\]: id must be an integer .*got True"),
        (lambda t, r: t["images"][1].update(id=11), r"images\[1\]: .*got id 11, as in \[0\]"),
        (lambda t, r: t["annotations"][3].update(id=1), r"annotations\[3\]: .*got id 1, as in \[0\]"),
        (lambda t, r: t["annotations"][3].update(image_id=99), r"annotations\[3\]: image_id must be .*got 99"),
        (lambda t, r: t["annotations"][3].update(category_id=99), r"annotations\[3\]: category_id must be .*got 99"),
        (lambda t, r: t["annotations"][0].update(bbox=[0, 0, 1]), r"annotations\[0\]: bbox must be four finite"),
        (lambda t, r: t["annotations"][0].update(bbox=[0, 0, 0, 1]), r"annotations\[0\]: width and height .*above 0"),
        (lambda t, r: t["annotations"][0].update(area=float("nan")), r"annotations\[0\]: area must be a finite"),
        (lambda t, r: t["annotations"][0].update(iscrowd=2), r"annotations\[0\]: iscrowd must be 0 or 1, got 2"),
        (lambda t, r: t["categories"][0].update(id=4), r"categories\[1\]: .*got id 4, as in \[0\]"),
        (lambda t, r: t["categories"][0].update(name="ball"), r"categories\[1\]: .*got name 'ball', as in \[0\]"),
        (lambda t, r: t["categories"][0].update(name=None), r"categories\[0\]: name must be a text, got None"),
        (lambda t, r: r.pop("detections"), r'results\.json: expected a list of detections, or an object with "det'),
        (lambda t, r: r.update(detections=3), r"results\.json: detections: expected a list, got 3"),
        (lambda t, r: r["detections"].append([1]), r"detections\[3\]: expected an object with image_id.*got \[1\]"),
        (lambda t, r: r["detections"][2].pop("score"), r"detections\[2\] lacks score"),
        (lambda t, r: r["detections"][2].update(image_id=99), r"detections\[2\]: image_id must be .*got 99"),
        (lambda t, r: r["detections"][2].update(category_id=1), r"detections\[2\]: category_id must be .*got 1"),
        (lambda t, r: r["detections"][2].update(score=-0.1), r"detections\[2\]: score must be .* from 0 up, got -0\.1"),
        (lambda t, r: r["detections"][2].update(score=float("nan")), r"detections\[2\]: score must be .*got nan"),
        (lambda t, r: r["detections"][2].update(score=float("inf")), r"detections\[2\]: score must be .*got inf"),
        (lambda t, r: r["detections"][2].update(score="0.5"), r"detections\[2\]: score must be .*got '0\.5'"),
        (lambda t, r: r["detections"][2].update(bbox=None), r"detections\[2\]: bbox must be four .*got None"),
        (lambda t, r: r["detections"][2].update(bbox=[0, 0, 1, 1, 1]), r"detections\[2\]: bbox must be four .*got \["),
        (lambda t, r: r["detections"][2].update(bbox=[0, "1", 1, 1]), r"detections\[2\]: bbox must be four .*'1'"),
        (lambda t, r: r["detections"][2].update(bbox=[0, 0, 1, float("nan")]), r"detections\[2\]: bbox .*nan"),
        (lambda t, r: r["detections"][2].update(bbox=[0, 0, -1, 1]), r"detections\[2\]: bbox .*not negative, got"),
        (lambda t, r: r["detections"][2].update(bbox=[0, 0, 10**400, 1]), r"detections\[2\]: bbox must be four finite"),
    ],
)
def test_entries_that_no_metric_can_use_are_refused(files: Files, metric: Metric, change: Change, message: str) -> None:
    refuse(files, metric, change, message)


@pytest.mark.parametrize("metric", ["vid", "streaming"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: t.pop("videos"), r"expected a list named 'videos'"),
        (lambda t, r: t["images"][2].pop("video_id"), r"images\[2\] lacks video_id"),
        (lambda t, r: t["images"][2].update(video_id=3), r"images\[2\]: video_id must be .*got 3"),
        (lambda t, r: t["videos"][1].update(id=1), r"videos\[1\]: .*got id 1, as in \[0\]"),
    ],
)
def test_videos_have_to_be_told_apart(files: Files, metric: Metric, change: Change, message: str) -> None:
    refuse(files, metric, change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: t["images"][0].pop("frame_id"), r"images\[0\] lacks frame_id"),
        (lambda t, r: t["images"][0].update(frame_id=0), r"images\[1\]: .*video_id 1 and frame_id 0, as in \[0\]"),
        (lambda t, r: t["annotations"][0].pop("instance_id"), r"annotations\[0\] lacks instance_id"),
        (lambda t, r: t["annotations"][0].update(instance_id=0.5), r"annotations\[0\]: instance_id must be an integer"),
        (
            lambda t, r: t["annotations"][0].update(iscrowd=1),
            r"annotations\[0\]: expected a single object, got a crowd",
        ),
    ],
)
def test_vid_needs_the_place_of_each_image_and_the_track_of_each_object(
    files: Files, change: Change, message: str
) -> None:
    refuse(files, "vid", change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: t["images"][0].pop("stamp_ns"), r"images\[0\] lacks stamp_ns"),
        (lambda t, r: t["images"][0].update(stamp_ns=1e8), r"images\[0\]: stamp_ns must be an integer .*nanoseconds"),
        (lambda t, r: t["images"][0].update(stamp_ns=0), r"images\[1\]: .*video_id 1 and stamp_ns 0, as in \[0\]"),
        (
            lambda t, r: r["detections"][0].pop("available_ns"),
            r"detections\[0\] lacks available_ns.*name image 10 in out",
        ),
        (lambda t, r: r["detections"][0].update(available_ns=0.5), r"detections\[0\]: available_ns must be an integer"),
        (
            lambda t, r: r["detections"][0].update(available_ns=None),
            r"detections\[0\]: available_ns must be .*got None",
        ),
        (
            lambda t, r: r["detections"][1].update(available_ns=9 * 10**7),
            r"detections\[1\]: .*stamp_ns 100000000 of image 11, got 90000000",
        ),
        (
            lambda t, r: r["detections"][2].update(available_ns=2 * 10**8),
            r"detections\[2\]: .* one output.*for image 11",
        ),
        (lambda t, r: r.update(outputs=None), r"outputs: expected a list, got None"),
        (lambda t, r: r.update(outputs=[{"image_id": 10}]), r"outputs\[0\] lacks available_ns"),
        (
            lambda t, r: r.update(outputs=[{"image_id": 1, "available_ns": 0}]),
            r"outputs\[0\]: image_id must be .*got 1",
        ),
        (lambda t, r: r.update(outputs=[{"image_id": 10, "available_ns": 7}]), r"detections\[0\]: .*7 before"),
        (
            lambda t, r: r.update(outputs=[{"image_id": 20, "available_ns": -1}]),
            r"outputs\[0\]: .*stamp_ns 0 of image 20, got -1",
        ),
        (
            lambda t, r: r.update(outputs=[{"image_id": 20, "available_ns": 1}] * 2),
            r"outputs\[1\]: .*image_id 20, as in",
        ),
    ],
)
def test_streaming_needs_the_time_of_each_image_and_output(files: Files, change: Change, message: str) -> None:
    refuse(files, "streaming", change, message)


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_not_json_is_refused(files: Files, content: bytes) -> None:
    files.results.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json: expected JSON"):
        files.score("coco")
    files.truth.write_bytes(content)
    with pytest.raises(DataError, match=r"truth\.json: expected JSON"):
        files.score("coco")


def test_a_file_that_is_not_there_is_named(files: Files) -> None:
    files.results.unlink()
    with pytest.raises(DataError, match=r"results\.json: expected a JSON file, got none that can be read \(No such"):
        files.score("coco")


@pytest.mark.parametrize("content", [3, [], "text", None])
def test_ground_truth_has_to_be_an_object(files: Files, content: object) -> None:
    files.write(content, DETECTIONS)
    with pytest.raises(DataError, match=r"truth\.json: expected a JSON object with categories, images"):
        files.score("coco")
