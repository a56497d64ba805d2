r"""Linear models in closed form, for many penalties at once.

Both models minimise a loss summed over the examples plus ``strength / 2 * ||W||^2``, with an unpenalised bias:

    ridge:    1/2 sum_i ||y_i - W' x_i - b||^2        (strength is scikit-learn's ``alpha``)
    softmax:  - sum_i log softmax(W' x_i + b)[y_i]    (strength is scikit-learn's ``1 / C``, for three classes or more)

The features are centred and turned to their principal axes first: there are no more axes than examples, the penalty
does not change under the turn, and the curvature of either loss is known along each axis.

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
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autoxfer.convex import minimise

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
    turned = principal_axes(features)
    problem = _Softmax.on(turned, labels, n_classes, features.dtype)
    order = strengths.argsort(descending=True)
    solutions: list[Tensor] = []
    for block in torch.split(order, _stack_size(len(features) * n_classes)):
        start = solutions[-1][:, -1:] if solutions else None
        solutions.append(problem.solve(strengths[block], start, tolerance, max_iterations))
    along = torch.cat(solutions, 1)[:, order.argsort()].double().transpose(0, 1)  # (k, r + 1, C)
    return turned.back(along[:, :-1], along[:, -1])


def linear_path(
    features: Tensor, labels: Tensor, n_outputs: int, n_strengths: int = N_STRENGTHS
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Fit ridge or softmax regression, as ``fit_head`` does, for a grid of strengths from strong to weak.

    Gives (strength, weight (n_outputs, p), bias (n_outputs,)), as nn.Linear holds them.
    """
    strengths = strength_grid(features, n_strengths)
    if labels.is_floating_point():
        weights, biases, _ = ridge_path(features, labels, strengths)
    else:
        weights, biases = softmax_path(features, labels, n_outputs, strengths)
    for strength, weight, bias in zip(strengths.tolist(), weights.to(features), biases.to(features), strict=True):
        yield strength, weight.T, bias


def fit_head(features: Tensor, labels: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
    """Fit a linear head on the train split's features: weight (n_outputs, p), bias (n_outputs,).

    Integer labels (n,) ask for softmax regression, its strength chosen by the log loss on held-out folds of these
    examples; floating-point labels (n, n_outputs) for ridge regression, its strength chosen by leave-one-out.
    """
    strengths = strength_grid(features, 13)
    if labels.is_floating_point():
        weights, biases, errors = ridge_path(features, labels, strengths)
        best = int(errors.argmin())
    else:
        chosen = _strength_by_folds(features, labels, n_outputs, strengths)
        weights, biases = softmax_path(features, labels, n_outputs, chosen)
        best = 0
    return weights[best].T.to(features.dtype), biases[best].to(features.dtype)


def _strength_by_folds(features: Tensor, labels: Tensor, n_classes: int, strengths: Tensor) -> Tensor:
    """Choose one strength, (1,), by held-out log loss; stop weakening the penalty once that has clearly turned.

    Where a fold is large, one or two of the four tell enough.
    """
    turned = principal_axes(features)
    problem = _Softmax.on(turned, labels, n_classes, features.dtype)
    n_folds = max(1, min(N_FOLDS, round(2000 / len(labels))))
    fold = torch.empty_like(labels)
    fold[labels.argsort(stable=True)] = torch.arange(len(labels), device=labels.device) % N_FOLDS  # stratified
    held_out = fold[:, None] == torch.arange(n_folds, device=labels.device)  # (n, n_folds)
    solution: Tensor | None = None
    losses: list[float] = []
    for strength in strengths:
        solution = problem.solve(strength.expand(n_folds), solution, 1e-6, 100, (~held_out).to(problem.basis))
        log_likelihood = problem.picked(problem.logits(solution).log_softmax(-1))
        losses.append(-float(log_likelihood[held_out].mean()))
        if len(losses) > 2 and min(losses[-2:]) > min(losses[:-2]) * 1.02:
            break
    return strengths[losses.index(min(losses))].reshape(1)


def _stack_size(n_entries: int) -> int:
    """How many problems to solve side by side: few enough for a processor's cache, many enough to fill it."""
    return max(1, 2**18 // n_entries)


@dataclass(frozen=True)
class _Softmax:
    """k penalised softmax regressions on one basis; implements convex.Convex.

    The loss curves by at most s_j / 2 along axis j (Boehning 1992). The bias is one more axis, of ones.
    """

    basis: Tensor  # (n, r + 1)
    curvature: Tensor  # (r + 1, 1, 1): the basis's squared column norms
    labels: Tensor  # (n,)
    n_classes: int
    penalty: Tensor  # (r + 1, k, 1)
    counted: Tensor | None = None  # (n, k): which examples each problem sees; None = all

    @classmethod
    def on(cls, turned: Axes, labels: Tensor, n_classes: int, dtype: torch.dtype) -> _Softmax:
        """Make the basis in ``dtype``. Raises ValueError for labels out of range."""
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= n_classes:
            raise ValueError(f"labels need to lie between 0 and {n_classes - 1}; got {low} to {high}")
        Z = turned.coordinates
        basis = torch.cat([Z, Z.new_ones(len(Z), 1)], 1).to(dtype)
        curvature = torch.cat([turned.curvature, Z.new_full((1,), len(Z))]).to(dtype)
        return cls(basis, curvature[:, None, None], labels, n_classes, basis.new_zeros(0))

    def solve(
        self,
        strengths: Tensor,
        start: Tensor | None,
        tolerance: float,
        max_iterations: int,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Weights (r + 1, k, C) for strengths (k,), to ``tolerance`` of the mean loss; start (r + 1, k or 1, C)."""
        k, r = len(strengths), len(self.curvature) - 1
        if start is None:
            start = self.basis.new_zeros(r + 1, 1, self.n_classes)
        penalty = torch.cat([strengths.to(self.basis).expand(r, -1), self.basis.new_zeros(1, k)])[:, :, None]
        problem = replace(self, penalty=penalty, counted=counted)
        return minimise(problem, start.expand(-1, k, -1), tolerance * len(self.basis), max_iterations)

    @property
    def guess(self) -> Tensor:
        return 1 / (self.curvature / 2 + self.penalty)

    def logits(self, weights: Tensor) -> Tensor:
        """(r + 1, k, C) -> (n, k, C)."""
        return (self.basis @ weights.flatten(1)).view(len(self.basis), *weights.shape[1:])

    def picked(self, values: Tensor) -> Tensor:
        """Pick what stands at each example's label: (n, k, C) -> (n, k)."""
        return values.gather(2, self.labels[:, None, None].expand(-1, values.shape[1], 1)).squeeze(2)

    def gradient(self, x: Tensor) -> Tensor:
        residual = self.logits(x).softmax(-1)
        residual[torch.arange(len(residual), device=x.device), :, self.labels] -= 1
        if self.counted is not None:
            residual *= self.counted[:, :, None]
        return (self.basis.T @ residual.flatten(1)).view_as(x) + self.penalty * x

    def keep(self, going: Tensor) -> _Softmax:
        counted = None if self.counted is None else self.counted[:, going]
        return replace(self, penalty=self.penalty[:, going], counted=counted)
