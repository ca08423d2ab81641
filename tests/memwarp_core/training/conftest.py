from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.coco_vid import ClipAnnotations, frame_annotations, write_coco_vid
from memwarp_core.data.displacement_file import write_displacement
from memwarp_core.types import Frame


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of four frames, 64x48, one bright object moving right by 8 pixels per frame."""
    folder = tmp_path_factory.mktemp("data")
    clips = []
    for number in range(3):
        frames = []
        for t in range(4):
            name = f"clip_{number}/{t:03d}"
            box = [8 + 8 * t, 8, 24 + 8 * t, 24 if number % 2 else 40]
            image = np.full((48, 64, 3), 40, np.uint8)
            image[box[1] : box[3], box[0] : box[2]] = (220, 60, 60)
            field = np.zeros((48, 64, 2), np.float32)
            field[box[1] : box[3], box[0] : box[2], 0] = -8
            for kind in ("images", "displacement"):
                (folder / kind / f"clip_{number}").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "images" / f"{name}.png"), image[..., ::-1])
            if t:
                write_displacement(folder / "displacement" / f"{name}.png", field, np.ones((48, 64), bool))
            frame = Frame(
                image=image,
                stamp_ns=t * 50_000_000,
                boxes_xyxy=np.array([box], np.float32),
                labels=np.array([number % 2]),
                track_ids=np.array([1]),
            )
            frames.append(frame_annotations(frame, f"{name}.png"))
        clips.append(ClipAnnotations(name=f"clip_{number}", frames=tuple(frames)))
    write_coco_vid(folder, clips, ("square", "bar"))
    return folder
