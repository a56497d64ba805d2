r"""Texts learned from scratch, from the ids of their words: a small network, and TF-IDF with a linear model.

TF-IDF as in Sparck Jones, "A statistical interpretation of term specificity and its application in retrieval", Journal
of Documentation 28, 1972, in the form that scikit-learn calls sublinear and smooth:

    x_t = (1 + ln c_t) * idf_t / norm,      idf_t = ln((1 + n) / (1 + d_t)) + 1

| symbol | meaning                                                        | shape              |
|--------|----------------------------------------------------------------|--------------------|
| t      | a term: a word, or two neighbouring words                      |                    |
| c_t    | how often the text holds it                                    | (batch, positions) |
| d_t, n | train texts that hold it, train texts                          | (terms,)           |
| norm   | length of the text's vector, so that long and short texts weigh alike | (batch, 1)  |

The vector itself is never made: a term that stands c_t times is met c_t times, with a share of 1 / c_t each.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from autoxfer.linear import kind_of
from autoxfer.strategy import Candidate, Fitted, Input, Raw, TrainData, Trainer
from autoxfer.tokens import PADDING, Vocabulary

STRENGTHS = tuple(float(10.0**k) for k in np.linspace(1, -3, 13))  # from strong to weak; scikit-learn's 1 / C
ABSENT = -20.0  # logit of a class, or of a label, that the train split does not hold


@final
class WordEncoder(nn.Module):
    """Word vectors, averaged, beside the strongest answers of a convolution over three words."""

    def __init__(self, n_words: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_words + 2, width, padding_idx=0)  # padding, unknown, the words
        self.convolution = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, words) -> (batch, 2 * width)."""
        vectors = self.vectors(ids.long() - PADDING)
        there = (ids != PADDING)[:, :, None].to(vectors.dtype)
        mean = vectors.sum(1) / there.sum(1).clamp(min=1.0)
        answers = self.convolution(vectors.transpose(1, 2)).relu().transpose(1, 2)
        return torch.cat([mean, (answers * there).amax(1)], 1)


@final
@dataclass(frozen=True)
class CompactText:
    """A WordEncoder with a linear head; word vectors are four times as wide as ``width``."""

    n_words: int
    width: int

    @property
    def input(self) -> Input:
        """It reads the ids of the target's own words."""
        return Raw()

    @property
    def n_parameters(self) -> int:
        """With one output."""
        with torch.device("meta"):  # counting must not draw from the random state
            return sum(parameter.numel() for parameter in self(1).parameters())

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Module:
        """Make a newly initialised network: children ``body`` and ``head``."""
        body, head = WordEncoder(self.n_words, 4 * self.width), nn.Linear(8 * self.width, n_outputs)
        return nn.Sequential(OrderedDict(body=body, dropout=nn.Dropout(dropout), head=head))


@final
@dataclass(frozen=True)
class TfIdf:
    """Logistic regression, or ridge regression, on the TF-IDF of words and of pairs of words."""

    vocabulary: Vocabulary = field(repr=False)

    @property
    def input(self) -> Input:
        """It reads the ids of the target's own words."""
        return Raw()

    @property
    def n_parameters(self) -> int:
        """With one output."""
        return len(self.vocabulary.words) + len(self.vocabulary.pairs) + 1

    def __call__(self, n_outputs: int, *, dropout: float = 0.0) -> nn.Module:
        """Make the model before it is solved; there is nothing that could be dropped out."""
        return LinearTerms(self.vocabulary, n_outputs)


