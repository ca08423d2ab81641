import math
from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memwarp_core.geometry import MOTION_SAMPLES, Motion, MotionSample, extrapolate, predict_displacement

MS = 1_000_000
MOVING: list[Motion] = ["constant_velocity", "constant_acceleration", "robust"]
SPEEDS = st.floats(-3, 3)
INTERVALS_NS = st.lists(st.integers(10 * MS, 200 * MS), min_size=2, max_size=MOTION_SAMPLES)
HORIZONS_S = st.floats(0, 1)
many = settings(max_examples=50)


def field(x: float, y: float, size: tuple[int, int] = (4, 6)) -> Tensor:
    return torch.tensor([x, y], dtype=torch.float64)[None, :, None, None].expand(1, 2, *size).clone()


def seen(position: Callable[[float], float], intervals_ns: Sequence[int]) -> list[MotionSample]:
    """Samples, newest first, of a map that moves as a whole: `position` is x at seconds from now, y is -2 x."""
    samples, newer_s = [], 0.0
    for interval_ns in intervals_ns:
        older_s = newer_s - interval_ns * 1e-9
        backward = position(older_s) - position(newer_s)
        samples.append(MotionSample(displacement=field(backward, -2 * backward), interval_ns=interval_ns))
        newer_s = older_s
    return samples


def noisy(samples: Sequence[MotionSample], cells: float, generator: torch.Generator) -> list[MotionSample]:
    return [
        MotionSample(
            displacement=one.displacement
            + cells * torch.randn(one.displacement.shape, generator=generator, dtype=torch.float64),
            interval_ns=one.interval_ns,
        )
        for one in samples
    ]


@many
@given(SPEEDS, INTERVALS_NS, HORIZONS_S, st.sampled_from(MOVING))
def test_constant_velocity_is_met_exactly_by_every_moving_model(
    speed: float, intervals_ns: list[int], horizon_s: float, motion: Motion
) -> None:
    (total,) = predict_displacement(seen(lambda t: speed * t, intervals_ns), [horizon_s], motion)
    torch.testing.assert_close(total, field(-speed * horizon_s, 2 * speed * horizon_s), rtol=1e-6, atol=1e-6)


@many
@given(SPEEDS, st.floats(-20, 20), INTERVALS_NS, HORIZONS_S, st.sampled_from(["constant_acceleration", "robust"]))
def test_constant_acceleration_is_met_exactly_at_irregular_stamps(
    speed: float, acceleration: float, intervals_ns: list[int], horizon_s: float, motion: Motion
) -> None:
    if motion == "robust" and len(intervals_ns) < 3:
        intervals_ns = [*intervals_ns, 50 * MS]

    def position(t: float) -> float:
        return speed * t + acceleration * t**2 / 2

    (total,) = predict_displacement(seen(position, intervals_ns), [horizon_s], motion)
    torch.testing.assert_close(total, field(-position(horizon_s), 2 * position(horizon_s)), rtol=1e-4, atol=1e-4)


@many
@given(st.floats(0, 20))
def test_equal_intervals_give_the_papers_formula(steps: float) -> None:
    previous, current = field(2.0, 1.0), field(3.0, -1.0)
    (total,) = extrapolate(previous, current, [steps])
    torch.testing.assert_close(total, steps * current + steps * (steps + 1) / 2 * (current - previous))


def test_a_thrown_object_is_met_exactly() -> None:
    # Heights 0, 2.5 and 6 in three frames; three frames later 22.5.
    (total,) = extrapolate(field(0.0, -2.5), field(0.0, -3.5), [3])
    torch.testing.assert_close(total, field(0.0, 6.0 - 22.5))


def test_constant_acceleration_agrees_with_a_slow_loop_over_positions() -> None:
    torch.manual_seed(0)
    newest, older = torch.randn(2, 2, 2, 4, 5, dtype=torch.float64) * 1.5
    samples = [
        MotionSample(displacement=newest, interval_ns=40 * MS),
        MotionSample(displacement=older, interval_ns=90 * MS),
    ]
    for horizon_s in (0.1, 0.37):
        (total,) = predict_displacement(samples, [horizon_s], "constant_acceleration")
        for image in range(2):
            expected = slow_prediction(newest[image], older[image], 0.04, 0.09, horizon_s)
            torch.testing.assert_close(total[image], expected)


