"""Carrying displacements into the future: what the last few fields of a stream say of the coming instants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from memwarp_core.geometry.warp import warp

Motion = Literal["constant_acceleration", "constant_velocity", "robust", "still"]
"""How displacements go on after the newest frame; "still" is the baseline in which nothing moves."""

MOTION_SAMPLES = 5
"""Samples that are worth keeping of a stream: the robust model reads this many, the others one or two."""

_SECOND_NS = 1_000_000_000
_FRESHNESS = 5.0
"""Each field counts this many times the one before it in the velocity, because real velocities change."""
_ACCELERATION_CAUTION = 4.0
"""Factor for the variance of a fitted acceleration: cells next to each other err alike, and accelerations end."""
_OUTLIER = 3.0
"""Deviation, in typical ones, at which a field's weight has fallen to a quarter."""
_NEGLIGIBLE_CELLS = 0.05
"""Deviations below it never make an outlier."""
_TINY = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionSample:
    """The displacement from one frame of a stream to the frame before it, and the time between the two."""

    displacement: Tensor
    """(B, 2, H, W), x then y, backward, in cells of the map."""
    interval_ns: int
    """Positive."""


def predict_displacement(
    samples: Sequence[MotionSample], horizons_s: Sequence[float], motion: Motion = "constant_velocity"
) -> list[Tensor]:
    """Total displacement from future instants to the newest frame (the paper, section 4.3), for any stamps.

    A field divided by its interval is a rate, which belongs to the middle of the interval. Each model says what rate
    u a place's contents have now and how it changes, b per second; the total over a horizon h is u h + b h^2 / 2.
    - constant_velocity: the newest rate.
    - constant_acceleration: the line through the two newest rates. At equal intervals this is the paper's
      k D + k (k + 1) / 2 A with k = h / interval and A = D_t(p) - D_(t-1)(p + D_t(p)). Noise of the fields is
      amplified as the square of the horizon.
    - robust: a line fitted to the last MOTION_SAMPLES rates, shrunk by its uncertainty; see _fit_robustly.
    With fewer samples than a model needs (two and three), the newest rate is kept.

    Convention: indexed by the pixels of the newest frame t and used directly as D_(t+h,t); `splat` carries such a
    field to the pixels of the future frame. Older fields are read where the newer ones point to, with the border
    repeated, since zeros would invent acceleration there.

    Args:
        samples: newest first, at least one; of equal shape, each reaching back to where the next one begins.
        horizons_s: seconds from the newest frame.
        motion: the motion model.
    Returns: one (B, 2, H, W) field per horizon, cells; float32, or float64 if the samples are.
    Raises: ValueError if there is no sample, an interval is not positive, or the model is unknown.
    """
    if not samples:
        raise ValueError("predict_displacement() needs at least one sample; without any, expect no motion.")
    if any(sample.interval_ns <= 0 for sample in samples):
        raise ValueError(f"interval_ns must be positive, got {[sample.interval_ns for sample in samples]}.")
    if motion == "still":
        nothing = torch.zeros_like(_at_least_float32(samples[0].displacement))
        return [nothing for _ in horizons_s]
    needed = {"constant_velocity": 1, "constant_acceleration": 2, "robust": 3}.get(motion)
    if needed is None:
        raise ValueError(f"motion must be constant_acceleration, constant_velocity, robust or still, got {motion!r}.")
    if motion == "constant_velocity" or len(samples) < needed:
        rate = _at_least_float32(samples[0].displacement) * (_SECOND_NS / samples[0].interval_ns)
        return [rate * horizon for horizon in horizons_s]
    if motion == "constant_acceleration":
        (newer, older), (newer_s, older_s) = _aligned_rates(samples[:2])
        change = (newer - older) / (newer_s - older_s)
        rate = newer - change * newer_s
        return [rate * horizon + change * (horizon * horizon / 2) for horizon in horizons_s]
    rate, change, drift = _fit_robustly(samples[:MOTION_SAMPLES])
    return [(rate * horizon + change * (horizon * horizon / 2)) / (1 + drift * (horizon / 3)) for horizon in horizons_s]


def extrapolate(
    previous: Tensor, current: Tensor, steps: Sequence[float], motion: Motion = "constant_acceleration"
) -> list[Tensor]:
    """`predict_displacement` from two fields over intervals of equal length, with horizons counted in intervals.

    Args:
        previous: (B, 2, H, W), D_(t-1,t-2).
        current: (B, 2, H, W), D_(t,t-1).
        steps: how many frame intervals to look ahead, real numbers.
        motion: the motion model.
    Returns: one (B, 2, H, W) field per step.
    """
    samples = [MotionSample(displacement=field, interval_ns=_SECOND_NS) for field in (current, previous)]
    return predict_displacement(samples, steps, motion)


