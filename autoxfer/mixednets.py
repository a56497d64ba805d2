r"""Texts beside columns learned from scratch: a small network, a linear model of both, trees that are told the text.

Each spans what would be learned from the texts or from the columns alone, so that the baseline is no weaker for having
both: the linear model weighs the columns by each of ``WEIGHTS`` (0: texts alone) and is tried without the texts too;
the trees are tried without the text's score.

| symbol | meaning                                                           | shape            |
|--------|-------------------------------------------------------------------|------------------|
| t      | TF-IDF of the text, of length 1                                   | (n, terms)       |
| z      | the columns, standardised                                         | (n, columns)     |
| s      | the text's score: a linear model of t, for training out of fold   | (n, outputs)     |

The linear model reads (t, weight * z), the trees (z, s): Wolpert, "Stacked generalization", Neural Networks 1992.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from autoxfer.axes import weighted_mean
from autoxfer.boosting import CHECKPOINTS, Boosting, Trees
from autoxfer.linear import kind_of, linear_path
from autoxfer.strategy import Candidate, Fitted, Input, Raw, TrainData, Trainer
from autoxfer.textnets import LinearTerms, WordEncoder, solve_path
from autoxfer.tokens import Vocabulary

WEIGHTS = (0.0, 0.1, 1.0)  # of the columns beside the text's vector of length 1
SCORED = (1.0, 0.1, 0.01)  # strengths that the text's score is chosen among, by its error out of fold
FOLDS = 4

State = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Mixed:
    """What is known of mixed examples: the words, how many ids come first, how many columns follow."""

    vocabulary: Vocabulary = field(repr=False)
    n_words: int
    n_columns: int

    def apart(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Divide Raw(), (batch, ids + columns): ids (batch, n_words) int32, columns (batch, n_columns)."""
        return raw[:, : self.n_words].to(torch.int32), raw[:, self.n_words :]


class _Reads(ABC):
    """Architectures of mixed examples read the target's own."""

    @property
    def input(self) -> Input:
        """It reads the target's own examples."""
        return Raw()

    @property
    def n_parameters(self) -> int:
        """With one output."""
        with torch.device("meta"):  # counting must not draw from the random state
            return sum(parameter.numel() for parameter in self(1).parameters())

    @abstractmethod
    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Module:
        """Make the module."""


@final
@dataclass(frozen=True)
class CompactMixed(_Reads):
    """A WordEncoder beside two hidden layers on the columns, and one linear head; hidden layers are 4 * ``width``."""

    mixed: Mixed
    width: int

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Module:
        """Make a newly initialised network: children ``body`` and ``head``."""
        body, head = MixedEncoder(self.mixed, 4 * self.width), nn.Linear(12 * self.width, n_outputs)
        return nn.Sequential(OrderedDict(body=body, dropout=nn.Dropout(dropout), head=head))


@final
class MixedEncoder(nn.Module):
    """Features of the text beside features of the columns."""

    def __init__(self, mixed: Mixed, width: int) -> None:
        super().__init__()
        self.mixed = mixed
        self.words = WordEncoder(len(mixed.vocabulary.words), width)
        first, second = nn.Linear(mixed.n_columns, width), nn.Linear(width, width)
        self.columns = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def forward(self, raw: Tensor) -> Tensor:
        """(batch, ids + columns) -> (batch, 3 * width)."""
        ids, columns = self.mixed.apart(raw)
        return torch.cat([self.words(ids), self.columns(columns)], 1)


@final
@dataclass(frozen=True)
class TfIdfMixed(_Reads):
    """Logistic regression, or ridge regression, on TF-IDF beside the columns."""

    mixed: Mixed

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> LinearMixed:
        """Make the model before it is solved; there is nothing that could be dropped out."""
        return LinearMixed(self.mixed, n_outputs)