def slow_prediction(newest: Tensor, older: Tensor, newest_s: float, older_s: float, horizon_s: float) -> Tensor:
    """Per pixel: two velocities, each at the middle of its interval, and the line through them."""
    total = torch.zeros_like(newest)
    _, height, width = newest.shape
    for row in range(height):
        for column in range(width):
            back_x, back_y = newest[:, row, column].tolist()
            x, y = min(max(column + back_x, 0), width - 1), min(max(row + back_y, 0), height - 1)
            left, top = min(math.floor(x), width - 2), min(math.floor(y), height - 2)
            for axis in range(2):
                at = older[axis].tolist()
                upper = at[top][left] * (left + 1 - x) + at[top][left + 1] * (x - left)
                lower = at[top + 1][left] * (left + 1 - x) + at[top + 1][left + 1] * (x - left)
                aligned = upper * (top + 1 - y) + lower * (y - top)
                velocity = newest[axis, row, column].item() / newest_s
                acceleration = (velocity - aligned / older_s) / ((newest_s + older_s) / 2)
                now = velocity + acceleration * newest_s / 2
                total[axis, row, column] = now * horizon_s + acceleration * horizon_s**2 / 2
    return total


@pytest.mark.parametrize("motion", MOVING)
def test_an_object_takes_its_past_with_it(motion: Motion) -> None:
    """A block that moves one cell per frame over a still background, and stays in the map."""
    samples = []
    for frame in range(MOTION_SAMPLES, 0, -1):
        displacement = torch.zeros(1, 2, 7, 12, dtype=torch.float64)
        displacement[:, 0, 1:6, frame : frame + 5] = -1
        samples.append(MotionSample(displacement=displacement, interval_ns=50 * MS))
    (total,) = predict_displacement(samples, [0.2], motion)
    # The block's inside, whose neighbourhood moves with it.
    inside = total[:, :, 2:5, MOTION_SAMPLES + 1 : MOTION_SAMPLES + 4]
    torch.testing.assert_close(inside, field(-4.0, 0.0, (3, 3)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("motion", MOVING)
@pytest.mark.parametrize("speed", [-2.5, 2.5])
def test_the_border_invents_no_acceleration(speed: float, motion: Motion) -> None:
    samples = [MotionSample(displacement=field(speed, speed), interval_ns=MS)] * MOTION_SAMPLES
    (total,) = predict_displacement(samples, [0.004], motion)
    torch.testing.assert_close(total, field(4 * speed, 4 * speed), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_robust_amplifies_noise_far_less_than_constant_acceleration(speed: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = seen(lambda t: speed * t / 0.05, [50 * MS] * MOTION_SAMPLES)
    errors: dict[str, float] = {}
    for motion in MOVING:
        off = [
            predict_displacement(noisy(clean, 0.1, generator), [0.2], motion)[0] - field(-4 * speed, 8 * speed)
            for _ in range(20)
        ]
        errors[motion] = torch.stack(off).square().mean().sqrt().item()
    assert errors["robust"] < 0.5 * errors["constant_acceleration"]
    assert errors["robust"] < 1.1 * errors["constant_velocity"]


def test_robust_beats_constant_velocity_where_acceleration_stands_out_of_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)

    def position(t: float) -> float:
        return 10 * t + 200 * t**2 / 2  # 0.5 cells per frame, 0.5 more in each frame

    samples = noisy(seen(position, [50 * MS] * MOTION_SAMPLES), 0.03, generator)
    expected = field(-position(0.2), 2 * position(0.2))
    off = {motion: (predict_displacement(samples, [0.2], motion)[0] - expected).norm().item() for motion in MOVING}
    assert off["robust"] < 0.5 * off["constant_velocity"]


@pytest.mark.parametrize("outlier", range(MOTION_SAMPLES))
def test_robust_is_not_thrown_off_by_one_bad_field(outlier: int) -> None:
    samples = seen(lambda t: 20 * t, [50 * MS] * MOTION_SAMPLES)
    torch.manual_seed(0)
    nonsense = 3 * torch.randn(1, 2, 4, 6, dtype=torch.float64)
    samples[outlier] = MotionSample(displacement=nonsense, interval_ns=50 * MS)
    (total,) = predict_displacement(samples, [0.2], "robust")
    torch.testing.assert_close(total, field(-4.0, 8.0), rtol=0, atol=0.05)


@pytest.mark.parametrize(("motion", "needed"), [("constant_acceleration", 2), ("robust", 3)])
def test_with_too_few_samples_the_newest_velocity_is_kept(motion: Motion, needed: int) -> None:
    torch.manual_seed(0)
    samples = [MotionSample(displacement=torch.randn(1, 2, 4, 6), interval_ns=50 * MS) for _ in range(needed)]
    for count in range(1, needed):
        (total,) = predict_displacement(samples[:count], [0.1], motion)
        torch.testing.assert_close(total, 2 * samples[0].displacement)
    (total,) = predict_displacement(samples, [0.1], motion)
    assert not total.allclose(2 * samples[0].displacement)


def test_only_the_last_few_samples_matter() -> None:
    torch.manual_seed(0)
    samples = [MotionSample(displacement=torch.randn(1, 2, 4, 6), interval_ns=50 * MS) for _ in range(9)]
    (total,) = predict_displacement(samples, [0.1], "robust")
    (of_few,) = predict_displacement(samples[:MOTION_SAMPLES], [0.1], "robust")
    assert total.equal(of_few)


def test_still_means_zero() -> None:
    (total,) = extrapolate(field(1.0, 1.0), field(2.0, 2.0), [4], motion="still")
    assert not total.any()


@many
@given(st.floats(0.01, 100), st.sampled_from(MOVING))
def test_the_unit_of_time_does_not_matter(factor: float, motion: Motion) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = noisy(seen(lambda t: 20 * t + 50 * t**2, [60 * MS, 40 * MS, 50 * MS]), 0.1, generator)
    slower = [
        MotionSample(displacement=one.displacement, interval_ns=round(one.interval_ns * factor)) for one in samples
    ]
    (expected,) = predict_displacement(samples, [0.1], motion)
    (total,) = predict_displacement(slower, [0.1 * factor], motion)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("motion", get_args(Motion))
def test_streams_of_a_batch_do_not_see_each_other(motion: Motion) -> None:
    torch.manual_seed(0)
    fields = torch.randn(4, 3, 2, 4, 6)
    fields[1, 0] *= 10  # an outlier in one stream

    def predict(batch: Tensor) -> Tensor:
        samples = [MotionSample(displacement=one, interval_ns=50 * MS) for one in batch]
        return predict_displacement(samples, [0.1], motion)[0]

    apart = torch.cat([predict(fields[:, stream : stream + 1]) for stream in range(3)])
    torch.testing.assert_close(predict(fields), apart)


@pytest.mark.parametrize("motion", MOVING)
def test_predictions_are_differentiable(motion: Motion) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = seen(lambda t: 10 * t + 200 * t**2, [50 * MS, 70 * MS, 40 * MS])
    fields = [one.displacement[..., :3, :3].requires_grad_() for one in noisy(clean, 0.1, generator)]

    def predict(*displacements: Tensor) -> tuple[Tensor, ...]:
        samples = [
            MotionSample(displacement=displacement, interval_ns=one.interval_ns)
            for displacement, one in zip(displacements, clean, strict=True)
        ]
        return tuple(predict_displacement(samples, [0.02, 0.1], motion))

    assert torch.autograd.gradcheck(predict, tuple(fields))


@pytest.mark.parametrize("motion", get_args(Motion))
def test_half_precision_is_computed_in_single(motion: Motion) -> None:
    torch.manual_seed(0)
    halves = [torch.randn(1, 2, 4, 6).half() for _ in range(3)]
    (total,) = predict_displacement([MotionSample(displacement=h, interval_ns=MS) for h in halves], [0.01], motion)
    (single,) = predict_displacement(
        [MotionSample(displacement=h.float(), interval_ns=MS) for h in halves], [0.01], motion
    )
    assert total.dtype == torch.float32
    assert total.equal(single)


@pytest.mark.parametrize("motion", get_args(Motion))
def test_no_value_is_waited_for(motion: Motion) -> None:
    """Tensors on the meta device have no values: to read one is an error."""
    samples = [MotionSample(displacement=torch.empty(2, 2, 4, 6, device="meta"), interval_ns=MS)] * 4
    (total,) = predict_displacement(samples, [0.01], motion)
    assert total.shape == (2, 2, 4, 6)


def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        predict_displacement([], [0.1])
    with pytest.raises(ValueError, match="interval_ns must be positive"):
        predict_displacement([MotionSample(displacement=field(0, 0), interval_ns=0)], [0.1])
    with pytest.raises(ValueError, match="got 'jerk'"):
        extrapolate(field(0, 0), field(0, 0), [1], motion="jerk")  # type: ignore[arg-type]
