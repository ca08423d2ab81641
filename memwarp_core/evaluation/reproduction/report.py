"""Writes the report: the paper's numbers beside ours, its claims, the figures, and how to go on from there."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from memwarp_core.data.simulation.config import SimulationConfig
from memwarp_core.evaluation.reproduction.bootstrap import Interval, interval
from memwarp_core.evaluation.reproduction.claims import FAILS, HOLDS, NOT_TRAINED, UNTESTED, Claim, Finding
from memwarp_core.evaluation.reproduction.draw import (
    ANTICIPATION_CURVES,
    DISPLACEMENT,
    FILM,
    PROPAGATION_CURVES,
    TRADEOFF,
)
from memwarp_core.evaluation.reproduction.measure import Figures, Measured
from memwarp_core.evaluation.reproduction.rows import DELTAS, PER_FRAME, Row, propagated, rows
from memwarp_core.files import write_bytes_whole

_SPEEDS = ("all", "fast", "medium", "slow")
_NOTHING = "–"
_ENOUGH_CLIPS = 20
"""From about which number on bootstrap intervals of the clips can be believed."""

_TABLE_1 = (
    "rfcn-tiny",
    "fgfa-tiny",
    "fgfa-tiny-half",
    "causal-fgfa-tiny",
    "causal-fgfa-tiny-composed",
    "memnet-tiny-3",
    "memnet-tiny-6",
    "memnet-tiny-6-wgts",
    "memnet-tiny-6-strd-4",
    "memnet-tiny-6-strd-8",
    "clocknet-tiny",
)
_TABLE_2 = {"boxprop": "boxes propagated", "featprop": "features propagated", "anticipation": "features anticipated"}
_TABLE_3 = (
    "rfcn-nano",
    "clocknet-tiny",
    "clocknet-tiny-featprop-4",
    "rfcn-nano-split",
    "clocknet-tiny-split",
    "clocknet-tiny-featprop-4-split",
    "rfcn-nano+clocknet-tiny-boxprop",
    "rfcn-nano+clocknet-tiny-featprop",
)
_TABLE_3_LABELS = {"clocknet-tiny": "ClockNet-101", "clocknet-tiny-featprop-4": "ClockNet-101-FeatProp"}
_SUPPLEMENT_1 = {
    "rfcn-tiny": 73.6,  # as printed there, while Table 1 has 73.4
    "fgfa-tiny": 76.2,
    "causal-fgfa-tiny": 75.2,
    "memnet-tiny-6": 75.1,
    "clocknet-tiny": 75.6,
}
_SUPPLEMENT_2A = ("average", "weights", "adaptive", "adascan")
_SUPPLEMENT_2B = ("conv3", "conv4", "conv4+conv5", "conv5")


def write_report(
    path: Path, measured: Measured, found: Sequence[Finding], simulation: SimulationConfig, *, figures: str
) -> None:
    """Write the report as Markdown.

    Args:
        simulation: what the clips are.
        figures: the folder of the figures, beside the report.
    """
    ours, known = measured.figures, rows()
    parts = [
        _introduction(measured, found, simulation),
        _claims(found),
        _tables(ours, known),
        _figures(path.parent, figures),
        _REGENERATE.format(clips=simulation.clips),
        IMAGENET_VID,
    ]
    write_bytes_whole(path, "\n".join(part.strip() + "\n" for part in parts).encode())


_INTRODUCTION = """\
# The paper's results in small

<!-- written by `memwarp reproduce`; run it again instead of editing this file -->

What of "Memory Warps for Learning Long-Term Online Video Representations" can be seen again with small detectors on
simulated clips? Of {claims} claims **{hold} hold, {fail} do not hold, and {untested} cannot be tested here**,
{missing} of these for want of weights.

| | in the paper | here |
| --- | --- | --- |
| clips | ImageNet VID, 555 for validation | {clips} of {frames} frames, {width}x{height} at {rate} Hz, simulated |
| detectors | ResNet-101, FlowNet and R-FCN | a million parameters, R-FCN; displacements from early features |
| metric | ImageNet VID's mAP at IoU 0.5 | the same |
| time | an NVIDIA TITAN Xp | {device}; rows take turns, clip by clip, in one run |

The clips are those of seed {seed}, on which nothing was trained or chosen. {degraded:.0f} % of their frames have a
sensor fault, with a strength of up to {strength:g}, in bursts of 1 to 6: motion blur, defocus, noise, low light or
over-exposure. There a memory is worth more than on ImageNet VID, so look at the signs of effects, not at their sizes.

