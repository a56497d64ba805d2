r"""LogME: the logarithm of the maximum evidence of a linear model, per example.

You, Liu, Wang and Long, "LogME: practical assessment of pre-trained models for transfer learning", ICML 2021,
https://arxiv.org/abs/2102.11005. With w ~ N(0, 1/a I) and y ~ N(F w, 1/b I), for each column y of the targets:

    L(a, b) = n/2 log b + p/2 log a - n/2 log 2 pi - b/2 |F m - y|^2 - a/2 |m|^2 - 1/2 log |a I + b F'F|
    LogME   = max over a, b of L(a, b) / n, averaged over the columns

| symbol | meaning                                         | shape  |
|--------|-------------------------------------------------|--------|
| F      | features, neither centred nor scaled            | (n, p) |
| y      | a column: 0/1 for a class, or the target itself | (n,)   |
| m      | the posterior mean of the weights               | (p,)   |
| s      | squared singular values of F that are not zero  | (r,)   |
| z      | y along the left singular vectors, squared      | (r,)   |
| t      | a / b                                           |        |

Differs from the paper: for a given t the best b is known, b = n / R with R = |F m - y|^2 + t |m|^2, and so

    L(t) = n/2 (log(n / R) - 1 - log 2 pi) - 1/2 sum_j log(1 + s_j / t),    R = |y|^2 - sum_j z_j s_j / (s_j + t),

which is maximised over t alone, on a grid that is refined; the paper's fixed point walks to the same place, but may
stop at a lesser summit, and walks for ever where the features tell nothing (t without bound).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RANGE, N_GRID, N_REFINED = 12.0, 97, 4  # decades of t about the mean of s; points; refinements


def logme(features: Floats, targets: Floats) -> float:
    """Measure how well features (n, p) explain targets (n, q): 0/1 columns for classes, or numbers.

    Constant columns of zeros (a class that does not occur) are left out. Raises ValueError where nothing is left.
    """
    targets = targets[:, np.abs(targets).sum(0) > 0]
    if not targets.size:
        raise ValueError(f"targets need a column that is not zero throughout; got shape {targets.shape}")
    n, p = features.shape
    gram = features @ features.T if n <= p else features.T @ features
    s, vectors = np.linalg.eigh(gram)
    kept = s > max(float(s[-1]), 1e-300) * max(n, p) * np.finfo(float).eps
    s, vectors = s[kept], vectors[:, kept]
    along = vectors.T @ targets if n <= p else (vectors.T @ (features.T @ targets)) / np.sqrt(s)[:, None]
    squares = np.square(targets).sum(0)
    return float(np.mean([_best(s, z, total, n) for z, total in zip(np.square(along).T, squares, strict=True)]))


def _best(s: Floats, z: Floats, total: float, n: int) -> float:
    """Maximise L(t) / n over log t: ever finer grids about the best point."""
    middle = math.log(s.mean()) if len(s) else 0.0
    low, high = middle - RANGE * math.log(10) / 2, middle + RANGE * math.log(10) / 2
    best = -math.inf
    for _ in range(N_REFINED):
        grid = np.linspace(low, high, N_GRID)
        values = evidence(np.exp(grid), s, z, total, n)
        place = int(values.argmax())
        best = max(best, float(values[place]))
        low, high = grid[max(place - 1, 0)], grid[min(place + 1, N_GRID - 1)]
    return best


def evidence(t: Floats, s: Floats, z: Floats, total: float, n: int) -> Floats:
    """Compute L(t) / n for many t (k,): s and z (r,), total = |y|^2."""
    ratio = s / (s + t[:, None])  # (k, r)
    # Rounding must not turn a perfect fit into a negative residual.
    residual = np.maximum(total - (z * ratio).sum(1), 1e-12 * total)
    fit = n / 2 * (np.log(n / residual) - 1 - math.log(2 * math.pi))
    volume = np.log1p(s / t[:, None]).sum(1) / 2
    found: Floats = (fit - volume) / n
    return found
