from typing import Any

import numpy as np
import pytest

from memwarp_core.evaluation.reproduction.claims import Claim, claims, find, findings
from memwarp_core.evaluation.reproduction.measure import Figures
from memwarp_core.evaluation.reproduction.rows import rows

GOOD, BAD = "memnet-tiny-6", "rfcn-tiny"


def figures(*map50: float) -> Figures:
    """Of the clips as they are, then of the samples."""
    values = np.array(map50)
    return Figures(map=dict.fromkeys(("all", "slow", "medium", "fast"), values), ms=np.ones(len(values)), ap={})


def claim(**changes: Any) -> Claim:
    return Claim(
        text="good is better",
        section="1",
        systems=(GOOD, BAD),
        figure=lambda table: table[GOOD].map["all"] - table[BAD].map["all"],
        **changes,
    )


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [((1.0, 2.0, 3.0), "holds"), ((-1.0, -2.0, -3.0), "does not hold"), ((1.0, 2.0, -3.0), "cannot be tested here")],
)
def test_a_claim_is_decided_where_the_whole_interval_is_on_one_side(samples: tuple[float, ...], verdict: str) -> None:
    ours = {GOOD: figures(1.0, *samples), BAD: figures(0, 0, 0, 0)}
    assert find(claim(), ours, rows()).verdict == verdict


def test_rows_are_compared_on_the_same_samples() -> None:
    ours = {GOOD: figures(51, 11, 91, 51), BAD: figures(50, 10, 90, 50)}
    found = find(claim(), ours, rows())
    assert found.verdict == "holds"
    assert found.ours is not None
    assert (found.ours.low, found.ours.high) == (1.0, 1.0)


def test_a_claim_may_ask_for_more_than_a_difference() -> None:
    ours = {GOOD: figures(5, 5, 5), BAD: figures(0, 0, 0)}
    assert find(claim(border=10.0), ours, rows()).verdict == "does not hold"
    assert find(claim(border=10.0, below=True), ours, rows()).verdict == "holds"


def test_a_claim_about_a_row_that_is_not_trained_cannot_be_tested() -> None:
    found = find(claim(), {BAD: figures(0, 0)}, rows())
    assert (found.verdict, found.ours, found.reason) == ("cannot be tested here", None, "not trained: memnet-tiny")
    assert found.paper == pytest.approx(75.1 - 73.4)


def test_a_claim_without_a_figure_says_what_it_would_need() -> None:
    found = find(Claim(text="", section="", obstacle="needs two devices"), {}, rows())
    assert (found.verdict, found.reason) == ("cannot be tested here", "needs two devices")


def test_every_claim_follows_from_the_papers_own_tables() -> None:
    for found in findings({}):
        if found.paper is not None:
            beyond = found.paper - found.claim.border
            assert (beyond < 0) if found.claim.below else (beyond > 0), found.claim.text
    assert len(claims()) > 30