def _fit_robustly(samples: Sequence[MotionSample]) -> tuple[Tensor, Tensor, Tensor]:
    """What the last few rates say together, each part trusted as far as the samples bear it out.

    1. A field that differs from the others all over the map is an error, such as that of a blurred frame, and loses
       its weight. One that differs in places is news: an object that bounced.
    2. The acceleration is the weighted least-squares slope b of the rates over time, shrunk to
       (1 - c var(b) / |b|^2)+ b (positive-part James-Stein), with var(b) from the residual of the line.
    3. The rates, carried to the newest instant along the shrunk slope, are averaged, the newest counting most: v.
       They still change, by a variance of q per second. If they go on as such a random walk, their mean over a horizon
       h is v with an error of variance q h / 3; expected to be of the size of |v| and no larger, it is best predicted
       by v |v|^2 / (|v|^2 + q h / 3) (empirical Bayes). The size is taken from the place and not from the whole map,
       where a background at rest would slow down what moves before it.
    Squares and variances are means over x, y and the 3x3 cells around a place.

    Args:
        samples: three or more, newest first.
    Returns: now and per second, cells: rate (B, 2, H, W) and its change (B, 2, H, W); and q / |v|^2 (B, 1, H, W).
    """
    rates, seconds = _aligned_rates(samples)
    count = len(samples)
    intervals = _column([sample.interval_ns / _SECOND_NS for sample in samples], rates)
    times = _column(seconds, rates)
    # An error of a field in cells is one of its rate in inverse proportion to the interval.
    weights = intervals.square() * _trust((rates - _middle(rates)) * intervals)
    weights = weights / weights.sum(0)

    mean_time = (weights * times).sum(0)
    since = times - mean_time
    spread = (weights * since.square()).sum(0)
    change = (weights * since * rates).sum(0) / spread
    residuals = rates - (weights * rates).sum(0) - change * since
    variance = _pooled((weights * residuals.square()).sum(0)) * (count / (count - 2))
    variance_of_change = variance * (weights * since).square().sum(0) / spread.square()
    size = _pooled(change.square())
    change = change * F.relu(size - _ACCELERATION_CAUTION * variance_of_change) / (size + _TINY)

    now = rates - change * times
    freshness = weights * _column([_FRESHNESS**-index for index in range(count)], rates)
    rate = (freshness * now).sum(0) / freshness.sum(0)
    pair_weights = torch.minimum(weights[1:], weights[:-1])
    squares = (now[:-1] - now[1:]).square() / (times[:-1] - times[1:])
    change_per_s = _pooled((pair_weights * squares).sum(0) / pair_weights.sum(0))
    return rate, change, change_per_s / (_pooled(rate.square()) + _TINY)


def _trust(deviations: Tensor) -> Tensor:
    """Weight of each field by its mean square deviation on the map, relative to the middle one of the fields'.

    Args:
        deviations: (N, B, 2, H, W), cells.
    Returns: (N, B, 1, 1, 1), up to 1; the Geman-McClure estimator's weight.
    """
    squares = deviations.square().mean((2, 3, 4), keepdim=True)
    typical = _middle(squares) + _NEGLIGIBLE_CELLS**2
    return (1 + squares / (_OUTLIER**2 * typical)) ** -2


def _aligned_rates(samples: Sequence[MotionSample]) -> tuple[Tensor, list[float]]:
    """Rates in cells per second, (N, B, 2, H, W), all indexed by the newest frame's pixels by following the contents
    back, and the instants in seconds from the newest frame that they belong to."""
    rates, seconds = [], []
    path: Tensor | None = None
    elapsed_ns = 0
    for sample in samples:
        field = _at_least_float32(sample.displacement)
        if path is not None:
            field = warp(field, path, padding="border")
        path = field if path is None else path + field
        rates.append(field * (_SECOND_NS / sample.interval_ns))
        seconds.append(-(elapsed_ns + sample.interval_ns / 2) / _SECOND_NS)
        elapsed_ns += sample.interval_ns
    return torch.stack(rates), seconds


def _middle(values: Tensor) -> Tensor:
    """The median over the first axis; of an even number, the mean of the two in the middle."""
    ordered = values.sort(dim=0).values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2


def _pooled(squares: Tensor) -> Tensor:
    """(B, 2, H, W) to (B, 1, H, W), the mean over x, y and the cells around each, as far as they are on the map."""
    return F.avg_pool2d(squares.mean(1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """(N, 1, 1, 1, 1); filled number by number, because copying a list would wait for the device."""
    return torch.stack([like.new_full((1, 1, 1, 1), value) for value in values])


def _at_least_float32(field: Tensor) -> Tensor:
    return field if field.dtype == torch.float64 else field.float()
