"""Linear probes that answer each example from the others: folds, softmax regression, ridge regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from autoxfer.axes import principal_axes
from autoxfer.linear import ridge_path, sigmoid_path, softmax_path, strength_grid

Floats = NDArray[np.float64]
Folds = NDArray[np.int64]

N_FOLDS = 5
N_STRENGTHS = 7


def stratified(labels: NDArray[Any], rng: np.random.Generator, n_folds: int = N_FOLDS) -> Folds:
    """Deal examples into folds (n,), each class (or each stretch of a number) evenly. Raises ValueError for one.

    Of several labels (n, k) each set of them, of several numbers each stretch of their standardised sum.
    """
    n = len(labels)
    if n < 2:
        raise ValueError(f"folds need 2 examples or more; got {n}")
    if labels.ndim == 2:
        labels = _one_number(labels)
    mixed = rng.permutation(n)
    order = mixed[np.argsort(labels[mixed], kind="stable")]
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % min(n_folds, n)
    return fold


def _one_number(labels: NDArray[Any]) -> NDArray[Any]:
    if ((labels == 0) | (labels == 1)).all():
        return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    spread = labels.std(axis=0)
    return np.asarray((labels / np.where(spread > 0, spread, 1.0)).sum(axis=1))


def probabilities_out_of_fold(features: Floats, labels: NDArray[Any], n_classes: int | None, fold: Folds) -> Floats:
    """Give every example the probabilities (n, classes) of softmax regression on the other folds.

    Without a number of classes labels are several for each example, (n, k) 0/1, and every one gets a logistic
    regression: (n, k). One strength for all folds, that of the lowest log loss. As much weight as one example's is
    given to the frequencies of classes or labels: nobody can be surer than that after so many examples.
    """
    X, folds = torch.from_numpy(features).float(), torch.from_numpy(fold)
    y = torch.from_numpy(np.asarray(labels, dtype=np.int64 if n_classes else np.float32))
    columns = functional.one_hot(y, n_classes) if n_classes else y  # 0/1: (n, q)
    strengths = strength_grid(X, N_STRENGTHS)
    found = torch.empty(len(strengths), *columns.shape, dtype=torch.float64)
    for held_out in range(int(fold.max()) + 1):
        here = folds == held_out
        budget: dict[str, Any] = {"tolerance": 1e-5, "max_iterations": 100}
        if n_classes:
            weights, biases = softmax_path(X[~here], y[~here], n_classes, strengths, **budget)
        else:
            weights, biases = sigmoid_path(X[~here], y[~here], strengths, **budget)
        logits = X[here].double() @ weights + biases[:, None]
        answers = logits.softmax(2) if n_classes else logits.sigmoid()
        n = int((~here).sum())
        common = columns[~here].double().sum(0) / n
        found[:, here] = (n * answers + (common + 1 / (n_classes or 2)) / 2) / (n + 1)
    if n_classes:
        losses = -found[:, torch.arange(len(y)), y].log().mean(1)
    else:
        losses = -torch.where(columns > 0, found, 1 - found).log().mean((1, 2))
    chosen: Floats = found[int(losses.argmin())].numpy()
    return chosen


@final
@dataclass(frozen=True)
class RidgeFit:
    """Ridge regression, cross-fitted."""

    predictions: Floats  # (n, q) out of fold
    error: float  # mean over examples of the squared error, summed over outputs
    n_parameters: float  # effective ones per output: sum_j s_j / (s_j + strength), averaged over the folds
    n_examples: float  # that each fit has seen


def ridge_out_of_fold(
    features: Floats,
    targets: Floats,  # (n, q)
    fold: Folds,
    *,
    share: float = 1.0,  # of the other folds' examples that are used
    strengths: Floats | None = None,  # None = a grid
) -> RidgeFit:
    """Predict each example by ridge regression on the other folds, its strength chosen there by leave-one-out."""
    X, Y = torch.from_numpy(features), torch.from_numpy(targets)
    grid = strength_grid(X, 13) if strengths is None else torch.from_numpy(strengths)
    found, counts, sizes = np.empty_like(targets), [], []
    for held_out in range(int(fold.max()) + 1):
        here = fold == held_out
        others = np.flatnonzero(~here)
        rest = others[np.linspace(0, len(others) - 1, max(2, round(share * len(others)))).astype(np.int64)]
        weights, biases, errors = ridge_path(X[rest], Y[rest], grid)
        best = int(errors.argmin())
        found[here] = (X[here] @ weights[best] + biases[best]).numpy()
        curvature = principal_axes(X[rest]).curvature
        counts.append(float((curvature / (curvature + grid[best])).sum()))
        sizes.append(len(rest))
    error = float(np.square(targets - found).sum(1).mean())
    return RidgeFit(found, error, float(np.mean(counts)), float(np.mean(sizes)))
