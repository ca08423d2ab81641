import pytest

from memwarp_core.errors import ConfigError
from memwarp_core.evaluation.pair_benchmark import benchmark_pair


@pytest.mark.slow
def test_both_ways_are_timed_and_the_second_one_borrows() -> None:
    timing = benchmark_pair("rfcn-nano+clocknet-tiny-featprop", (96, 160), 10, ("cpu", "cpu"))
    assert 0 < timing.alone_ms <= timing.alone_p95_ms
    assert 0 < timing.beside_ms <= timing.beside_p95_ms
    assert 0 < timing.boosted <= 1 and timing.lag_frames >= 1
    assert timing.strong_ms > 0


def test_a_single_detector_is_refused() -> None:
    with pytest.raises(ConfigError, match="rfcn-tiny: expected a pair"):
        benchmark_pair("rfcn-tiny", (96, 160), 10)
