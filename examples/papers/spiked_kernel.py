r"""Regression with the kernel that a rich two-layer linear network has learned: the identity and a spike.

Lauditi, Bordelon and Pehlevan, arXiv 2507.04448, ICLR 2026; cards D-1, D-2 and D-3. There fine-tuning is regression
with a kernel that does not move any more:

    K = X M X' / D,   M = I + (chi / D) s s',   chi = sqrt(1 + gamma^2) - 1

| symbol | meaning                                                                            | shape  |
|--------|------------------------------------------------------------------------------------|--------|
| X      | examples of the target, standard normal                                            | (P, D) |
| b_t    | what the target says, y = X b_t; of length sqrt(D), like b_s and s                 | (D,)   |
| a      | b_s' b_t / D, what source and target share                                         |        |
| nu     | P / D; nu_1 of the source, nu_2 of the target                                      |        |
| gamma  | how rich the source's training was                                                 |        |
| s      | the direction that it learned: b_s, seen only on the rows of nu_1 D source examples | (D,)   |

A loss is |w - b_t|^2 / D; without transfer, M = I and no ridge, it is 1 - nu_2.
"""

from __future__ import annotations

import numpy as np
from linear_tasks import Floats, least_norm


def spike(gamma: float) -> float:
    """Give chi."""
    return float(np.sqrt(1 + gamma**2) - 1)


def directions(shares: Floats, d: int) -> tuple[Floats, Floats]:
    """Give b_s (d,), and for every a in ``shares`` a target b_t: (d, shares)."""
    b_t = np.zeros((d, len(shares)))
    b_t[:2] = shares, np.sqrt(1 - shares**2)
    return np.sqrt(d) * np.eye(d)[0], np.sqrt(d) * b_t


def learned(b_s: Floats, nu: float, rng: np.random.Generator) -> Floats:
    """Give the direction that a rich source keeps from nu d examples: b_s on their rows, scaled to sqrt(d)."""
    if nu >= 1:
        return b_s
    X = rng.standard_normal((round(nu * len(b_s)), len(b_s)))
    seen = least_norm(X, X @ b_s)
    found: Floats = seen * np.sqrt(len(b_s)) / np.linalg.norm(seen)
    return found


def loss(inputs: Floats, b_t: Floats, metric: Floats, ridge: float = 0.0) -> Floats:
    """Regress on inputs X (P, D) with M = ``metric`` (D, D): the loss of each target, (targets,)."""
    X = inputs
    features = X @ metric
    kernel = features @ X.T / X.shape[1] + ridge * np.eye(len(X))
    w = features.T @ np.linalg.solve(kernel, X @ b_t) / X.shape[1]
    found: Floats = ((w - b_t) ** 2).mean(0)
    return found
