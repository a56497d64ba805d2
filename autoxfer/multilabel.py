r"""Several labels an example: the losses and the statistics of their metrics, with scikit-learn's values.

A label is decided for where its probability is at least one half. An example with a NaN among its probabilities gets
the worst answer throughout. Averages over labels are macro averages, as scikit-learn makes them for an indicator
matrix: every label counts, with F1 0 where it neither occurs nor is decided for, and average precision 0 where it never
occurs. Of the area under the ROC curve, which it does not define there, a label that is always or never true is left
out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoxfer.statistics import Statistic, area, over_columns, precision, ratio

Floats = NDArray[np.float64]
Labels = NDArray[Any]


def _wrong(predictions: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Say which labels of which examples are mistaken: (n, k)."""
    usable = np.isfinite(predictions).all(axis=1, keepdims=True)
    wrong: NDArray[np.bool_] = ((predictions >= 0.5) != (labels > 0)) | ~usable
    return wrong


def mistaken_shares(predictions: Floats, labels: Labels) -> Floats:
    """Give the share of its labels that is wrong of each example, whose mean is the Hamming loss: (n,)."""
    return np.asarray(_wrong(predictions, labels).mean(axis=1))


def mistakes(predictions: Floats, labels: Labels) -> Floats:
    """Give 1 to each example with any label wrong: (n,)."""
    return np.asarray(_wrong(predictions, labels).any(axis=1), np.float64)


def cross_entropies(predictions: Floats, labels: Labels) -> Floats:
    """Average the binary cross-entropy over the labels of each example: (n,)."""
    chosen = np.where(labels > 0, predictions, 1.0 - predictions)
    losses: Floats = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0)).mean(axis=1)
    return losses


def f1_losses(predictions: Floats, labels: Labels) -> Floats:
    """Give 1 - F1 of each example's own labels, 1 where it has none and none is decided for: (n,)."""
    true = labels > 0
    decided = true ^ _wrong(predictions, labels)
    hits, named = (true & decided).sum(axis=1), true.sum(axis=1) + decided.sum(axis=1)
    losses: Floats = 1.0 - 2 * hits / np.maximum(named, 1)
    return losses


def _tallies(answers: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weigh the right decisions for each label, and decisions and occurrences together: (B, k) each."""
    actual = labels.to(weights)
    return weights @ (actual * answers), weights @ (actual + answers)


def _f1_macro(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, named = _tallies(answers, labels, weights)
    return ratio(2 * hits, named).mean(dim=1)


def _f1_micro(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, named = _tallies(answers, labels, weights)
    return ratio(2 * hits.sum(dim=1), named.sum(dim=1))


def _columns(answers: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(answers.unbind(1), labels.unbind(1), strict=True))


def _auroc(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return over_columns(area, _columns(answers, labels), weights, otherwise=0.5)


def _average_precision(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return over_columns(precision, _columns(answers, labels), weights, otherwise=0.0, every=True)


AUROC = Statistic("AUROC", _auroc, decided=False)
AVERAGE_PRECISION = Statistic("average precision", _average_precision, decided=False)
F1_MACRO = Statistic("macro F1", _f1_macro, decided=True)
F1_MICRO = Statistic("micro F1", _f1_micro, decided=True)
