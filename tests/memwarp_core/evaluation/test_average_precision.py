import contextlib
import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from memwarp_core.evaluation.average_precision import AveragePrecision, average_precision, coco_average_precision
from memwarp_core.types import Detections, Frame

NAMES = ("ball", "crate", "cone")


def truth(boxes: list[list[float]], labels: list[int]) -> Frame:
    return Frame(
        image=np.zeros((1, 1, 3), np.uint8),
        stamp_ns=0,
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        track_ids=np.arange(len(labels)),
    )


def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores),
        stamp_ns=0,
    )


TWO_OBJECTS = truth([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1])
BOTH_FOUND = found([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1], [0.9, 0.8])


def test_perfect_detections_score_one() -> None:
    score = average_precision([BOTH_FOUND], [TWO_OBJECTS], NAMES)
    assert score.map == pytest.approx(1.0)
    assert score.map50 == pytest.approx(1.0)
    assert score.ap50_per_class == {"ball": pytest.approx(1.0), "crate": pytest.approx(1.0), "cone": None}


def test_the_first_label_counts_like_the_others() -> None:
    only_crate = found([[20, 20, 40, 40]], [1], [0.8])
    score = average_precision([only_crate], [TWO_OBJECTS], NAMES)
    assert score.ap50_per_class["ball"] == 0.0
    assert score.map50 == pytest.approx(0.5)


def test_an_overlap_of_three_quarters_counts_up_to_that_threshold() -> None:
    shorter = replace(BOTH_FOUND, boxes_xyxy=torch.tensor([[0.0, 0, 10, 7.6], [20, 20, 40, 35.2]]))
    score = average_precision([shorter], [TWO_OBJECTS], NAMES)
    assert score.map50 == pytest.approx(1.0)
    assert score.map == pytest.approx(0.6)  # thresholds 0.50 to 0.75 of ten
    assert score.map75 == pytest.approx(1.0)
    lower = replace(BOTH_FOUND, boxes_xyxy=torch.tensor([[0.0, 0, 10, 7.4], [20, 20, 40, 34.8]]))
    assert average_precision([lower], [TWO_OBJECTS], NAMES).map75 == 0.0


def test_a_second_box_on_one_object_is_a_false_positive() -> None:
    twice = found([[0, 0, 10, 10], [0, 0, 10, 10]], [0, 0], [0.9, 0.95])
    one_of_two = truth([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])
    # Precision 1 up to recall one half: 51 of the 101 points of COCO's curve.
    assert average_precision([twice], [one_of_two], NAMES).map50 == pytest.approx(51 / 101)


def test_without_detections_or_without_truth() -> None:
    nothing = found([], [], [])
    assert average_precision([nothing], [TWO_OBJECTS], NAMES).map50 == 0.0
    assert average_precision([BOTH_FOUND], [truth([], [])], NAMES).map50 is None


def test_numbers_of_frames_must_agree() -> None:
    with pytest.raises(ValueError, match="2 frames, got 1"):
        average_precision([BOTH_FOUND], [TWO_OBJECTS] * 2, NAMES)


# Entries as COCO's files have them


@st.composite
def coco_files(draw: st.DrawFn) -> tuple[dict, list[dict]]:
    """A small ground truth and results, with crowds, equal scores and overlaps that are a limit exactly."""
    image_ids, category_ids = draw(st.permutations([3, 7, 20])), draw(st.permutations([1, 4, 90]))
    boxes = st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(1, 10)] * 2).map(list)
    entries = st.fixed_dictionaries(
        {"image_id": st.sampled_from(image_ids), "category_id": st.sampled_from(category_ids[:2]), "bbox": boxes}
    )
    annotations = draw(st.lists(st.tuples(entries, st.sampled_from([0, 0, 0, 1])), max_size=8))
    scores = st.integers(0, 8).map(lambda n: n / 8)
    truth = {
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": category_id, "name": str(category_id)} for category_id in category_ids],
        "annotations": [
            {**entry, "iscrowd": crowd, "area": entry["bbox"][2] * entry["bbox"][3], "id": index}
            for index, (entry, crowd) in enumerate(annotations, start=1)
        ],
    }
    found = draw(st.lists(st.tuples(entries, scores), min_size=1, max_size=12))  # pycocotools reads no empty list
    return truth, [{**entry, "score": score} for entry, score in found]


def by_pycocotools(truth: dict, results: list[dict]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def by_us(truth: dict, results: list[dict]) -> AveragePrecision:
    names = {category["id"]: category["name"] for category in truth["categories"]}
    return coco_average_precision(results, truth["annotations"], [image["id"] for image in truth["images"]], names)


def exactly(value: float) -> object:
    """COCO's -1 is our None."""
    return None if value == -1 else pytest.approx(value, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(coco_files())
def test_every_figure_is_that_of_pycocotools(files: tuple[dict, list[dict]]) -> None:
    expected, scored = by_pycocotools(*files), by_us(*files)
    assert (scored.map, scored.map50, scored.map75) == tuple(map(exactly, expected.stats[:3]))
    precision = expected.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    assert scored.ap_per_class == dict(zip(("1", "4", "90"), map(exactly, precision), strict=True))


def test_only_the_best_100_detections_of_an_image_and_class_count() -> None:
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "ball"}]}
    entry = {"image_id": 1, "category_id": 1}
    annotations = [{**entry, "bbox": [0, 0, 10, 10]}]
    beside = {**entry, "bbox": [50, 50, 9, 9], "score": 0.9}
    for count, map50 in ((99, 0.01), (100, 0.0)):
        results = [*[beside] * count, {**entry, "bbox": [0, 0, 10, 10], "score": 0.1}]
        assert by_us({**truth, "annotations": annotations}, results).map50 == pytest.approx(map50, abs=1e-12)


def test_an_annotation_with_the_id_0_can_be_found() -> None:
    entry = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}
    assert coco_average_precision(
        [{**entry, "score": 1}], [{**entry, "id": 0}], [1], {1: "ball"}
    ).map50 == pytest.approx(1)


def test_without_images_nothing_is_known() -> None:
    assert coco_average_precision([], [], [], {1: "ball"}).ap_per_class == {"ball": None}
