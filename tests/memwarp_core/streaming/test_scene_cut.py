"""What is a cut and what is only a bad image."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from memwarp_core.streaming import is_cut, layout


def scene(seed: int) -> np.ndarray:
    blots = np.random.default_rng(seed).integers(40, 200, (6, 10, 3), np.uint8)
    return cv2.resize(blots, (320, 192), interpolation=cv2.INTER_CUBIC)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda image: image,
    "motion": lambda image: np.roll(image, 12, axis=1),
    "exposure": lambda image: cv2.convertScaleAbs(image, alpha=1.6, beta=20),
    "darkness": lambda image: cv2.convertScaleAbs(image, alpha=0.2),
    "blur": lambda image: cv2.blur(image, (31, 31)),
    "noise": lambda image: cv2.add(image, np.random.default_rng(9).integers(0, 60, image.shape, np.uint8)),
    "a flat image": lambda image: np.full_like(image, 128),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_bad_image_of_the_same_scene_is_no_cut(change: Callable[[np.ndarray], np.ndarray]) -> None:
    for seed in range(10):
        assert not is_cut(layout(scene(seed)), layout(change(scene(seed))))
        assert not is_cut(layout(change(scene(seed))), layout(scene(seed)))


def test_most_other_scenes_are_a_cut() -> None:
    layouts = [layout(scene(seed)) for seed in range(40)]
    cuts = [is_cut(before, now) for before, now in zip(layouts, layouts[1:], strict=False)]
    assert np.mean(cuts) > 0.7