Intervals in brackets are 95 %, from {samples} bootstrap samples of the clips; rows are compared on the same samples.
A row whose weights do not ship is *{not_trained}*, and nothing else is put in its place.
"""


_TOO_FEW = """
**{clips} clips are too few for that: their intervals are too narrow, and this report only shows that all works.**
"""


def _introduction(measured: Measured, found: Sequence[Finding], simulation: SimulationConfig) -> str:
    verdicts = [finding.verdict for finding in found]
    text = _INTRODUCTION if simulation.clips >= _ENOUGH_CLIPS else _INTRODUCTION + _TOO_FEW
    return text.format(
        claims=len(found),
        hold=verdicts.count(HOLDS),
        fail=verdicts.count(FAILS),
        untested=verdicts.count(UNTESTED),
        missing=sum(finding.reason.startswith(NOT_TRAINED) for finding in found),
        clips=simulation.clips,
        frames=simulation.frames,
        width=simulation.width,
        height=simulation.height,
        rate=simulation.rate_hz,
        device=measured.device,
        seed=simulation.seed,
        degraded=100 * simulation.degraded_fraction,
        strength=simulation.fault_strength,
        samples=measured.samples,
        not_trained=NOT_TRAINED,
    )


_CLAIMS = """\
## Claims

Figures are differences of mAP in points, and for times their ratios (×). A claim *holds* if the whole interval is on
its side, *does not hold* if the whole interval is on the other one, and cannot be told by these clips in between.
"""


def _claims(found: Sequence[Finding]) -> str:
    lines = [_CLAIMS, *_header("claim", "section", "paper", "here", "verdict")]
    for finding in found:
        claim, ours = finding.claim, finding.ours
        paper = _NOTHING if finding.paper is None else _figure_of(claim, finding.paper)
        here = _NOTHING
        if ours is not None:
            value, low, high = (_figure_of(claim, figure) for figure in (ours.value, ours.low, ours.high))
            here = f"{value} [{low}, {high}]"
        verdict = f"{finding.verdict}: {finding.reason}" if finding.reason else f"**{finding.verdict}**"
        lines.append(_line(claim.text, claim.section, paper, here, verdict))
    return "\n".join(lines)


def _figure_of(claim: Claim, value: float) -> str:
    return f"{value:.2f}×" if claim.unit == "times" else f"{value:+.1f}"


def _tables(ours: Mapping[str, Figures], known: Mapping[str, Row]) -> str:
    return "\n".join(
        [
            *("## Tables", "", "Each cell has the paper's number, then ours."),
            *("", "### Table 1: accuracy and runtime", ""),
            *_header("method", "mAP", "fast", "medium", "slow", "ms per frame", "ratio to R-FCN"),
            *(_detection_line(known[name], ours.get(name), ours.get(PER_FRAME), known) for name in _TABLE_1),
            "",
            "Both kinds of causal FGFA run with FGFA's weights.",
            *("", "### Table 2: propagation and anticipation", ""),
            *_header("", *(f"mAP, δ = {delta}" for delta in (0, *DELTAS)), *(f"fps, δ = {d}" for d in (0, *DELTAS))),
            *_propagation_lines(ours, known),
            "",
            "δ = n means evidence in every n-th frame; all frames are scored.",
            *("", "### Table 3: a fast and a strong detector", ""),
            *_header("method", "mAP", "fps"),
            *(_pair_line(name, ours, known) for name in _TABLE_3),
            "",
            "The rates of image halves and of pairs are for two devices; here is one, so they are not measured.",
            *("", "### Supplement, Table 1: AP per class", ""),
            *_per_class_lines(ours, known),
            *("", "### Supplement, Table 2: MemNet at half resolution (here on the features of the fast detector)", ""),
            *_header("(a) aggregation", "mAP"),
            *(_ablation_line(variant, ours, known) for variant in _SUPPLEMENT_2A),
            "",
            *_header("(b) place of the memory", "mAP"),
            *(_ablation_line(variant, ours, known) for variant in _SUPPLEMENT_2B),
            "",
            "At full resolution, averaging and weighting are MemNet-6 and MemNet-6-wgts of Table 1.",
        ]
    )


def _detection_line(row: Row, ours: Figures | None, per_frame: Figures | None, known: Mapping[str, Row]) -> str:
    paper_ratio = row.paper["ms"] / known[PER_FRAME].paper["ms"]
    if ours is None:
        cells = [f"{row.paper[speed]:.1f} / {_NOTHING}" for speed in _SPEEDS[1:]]
        cells += [f"{row.paper['ms']:.0f} / {_NOTHING}", f"{paper_ratio:.2f} / {_NOTHING}"]
        return _line(row.label, f"{row.paper['all']:.1f} / {NOT_TRAINED}", *cells)
    ratio = _NOTHING if per_frame is None else _spread(interval(ours.ms / per_frame.ms), digits=2)
    return _line(
        row.label,
        *(f"{row.paper[speed]:.1f} / {_spread(interval(ours.map[speed]))}" for speed in _SPEEDS),
        f"{row.paper['ms']:.0f} / {_number(float(ours.ms[0]), digits=0)}",
        f"{paper_ratio:.2f} / {ratio}",
    )


def _propagation_lines(ours: Mapping[str, Figures], known: Mapping[str, Row]) -> Iterable[str]:
    for way, title in _TABLE_2.items():
        for system, name in (("memnet-tiny-6", "MemNet"), ("clocknet-tiny", "ClockNet")):
            names = [propagated(system, way, delta) for delta in (0, *DELTAS)]
            yield _line(
                f"{name}, {title}",
                *(_map_cell(known[row], ours.get(row)) for row in names),
                *(_fps_cell(known[row], ours.get(row)) for row in names),
            )


def _pair_line(name: str, ours: Mapping[str, Figures], known: Mapping[str, Row]) -> str:
    row = known[name]
    one_device = "split" not in name and "+" not in name
    return _line(
        _TABLE_3_LABELS.get(name, row.label),
        _map_cell(row, ours.get(name)),
        _fps_cell(row, ours.get(name) if one_device else None),
    )


def _per_class_lines(ours: Mapping[str, Figures], known: Mapping[str, Row]) -> Iterable[str]:
    trained = [name for name in _SUPPLEMENT_1 if name in ours]
    classes = list(ours[trained[0]].ap) if trained else []
    yield from _header("method", "mAP in the paper (30 classes)", "mAP here", *classes)
    for name, paper in _SUPPLEMENT_1.items():
        figures = ours.get(name)
        if figures is None:
            yield _line(known[name].label, f"{paper:.1f}", NOT_TRAINED, *[_NOTHING] * len(classes))
        else:
            per_class = (_NOTHING if ap is None else f"{ap:.1f}" for ap in figures.ap.values())
            yield _line(known[name].label, f"{paper:.1f}", f"{figures.map['all'][0]:.1f}", *per_class)


def _ablation_line(variant: str, ours: Mapping[str, Figures], known: Mapping[str, Row]) -> str:
    name = f"memnet-nano-half-{variant}"
    return _line(known[name].label, _map_cell(known[name], ours.get(name)))


def _map_cell(row: Row, ours: Figures | None) -> str:
    return f"{row.paper['all']:.1f} / {NOT_TRAINED if ours is None else _spread(interval(ours.map['all']))}"


def _fps_cell(row: Row, ours: Figures | None) -> str:
    measured = _NOTHING if ours is None else _number(1000 / float(ours.ms[0]))
    return f"{1000 / row.paper['ms']:.1f} / {measured}"


_FIGURES = {
    TRADEOFF: (
        "Figure 6: accuracy and runtime",
        "Bars are 95 % intervals of the accuracy, over clips that are of very different difficulty; the claims compare "
        "rows clip by clip, and can tell more.",
    ),
    FILM: (
        "Figures 7a and 7b: what is found in degraded frames",
        "The stretch of the clips in which the most kinds of faults follow a clean frame. Boxes with a score of 0.5 or "
        "more.",
    ),
    DISPLACEMENT: (
        "Figure 7c: displacement before and after joint training",
        "The pairs of clean frames in which objects move most. The hue says where a point was in the past frame, white "
        "is no motion. Before: learned from exact fields, beside the per-frame detector. After: trained end to end "
        "through MemNet's memory.",
    ),
    PROPAGATION_CURVES: (
        "Figure 7d: propagation",
        "Here: evidence in every 8th frame, and the mAP of the frames that are 0 to 7 frames behind it. In the paper: "
        "the mAP of all frames, with evidence in every δ-th.",
    ),
    ANTICIPATION_CURVES: (
        "Supplement, Figure 4: anticipation",
        "As above, but the frames in between are not looked at. Displacements are extrapolated from those between the "
        "frames that are, which lie 8 frames apart; a clip's first 8 frames have none yet.",
    ),
}


def _figures(folder: Path, name: str) -> str:
    lines = ["## Figures", ""]
    for file, (title, caption) in _FIGURES.items():
        if (folder / name / file).is_file():
            lines += [f"### {title}", "", f"![{title}]({name}/{file})", "", caption, ""]
        else:
            lines += [f"### {title}", "", f"Its rows are {NOT_TRAINED}.", ""]
    return "\n".join(lines)


_REGENERATE = """\
## How to make this again

