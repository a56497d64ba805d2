"""The target's labels as the diagnostics need them: as classes or numbers, as columns, and with their metric."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from autoxfer.diagnostics.crossfit import Folds
from autoxfer.metrics import Metric

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Labels:
    """Labels of the train examples that are looked at."""

    values: NDArray[Any]  # (n,) class indices, or numbers in their own units
    classes: tuple[str, ...]  # empty: regression
    metric: Metric
    fold: Folds  # (n,)

    @cached_property
    def columns(self) -> Floats:
        """Give 0/1 columns (n, classes), or the standardised number (n, 1)."""
        if self.classes:
            return np.asarray(np.eye(len(self.classes))[self.values])
        return np.asarray((self.values.astype(np.float64) - self.center) / self.spread)[:, None]

    @property
    def center(self) -> float:
        """Mean of the numbers."""
        return float(self.values.mean(dtype=np.float64))

    @property
    def spread(self) -> float:
        """Deviation of the numbers; 1 where they are all the same."""
        return float(self.values.std(dtype=np.float64)) or 1.0

    @property
    def variance(self) -> float:
        """Of the columns, summed."""
        return float(self.columns.var(0).sum())

    def score(self, predictions: Floats) -> float:
        """Compute the metric of (n, classes) probabilities, or of (n,) numbers in their own units."""
        return float(self.metric.value(predictions, self.values))

    def log_loss(self, probabilities: Floats) -> float:
        """Compute the mean log loss of (n, classes) probabilities."""
        return float(-np.log(probabilities[np.arange(len(self.values)), self.values]).mean())

    def chance(self) -> float:
        """Score the class frequencies, or the mean."""
        if self.classes:
            return self.score(np.broadcast_to(self.columns.mean(0), self.columns.shape).copy())
        return self.score(np.full(len(self.values), self.center))
