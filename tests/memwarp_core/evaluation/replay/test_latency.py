import json
from itertools import islice
from pathlib import Path

import pytest

from memwarp_core.errors import ConfigError
from memwarp_core.evaluation.replay.latency import as_json, read_latency


@pytest.mark.parametrize(("given", "ns"), [("40ms", 40_000_000), ("0.04s", 40_000_000), ("33.333 ms", 33_333_000)])
def test_a_time_is_taken_for_every_image(given: str, ns: int) -> None:
    assert list(islice(read_latency(given).draws(), 3)) == [(ns, ns)] * 3


def test_draws_depend_on_the_seed_alone(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    file.write_text(json.dumps([10, [20.5, 26], 30]))
    latency = read_latency(str(file), seed=3)
    first = list(islice(latency.draws(), 50))
    assert set(first) == {(10_000_000, 10_000_000), (20_500_000, 26_000_000), (30_000_000, 30_000_000)}
    assert list(islice(latency.draws(), 50)) == first
    assert list(islice(read_latency(str(file), seed=4).draws(), 50)) != first


@pytest.mark.parametrize("given", ["fast", "40", "-1ms", "missing.json"])
def test_what_is_no_latency_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="expected a time such as 40ms"):
        read_latency(given)


@pytest.mark.parametrize("content", ["{}", '["a"]', "[]", "[-1]", "[1e9]", "[NaN]", "[[1]]", "[[1, -2]]"])
def test_a_file_must_hold_times(tmp_path: Path, content: str) -> None:
    file = tmp_path / "times.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match="expected"):
        read_latency(str(file))


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    given, written = [10.0, [20.5, 26.0]], tmp_path / "times.json"
    written.write_text(json.dumps(given))
    assert as_json(read_latency(str(written))) == given
