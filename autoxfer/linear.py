r"""Linear models in closed form, for many penalties at once.

All models minimise a loss summed over the examples plus ``strength / 2 * ||W||^2``, with an unpenalised bias:

    ridge:    1/2 sum_i ||y_i - W' x_i - b||^2        (strength is scikit-learn's ``alpha``)
    softmax:  - sum_i log softmax(W' x_i + b)[y_i]    (strength is scikit-learn's ``1 / C``, for three classes or more)
    sigmoid:  - sum_ij log sigmoid(+-(W' x_i + b)_j)  (a logistic regression for each label; scikit-learn's ``1 / C``)

With ``weights`` each example's loss counts that many times, as if it stood there so often. What is chosen by held-out
examples holds an example out as a whole, whatever it counts.

Which one is meant, labels tell by themselves: whole numbers (n,) are classes; (n, q) of nothing but 0 and 1 are several
labels; any others (n, q) are numbers, which standardised are never all 0 or 1.

The features are centred and turned to their principal axes first: there are no more axes than examples, the penalty
does not change under the turn, and the curvature of each loss is known along each axis.

The notation is that of ``axes``; k and q are the numbers of strengths and of outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from autoxfer.axes import principal_axes, weighted_mean
from autoxfer.logistic import Logistic, Sigmoid, Softmax

N_FOLDS = 4
N_STRENGTHS = 25


def strength_grid(features: Tensor, n_strengths: int = N_STRENGTHS, weights: Tensor | None = None) -> Tensor:
    """Strengths (k,) from strong to weak: 1e4 down to 1e-2 times the features' mean square."""
    X = features.double()
    squares = (X - weighted_mean(X, weights)).square()
    scale = (squares.mean() if weights is None else weighted_mean(squares, weights).mean()).clamp(min=1e-12)
    return scale * torch.logspace(4, -2, n_strengths, dtype=torch.float64, device=X.device)


