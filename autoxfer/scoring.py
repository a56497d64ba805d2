"""How a candidate is scored on a split: outputs turned into predictions, predictions held against labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from autoxfer import multilabel
from autoxfer.records import Score

if TYPE_CHECKING:
    from autoxfer.metrics import Metric


Scale = float | NDArray[np.float64]  # of a regression's labels: a number, or one for each output (k,)


@dataclass(frozen=True)
class Target:
    """Labels of one split, and how predictions are measured against them."""

    labels: NDArray[Any]  # (n,) class index, or values in their own units; (n, k) several labels 0/1, or values
    metric: Metric
    # Predictions are spread * output + center: of numbers the train split's; of classes and labels the center is what
    # is added to their logits, so that those that are few count as much.
    center: Scale = 0.0
    spread: Scale = 1.0


@dataclass(frozen=True)
class Choice:
    """What a trial chose on its tune split, in place of that split where it is trained on too."""

    # Share of the steps at which the kept checkpoint stood, of several runs one each; None = not trained by gradient.
    kept: float | Sequence[float] | None = None
    chosen: Any = None  # label of the state that was kept among several

    @classmethod
    def of(cls, notes: Mapping[str, Any]) -> Choice:
        """Read it from what a trial reported."""
        return cls(notes.get("kept"), notes.get("chosen"))


UNKNOWN = Score(math.nan, math.nan, math.nan)  # of a candidate that no split is left to score on


@dataclass
class Clock:
    """Where a trial's time went; a check on the tune split waits for the device, so that the steps' share is true."""

    steps_s: float = 0.0
    n_steps: int = 0
    scores_s: float = 0.0
    n_scores: int = 0


def probabilities(outputs: Tensor, target: Target) -> NDArray[np.float64]:
    """Turn a module's outputs into what metrics take: (n, classes) probabilities, or (n,) in the label's units.

    Of several labels probabilities of each by itself, (n, k), and of several numbers (n, k) in their units.
    """
    if target.labels.ndim == 1 and target.metric.task == "regression":
        outputs = outputs[:, 0]
    found = torch.from_numpy(outputs.double().cpu().numpy() * target.spread + target.center)
    if target.metric.task == "classification":
        return functional.softmax(found, dim=1).numpy()
    return (found.sigmoid() if target.metric.task == "multilabel" else found).numpy()


def measure(predictions: NDArray[np.float64], target: Target) -> Score:
    """Score predictions; the loss is mean cross-entropy, or the mean squared error in the label's units.

    Of several numbers it is the mean over them in units of the train split's deviation: theirs may differ.
    """
    value = target.metric.value(predictions, target.labels)
    if target.metric.task == "classification":
        picked = predictions[np.arange(len(predictions)), target.labels]
        loss = -np.log(np.clip(picked, 1e-12, None)).mean()
    elif target.metric.task == "multilabel":
        loss = multilabel.cross_entropies(predictions, target.labels).mean()
    elif target.labels.ndim == 2:
        loss = np.square((predictions - target.labels) / target.spread).mean()
    else:
        loss = np.square(predictions - target.labels).mean()
    return Score(float(value), float(target.metric.rank(value)), float(loss))


N_RESAMPLES = 100
MOST = 2000  # examples in a resample: the error of more is the same but for the square root of their number


def standard_error(
    predictions: NDArray[np.float64],  # (n, classes) or (n,)
    target: Target,
    groups: NDArray[np.int64] | None,  # (n,) which examples belong together; None = each stands alone
    rng: np.random.Generator,
) -> float:
    """Estimate how far a score would vary from one such split to another, by bootstrap; infinite where that fails.

    Any metric will do. One within [0, 1] has at least the binomial error of two more right and two more wrong: a few
    examples that are all right do not mean that nothing can go wrong.
    """
    labels = target.labels
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(np.bincount(units))[:-1])
    n = len(members)
    values = []
    for _ in range(N_RESAMPLES):
        rows = np.concatenate([members[unit] for unit in rng.integers(n, size=min(n, MOST))])
        with suppress(ValueError):  # a class may be missing
            values.append(target.metric.value(predictions[rows], labels[rows]))
    values = [value for value in values if math.isfinite(value)]
    if len(values) < N_RESAMPLES // 2:
        return math.inf
    error = float(np.std(values, ddof=1)) * math.sqrt(min(n, MOST) / n)
    if not target.metric.bounded:
        return error
    share = (min(max(target.metric.value(predictions, labels), 0.0), 1.0) * n + 2) / (n + 4)
    return max(error, math.sqrt(share * (1 - share) / n))
