"""What a replay says of bags that are not as they should be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from memwarp_core.data.bags import BagWriter, salvage_mcap
from memwarp_core.errors import ConfigError, DataError
from memwarp_core.evaluation.replay.recordings import Camera, find_bags, open_cameras

CLASS_NAMES = ("ball", "crate")
START_NS, INTERVAL_NS = 1_000_000_000, 100_000_000
WriteBag = Callable[..., Path]


def open_one(path: Path, workplace: Path, **options: object) -> Camera:
    (camera,) = open_cameras(path, CLASS_NAMES, workplace=workplace / "work", **options)  # type: ignore[arg-type]
    return camera


def test_a_whole_bag_has_no_problems(tmp_path: Path, write_bag: WriteBag) -> None:
    camera = open_one(write_bag(tmp_path / "walk"), tmp_path)
    assert camera.problems == () and len(camera.clip) == 8
    assert camera.truths is not None and [len(truth.labels) for truth in camera.truths] == [1] * 8


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        (StoragePlugin.SQLITE3, CompressionMode.NONE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
    ],
)
def test_bags_of_every_storage_are_read(
    tmp_path: Path, write_bag: WriteBag, storage: StoragePlugin, compression: CompressionMode
) -> None:
    with AnyReader([write_bag(tmp_path / "walk")]) as reader:
        writer = Writer(tmp_path / "other", version=8, storage_plugin=storage)
        if compression is not CompressionMode.NONE:
            writer.set_compression(compression, CompressionFormat.ZSTD)
        with writer:
            connections = {
                one.id: writer.add_connection(one.topic, one.msgtype, typestore=reader.typestore)
                for one in reader.connections
            }
            for connection, time_ns, data in reader.messages():
                writer.write(connections[connection.id], time_ns, data)
    camera = open_one(tmp_path / "other", tmp_path)
    assert camera.problems == () and camera.truths is not None and len(camera.truths) == 8
    assert [camera.clip[index].image.mean() for index in (5, 0)] == [5, 0]
    camera.clip.close()


def test_a_broken_sqlite3_bag_is_refused(tmp_path: Path) -> None:
    (tmp_path / "walk.db3").write_bytes(b"SQLite format 3\0" + bytes(500))
    with pytest.raises(DataError, match="walk.db3: cannot be read as a ROS 2 bag"):
        open_one(tmp_path / "walk.db3", tmp_path)


def test_a_bag_without_ground_truth_has_none(tmp_path: Path, write_bag: WriteBag) -> None:
    assert open_one(write_bag(tmp_path / "walk", truth_offset_ns=None), tmp_path).truths is None


def many_chunks(path: Path) -> Path:
    """With some MB of images: an .mcap file is written chunk by chunk."""
    with BagWriter(path) as bag:
        for frame in range(12):
            noise = np.random.default_rng(frame).integers(0, 255, (400, 500, 3), np.uint8)
            bag.write_image(noise, START_NS + frame * INTERVAL_NS)
    return path


@pytest.mark.parametrize("lacks", ["its end", "its end and metadata.yaml"])
def test_a_truncated_mcap_is_read_as_far_as_it_is_whole(tmp_path: Path, lacks: str) -> None:
    path = many_chunks(tmp_path / "walk")
    file = path / "walk.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    if "metadata" in lacks:
        (path / "metadata.yaml").unlink()
    camera = open_one(path, tmp_path)
    assert 0 < len(camera.clip) < 12
    assert camera.clip[len(camera.clip) - 1].image.shape == (400, 500, 3)
    assert "breaks off; what is whole of it was read" in camera.problems[-1]


def test_an_mcap_without_an_index_is_read(tmp_path: Path, write_bag: WriteBag) -> None:
    salvage_mcap(write_bag(tmp_path / "walk") / "walk.mcap", tmp_path / "no_index.mcap")
    camera = open_one(tmp_path / "no_index.mcap", tmp_path)
    assert len(camera.clip) == 8 and camera.clip[7].image.mean() == 7 and camera.problems == ()


def test_an_mcap_that_breaks_off_before_its_first_image_is_refused(tmp_path: Path, write_bag: WriteBag) -> None:
    file = write_bag(tmp_path / "walk") / "walk.mcap"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="breaks off before its first images"):
        open_one(tmp_path / "walk", tmp_path)


def test_a_bag_without_metadata_is_read_and_said_to_lack_it(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk")
    (path / "metadata.yaml").unlink()
    camera = open_one(path, tmp_path)
    assert len(camera.clip) == 8 and camera.problems == ("metadata.yaml is missing",)


def test_a_bag_without_images_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "blind") as bag:
        bag.write_detections(np.zeros((0, 4), np.float32), [], START_NS)
    with pytest.raises(DataError, match="expected images .* got no topic with any"):
        open_one(tmp_path / "blind", tmp_path)


def test_a_topic_of_another_type_is_refused(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk")
    with pytest.raises(DataError, match=r"topic /ground_truth of type .*Image or .* got .*Detection2DArray"):
        open_one(path, tmp_path, topics=["/ground_truth"])
    with pytest.raises(DataError, match=r"topic /camera/image_raw of type .*Detection2DArray, got"):
        open_one(path, tmp_path, truth_topics=["/camera/image_raw"])


def test_images_out_of_order_are_left_out_and_counted(tmp_path: Path, write_bag: WriteBag) -> None:
    late_by = {2: INTERVAL_NS + 1, 5: INTERVAL_NS + 1}  # these are logged after the ones that follow them
    with AnyReader([write_bag(tmp_path / "walk")]) as reader, BagWriter(tmp_path / "mixed") as writer:
        for connection, time_ns, data in reader.messages():
            writer.copy(reader, connection, time_ns + late_by.get((time_ns - START_NS) // INTERVAL_NS, 0), data)
    camera = open_one(tmp_path / "mixed", tmp_path)
    assert [(stamp_ns - START_NS) // INTERVAL_NS for stamp_ns in camera.clip.stamps_ns] == [0, 1, 3, 4, 6, 7]
    assert "2 of 8 images are left out" in camera.problems[0] and "the first is image 3" in camera.problems[0]


def test_images_that_all_have_the_same_stamp_are_refused(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk", stamps_ns=[START_NS] * 8)
    with pytest.raises(DataError, match="images with growing stamps, got 8 of which none is after the first"):
        open_one(path, tmp_path)


def test_ground_truth_of_another_time_is_refused(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk", truth_offset_ns=3_600_000_000_000)
    with pytest.raises(DataError, match="ground truth with stamps of the images, .* Compare the clocks"):
        open_one(path, tmp_path)


def test_ground_truth_beside_the_images_is_said(tmp_path: Path, write_bag: WriteBag) -> None:
    camera = open_one(write_bag(tmp_path / "walk", truth_offset_ns=INTERVAL_NS // 4), tmp_path)
    assert camera.problems == ("ground truth of 8 of 8 stamps is over 1 ms beside the nearest image",)


def test_ground_truth_after_the_images_is_left_out_and_said(tmp_path: Path, write_bag: WriteBag) -> None:
    camera = open_one(write_bag(tmp_path / "walk", truth_offset_ns=3 * INTERVAL_NS), tmp_path)
    assert camera.truths is not None and len(camera.truths) == 5
    assert camera.problems == ("ground truth of 3 of 8 stamps is of no image's time",)


def test_a_class_that_the_model_does_not_know_is_named(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk")
    with pytest.raises(DataError, match="names the class 'ball', which is not among cat, dog"):
        open_cameras(path, ("cat", "dog"), workplace=tmp_path)


def test_several_cameras_are_named_and_have_their_own_ground_truth(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk", topics=["/front", "/rear"])
    with pytest.raises(DataError, match=r"expected one image topic, got 2 \(/front, /rear\)"):
        open_one(path, tmp_path)
    front, rear = open_cameras(
        path,
        CLASS_NAMES,
        topics=["/front", "/rear"],
        truth_topics=["/ground_truth", "/ground_truth"],
        workplace=tmp_path,
    )
    assert (front.name, rear.name) == ("walk /front", "walk /rear")
    assert front.truths is not None and rear.truths is not None
    with pytest.raises(ConfigError, match="a ground truth topic for each of 2"):
        open_cameras(path, CLASS_NAMES, topics=["/front", "/rear"], truth_topics=["/ground_truth"], workplace=tmp_path)


def coco_vid(path: Path, start_ns: int = START_NS, name: str = "ball") -> Path:
    content = {
        "videos": [{"id": 1, "name": "walk"}],
        "categories": [{"id": 5, "name": name}],
        "images": [
            {"id": 1 + frame, "video_id": 1, "frame_id": frame, "stamp_ns": start_ns + frame * INTERVAL_NS}
            for frame in range(3)
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [4, 10, 12, 12], "instance_id": 3}],
    }
    path.write_text(json.dumps(content))
    return path


def test_ground_truth_comes_from_a_file_by_stamp(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk", truth_offset_ns=None)
    camera = open_one(path, tmp_path, truth_file=coco_vid(tmp_path / "truth.json"))
    assert camera.truths is not None and [len(truth.labels) for truth in camera.truths] == [1, 0, 0]
    np.testing.assert_allclose(camera.truths[0].boxes_xyxy, [[4, 10, 16, 22]])
    assert camera.truths[0].track_ids.tolist() == [3]


def test_a_file_of_another_time_or_other_classes_is_refused(tmp_path: Path, write_bag: WriteBag) -> None:
    path = write_bag(tmp_path / "walk", truth_offset_ns=None)
    with pytest.raises(DataError, match="expected one video with stamps from .*, got 0"):
        open_one(path, tmp_path, truth_file=coco_vid(tmp_path / "late.json", start_ns=0))
    with pytest.raises(DataError, match="has the class 'cat', which is not among"):
        open_one(path, tmp_path, truth_file=coco_vid(tmp_path / "cat.json", name="cat"))


def test_bags_are_found_in_folders_and_lists(tmp_path: Path, write_bag: WriteBag) -> None:
    first, second = write_bag(tmp_path / "many" / "a", frames=2), write_bag(tmp_path / "many" / "b", frames=2)
    lines = tmp_path / "list.txt"
    lines.write_text("many/b\n\nmissing.mcap\n")
    assert find_bags([tmp_path / "many"]) == [first, second]
    assert find_bags([first, lines]) == [first, second, tmp_path / "missing.mcap"]
    shutil.rmtree(first)
    shutil.rmtree(second)
    with pytest.raises(DataError, match="expected a bag or a folder of bags"):
        find_bags([tmp_path / "many"])
