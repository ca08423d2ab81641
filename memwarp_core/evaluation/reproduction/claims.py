"""What the paper claims, each as a figure that can be computed from its tables and from ours alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from memwarp_core.evaluation.reproduction.bootstrap import Interval, interval
from memwarp_core.evaluation.reproduction.measure import Figures
from memwarp_core.evaluation.reproduction.rows import ANTICIPATION, DELTAS, Row, propagated, rows

Table = Mapping[str, Figures]
"""Figures by the names of systems."""
Verdict = Literal["holds", "does not hold", "cannot be tested here"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
UNTESTED: Verdict = "cannot be tested here"
NOT_TRAINED = "not trained"
"""The reason, where weights are missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A sentence of the paper and the figure that decides about it."""

    text: str
    section: str
    """Where the paper says so."""
    systems: Sequence[str] = ()
    """What the figure is computed from."""
    figure: Callable[[Table], np.ndarray] | None = None
    """None for what no figure here can tell."""
    unit: str = "points"
    border: float = 0.0
    """The claim is that the figure is above it, ..."""
    below: bool = False
    """... or below."""
    obstacle: str = ""
    """What would be needed, where no figure can tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What came of a claim."""

    claim: Claim
    verdict: Verdict
    paper: float | None
    """The claim's figure, computed from the paper's tables."""
    ours: Interval | None
    reason: str = ""
    """Why it cannot be tested."""


def find(claim: Claim, ours: Table, known: Mapping[str, Row]) -> Finding:
    """Hold a claim against what was measured.

    It holds if the whole 95 % interval of its figure is on the claimed side, does not hold if the whole interval is on
    the other side, and cannot be tested with these clips if both are in it.

    Args:
        ours: of the rows that are trained.
        known: all rows, for the paper's own figures.
    """
    if claim.figure is None:
        return Finding(claim=claim, verdict=UNTESTED, paper=None, ours=None, reason=claim.obstacle)
    paper = float(claim.figure({name: _of_the_paper(known[name]) for name in claim.systems})[0])
    missing = [name for name in claim.systems if name not in ours]
    if missing:
        weights = dict.fromkeys(model for name in missing for model in known[name].models)
        reason = f"{NOT_TRAINED}: {', '.join(weights)}"
        return Finding(claim=claim, verdict=UNTESTED, paper=paper, ours=None, reason=reason)
    figure = interval(claim.figure(ours))
    if not np.isfinite(figure.value):
        reason = "no clip has such objects, or the rows were not run in turns"
        return Finding(claim=claim, verdict=UNTESTED, paper=paper, ours=None, reason=reason)
    low, high = figure.low - claim.border, figure.high - claim.border
    if claim.below:
        low, high = -high, -low
    if low > 0:
        return Finding(claim=claim, verdict=HOLDS, paper=paper, ours=figure)
    if high < 0:
        return Finding(claim=claim, verdict=FAILS, paper=paper, ours=figure)
    return Finding(claim=claim, verdict=UNTESTED, paper=paper, ours=figure, reason="these clips are too few to tell")


def _of_the_paper(row: Row) -> Figures:
    speeds = {speed: np.array([row.paper.get(speed, np.nan)]) for speed in ("all", "fast", "medium", "slow")}
    return Figures(map=speeds, ms=np.array([row.paper.get("ms", np.nan)]), ap={})


# ----------------------------------------------------------------------------------------------------- kinds of claims


def _more_accurate(text: str, section: str, better: str, worse: str, *, by: float = 0.0) -> Claim:
    return Claim(
        text=text,
        section=section,
        systems=(better, worse),
        figure=lambda table: _map(table, better) - _map(table, worse),
        border=by,
    )


def _faster(text: str, section: str, fast: str, slow: str, *, by: float = 1.0) -> Claim:
    return Claim(
        text=text,
        section=section,
        systems=(fast, slow),
        figure=lambda table: table[slow].ms / table[fast].ms,
        unit="times",
        border=by,
    )


def _map(table: Table, system: str, speed: str = "all") -> np.ndarray:
    return table[system].map[speed]


# ----------------------------------------------------------------------------------------------------------- the claims

_RFCN, _MEMNET, _WEIGHTS, _CLOCKNET = "rfcn-tiny", "memnet-tiny-6", "memnet-tiny-6-wgts", "clocknet-tiny"
_FGFA, _CAUSAL = "fgfa-tiny", "causal-fgfa-tiny"
_FAST, _PAIR, _PAIR_BOXES = "rfcn-nano", "rfcn-nano+clocknet-tiny-featprop", "rfcn-nano+clocknet-tiny-boxprop"
_HELPER = "clocknet-tiny-featprop-4"


def claims() -> list[Claim]:
    """In the order of the paper."""
    return [*_detection(), *_propagation(), *_anticipation(), *_fast_and_strong(), *_supplement()]


def _detection() -> list[Claim]:
    def gain_for(table: Table, speed: str) -> np.ndarray:
        return _map(table, _CLOCKNET, speed) - _map(table, _RFCN, speed)

    return [
        _more_accurate("MemNet improves over the per-frame detector", "5.1", _MEMNET, _RFCN),
        _more_accurate("ClockNet improves over the per-frame detector", "5.1", _CLOCKNET, _RFCN),
        _more_accurate("FGFA, which sees the future, improves over the per-frame detector", "5.1", _FGFA, _RFCN),
        _more_accurate("Causal FGFA improves over the per-frame detector", "5.1", _CAUSAL, _RFCN),
        _more_accurate("FGFA is the most accurate, ahead of ClockNet", "5.1", _FGFA, _CLOCKNET),
        _more_accurate("ClockNet is the best causal system, ahead of causal FGFA", "5.1", _CLOCKNET, _CAUSAL),
        _more_accurate("... and ahead of MemNet: several time scales help", "5.1", _CLOCKNET, _MEMNET),
        Claim(
            text="ClockNet is particularly strong for fast objects: it gains more for them than for slow ones",
            section="5.1",
            systems=(_CLOCKNET, _RFCN),
            figure=lambda table: gain_for(table, "fast") - gain_for(table, "slow"),
        ),
        _more_accurate(
            "Composing displacements costs causal FGFA accuracy", "5.1", _CAUSAL, "causal-fgfa-tiny-composed"
        ),
        _more_accurate("Half the resolution costs FGFA accuracy", "5.1", _FGFA, "fgfa-tiny-half"),
        _more_accurate("Training on longer sequences helps MemNet: 6 frames, not 3", "5.1", _MEMNET, "memnet-tiny-3"),
        _more_accurate("Learned weights improve MemNet a little", "5.1", _WEIGHTS, _MEMNET),
        _more_accurate(
            "Neighbouring frames matter: training MemNet with a stride of 4 is worse",
            "5.1",
            _MEMNET,
            "memnet-tiny-6-strd-4",
        ),
        _more_accurate("... and so is one of 8", "5.1", _MEMNET, "memnet-tiny-6-strd-8"),
        _faster("MemNet takes less time than ClockNet", "5.1", _MEMNET, _CLOCKNET),
        _faster("ClockNet takes less time than causal FGFA", "5.1", _CLOCKNET, _CAUSAL),
        _faster("Causal FGFA takes less time than FGFA", "5.1", _CAUSAL, _FGFA),
        _faster("MemNet is more than twice as fast as FGFA (the abstract: 2.3 times)", "1", _MEMNET, _FGFA, by=2.0),
        Claim(
            text="Accuracy drops if the displacement is not trained along",
            section="5.1",
            obstacle="needs weights that were trained beside a fixed displacement",
        ),
    ]


def _propagation() -> list[Claim]:
    names = {_MEMNET: "MemNet", _CLOCKNET: "ClockNet"}
    over_boxes = [
        _more_accurate(
            f"Propagating {name}'s features is better than propagating its boxes, δ = {delta}",
            "5.2",
            propagated(system, "featprop", delta),
            propagated(system, "boxprop", delta),
        )
        for system, name in names.items()
        for delta in DELTAS
    ]
    faster = [
        _faster(
            f"Propagating {name}'s features in 7 of 8 frames saves time",
            "5.2",
            propagated(system, "featprop", 8),
            system,
        )
        for system, name in names.items()
    ]

    def lead(table: Table, delta: int) -> np.ndarray:
        clocknet, memnet = (propagated(system, "featprop", delta) for system in (_CLOCKNET, _MEMNET))
        return _map(table, clocknet) - _map(table, memnet)

    return [
        *over_boxes,
        Claim(
            text="ClockNet's lead over MemNet grows with the length of propagation (δ = 8 against 0)",
            section="5.2",
            systems=[propagated(system, "featprop", delta) for system in names for delta in (0, 8)],
            figure=lambda table: lead(table, 8) - lead(table, 0),
        ),
        *faster,
    ]


def _anticipation() -> list[Claim]:
    def lost(table: Table, system: str) -> np.ndarray:
        """What anticipation is behind propagation, at delta 4."""
        return _map(table, propagated(system, "featprop", 4)) - _map(table, propagated(system, ANTICIPATION, 4))

    of = {system: [propagated(system, way, 4) for way in ("featprop", ANTICIPATION)] for system in (_MEMNET, _CLOCKNET)}
    return [
        Claim(
            text="Extrapolated displacements work well for MemNet: less than 1 point behind measured ones, δ = 4",
            section="5.2",
            systems=of[_MEMNET],
            figure=lambda table: lost(table, _MEMNET),
            border=1.0,
            below=True,
        ),
        Claim(
            text="... and less well for ClockNet, which loses more by them",
            section="5.2",
            systems=[*of[_MEMNET], *of[_CLOCKNET]],
            figure=lambda table: lost(table, _CLOCKNET) - lost(table, _MEMNET),
        ),
        _more_accurate(
            "ClockNet anticipates better than MemNet over long distances, δ = 8",
            "S4",
            propagated(_CLOCKNET, ANTICIPATION, 8),
            propagated(_MEMNET, ANTICIPATION, 8),
        ),
    ]


def _fast_and_strong() -> list[Claim]:
    return [
        _more_accurate("The strong detector is more accurate than the fast one", "5.3", _CLOCKNET, _FAST),
        _faster("... and slower", "5.3", _FAST, _CLOCKNET),
        _more_accurate("Strong features, propagated over their lag, improve the fast detector", "5.3", _PAIR, _FAST),
        _more_accurate("... by more than 10 points", "5.3", _PAIR, _FAST, by=10.0),
        _more_accurate("... and more than strong boxes, propagated, do", "5.3", _PAIR, _PAIR_BOXES),
        _more_accurate("Splitting the image costs the fast detector accuracy", "5.3", _FAST, "rfcn-nano-split"),
        _more_accurate("... and the strong one as well", "5.3", _CLOCKNET, "clocknet-tiny-split"),
        _more_accurate("Evidence in every 4th frame costs ClockNet accuracy", "5.3", _CLOCKNET, _HELPER),
        Claim(
            text="The pair runs at the fast detector's rate",
            section="5.3",
            obstacle="needs two devices; here both detectors take turns on one",
        ),
    ]


def _supplement() -> list[Claim]:
    average, weights = "memnet-nano-half-average", "memnet-nano-half-weights"
    return [
        Claim(
            text="Averaging is on par with learned weights: less than 1 point apart",
            section="S2",
            systems=(average, weights),
            figure=lambda table: np.abs(_map(table, average) - _map(table, weights)),
            border=1.0,
            below=True,
        ),
        _more_accurate(
            "A memory at conv5 is the best, ahead of conv4", "S2", "memnet-nano-half-conv5", "memnet-nano-half-conv4"
        ),
    ]


def findings(ours: Table) -> list[Finding]:
    """Every claim, held against what was measured."""
    known = rows()
    return [find(claim, ours, known) for claim in claims()]