@final
class LinearMixed(nn.Module):
    """A linear model on TF-IDF and columns, solved for every weight and strength; the tune split chooses (Solvable)."""

    def __init__(self, mixed: Mixed, n_outputs: int) -> None:
        super().__init__()
        self.mixed = mixed
        self.terms = LinearTerms(mixed.vocabulary, n_outputs)
        self.columns = nn.Linear(mixed.n_columns, n_outputs, bias=False)

    def forward(self, raw: Tensor) -> Tensor:
        """(batch, ids + columns) -> (batch, n_outputs)."""
        ids, columns = self.mixed.apart(raw)
        answer: Tensor = self.terms(ids) + self.columns(columns)
        return answer

    @torch.no_grad()
    def solve(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Count the terms of the train split, solve for every weight and strength, let the tune split choose."""
        raw = data[candidate.inputs[0]]
        self.to(raw.device)
        ids, columns = self.mixed.apart(raw)
        text = self.terms.count(ids)
        fitted = trainer.choose(candidate, self._states(text, columns, data))
        return replace(fitted, notes={**fitted.notes, **fitted.notes["chosen"]})

    def _states(self, text: Any, columns: Tensor, data: TrainData) -> Iterator[tuple[dict[str, Any], State]]:
        from scipy.sparse import csr_matrix, hstack  # noqa: PLC0415 - heavy

        labels, counts = _arrays(data)
        n_terms, n_outputs = text.shape[1], len(self.terms.bias)
        for weight in WEIGHTS:
            both = hstack([text, csr_matrix(weight * columns.cpu().double().numpy())]).tocsr() if weight else text
            for strength, found, bias in solve_path(both, labels, n_outputs, weights=counts):
                beside = weight * found[n_terms:].T if weight else torch.zeros_like(self.columns.weight)
                yield {"weight": weight, "strength": strength}, self._state(found[:n_terms], beside, bias)
        for strength, found, bias in linear_path(columns, data.labels, n_outputs, weights=data.weights):  # no text
            nothing = torch.zeros_like(self.terms.weight)
            yield {"weight": None, "strength": strength}, self._state(nothing, found, bias)

    def _state(self, terms: Tensor, columns: Tensor, bias: Tensor) -> State:
        return {"terms.weight": terms, "columns.weight": columns, "terms.bias": bias}


@final
@dataclass(frozen=True)
class BoostingMixed(_Reads):
    """Trees on the columns and, beside them, what a linear model makes of the text."""

    mixed: Mixed
    settings: Boosting  # for the columns alone

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> TreesMixed:
        """Make room for the trees; ``dropout`` means nothing to them."""
        return TreesMixed(self, n_outputs)


@final
class TreesMixed(nn.Module):
    """The text's score, and trees on the columns and it (Solvable)."""

    def __init__(self, architecture: BoostingMixed, n_outputs: int) -> None:
        super().__init__()
        self.mixed = architecture.mixed
        self.score = LinearTerms(self.mixed.vocabulary, n_outputs)
        self.trees = Trees(architecture.settings, n_outputs)

    def forward(self, raw: Tensor) -> Tensor:
        """(batch, ids + columns) -> (batch, n_outputs)."""
        ids, columns = self.mixed.apart(raw)
        answer: Tensor = self.trees(torch.cat([columns, self.score(ids)], 1))
        return answer

    @torch.no_grad()
    def solve(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Score the texts out of fold, boost with their scores and without; the tune split chooses when to stop."""
        raw = data[candidate.inputs[0]]
        self.to(raw.device)
        ids, columns = self.mixed.apart(raw)
        labels, weights = _arrays(data)
        scores = self._fit_score(self.score.count(ids), labels, weights)
        both = np.concatenate([columns.cpu().double().numpy(), scores], axis=1)
        try:
            return trainer.choose(candidate, self._states(both, labels, weights))
        finally:
            self.trees.counted = CHECKPOINTS[-1]

    def _states(
        self, both: NDArray[np.float64], labels: NDArray[Any], weights: NDArray[np.float32] | None
    ) -> Iterator[tuple[dict[str, Any], State]]:
        for name, x in (("with", both), ("without", both[:, : self.mixed.n_columns])):
            for found, state in self.trees.states(x, labels, weights):
                yield {**found, "text": name}, {f"trees.{key}": value for key, value in state.items()}

    def _fit_score(self, text: Any, labels: NDArray[Any], weights: NDArray[np.float32] | None) -> NDArray[np.float64]:
        """Fit the text's score to all train examples; give what it says of each when fitted to the others."""
        n_outputs = len(self.score.bias)
        fold = torch.randperm(len(labels)).numpy() % FOLDS  # the trial's random state
        held_out = np.empty((len(SCORED), len(labels), n_outputs))
        for number in range(FOLDS):
            rest, here = fold != number, fold == number
            counts = None if weights is None else weights[rest]
            path = solve_path(text[rest], labels[rest], n_outputs, SCORED, weights=counts)
            for k, (_, weight, bias) in enumerate(path):
                held_out[k, here] = text[here] @ weight.double().numpy() + bias.double().numpy()
        best = int(np.argmin([_loss(scores, labels, weights) for scores in held_out]))
        *_, (_, weight, bias) = solve_path(text, labels, n_outputs, SCORED[: best + 1], weights=weights)
        self.score.weight.copy_(weight)
        self.score.bias.copy_(bias)
        chosen: NDArray[np.float64] = held_out[best]
        return chosen


def _arrays(data: TrainData) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Give labels and weights as scikit-learn takes them."""
    return data.labels.cpu().numpy(), None if data.weights is None else data.weights.cpu().numpy()


def _loss(scores: NDArray[np.float64], labels: NDArray[Any], weights: NDArray[np.float32] | None) -> float:
    """Mean log loss of logits (n, classes or labels), or mean squared error of predictions (n, outputs)."""
    kind, given = kind_of(torch.from_numpy(labels)), torch.from_numpy(scores)
    if kind == "sigmoid":
        truth = torch.from_numpy(labels.astype(np.float64))
        losses = functional.binary_cross_entropy_with_logits(given, truth, reduction="none")
    elif kind == "ridge":
        losses = (given - torch.from_numpy(labels.reshape(len(labels), -1))).square()
    else:
        losses = functional.cross_entropy(given, torch.from_numpy(labels), reduction="none")[:, None]
    return float(losses.mean() if weights is None else weighted_mean(losses, torch.from_numpy(weights)).mean())