```bash
memwarp reproduce --clips {clips} --output out/reproduction --report docs
```

It simulates the clips, runs every row whose weights ship, and writes this file and its figures. `--quick` does it with
4 short clips, to see that all works. Clips and detections are kept in the output folder: a run that was interrupted
goes on, and one with further weights adds their rows. `--weights FOLDER` takes models of one's own by the names of
those that [ship](../memwarp_core/models/weights/README.md), some of them in a subfolder `ablations`.
"""

IMAGENET_VID = """\
## ImageNet VID itself

Who has ILSVRC 2015 (VID, and DET's images) with the lists that FGFA publishes in `ImageSets/` gets the rows at the
paper's size with the commands below; `memwarp models` lists the systems. Start with the published weights: ResNet comes
from torchvision, and FlowNetS has to be brought as .safetensors
([flownet.py](../memwarp_core/models/displacement/flownet.py) says how it is converted). This is MemNet-6 with the
paper's schedule, `memnet-101-6.yaml`:

```yaml
detector: memnet-101-6
features_weights: IMAGENET1K_V1
displacement_weights: flownets.safetensors
stages:
  - name: end-to-end
    trains: memory
    epochs: 112              # of 500 steps: 2 epochs of FGFA's 111,473 images on 4 devices
    steps_per_epoch: 500
    batch_size: 1
    frames: 6
    optimizer: sgd           # a tenth of the rate after two thirds
    learning_rate: 1.0e-3
    weight_decay: 5.0e-4
    evidence_dropping: 0.8
```

```bash
memwarp train memnet-101-6.yaml --data ILSVRC2015 --output runs/memnet-101-6 --devices 4 --workers 4
memwarp evaluate ILSVRC2015/ImageSets/VID/VID_val_videos.txt --model runs/memnet-101-6/end-to-end.safetensors \\
  --propagation 8 --output out/memnet-101-6
```

`--propagation 8` is for Figure 7d and the propagation of Table 2; `--horizon 0.133 --horizon 0.267` anticipates 4 and 8
frames. The other models differ in the recipe's `detector`, and in what its stage says:

| row | detector | stage |
| --- | --- | --- |
| R-FCN, R-FCN-18 | rfcn-101, rfcn-18 | `trains: frames`, `frames: 2`, no dropping; above, no `displacement_weights` |
| FGFA, FGFA (half) | fgfa-101, fgfa-101-half | `frames: 3`, no dropping |
| MemNet-3, MemNet-6-wgts | memnet-101-3, memnet-101-6-wgts | `frames: 3`, `frames: 6` |
| MemNet-6-strd-4, -8 | memnet-101-6-strd-4, -8 | `temporal_stride` and `max_temporal_stride` 4 or 8 |
| ClockNet | clocknet-101 | the same |
| R-FCN-18+ClockNet-101-FeatProp | rfcn-18+clocknet-101-featprop | `trains: fast`, no dropping; above, \
`strong_weights: runs/clocknet-101/end-to-end.safetensors` |
| supplement, Table 2 | memnet-50-half-average, ... | the same |

The rest share the weights of these: causal FGFA, Table 2, image halves. Such a row gets a file of its own, to be
evaluated like the others:

```python
from pathlib import Path

from memwarp_core.models.systems import find_system
from memwarp_core.models.zoo import build_detector, load_weights, save_weights

detector = build_detector(find_system("clocknet-101-featprop-4").config)
detector.load_state_dict(load_weights("runs/clocknet-101/end-to-end.safetensors").state_dict())
save_weights(detector, Path("runs/clocknet-101-featprop-4.safetensors"))
```

Nobody has run these here: they need the data set and days of four GPUs.
"""


def _header(*titles: str) -> list[str]:
    return [_line(*titles), _line(*["---"] * len(titles))]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(value: Interval, digits: int = 1) -> str:
    if not np.isfinite(value.value):
        return _NOTHING
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _number(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else _NOTHING
