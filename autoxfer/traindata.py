"""The train split as a strategy's ``fit`` sees it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from autoxfer.features import BATCH, resolve
from autoxfer.strategy import Input, Problem

if TYPE_CHECKING:
    from autoxfer.features import Features


@final
class TrainTensors:
    """The train split as a strategy sees it (strategy.TrainData)."""

    def __init__(
        self,
        features: Features,
        problem: Problem,
        labels: Tensor,
        center: Any = 0.0,
        spread: Any = 1.0,
        *,
        weights: Tensor | None = None,
    ) -> None:
        self._features = features
        self._problem = problem
        self._labels, self._weights = labels, weights
        self._scale = center, spread  # of a regression's labels: numbers, or one for each output
        self._rows: Tensor | None = None  # of the train split; None = all

    def __getitem__(self, name: Input) -> Tensor:
        found = resolve(name, self._problem)
        if self._rows is None:
            return self._features.whole(found, "train")
        return torch.cat([self._features.some(found, "train", part) for part in torch.split(self._rows, BATCH)])

    def sample(self, *names: Input) -> TrainTensors:
        """Restrict it to as many examples as memory bears in these inputs: all, unless the examples lie on disk."""
        rows = self._features.sampled([resolve(name, self._problem) for name in names], "train", self._labels)
        if rows is None:
            return self
        some = copy.copy(self)
        some._rows, some._labels = rows, self._labels[rows.to(self._labels.device)]
        if self._weights is not None:
            weights = self._weights[rows.to(self._weights.device)]
            some._weights = weights / weights.mean().clamp(min=1e-12)
        return some

    @property
    def labels(self) -> Tensor:
        """(n_train,) int64 classes, (n_train, k) float32 labels 0/1, or (n_train, outputs) float32 standardised."""
        return self._labels

    @property
    def weights(self) -> Tensor | None:
        """(n_train,) float32 of mean 1; None = all alike."""
        return self._weights

    @property
    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a regression's labels, (n_outputs,) each, by which they were standardised."""
        center, spread = (
            torch.as_tensor(values, dtype=torch.float32).reshape(-1).to(self._labels.device) for values in self._scale
        )
        return center, spread
