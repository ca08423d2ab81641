import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.bags import BagWriter
from memwarp_core.data.coco_vid import ClipAnnotations, frame_annotations, write_coco_vid
from memwarp_core.data.displacement_file import write_displacement
from memwarp_core.errors import DataError
from memwarp_core.training import packed_clips
from memwarp_core.training.packed_clips import pack_clips
from memwarp_core.training.sequences import Sequences
from memwarp_core.types import Frame

CLIPS, FRAMES = 4, 3
BOX = np.array([[4.0, 2.0, 20.0, 18.0]], np.float32)


def draw(number: int) -> np.ndarray:
    return np.full((24, 32, 3), 40 + 20 * number, np.uint8)


def save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), image)


def write_coco(folder: Path, sizes: tuple[tuple[int, int], ...] = ((24, 32),) * CLIPS, fields: bool = False) -> None:
    clips = []
    for clip, (height, width) in enumerate(sizes):
        frames = []
        for number in range(FRAMES):
            name = f"{clip}/{number}.png"
            image = np.full((height, width, 3), 40 + 20 * number, np.uint8)
            save(folder / "images" / name, image)
            if fields and number:
                field = np.zeros((height, width, 2), np.float32)
                field[..., 0] = -4
                (folder / "displacement" / str(clip)).mkdir(parents=True, exist_ok=True)
                write_displacement(folder / "displacement" / name, field, np.ones((height, width), bool))
            frame = Frame(
                image=image,
                stamp_ns=number,
                boxes_xyxy=BOX,
                labels=np.array([0]),
                track_ids=np.array([1]),
            )
            frames.append(frame_annotations(frame, name))
        clips.append(ClipAnnotations(name=str(clip), frames=tuple(frames)))
    write_coco_vid(folder, clips, ["cup"])


def write_yolo(folder: Path) -> None:
    for clip in range(CLIPS):
        for number in range(FRAMES):
            save(folder / str(clip) / f"{number}.jpg", draw(number))
            (folder / str(clip) / f"{number}.txt").write_text(f"0 {12 / 32} {10 / 24} 0.5 {16 / 24}\n")
    (folder / "data.yaml").write_text("names: [cup]")


def write_imagenet(folder: Path) -> None:
    """Two clips of VID and two still images of DET."""
    box = "<bndbox><xmin>4</xmin><ymin>2</ymin><xmax>19</xmax><ymax>17</ymax></bndbox>"
    xml = (
        "<annotation><size><width>32</width><height>24</height></size>"
        f"<object><trackid>0</trackid><name>n02691156</name>{box}</object></annotation>"
    )
    names = {"VID": [f"{c}/{t:06d}" for c in "ab" for t in range(FRAMES)], "DET": ["still/1", "still/2"]}
    for kind, entries in names.items():
        for number, entry in enumerate(entries):
            save(folder / "Data" / kind / f"{entry}.JPEG", draw(number % FRAMES))
            annotation = folder / "Annotations" / kind / f"{entry}.xml"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(xml)
    lists = folder / "ImageSets" / "VID"
    lists.mkdir(parents=True)
    (lists / "VID_train_15frames.txt").write_text("".join(f"{c} 1 {t} {FRAMES}\n" for c in "ab" for t in range(FRAMES)))
    (lists / "DET_train_30classes.txt").write_text("still/1 1\nstill/2 2\n")


def write_bags(folder: Path) -> None:
    for clip in range(CLIPS):
        with BagWriter(folder / f"{clip}") as bag:
            for number in range(FRAMES):
                bag.write_compressed_image(draw(number), 1 + number)
                bag.write_detections(BOX, ["cup"], 1 + number)


