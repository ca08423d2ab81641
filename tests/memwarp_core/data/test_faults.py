from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from memwarp_core.data.simulation.faults import FAULT_KINDS, LONGEST_BURST, Fault, apply_fault, draw_faults


@pytest.mark.parametrize("fraction", [0.1, 0.35, 0.6])
def test_the_share_of_degraded_frames_is_as_asked(fraction: float) -> None:
    faults = [fault for clip in range(400) for fault in draw_faults(np.random.default_rng(clip), 16, fraction)]
    degraded = np.mean([fault.kind != "none" for fault in faults])
    # 6400 frames in bursts of 3.5: a standard error of about 0.012.
    assert degraded == pytest.approx(fraction, abs=0.04)


def test_faults_come_in_bursts_of_one_kind() -> None:
    faults = draw_faults(np.random.default_rng(3), 3000, 0.35)
    lengths = []
    for fault, group in groupby(faults):
        if fault.kind != "none":
            lengths.append(len(list(group)))
    assert set(lengths) == set(range(1, LONGEST_BURST + 1))
    assert {fault.kind for fault in faults} == {"none", *FAULT_KINDS}


def test_no_faults_when_none_are_wanted() -> None:
    assert draw_faults(np.random.default_rng(0), 50, 0.0) == [Fault()] * 50


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_stronger_fault_changes_more(kind: str) -> None:
    y, x = np.mgrid[:96, :160]
    image = np.stack([60 + x, 255 - y, 40 + 100 * ((x // 20 + y // 20) % 2)], axis=-1).clip(0, 255).astype(np.uint8)
    change = []
    for strength in (0.0, 1.0, 3.0):
        fault = Fault(kind=kind, strength=strength, direction_rad=0.3)
        faulty = apply_fault(image, fault, np.random.default_rng(1))
        assert faulty.shape == image.shape and faulty.dtype == np.uint8
        change.append(np.abs(faulty.astype(int) - image.astype(int)).mean())
    assert 0.5 < change[0] < change[1] < change[2]


def test_the_strongest_fault_scales_all_of_them_and_changes_nothing_else() -> None:
    mild, strong = (draw_faults(np.random.default_rng(0), 50, 0.5, strongest) for strongest in (1.0, 3.0))
    assert [replace(fault, strength=3 * fault.strength) for fault in mild] == strong


def test_a_frame_without_fault_is_left_alone() -> None:
    image = np.arange(300, dtype=np.uint16).reshape(10, 10, 3).astype(np.uint8)
    assert apply_fault(image, Fault(), np.random.default_rng(0)) is image


def test_only_motion_blur_has_an_exposure() -> None:
    exposures = {kind: Fault(kind=kind, strength=0.5).exposure for kind in FAULT_KINDS}
    assert exposures.pop("motion_blur") == 0.75
    assert set(exposures.values()) == {0.0}
    assert Fault(kind="motion_blur", strength=3.0).exposure == 1.0
