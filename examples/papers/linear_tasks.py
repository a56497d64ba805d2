r"""The linear model of "Features are fate": two tasks at an angle, what each way to transfer risks, measured and known.

Tahir, Ganguli and Rotskoff, ICML 2025, https://arxiv.org/abs/2410.08194. Used by cards B-1 and B-3 and by the diagram.

    y = b_t' x + e,   x ~ N(0, I_d),   n = gamma d examples;   the source knows b_s exactly

| symbol   | meaning                                                                | shape |
|----------|------------------------------------------------------------------------|-------|
| b_s, b_t | what the source and the target say, of length 1, at the angle theta    | (d,)  |
| noise    | standard deviation of e                                                |       |
| gamma    | examples for each dimension                                            |       |
| b        | the head of a probe on the source's only feature, z = X b_s: z'y / z'z |       |
| P        | projection on the rows of X                                            |       |

Deep linear networks from small weights end where these do:

    scratch     the interpolator of least norm                        X^+ y
    probe       the feature, scaled                                   b b_s
    fine_tune   from b_s, only inside the rows of X                   X^+ y + (1 - P) b_s
    head_first  the same from b b_s: the head fitted, then the rest   X^+ y + (1 - P) b b_s
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
METHODS = ("probe", "fine_tune", "head_first")


def scratch_risk(gamma: float, noise: float) -> float:
    """Give |w - b_t|^2 of the interpolator of least norm; n and d large."""
    if gamma == 1:
        return np.inf
    return 1 - gamma + gamma * noise**2 / (1 - gamma) if gamma < 1 else noise**2 / (gamma - 1)


def theory(theta: Floats, gamma: float, noise: float, n: int | None = None) -> dict[str, Floats]:
    """Give each method's gain over scratch, in risk; with ``n`` what it costs to fit the head to n examples too."""
    missed = np.sin(theta) ** 2
    paid = (noise**2 + missed) / (n - 2) if n else 0.0
    free = max(0.0, 1 - gamma)  # share of the space where no example says anything
    return {
        "probe": scratch_risk(gamma, noise) - missed - paid,
        "fine_tune": free * (2 * np.cos(theta) - 1),
        "head_first": free * (np.cos(theta) ** 2 - paid),
    }


def measure(theta: Floats, gamma: float, noise: float, d: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Draw examples once, and give each method's gain over scratch at every angle."""
    n = round(gamma * d)
    X, e = rng.standard_normal((n, d)), noise * rng.standard_normal(n)
    share = np.stack([np.cos(theta), np.sin(theta), np.ones_like(theta)])  # of b_s, of what is new, of the noise
    along = np.stack([X[:, 0], X[:, 1], e], 1)  # b_s is the first axis, the target's other part the second
    solved, labels = least_norm(X, along), along @ share
    parts, b_s = solved @ share, np.eye(d)[:, :1]
    b_t = np.zeros_like(parts)
    b_t[:2] = share[:2]
    unseen = b_s - solved[:, :1]  # (1 - P) b_s
    b = along[:, 0] @ labels / (along[:, 0] @ along[:, 0])
    found = {"probe": b_s * b, "fine_tune": parts + unseen, "head_first": parts + unseen * b}
    scratch = _risk(parts, b_t)
    return {name: scratch - _risk(weights, b_t) for name, weights in found.items()}


def least_norm(inputs: Floats, y: Floats) -> Floats:
    """Solve X w = y by the w of least norm, or the least squares where there are more rows than columns."""
    X, (n, d) = inputs, inputs.shape
    if n == d:
        return _solve(X, y)
    return X.T @ _solve(X @ X.T, y) if n < d else _solve(X.T @ X, X.T @ y)


def _solve(matrix: Floats, y: Floats) -> Floats:
    found: Floats = np.linalg.solve(matrix, y).astype(np.float64, copy=False)
    return found


def _risk(weights: Floats, b_t: Floats) -> Floats:
    risk: Floats = ((weights - b_t) ** 2).sum(0)
    return risk