@pytest.mark.parametrize("write", [write_coco, write_yolo, write_imagenet, write_bags])
def test_every_format_can_be_trained_on(tmp_path: Path, write) -> None:
    write(tmp_path / "set")
    clips, names = pack_clips(tmp_path / "set")
    assert len(clips) == CLIPS
    assert names[0] in ("cup", "airplane")
    for clip in clips:
        assert clip.images.shape[1:] == (24, 32, 3)
        np.testing.assert_allclose(clip.images[-1].mean(), 40 + 20 * (len(clip.images) - 1), atol=25)
        np.testing.assert_allclose(clip.boxes_xyxy[0], BOX, atol=1e-4)
        assert not clip.valid.any()
    item = Sequences(clips, frames=FRAMES, length=4, seed=0)[1]
    assert item.images.shape == (1, FRAMES, 3, 32, 32)
    assert len(item.boxes) == FRAMES
    assert item.labels[0].tolist() == [0]
    assert not item.valid.any() and not item.displacement.any()


def test_images_boxes_and_fields_are_scaled_to_the_sides_of_the_detector(tmp_path: Path) -> None:
    write_coco(tmp_path, sizes=((24, 32), (48, 120)), fields=True)
    (first, second), _ = pack_clips(tmp_path, short_side=48, long_side=100)
    assert first.images.shape == (FRAMES, 48, 64, 3)
    assert first.boxes_xyxy[0].tolist() == [[8, 4, 40, 36]]
    np.testing.assert_allclose(first.displacement[1, 0], -1)  # 4 source pixels are 8, one cell
    assert first.valid[1:].all() and not first.valid[0].any()
    # 100 x 40 pixels, padded to 104 x 40 with grey.
    assert second.images.shape == (FRAMES, 40, 104, 3)
    assert (second.images[:, :, 100:] == 127).all() and (second.images[0, :, :100] == 40).all()
    np.testing.assert_allclose(second.displacement[1, 0], -4 * 100 / 120 / 8, rtol=1e-3)


def test_the_cache_is_made_once_and_again_when_the_data_set_or_the_size_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yolo(tmp_path)
    packed = []
    write = packed_clips._write_cache

    def count(*arguments: object) -> None:
        packed.append(arguments)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(packed_clips, "_write_cache", count)
    for _ in range(2):
        pack_clips(tmp_path)
    assert len(packed) == 1
    pack_clips(tmp_path, short_side=48)
    assert len(packed) == 2
    (tmp_path / "0" / "0.txt").write_text("")
    clips, _ = pack_clips(tmp_path, short_side=48)
    assert len(packed) == 3
    assert len(clips[0].labels[0]) == 0


def test_the_cache_is_made_again_when_fields_are_added(tmp_path: Path) -> None:
    write_coco(tmp_path)
    assert not pack_clips(tmp_path)[0][0].valid.any()
    write_coco(tmp_path, fields=True)
    assert pack_clips(tmp_path)[0][0].valid.any()


def test_a_cache_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    image = tmp_path / "3" / "2.jpg"
    content = image.read_bytes()
    image.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"2\.jpg: .*cannot be decoded"):
        pack_clips(tmp_path)
    assert not (tmp_path / "packed").exists()
    image.write_bytes(content)
    assert len(pack_clips(tmp_path)[0]) == CLIPS
    assert not (tmp_path / "packed.tmp").exists()


@pytest.mark.slow
def test_several_trainings_can_begin_at_once(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    code = "import sys; from pathlib import Path; from memwarp_core.training.packed_clips import pack_clips; "
    code += "sys.stdin.read(); assert len(pack_clips(Path(sys.argv[1]))[0]) == 4"
    command = [sys.executable, "-c", code, str(tmp_path)]
    together = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    ends = [process.communicate(timeout=250)[1].decode() for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], ends
    assert not (tmp_path / "packed.tmp").exists()


def test_a_cache_of_an_older_layout_is_made_again(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "index.json").write_text(json.dumps({"annotations_sha256": "", "lengths": []}))
    assert len(pack_clips(tmp_path)[0]) == CLIPS


def test_frames_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path, fields=True)
    (tmp_path / "images" / "2" / "1.png").unlink()
    save(tmp_path / "images" / "3" / "2.png", np.zeros((48, 64, 3), np.uint8))
    clips, _ = pack_clips(tmp_path, skip_bad=True)
    assert [len(clip.images) for clip in clips] == [3, 3, 2, 2]
    assert not clips[2].valid.any()  # the field of its last frame leads to the one that is missing
    assert clips[3].valid[1].all()
    assert "2 bad boxes or frames were left out" in caplog.text
