import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memwarp_core.evaluation.average_precision import coco_average_precision
from memwarp_core.evaluation.streaming_average_precision import (
    StreamingAveragePrecision,
    newest_outputs,
    streaming_average_precision,
)

NAMES = {1: "ball"}
NOW = 1_700_000_000_000_000_000  # as clocks of robots say; beyond what a double holds to the nanosecond
MS = 1_000_000
FOUR_FRAMES = {1: NOW, 2: NOW + 100 * MS, 3: NOW + 200 * MS, 4: NOW + 300 * MS}


def moving(image_id: int, **more: object) -> dict:
    """The one object of an image: its place is that of no other image."""
    return {"image_id": image_id, "category_id": 1, "bbox": [100 * image_id, 0, 20, 20], **more}


TRUTH = [moving(image_id) for image_id in FOUR_FRAMES]


def score(detections: list[dict], available_ns: dict[int, int]) -> StreamingAveragePrecision:
    return streaming_average_precision(detections, available_ns, TRUTH, [FOUR_FRAMES], NAMES)


# Which output is the newest


def test_an_output_counts_from_the_very_nanosecond_at_which_it_is_there() -> None:
    assert newest_outputs(FOUR_FRAMES, {1: NOW + 100 * MS}) == {2: 1, 3: 1, 4: 1}
    assert newest_outputs(FOUR_FRAMES, {1: NOW + 100 * MS + 1}) == {3: 1, 4: 1}
    assert newest_outputs(FOUR_FRAMES, {1: NOW}) == {1: 1, 2: 1, 3: 1, 4: 1}


def test_a_newer_output_takes_the_place_of_an_older_one() -> None:
    assert newest_outputs(FOUR_FRAMES, {1: NOW + 60 * MS, 2: NOW + 250 * MS}) == {2: 1, 3: 1, 4: 2}


def test_the_newest_output_is_the_one_that_was_there_last_even_if_from_an_older_image() -> None:
    assert newest_outputs(FOUR_FRAMES, {1: NOW + 290 * MS, 2: NOW + 150 * MS}) == {3: 2, 4: 1}


def test_of_outputs_that_come_together_the_later_image_counts_whatever_its_id() -> None:
    together = {1: NOW + 200 * MS, 2: NOW + 200 * MS}
    assert newest_outputs(FOUR_FRAMES, together) == {3: 2, 4: 2}
    assert newest_outputs({2: NOW, 1: NOW + 100 * MS, 3: NOW + 200 * MS}, together) == {3: 1}


def test_outputs_of_other_videos_have_no_part() -> None:
    assert newest_outputs({5: NOW, 6: NOW + 1}, {1: NOW, 5: NOW + 1}) == {6: 5}


# What that is worth


def test_a_detector_that_takes_no_time_scores_what_it_scores_offline() -> None:
    scored = score([moving(image_id, score=0.9) for image_id in FOUR_FRAMES], FOUR_FRAMES)
    assert scored.streaming.map == scored.offline.map == pytest.approx(1)
    assert (scored.mean_age_ms, scored.frames_without_output) == (0, 0)


def test_a_late_answer_is_scored_against_what_is_true_when_it_is_there() -> None:
    in_time = {image_id: stamp_ns + 100 * MS for image_id, stamp_ns in FOUR_FRAMES.items()}
    of_the_next = [{**moving(image_id + 1, score=0.9), "image_id": image_id} for image_id in FOUR_FRAMES]
    scored = score(of_the_next, in_time)
    # Three of four objects: recall up to 0.75 is 76 of the 101 points of COCO's curve.
    assert scored.streaming.map50 == pytest.approx(76 / 101)
    assert scored.offline.map50 == 0.0
    assert (scored.mean_age_ms, scored.frames_without_output) == (100, 1)


def test_one_output_answers_for_every_image_until_the_next_one() -> None:
    # Image 1 is processed for 150 ms, and then image 3 for 100 ms.
    available_ns = {1: NOW + 150 * MS, 3: NOW + 300 * MS}
    scored = score([], available_ns)
    assert scored.frames_without_output == 2
    assert scored.mean_age_ms == (200 + 100) / 2