def ridge_path(
    features: Tensor, targets: Tensor, strengths: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit ridge regression for every strength from one eigendecomposition.

    features (n, p), targets (n, q), strengths (k,) > 0, weights (n,) >= 0 -> coefficients (k, p, q), biases (k, q) and
    the exact leave-one-out errors (k,), mean squares over examples, by their weights, and outputs, in float64. With the
    leverage h_i = w_i (1 / sum(w) + sum_j Z_ij^2 / (s_j + strength)), an example's leave-one-out residual is its
    residual divided by 1 - h_i.
    """
    turned = principal_axes(features, weights)
    Z, Y = turned.coordinates, targets.double()
    counts = Z.new_ones(len(Z)) if weights is None else weights.to(Z)
    level = weighted_mean(Y, weights)
    shrunk = 1 / (turned.curvature + strengths.to(Z)[:, None])  # (k, r)
    along = shrunk[:, :, None] * (Z.T @ ((Y - level) * counts[:, None]))  # (k, r, q)
    coefficients, biases = turned.back(along, level.expand(len(shrunk), -1))
    leverage = counts[:, None] * (1 / counts.sum() + Z.square() @ shrunk.T)  # (n, k)
    residuals = (Y - level) - Z @ along  # (k, n, q)
    squares = (residuals / (1 - leverage).clamp(min=1e-10).T[:, :, None]).square()
    errors = squares.mean((1, 2)) if weights is None else weighted_mean(squares.mean(2).T, weights)
    return coefficients, biases, errors


def softmax_path(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    strengths: Tensor,
    weights: Tensor | None = None,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 300,
) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression for every strength, from strong to weak, in warm-started stacks.

    features (n, p), labels (n,), strengths (k,) > 0 in any order, weights (n,) >= 0 -> coefficients (k, p, C), biases
    (k, C) in float64. Computes in the features' own precision; ``tolerance`` is in units of the mean loss.
    """
    return _path(Softmax, features, labels, n_classes, strengths, weights=weights, budget=(tolerance, max_iterations))


def sigmoid_path(
    features: Tensor,
    labels: Tensor,
    strengths: Tensor,
    weights: Tensor | None = None,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 300,
) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression for each label and every strength, as ``softmax_path`` does for classes.

    features (n, p), labels (n, q) of 0 and 1, strengths (k,), weights (n,) >= 0 -> coefficients (k, p, q), biases
    (k, q) in float64.
    """
    return _path(
        Sigmoid, features, labels, labels.shape[1], strengths, weights=weights, budget=(tolerance, max_iterations)
    )


def _path(
    kind: type[Logistic],
    features: Tensor,
    labels: Tensor,
    n_outputs: int,
    strengths: Tensor,
    *,
    weights: Tensor | None,
    budget: tuple[float, int],  # tolerance, iterations
) -> tuple[Tensor, Tensor]:
    turned = principal_axes(features, weights)
    problem = kind.on(turned.coordinates, turned.curvature, labels, n_outputs, features.dtype, weights=weights)
    order = strengths.argsort(descending=True)
    solutions: list[Tensor] = []
    for block in torch.split(order, _stack_size(len(features) * n_outputs)):
        start = solutions[-1][:, -1:] if solutions else None
        solutions.append(problem.solve(strengths[block], start, *budget))
    along = torch.cat(solutions, 1)[:, order.argsort()].double().transpose(0, 1)  # (k, r + 1, C)
    return turned.back(along[:, :-1], along[:, -1])


def linear_path(
    features: Tensor,
    labels: Tensor,
    n_outputs: int,
    n_strengths: int = N_STRENGTHS,
    weights: Tensor | None = None,
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Fit ridge, softmax or sigmoid regression, as ``fit_head`` does, for a grid of strengths from strong to weak.

    With ``TrainData.weights`` (n,) each example counts by its weight. Gives (strength, weight (n_outputs, p), bias
    (n_outputs,)), as nn.Linear holds them.
    """
    strengths, kind = strength_grid(features, n_strengths, weights), kind_of(labels)
    if kind == "ridge":
        found, biases, _ = ridge_path(features, labels, strengths, weights)
    elif kind == "sigmoid":
        found, biases = sigmoid_path(features, labels, strengths, weights)
    else:
        found, biases = softmax_path(features, labels, n_outputs, strengths, weights)
    for strength, weight, bias in zip(strengths.tolist(), found.to(features), biases.to(features), strict=True):
        yield strength, weight.T, bias


def fit_head(features: Tensor, labels: Tensor, n_outputs: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Fit a linear head on the train split's features: weight (n_outputs, p), bias (n_outputs,).

    Classes (n,) ask for softmax regression, several labels (n, n_outputs) of 0 and 1 for a logistic regression each,
    the strength chosen by the log loss on held-out folds of these examples; numbers (n, n_outputs) for ridge
    regression, its strength chosen by leave-one-out. With ``TrainData.weights`` (n,) each example counts by its weight.
    """
    strengths, kind = strength_grid(features, 13, weights), kind_of(labels)
    best = 0
    if kind == "ridge":
        found, biases, errors = ridge_path(features, labels, strengths, weights)
        best = int(errors.argmin())
    elif kind == "sigmoid":
        chosen = _strength_by_folds(Sigmoid, features, labels, n_outputs, strengths, weights=weights)
        found, biases = sigmoid_path(features, labels, chosen, weights)
    else:
        chosen = _strength_by_folds(Softmax, features, labels, n_outputs, strengths, weights=weights)
        found, biases = softmax_path(features, labels, n_outputs, chosen, weights)
    return found[best].T.to(features.dtype), biases[best].to(features.dtype)


def kind_of(labels: Tensor) -> Literal["ridge", "softmax", "sigmoid"]:
    """Tell what the train split's labels ask for: classes, several labels, or numbers; see above."""
    if not labels.is_floating_point() and labels.dim() == 1:
        return "softmax"
    alike = bool(((labels == 0) | (labels == 1)).all()) and bool((labels == 1).any())
    return "sigmoid" if alike and labels.dim() == 2 else "ridge"


def _strength_by_folds(
    kind: type[Logistic],
    features: Tensor,
    labels: Tensor,
    n_outputs: int,
    strengths: Tensor,
    *,
    weights: Tensor | None,
) -> Tensor:
    """Choose one strength, (1,), by held-out log loss; stop weakening the penalty once that has clearly turned.

    Where a fold is large, one or two of the four tell enough.
    """
    if weights is not None:  # what counts nothing would fill the folds
        kept = weights > 0
        features, labels, weights = features[kept], labels[kept], weights[kept]
    turned = principal_axes(features, weights)
    problem = kind.on(turned.coordinates, turned.curvature, labels, n_outputs, features.dtype, weights=weights)
    n_folds = max(1, min(N_FOLDS, round(2000 / len(labels))))
    held_out = _folds(labels, weights)[:, None] == torch.arange(n_folds, device=labels.device)  # (n, n_folds)
    counts = None if weights is None else weights[:, None].expand_as(held_out)[held_out]
    solution: Tensor | None = None
    losses: list[float] = []
    for strength in strengths:
        solution = problem.solve(strength.expand(n_folds), solution, 1e-6, 100, (~held_out).to(problem.basis))
        log_likelihood = problem.log_likelihood(problem.logits(solution))
        losses.append(-float(weighted_mean(log_likelihood[held_out], counts)))
        if len(losses) > 2 and min(losses[-2:]) > min(losses[:-2]) * 1.02:
            break
    return strengths[losses.index(min(losses))].reshape(1)


def _folds(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Deal examples into folds, (n,), that hold as much of every class, and of its heavy and light examples."""
    strata = labels if labels.dim() == 1 else torch.unique(labels, dim=0, return_inverse=True)[1]
    order = strata.argsort(stable=True)
    if weights is not None:
        by_weight = weights.argsort(stable=True)
        order = by_weight[strata[by_weight].argsort(stable=True)]
    fold = torch.empty_like(strata)
    fold[order] = torch.arange(len(strata), device=strata.device) % N_FOLDS
    return fold


def _stack_size(n_entries: int) -> int:
    """How many problems to solve side by side: few enough for a processor's cache, many enough to fill it."""
    return max(1, 2**18 // n_entries)
