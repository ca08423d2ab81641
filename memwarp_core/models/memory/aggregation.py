"""How new evidence enters a warped memory (Eq. 2): the four ways that the paper compares (supplement, Table 2a)."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memwarp_core.models import config
from memwarp_core.models.parts import Levels


class Aggregate(nn.Module):
    """One level's rule. A memory keeps and warps a *map*, which may hold more than the features that the head reads.

    Wherever evidence is withheld, the map is only warped.
    """

    def start(self, evidence: Tensor) -> Tensor:
        """The first frame's map: M_1 = F_1.

        Args:
            evidence: (B, C, H, W), F_t.
        Returns: (B, C', H, W).
        """
        return evidence

    def forward(self, memory: Tensor, evidence: Tensor) -> Tensor:
        """
        Args:
            memory: (B, C', H, W), the map of the frames before, warped to this one.
            evidence: (B, C, H, W), F_t.
        Returns: (B, C', H, W), the map of M_t.
        """
        raise NotImplementedError

    def read(self, memory: Tensor) -> Tensor:
        """(B, C', H, W) -> (B, C, H, W), the features in a map."""
        return memory


class Average(Aggregate):
    """The mean of the warped memory and the evidence (Eq. 3), so that old evidence decays exponentially."""

    def forward(self, memory: Tensor, evidence: Tensor) -> Tensor:
        return (memory + evidence) / 2


class LearnedWeights(Aggregate):
    """A weight per place from two small networks and a softmax between them (Eq. 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_memory = _score_network(channels, nn.ReLU(inplace=True))
        self.of_evidence = _score_network(channels, nn.ReLU(inplace=True))

    def forward(self, memory: Tensor, evidence: Tensor) -> Tensor:
        # The softmax of two values is the sigmoid of their difference.
        weight = torch.sigmoid(self.of_memory(memory) - self.of_evidence(evidence))
        return weight * memory + (1 - weight) * evidence


class AdaptiveWeights(Aggregate):
    """A weight per place and frame from the likeness of embeddings: flow-guided feature aggregation (Zhu et al. 2017).

    The embedding is the published one (1x1 to 512, 3x3 to 512, 1x1 to 2048 channels for features of 1024), and so are
    the weights: a softmax over the frames of the cosine between each embedding and the current frame's. Where a warped
    frame has nothing (zeros from outside the image), the cosine is zero, so it still weighs a little, as published.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 2
        self.embed = nn.Sequential(
            nn.Conv2d(channels, narrow, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, 2 * channels, 1),
        )

    def forward(self, memory: Tensor, evidence: Tensor) -> Tensor:
        embeddings = self.embed(torch.cat((evidence, memory))).chunk(2)
        return self.combine((evidence, memory), embeddings)

    def combine(self, maps: Sequence[Tensor], embeddings: Sequence[Tensor]) -> Tensor:
        """The weighted mean of any number of frames.

        Args:
            maps: (B, C, H, W) each, warped to the current frame; the first is what the others are compared with.
            embeddings: (B, 2C, H, W) each, of the same frames.
        Returns: (B, C, H, W).
        """
        weights = self.weights(embeddings).to(maps[0].dtype)
        weighted = [weight * of_frame for weight, of_frame in zip(weights, maps, strict=True)]
        return sum(weighted[1:], weighted[0])

    @staticmethod
    def weights(embeddings: Sequence[Tensor]) -> Tensor:
        """(frames, B, 1, H, W), adding up to 1 over the frames; the first embedding is the current frame's."""
        likeness = [F.cosine_similarity(one, embeddings[0], dim=1) for one in embeddings]
        return torch.stack(likeness).softmax(dim=0)[:, :, None]


class AdaScan(Aggregate):
    """A running mean, weighted by a predicted importance of each frame: adaptive scan pooling (Kar et al. 2016).

    With s in (0, 1) the importance of the evidence F and S the sum of the importances before,
    M_t = (S M + s F) / (S + s), where s is predicted from F - M by a network with tanh and a sigmoid behind it. Kar et
    al. do so for one vector per frame; here it happens at every place, with a 3x3 convolution.

    The sum belongs to the content of the memory and moves with it: it is the map's last channel. So a place that
    comes into view, where warping leaves zeros, takes its evidence as it is, and so does the first frame.

    Departure: Kar et al. pool short clips. In a stream without end the sum would grow until evidence no longer counts;
    here the memory never weighs more than MOST_IMPORTANCE frames, from where on old evidence decays exponentially.
    """

    MOST_IMPORTANCE = 10.0
    """What S counts for at most: as many frames as causal FGFA looks back."""
    LEAST_IMPORTANCE = 1e-3
    """What s is at least, so that S + s is never zero, in half precision either."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.importance = _score_network(channels, nn.Tanh())

    def start(self, evidence: Tensor) -> Tensor:
        """Returns: (B, C + 1, H, W); the memory before the first frame is empty, its importance zero."""
        return self(torch.zeros_like(evidence[:, :1]).expand(-1, evidence.shape[1] + 1, -1, -1), evidence)

    def forward(self, memory: Tensor, evidence: Tensor) -> Tensor:
        mean, before = memory[:, :-1], memory[:, -1:]
        before = before.clamp(0, self.MOST_IMPORTANCE)
        importance = torch.sigmoid(self.importance(evidence - mean)).clamp(min=self.LEAST_IMPORTANCE)
        total = before + importance
        mean = mean + importance / total * (evidence - mean)
        return torch.cat((mean, total.to(mean.dtype)), dim=1)

    def read(self, memory: Tensor) -> Tensor:
        return memory[:, :-1]


class AggregateLevels(nn.ModuleList):
    """One rule per level of the memory, each with weights of its own."""

    def __init__(self, channels: Sequence[int], kind: config.Aggregation) -> None:
        """
        Args:
            channels: of each level.
        """
        super().__init__(_build(of_level, kind) for of_level in channels)

    def start(self, evidence: Levels) -> Levels:
        return tuple(rule.start(new) for rule, new in zip(self._rules, evidence, strict=True))

    def forward(self, memory: Levels, evidence: Levels) -> Levels:
        return tuple(rule(old, new) for rule, old, new in zip(self._rules, memory, evidence, strict=True))

    def read(self, memory: Levels) -> Levels:
        return tuple(rule.read(old) for rule, old in zip(self._rules, memory, strict=True))

    @property
    def _rules(self) -> Iterable[Aggregate]:
        return cast(Iterable[Aggregate], self)


def _build(channels: int, kind: config.Aggregation) -> Aggregate:
    if kind == "average":
        return Average()
    if kind == "weights":
        return LearnedWeights(channels)
    if kind == "adaptive":
        return AdaptiveWeights(channels)
    return AdaScan(channels)


def _score_network(channels: int, activation: nn.Module) -> nn.Sequential:
    """(B, C, H, W) -> (B, 1, H, W); starts at zero, so that training starts from equal weights."""
    last = nn.Conv2d(32, 1, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), activation, last)
