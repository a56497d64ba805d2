"""What learns a target task from scratch: the baseline's own networks, trees and linear models, the sources' own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, final

import torch
from torch import nn

from autoxfer.boosting import Boosting
from autoxfer.layout import ChannelsLast
from autoxfer.linear import linear_path
from autoxfer.mixednets import BoostingMixed, CompactMixed, Mixed, TfIdfMixed
from autoxfer.records import Modality
from autoxfer.strategy import Architecture, Candidate, Fitted, Input, Raw, TrainData, Trainer
from autoxfer.textnets import CompactText, TfIdf
from autoxfer.tokens import Vocabulary

if TYPE_CHECKING:
    from autoxfer.source import Source

WIDTHS = {"compact": 32, "compact_wide": 64}
SOLVED = ("boosting", "boosting_small", "linear", "tfidf")  # instead of trained by gradient
RESERVED = (*WIDTHS, *SOLVED)  # no source may be called so


@final
@dataclass(frozen=True)
class Compact:
    """Two or three convolutions with batch normalisation for images; two hidden layers for vectors and tables.

    ``width`` is the number of channels of the first convolution; hidden layers are four times as wide.
    """

    shape: tuple[int, ...]  # (channels, height, width) or (width,)
    width: int

    @property
    def input(self) -> Input:
        """It reads the target's own examples."""
        return Raw()

    @property
    def n_parameters(self) -> int:
        """With one output."""
        with torch.device("meta"):  # counting must not draw from the random state
            return sum(parameter.numel() for parameter in self(1).parameters())

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Module:
        """Make a newly initialised network: children ``body`` and ``head``."""
        body, n_features = self._images() if len(self.shape) == 3 else self._vectors()
        head = nn.Linear(n_features, n_outputs)
        return nn.Sequential(OrderedDict(body=body, dropout=nn.Dropout(dropout), head=head))

    def _images(self) -> tuple[nn.Sequential, int]:
        channels, height, width = self.shape
        layers: list[nn.Module] = []
        filters = self.width
        # Halve the picture until a 4 x 4 map is left; more channels as it gets smaller, at most four times the first.
        while True:
            layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
            channels, filters = filters, min(2 * filters, 4 * self.width)
            if min(height, width) < 8:
                break
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        side_h, side_w = min(height, 4), min(width, 4)
        layers += [nn.AdaptiveAvgPool2d((side_h, side_w)), nn.Flatten()]
        layers.insert(0 if self.shape[0] > 1 else 1, ChannelsLast())  # a single channel has no order
        return nn.Sequential(*layers), channels * side_h * side_w

    def _vectors(self) -> tuple[nn.Sequential, int]:
        hidden = 4 * self.width
        first, second = nn.Linear(prod(self.shape), hidden), nn.Linear(hidden, hidden)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU()), hidden


@final
@dataclass(frozen=True)
class Linear:
    """A linear model of the target's own examples, its penalty chosen on the tune split."""

    width: int

    @property
    def input(self) -> Input:
        """It reads the target's own examples."""
        return Raw()

    @property
    def n_parameters(self) -> int:
        """With one output."""
        return self.width + 1

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> LinearModel:
        """Make the model; ``dropout`` means nothing to it."""
        return LinearModel(self.width, n_outputs)


@final
class LinearModel(nn.Linear):
    """Ridge, softmax or sigmoid regression (strategy.Solvable)."""

    def solve(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Solve for a path of penalties and let the tune split choose."""
        data = data.sample(candidate.inputs[0])
        path = linear_path(data[candidate.inputs[0]], data.labels, self.out_features, weights=data.weights)
        return trainer.choose(candidate, ((s, {"weight": weight, "bias": bias}) for s, weight, bias in path))


def architectures(
    modality: Modality,
    shape: tuple[int, ...],
    sources: Sequence[Source],
    vocabulary: Vocabulary | None = None,  # of texts
    n_words: int = 0,  # ids of it that a mixed example begins with
    *,
    separate: bool = False,  # outputs are several labels, or several numbers
) -> Mapping[str, Architecture]:
    """Everything that can be trained from scratch for examples of ``shape``: what suits the modality, the sources' own.

    The first stands for the network of a size; all but its other sizes are tried before the search.
    """
    found: dict[str, Architecture] = {}
    if vocabulary is not None and modality == "mixed":
        mixed = Mixed(vocabulary, n_words, prod(shape) - n_words)
        found |= {name: CompactMixed(mixed, width) for name, width in WIDTHS.items()}
        found["tfidf"] = TfIdfMixed(mixed)
        trees = _boosting(mixed.n_columns, separate=separate)
        found |= {name: BoostingMixed(mixed, settings) for name, settings in trees.items()}
    elif vocabulary is not None:
        found |= {name: CompactText(len(vocabulary.words), width) for name, width in WIDTHS.items()}
        found["tfidf"] = TfIdf(vocabulary)
    else:
        found |= {name: Compact(shape, width) for name, width in WIDTHS.items()}
    if modality in ("table", "vector"):
        width = prod(shape)
        found |= {**_boosting(width, separate=separate), "linear": Linear(width)}
    found.update({source.name: source.architecture for source in sources})
    return found


def _boosting(width: int, *, separate: bool) -> dict[str, Boosting]:
    small = Boosting(width, n_leaves=4, min_leaf=3, penalty=1.0, learning_rate=0.05, columns=0.5, separate=separate)
    return {"boosting": Boosting(width, separate=separate), "boosting_small": small}
