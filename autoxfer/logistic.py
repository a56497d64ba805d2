r"""Penalised logistic regressions side by side: of classes (softmax), and of several labels, each by itself (sigmoid).

They implement ``convex.Convex`` on a basis of principal axes, the bias one more axis, of ones. Along axis j of squared
length s_j the loss curves by at most s_j / 2 for the softmax (Boehning 1992) and s_j / 4 for the sigmoid; with
examples that count by weights, lengths are weighted too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from autoxfer.convex import minimise


@dataclass(frozen=True)
class Logistic(ABC):
    """k penalised regressions with q outputs each on one basis."""

    steepest: ClassVar[float]  # most curvature of the loss by a logit

    basis: Tensor  # (n, r + 1)
    curvature: Tensor  # (r + 1, 1, 1): the basis's squared column norms
    labels: Tensor  # (n,) classes, or (n, q) 0/1
    n_outputs: int  # q
    penalty: Tensor  # (r + 1, k, 1)
    total: float  # what all examples count together
    weights: Tensor | None = None  # (n,): how much each example counts; None = once
    counted: Tensor | None = None  # (n, k): how much in each problem; None = once

    @classmethod
    def on(
        cls,
        coordinates: Tensor,
        curvature: Tensor,
        labels: Tensor,
        n_outputs: int,
        dtype: torch.dtype,
        *,
        weights: Tensor | None = None,
    ) -> Self:
        """Make the basis in ``dtype`` of coordinates (n, r) along axes of squared lengths (r,). Raises ValueError."""
        cls.check(labels, n_outputs)
        basis = torch.cat([coordinates, coordinates.new_ones(len(coordinates), 1)], 1).to(dtype)
        total = float(len(coordinates) if weights is None else weights.double().sum())
        lengths = torch.cat([curvature, coordinates.new_full((1,), total)]).to(dtype)
        weights = None if weights is None else weights.to(basis)
        return cls(basis, lengths[:, None, None], labels, n_outputs, basis.new_zeros(0), total, weights)

    @staticmethod
    @abstractmethod
    def check(labels: Tensor, n_outputs: int) -> None:
        """Raise ValueError for labels that are none of these outputs."""

    @abstractmethod
    def log_likelihood(self, logits: Tensor) -> Tensor:
        """Log likelihood of each example's labels, the mean over outputs: (n, k, q) -> (n, k)."""

    @abstractmethod
    def residual(self, logits: Tensor) -> Tensor:
        """Slope of the loss by the logits, in their shape: (n, k, q)."""

    def solve(
        self,
        strengths: Tensor,
        start: Tensor | None,
        tolerance: float,
        max_iterations: int,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Solution (r + 1, k, q) for strengths (k,), to ``tolerance`` of the mean loss; start (r + 1, k or 1, q).

        ``counted`` (n, k), of 0 and 1, says which examples each problem sees.
        """
        k, r = len(strengths), len(self.curvature) - 1
        if start is None:
            start = self.basis.new_zeros(r + 1, 1, self.n_outputs)
        penalty = torch.cat([strengths.to(self.basis).expand(r, -1), self.basis.new_zeros(1, k)])[:, :, None]
        if self.weights is not None:
            counted = self.weights[:, None].expand(-1, k) if counted is None else self.weights[:, None] * counted
        problem = replace(self, penalty=penalty, counted=counted)
        return minimise(problem, start.expand(-1, k, -1), tolerance * self.total, max_iterations)

    @property
    def guess(self) -> Tensor:
        """A safe inverse of the Hessian's diagonal."""
        return 1 / (self.curvature * self.steepest + self.penalty)

    def logits(self, weights: Tensor) -> Tensor:
        """(r + 1, k, q) -> (n, k, q)."""
        return (self.basis @ weights.flatten(1)).view(len(self.basis), *weights.shape[1:])

    def gradient(self, x: Tensor) -> Tensor:
        """At weights (r + 1, k, q), of their shape."""
        residual = self.residual(self.logits(x))
        if self.counted is not None:
            residual *= self.counted[:, :, None]
        return (self.basis.T @ residual.flatten(1)).view_as(x) + self.penalty * x

    def keep(self, going: Tensor) -> Self:
        """Keep the problems where ``going`` (k,) is true."""
        counted = None if self.counted is None else self.counted[:, going]
        return replace(self, penalty=self.penalty[:, going], counted=counted)


class Softmax(Logistic):
    """Classes that exclude each other."""

    steepest: ClassVar[float] = 0.5

    @staticmethod
    def check(labels: Tensor, n_outputs: int) -> None:
        """Every class has to be one of these."""
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= n_outputs:
            raise ValueError(f"labels need to lie between 0 and {n_outputs - 1}; got {low} to {high}")

    def log_likelihood(self, logits: Tensor) -> Tensor:
        """Pick what stands at each example's label."""
        index = self.labels[:, None, None].expand(-1, logits.shape[1], 1)
        return logits.log_softmax(-1).gather(2, index).squeeze(2)

    def residual(self, logits: Tensor) -> Tensor:
        """Probabilities, less 1 at the label."""
        residual = logits.softmax(-1)
        residual[torch.arange(len(residual), device=logits.device), :, self.labels] -= 1
        return residual


class Sigmoid(Logistic):
    """Several labels, each true or not whatever the others are."""

    steepest: ClassVar[float] = 0.25

    @staticmethod
    def check(labels: Tensor, n_outputs: int) -> None:
        """There has to be a column for each output."""
        if labels.dim() != 2 or labels.shape[1] != n_outputs:
            raise ValueError(f"labels need shape (n, {n_outputs}); got {tuple(labels.shape)}")

    def log_likelihood(self, logits: Tensor) -> Tensor:
        """Average over the labels."""
        signs = 2 * self.labels.to(logits)[:, None, :] - 1
        return functional.logsigmoid(signs * logits).mean(-1)

    def residual(self, logits: Tensor) -> Tensor:
        """Probabilities less labels."""
        return logits.sigmoid() - self.labels.to(logits)[:, None, :]
