"""The target's labels as the diagnostics need them: as classes or numbers, as columns, and with their metric."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from autoxfer.diagnostics.crossfit import Folds
from autoxfer.diagnostics.gain import class_entropy
from autoxfer.metrics import Metric
from autoxfer.multilabel import cross_entropies
from autoxfer.records import Task

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Labels:
    """Labels of the train examples that are looked at."""

    values: NDArray[Any]  # (n,) class indices, or numbers in their own units; (n, k) several labels 0/1, or numbers
    classes: tuple[str, ...]  # or names of labels; empty: regression
    metric: Metric
    fold: Folds  # (n,)

    @property
    def task(self) -> Task:
        """What the labels are, which the metric knows."""
        return self.metric.task

    @cached_property
    def columns(self) -> Floats:
        """Give 0/1 columns (n, classes or labels), or the standardised numbers (n, outputs)."""
        if self.task == "classification":
            return np.asarray(np.eye(len(self.classes))[self.values])
        values = self.values.reshape(len(self.values), -1).astype(np.float64)
        return values if self.task == "multilabel" else np.asarray((values - self.center) / self.spread)

    @cached_property
    def center(self) -> Floats:
        """Mean of each number: (outputs,)."""
        return np.atleast_1d(self.values.mean(axis=0, dtype=np.float64))

    @cached_property
    def spread(self) -> Floats:
        """Deviation of each number, 1 where it is always the same: (outputs,)."""
        found = np.atleast_1d(self.values.std(axis=0, dtype=np.float64))
        return np.where(found > 0, found, 1.0)

    def numbers(self, standardised: Floats) -> Floats:
        """Turn columns (n, outputs) into what the metric takes: (n,) numbers in their own units, or (n, outputs)."""
        return np.asarray((standardised * self.spread + self.center).reshape(self.values.shape))

    @property
    def variance(self) -> float:
        """Of the columns, summed."""
        return float(self.columns.var(0).sum())

    def score(self, predictions: Floats) -> float:
        """Compute the metric of predictions, as it takes them."""
        return float(self.metric.value(predictions, self.values))

    def log_loss(self, probabilities: Floats) -> float:
        """Compute the mean log loss of (n, classes or labels) probabilities."""
        if self.task == "multilabel":
            return float(cross_entropies(probabilities, self.values).mean())
        return float(-np.log(probabilities[np.arange(len(self.values)), self.values]).mean())

    def chance(self) -> float:
        """Score the frequencies of classes or labels, or the mean."""
        if self.classes:
            return self.score(np.broadcast_to(self.columns.mean(0), self.columns.shape).copy())
        return self.score(self.numbers(np.zeros_like(self.columns)))

    def entropy(self) -> float:
        """Compute the log loss of the frequencies of classes, or the mean of those of labels."""
        if self.task == "classification":
            return class_entropy(self.values)
        shares = self.columns.mean(0)
        return float(cross_entropies(np.broadcast_to(shares, self.columns.shape), self.values).mean())