def test_an_output_without_detections_takes_the_place_of_an_older_one() -> None:
    # The only object stands still. Found in image 1, it is right for 2, 3 and 4; then nothing is said to be there.
    truth = [{**moving(image_id), "bbox": [0, 0, 9, 9]} for image_id in FOUR_FRAMES]
    once = [{**truth[0], "score": 0.9}]
    available_ns = {1: NOW + 50 * MS}
    kept = streaming_average_precision(once, available_ns, truth, [FOUR_FRAMES], NAMES)
    dropped = streaming_average_precision(once, {**available_ns, 2: NOW + 150 * MS}, truth, [FOUR_FRAMES], NAMES)
    assert kept.streaming.map == pytest.approx(76 / 101)
    assert dropped.streaming.map == pytest.approx(26 / 101)
    assert dropped.mean_age_ms == (100 + 100 + 200) / 3


def test_without_any_output_there_is_no_age_and_nothing_is_found() -> None:
    scored = score([], {})
    assert (scored.streaming.map, scored.mean_age_ms, scored.frames_without_output) == (0.0, None, 4)


def test_every_video_begins_without_an_output() -> None:
    second = {5: NOW + 400 * MS, 6: NOW + 500 * MS}
    available_ns = {1: NOW, 5: NOW + 450 * MS}
    scored = streaming_average_precision([], available_ns, TRUTH, [FOUR_FRAMES, second], NAMES)
    assert scored.frames_without_output == 1
    assert scored.mean_age_ms == (0 + 100 + 200 + 300 + 100) / 5


def test_the_age_is_exact_with_stamps_that_a_double_rounds() -> None:
    scored = streaming_average_precision([], {1: NOW + 1}, [], [{1: NOW, 2: NOW + 3}], NAMES)
    assert scored.mean_age_ms == 3e-6


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[dict[int, int]], dict[int, int], list[dict], list[dict]]:
    """Videos, times of outputs (often equal to a stamp or to each other), annotations and detections."""
    ids = iter(draw(st.permutations(range(1, 9))))
    videos = []
    for count in draw(st.tuples(st.integers(1, 4), st.integers(0, 4))):
        stamps = sorted(draw(st.sets(st.integers(0, 12), min_size=count, max_size=count)))
        videos.append({next(ids): NOW + stamp for stamp in stamps})
    stamps_ns = {image_id: stamp for video in videos for image_id, stamp in video.items()}
    processed = draw(st.lists(st.sampled_from(sorted(stamps_ns)), unique=True))
    available_ns = {image_id: stamps_ns[image_id] + draw(st.integers(0, 6)) for image_id in processed}
    entry = st.fixed_dictionaries({"category_id": st.just(1), "bbox": st.sampled_from([[0, 0, 4, 4], [0, 0, 4, 3]])})
    annotations = [{**draw(entry), "image_id": image_id} for image_id in stamps_ns if draw(st.booleans())]
    detections = [
        {**one, "image_id": image_id, "score": draw(st.sampled_from([0.25, 0.5, 1.0]))}
        for image_id in processed
        for one in draw(st.lists(entry, max_size=2))
    ]
    return videos, available_ns, annotations, detections


def plain(videos: list, available_ns: dict, annotations: list, detections: list) -> tuple:
    """Frame by frame, every output is looked at."""
    answers, ages_ns, without = [], [], 0
    for video in videos:
        for image_id, now in video.items():
            best = None
            for source_id, stamp_ns in video.items():
                if source_id in available_ns and available_ns[source_id] <= now:
                    rank = (available_ns[source_id], stamp_ns)
                    if best is None or rank > best[0]:
                        best = (rank, source_id)
            if best is None:
                without += 1
                continue
            ages_ns.append(now - video[best[1]])
            answers += [{**one, "image_id": image_id} for one in detections if one["image_id"] == best[1]]
    ap = coco_average_precision(answers, annotations, [image_id for video in videos for image_id in video], NAMES)
    return ap, pytest.approx(sum(ages_ns) / len(ages_ns) / MS) if ages_ns else None, without


@settings(max_examples=40, deadline=None)
@given(streams())
def test_every_figure_is_that_of_the_definition(stream: tuple) -> None:
    videos, available_ns, annotations, detections = stream
    scored = streaming_average_precision(detections, available_ns, annotations, videos, NAMES)
    assert (scored.streaming, scored.mean_age_ms, scored.frames_without_output) == plain(*stream)
