"""The rows of the paper's tables: which system each is, whose weights fill it, and what the paper measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from memwarp_core.errors import ConfigError
from memwarp_core.models import Detector
from memwarp_core.models.systems import find_system
from memwarp_core.models.zoo import WEIGHTS_FOLDER, build_detector, load_weights

DELTAS = (4, 8)
"""The paper's lengths of propagation and anticipation, in frames."""
PER_FRAME = "rfcn-tiny"
"""The row that times are compared with."""
ANTICIPATION = "anticipation"
WAYS = ("boxprop", "featprop", ANTICIPATION)
"""How frames without evidence are detected in, as the names of systems have it."""
_ABLATIONS = "ablations"
"""The subfolder of weights that only rows of these tables use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A system of `memwarp models`, at the size that a CPU can train."""

    system: str
    weights: str
    """Name of the model whose weights fill it, all or those of the parts that it has."""
    strong_weights: str | None = None
    """Of the strong detector beside it, where that is another model's."""
    paper: Mapping[str, float]
    """What the paper measured at its size: mAP in percent of "all", "fast", "medium" and "slow" objects, and "ms" per
    frame; what it does not tell is left out."""

    @property
    def label(self) -> str:
        """What the paper calls it."""
        return find_system(self.system).row

    @property
    def models(self) -> list[str]:
        """Names of all models whose weights it needs."""
        return [self.weights, *([self.strong_weights] if self.strong_weights else [])]

    def is_trained(self, folder: Path = WEIGHTS_FOLDER) -> bool:
        """Whether all weights that it needs are in this folder."""
        return all((folder / f"{name}.safetensors").is_file() for name in self.models)

    def build(self, folder: Path = WEIGHTS_FOLDER) -> Detector:
        """The system with its weights, in eval mode on the CPU.

        Raises: ConfigError if the weights are of another system.
        """
        detector = build_detector(find_system(self.system).config)
        found = self._find_weights(folder)
        expected = detector.state_dict()
        unfit = [key for key, value in expected.items() if key not in found or found[key].shape != value.shape]
        if unfit:
            raise ConfigError(
                f"{' and '.join(self.models)}: expected the weights of {self.system}, got others; {len(unfit)} of "
                f"its {len(expected)} tensors are missing or of another shape, such as {unfit[0]}."
            )
        detector.load_state_dict({key: found[key] for key in expected})
        return detector.eval()

    def _find_weights(self, folder: Path) -> dict[str, Tensor]:
        found: dict[str, Tensor] = load_weights(folder / f"{self.weights}.safetensors").state_dict()
        if self.strong_weights is not None:
            strong = load_weights(folder / f"{self.strong_weights}.safetensors").state_dict()
            found |= {f"strong.{key}": value for key, value in strong.items()}
        return found


def propagated(system: str, way: str, delta: int) -> str:
    """The name of a system of Table 2."""
    return f"{system}-{way}-{delta}" if delta else system


def rows() -> dict[str, Row]:
    """All rows by the names of their systems."""
    return {row.system: row for table in (_table_1(), _table_2(), _table_3(), _supplement_2()) for row in table}


def _table_1() -> Iterator[Row]:
    def row(system: str, weights: str, all: float, fast: float, medium: float, slow: float, ms: float) -> Row:
        paper = {"all": all, "fast": fast, "medium": medium, "slow": slow, "ms": ms}
        return Row(system=system, weights=weights, paper=paper)

    yield row("rfcn-tiny", "rfcn-tiny", 73.4, 51.4, 71.6, 82.4, 108)
    yield row("fgfa-tiny", "fgfa-tiny", 76.2, 56.0, 75.2, 83.8, 286)
    yield row("fgfa-tiny-half", f"{_ABLATIONS}/fgfa-tiny-half", 66.7, 42.2, 66.1, 77.5, 152)
    yield row("causal-fgfa-tiny", "fgfa-tiny", 75.2, 53.9, 74.1, 83.8, 204)
    yield row("causal-fgfa-tiny-composed", "fgfa-tiny", 66.0, 40.0, 65.3, 79.3, 181)
    yield row("memnet-tiny-3", f"{_ABLATIONS}/memnet-tiny-3", 74.3, 51.9, 72.5, 83.6, 122)
    yield row("memnet-tiny-6", "memnet-tiny", 75.1, 53.8, 73.5, 83.3, 122)
    yield row("memnet-tiny-6-wgts", "memnet-wgts-tiny", 75.3, 51.8, 73.6, 83.8, 124)
    yield row("memnet-tiny-6-strd-4", f"{_ABLATIONS}/memnet-tiny-6-strd-4", 74.4, 51.7, 72.4, 84.2, 122)
    yield row("memnet-tiny-6-strd-8", f"{_ABLATIONS}/memnet-tiny-6-strd-8", 74.2, 51.6, 72.6, 82.7, 122)
    yield row("clocknet-tiny", "clocknet-tiny", 75.6, 55.4, 73.7, 83.4, 169)


def _table_2() -> Iterator[Row]:
    # mAP and frames per second at delta 4 and 8.
    paper = {
        ("memnet-tiny-6", "boxprop"): ((64.6, 14.7), (55.4, 16.9)),
        ("clocknet-tiny", "boxprop"): ((64.9, 12.5), (56.2, 15.3)),
        ("memnet-tiny-6", "featprop"): ((68.9, 14), (56.1, 16)),
        ("clocknet-tiny", "featprop"): ((70.9, 6.6), (62.3, 8.3)),
        ("memnet-tiny-6", ANTICIPATION): ((68.8, 5.1), (55.9, 8.7)),
        ("clocknet-tiny", ANTICIPATION): ((67.0, 2.5), (57.3, 3.4)),
    }
    weights = {"memnet-tiny-6": "memnet-tiny", "clocknet-tiny": "clocknet-tiny"}
    for (system, way), measured in paper.items():
        for delta, (accuracy, fps) in zip(DELTAS, measured, strict=True):
            yield Row(
                system=propagated(system, way, delta),
                weights=weights[system],
                paper={"all": accuracy, "ms": 1000 / fps},
            )


def _table_3() -> Iterator[Row]:
    def row(system: str, weights: str, all: float, fps: float, strong_weights: str | None = None) -> Row:
        return Row(system=system, weights=weights, strong_weights=strong_weights, paper={"all": all, "ms": 1000 / fps})

    yield row("rfcn-nano", "rfcn-nano", 60.2, 14.3)
    yield row("rfcn-nano-split", "rfcn-nano", 21.7, 28.6)
    yield row("clocknet-tiny-split", "clocknet-tiny", 28.9, 11.8)
    yield row("clocknet-tiny-featprop-4-split", "clocknet-tiny", 23.3, 13.2)
    yield row("rfcn-nano+clocknet-tiny-boxprop", "rfcn-nano", 66.9, 14.3, strong_weights="clocknet-tiny")
    pair = "rfcn-nano+clocknet-tiny-featprop"
    yield row(pair, pair, 71.9, 14.3)


def _supplement_2() -> Iterator[Row]:
    paper = {"average": 66.4, "weights": 66.4, "adaptive": 66.4, "adascan": 66.2}
    paper |= {"conv3": 66.0, "conv4": 66.0, "conv4+conv5": 66.2, "conv5": 66.4}
    for variant, accuracy in paper.items():
        # What is averaged at conv5 is in both tables.
        weights = "average" if variant == "conv5" else variant
        yield Row(
            system=f"memnet-nano-half-{variant}",
            weights=f"{_ABLATIONS}/memnet-nano-half-{weights}",
            paper={"all": accuracy},
        )
