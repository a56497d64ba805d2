r"""Features turned to their principal axes, where each example counts by its weight.

| symbol | meaning                                             | shape  |
|--------|-----------------------------------------------------|--------|
| w      | how much each example counts; 1 without weights     | (n,)   |
| X      | features less their weighted mean                   | (n, p) |
| s      | eigenvalues of X' diag(w) X, those of zero left out | (r,)   |
| V      | principal axes, X' diag(w) X V = V diag(s)          | (p, r) |
| Z      | the features along the axes; Z' diag(w) Z = diag(s) | (n, r) |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Average (n, ...) over the examples, each counting by its weight (n,); all alike without."""
    if weights is None:
        return values.mean(0)
    counts = weights.to(values)
    total: Tensor = torch.tensordot(counts, values, 1)
    return total / counts.sum()


def principal_axes(features: Tensor, weights: Tensor | None = None) -> Axes:
    """Centre and turn (n, p) features in float64, by the smaller of the two Gram matrices; weights (n,)."""
    X = features.double()
    mean = weighted_mean(X, weights)
    X = X - mean
    n, p = X.shape
    primal = p <= n
    scaled = X if weights is None else X * weights.to(X).sqrt()[:, None]
    s, vectors = torch.linalg.eigh(scaled.T @ scaled if primal else scaled @ scaled.T)
    kept = s > s.amax().clamp(min=1e-300) * max(n, p) * torch.finfo(s.dtype).eps
    s, vectors = s[kept], vectors[:, kept]
    axes = vectors if primal else scaled.T @ vectors / s.sqrt()
    return Axes(mean, axes, X @ axes, s)