@final
class LinearTerms(nn.Module):
    """A linear model on TF-IDF, solved for every strength of the penalty; the tune split chooses."""

    keys: Tensor  # (pairs,) of each pair of words, ascending
    idf: Tensor  # (terms + 1,); the last is 0, for all that is no term

    def __init__(self, vocabulary: Vocabulary, n_outputs: int) -> None:
        super().__init__()
        self.base = len(vocabulary.words) + 1  # a word's ids are below it
        n_terms = self.base - 1 + len(vocabulary.pairs)
        keys = [first * self.base + second for first, second in vocabulary.pairs]
        self.register_buffer("keys", torch.tensor([*keys, self.base**2], dtype=torch.int64))  # the last is never met
        self.register_buffer("idf", torch.zeros(n_terms + 1))
        self.weight = nn.Parameter(torch.zeros(n_terms + 1, n_outputs))
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def terms(self, ids: Tensor) -> Tensor:
        """Find what stands where: (batch, words) -> (batch, 2 * words - 1) indices of terms."""
        word, nothing = ids.long(), len(self.idf) - 1
        first, second = word[:, :-1].clamp(min=0), word[:, 1:].clamp(min=0)
        key = first * self.base + second
        place = torch.searchsorted(self.keys, key)
        pair = torch.where(self.keys[place] == key, self.base - 1 + place, nothing)
        return torch.cat([torch.where(word > 0, word - 1, nothing), pair], 1)

    def shares(self, terms: Tensor) -> Tensor:
        """Give each position's part of the text's vector, which is the sum over positions of one term."""
        count = (terms[:, :, None] == terms[:, None, :]).sum(2).to(self.idf.dtype)
        value = (1 + count.log()) * self.idf[terms]  # the entry that each position shares with its equals
        norm = (value.square() / count).sum(1, keepdim=True).sqrt()
        return value / count / norm.clamp(min=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, words) -> (batch, n_outputs)."""
        terms = self.terms(ids)
        return (self.weight[terms] * self.shares(terms)[:, :, None]).sum(1) + self.bias

    @torch.no_grad()
    def solve(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Count the terms of the train split, solve for every strength, let the tune split choose."""
        ids = data[candidate.inputs[0]]
        self.to(ids.device)
        weights = None if data.weights is None else data.weights.cpu().numpy()
        path = solve_path(self.count(ids), data.labels.cpu().numpy(), self.bias.shape[0], weights=weights)
        fitted = trainer.choose(candidate, ((s, {"weight": W, "bias": b}) for s, W, b in path))
        return replace(fitted, notes={**fitted.notes, "strength": fitted.notes["chosen"]})

    def count(self, ids: Tensor) -> Any:
        """Take the terms' weights from the train split's ids (n, words), and give its sparse matrix (n, terms)."""
        terms = torch.cat([self.terms(part) for part in torch.split(ids, 256)]).cpu()
        self.idf.copy_(_idf(terms, len(self.idf)))
        shares = torch.cat([self.shares(part.to(ids.device)).cpu() for part in torch.split(terms, 256)])
        return _matrix(terms, shares, len(self.idf))


def _idf(terms: Tensor, n_terms: int) -> Tensor:
    """Weigh the rare terms more: (n, positions) -> (n_terms,); the last stands for what is no term."""
    held = torch.zeros(n_terms, dtype=torch.float64)
    for row in terms:
        held[row.unique()] += 1
    idf = ((1 + len(terms)) / (1 + held)).log() + 1
    idf[-1] = 0.0
    return idf.float()


def _matrix(terms: Tensor, shares: Tensor, n_terms: int) -> Any:
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - heavy

    rows = np.repeat(np.arange(len(terms)), terms.shape[1])
    matrix = csr_matrix((shares.double().numpy().ravel(), (rows, terms.numpy().ravel())), (len(terms), n_terms))
    matrix.eliminate_zeros()
    return matrix


def solve_path(
    features: Any, labels: Any, n_outputs: int, strengths: Sequence[float] = STRENGTHS, *, weights: Any = None
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Solve sparse features (n, terms) from strong to weak: (strength, weights (terms, n_outputs), bias (n_outputs,)).

    Labels ask for logistic regression, of classes (n,) or of each of several labels (n, n_outputs) by itself, or for
    ridge regression, as in ``linear``; examples count by weights (n,).
    """
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415 - heavy

    kind = kind_of(torch.from_numpy(labels))
    models = [LogisticRegression(max_iter=300, warm_start=True) for _ in range(n_outputs if kind == "sigmoid" else 1)]
    for strength in strengths:
        if kind == "ridge":
            ridge = Ridge(alpha=strength).fit(features, labels if n_outputs > 1 else labels[:, 0], weights)
            coefficients, intercept = np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
        elif kind == "sigmoid":
            lines = [_line(model, strength, features, y, weights) for model, y in zip(models, labels.T, strict=True)]
            coefficients, intercept = (np.concatenate(parts) for parts in zip(*lines, strict=True))
        else:
            coefficients, intercept = _all_classes(_fitted(models[0], strength, features, labels, weights), n_outputs)
        yield strength, torch.from_numpy(coefficients.T).float(), torch.from_numpy(intercept).float()


def _fitted(model: Any, strength: float, features: Any, labels: Any, weights: Any) -> Any:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - heavy

    model.C = 1 / strength
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest penalties hardly matter
        return model.fit(features, labels, weights)


def _line(model: Any, strength: float, features: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
    """Fit one label's line, (1, terms) and (1,); it may be always or never true in the train split."""
    if labels.min() == labels.max():
        return np.zeros((1, features.shape[1])), np.array([-ABSENT if labels[0] else ABSENT])
    _fitted(model, strength, features, labels, weights)
    return model.coef_, model.intercept_


def _all_classes(model: Any, n_outputs: int) -> tuple[Any, Any]:
    """Give every class its line: two classes share one, and some may not stand in the train split."""
    coefficients, intercept = model.coef_, model.intercept_
    if len(coefficients) == 1:
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercept = np.concatenate([np.zeros(1), intercept])
    whole, bias = np.zeros((n_outputs, coefficients.shape[1])), np.full(n_outputs, ABSENT)
    whole[model.classes_], bias[model.classes_] = coefficients, intercept
    return whole, bias
