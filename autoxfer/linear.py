r"""Linear models in closed form, for many penalties at once.

All models minimise a loss summed over the examples plus ``strength / 2 * ||W||^2``, with an unpenalised bias:

    ridge:    1/2 sum_i ||y_i - W' x_i - b||^2        (strength is scikit-learn's ``alpha``)
    softmax:  - sum_i log softmax(W' x_i + b)[y_i]    (strength is scikit-learn's ``1 / C``, for three classes or more)
    sigmoid:  - sum_ij log sigmoid(+-(W' x_i + b)_j)  (a logistic regression for each label; scikit-learn's ``1 / C``)

Which one is meant, labels tell by themselves: whole numbers (n,) are classes; (n, q) of nothing but 0 and 1 are several
labels; any others (n, q) are numbers, which standardised are never all 0 or 1.

The features are centred and turned to their principal axes first: there are no more axes than examples, the penalty
does not change under the turn, and the curvature of each loss is known along each axis.

| symbol | meaning                                            | shape     |
|--------|----------------------------------------------------|-----------|
| X      | centred features                                   | (n, p)    |
| s      | eigenvalues of X'X, the zero ones left out         | (r,)      |
| V      | principal axes, X'X V = V diag(s)                  | (p, r)    |
| Z      | the features along the axes, X V; Z'Z = diag(s)    | (n, r)    |
| k, q   | number of strengths, of outputs                    |           |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from autoxfer.logistic import Logistic, Sigmoid, Softmax

N_FOLDS = 4
N_STRENGTHS = 25


@dataclass(frozen=True)
class Axes:
    """Features turned to their principal axes."""

    mean: Tensor  # (p,)
    axes: Tensor  # V, (p, r)
    coordinates: Tensor  # Z, (n, r)
    curvature: Tensor  # s, (r,)

    def back(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Turn (k, r, q) weights along the axes and (k, q) biases at the mean into those of the features."""
        weights = self.axes @ weights
        return weights, bias - self.mean @ weights


def principal_axes(features: Tensor) -> Axes:
    """Centre and turn (n, p) features in float64, by the smaller of the two Gram matrices."""
    X = features.double()
    mean = X.mean(0)
    X = X - mean
    n, p = X.shape
    primal = p <= n
    s, vectors = torch.linalg.eigh(X.T @ X if primal else X @ X.T)
    kept = s > s.amax().clamp(min=1e-300) * max(n, p) * torch.finfo(s.dtype).eps
    s, vectors = s[kept], vectors[:, kept]
    axes = vectors if primal else X.T @ vectors / s.sqrt()
    return Axes(mean, axes, X @ axes, s)


def strength_grid(features: Tensor, n_strengths: int = N_STRENGTHS) -> Tensor:
    """Strengths (k,) from strong to weak: 1e4 down to 1e-2 times the features' mean square."""
    X = features.double()
    scale = (X - X.mean(0)).square().mean().clamp(min=1e-12)
    return scale * torch.logspace(4, -2, n_strengths, dtype=torch.float64, device=X.device)


def ridge_path(features: Tensor, targets: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit ridge regression for every strength from one eigendecomposition.

    features (n, p), targets (n, q), strengths (k,) > 0 -> weights (k, p, q), biases (k, q) and the exact leave-one-out
    errors (k,), mean squares over examples and outputs, in float64. With the leverage h_i = 1/n + sum_j Z_ij^2 / (s_j +
    strength), an example's leave-one-out residual is its residual divided by 1 - h_i.
    """
    turned = principal_axes(features)
    Z, Y = turned.coordinates, targets.double()
    shrunk = 1 / (turned.curvature + strengths.to(Z)[:, None])  # (k, r)
    along = shrunk[:, :, None] * (Z.T @ (Y - Y.mean(0)))  # (k, r, q)
    weights, biases = turned.back(along, Y.mean(0).expand(len(shrunk), -1))
    leverage = 1 / len(Z) + Z.square() @ shrunk.T  # (n, k)
    residuals = (Y - Y.mean(0)) - Z @ along  # (k, n, q)
    left_out = residuals / (1 - leverage).clamp(min=1e-10).T[:, :, None]
    return weights, biases, left_out.square().mean((1, 2))


def softmax_path(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    strengths: Tensor,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 300,
) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression for every strength, from strong to weak, in warm-started stacks.

    features (n, p), labels (n,), strengths (k,) > 0 in any order -> weights (k, p, C), biases (k, C) in float64.
    Computes in the features' own precision; ``tolerance`` is in units of the mean loss.
    """
    return _path(Softmax, features, labels, n_classes, strengths, budget=(tolerance, max_iterations))


def sigmoid_path(
    features: Tensor,
    labels: Tensor,
    strengths: Tensor,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 300,
) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression for each label and every strength, as ``softmax_path`` does for classes.

    features (n, p), labels (n, q) of 0 and 1, strengths (k,) -> weights (k, p, q), biases (k, q) in float64.
    """
    return _path(Sigmoid, features, labels, labels.shape[1], strengths, budget=(tolerance, max_iterations))


def _path(
    kind: type[Logistic],
    features: Tensor,
    labels: Tensor,
    n_outputs: int,
    strengths: Tensor,
    *,
    budget: tuple[float, int],  # tolerance, iterations
) -> tuple[Tensor, Tensor]:
    turned = principal_axes(features)
    problem = kind.on(turned.coordinates, turned.curvature, labels, n_outputs, features.dtype)
    order = strengths.argsort(descending=True)
    solutions: list[Tensor] = []
    for block in torch.split(order, _stack_size(len(features) * n_outputs)):
        start = solutions[-1][:, -1:] if solutions else None
        solutions.append(problem.solve(strengths[block], start, *budget))
    along = torch.cat(solutions, 1)[:, order.argsort()].double().transpose(0, 1)  # (k, r + 1, C)
    return turned.back(along[:, :-1], along[:, -1])


def linear_path(
    features: Tensor, labels: Tensor, n_outputs: int, n_strengths: int = N_STRENGTHS
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Fit ridge, softmax or sigmoid regression, as ``fit_head`` does, for a grid of strengths from strong to weak.

    Gives (strength, weight (n_outputs, p), bias (n_outputs,)), as nn.Linear holds them.
    """
    strengths, kind = strength_grid(features, n_strengths), kind_of(labels)
    if kind == "ridge":
        weights, biases, _ = ridge_path(features, labels, strengths)
    elif kind == "sigmoid":
        weights, biases = sigmoid_path(features, labels, strengths)
    else:
        weights, biases = softmax_path(features, labels, n_outputs, strengths)
    for strength, weight, bias in zip(strengths.tolist(), weights.to(features), biases.to(features), strict=True):
        yield strength, weight.T, bias


def fit_head(features: Tensor, labels: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
    """Fit a linear head on the train split's features: weight (n_outputs, p), bias (n_outputs,).

    Classes (n,) ask for softmax regression, several labels (n, n_outputs) of 0 and 1 for a logistic regression each,
    the strength chosen by the log loss on held-out folds of these examples; numbers (n, n_outputs) for ridge
    regression, its strength chosen by leave-one-out.
    """
    strengths, kind = strength_grid(features, 13), kind_of(labels)
    best = 0
    if kind == "ridge":
        weights, biases, errors = ridge_path(features, labels, strengths)
        best = int(errors.argmin())
    elif kind == "sigmoid":
        chosen = _strength_by_folds(Sigmoid, features, labels, n_outputs, strengths)
        weights, biases = sigmoid_path(features, labels, chosen)
    else:
        chosen = _strength_by_folds(Softmax, features, labels, n_outputs, strengths)
        weights, biases = softmax_path(features, labels, n_outputs, chosen)
    return weights[best].T.to(features.dtype), biases[best].to(features.dtype)


def kind_of(labels: Tensor) -> Literal["ridge", "softmax", "sigmoid"]:
    """Tell what the train split's labels ask for: classes, several labels, or numbers; see above."""
    if not labels.is_floating_point() and labels.dim() == 1:
        return "softmax"
    alike = bool(((labels == 0) | (labels == 1)).all()) and bool((labels == 1).any())
    return "sigmoid" if alike and labels.dim() == 2 else "ridge"


def _strength_by_folds(
    kind: type[Logistic], features: Tensor, labels: Tensor, n_outputs: int, strengths: Tensor
) -> Tensor:
    """Choose one strength, (1,), by held-out log loss; stop weakening the penalty once that has clearly turned.

    Where a fold is large, one or two of the four tell enough.
    """
    turned = principal_axes(features)
    problem = kind.on(turned.coordinates, turned.curvature, labels, n_outputs, features.dtype)
    n_folds = max(1, min(N_FOLDS, round(2000 / len(labels))))
    strata = labels if labels.dim() == 1 else torch.unique(labels, dim=0, return_inverse=True)[1]
    fold = torch.empty_like(strata)
    fold[strata.argsort(stable=True)] = torch.arange(len(labels), device=labels.device) % N_FOLDS  # stratified
    held_out = fold[:, None] == torch.arange(n_folds, device=labels.device)  # (n, n_folds)
    solution: Tensor | None = None
    losses: list[float] = []
    for strength in strengths:
        solution = problem.solve(strength.expand(n_folds), solution, 1e-6, 100, (~held_out).to(problem.basis))
        log_likelihood = problem.log_likelihood(problem.logits(solution))
        losses.append(-float(log_likelihood[held_out].mean()))
        if len(losses) > 2 and min(losses[-2:]) > min(losses[:-2]) * 1.02:
            break
    return strengths[losses.index(min(losses))].reshape(1)


def _stack_size(n_entries: int) -> int:
    """How many problems to solve side by side: few enough for a processor's cache, many enough to fill it."""
    return max(1, 2**18 // n_entries)
