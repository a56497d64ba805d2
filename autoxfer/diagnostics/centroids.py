r"""Alignment: how much the classes of the target look, to the source, like its own.

    raw     = mean over target classes c of max over source classes z of cos(mu_c, w_z)
    centred = the same with mu_c - mu and w_z - w, mu and w the means over classes

| symbol | meaning                                | shape               |
|--------|----------------------------------------|---------------------|
| mu_c   | mean features of a target class        | (p,)                |
| w_z    | direction of a source class            | (p,)                |

Of a source nothing is kept but its weights: a class's direction is its row of the head. In a classifier that is trained
to the end the rows lie along the centred means of the classes (Papyan, Han and Donoho, "Prevalence of neural collapse
during the terminal phase of deep learning training", PNAS 2020, https://arxiv.org/abs/2008.08186); before that they do
so roughly. Features behind a ReLU share a mean direction, so that a high raw value alone says little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_means(features: Floats, labels: NDArray[Any]) -> Floats:
    """Average features (n, p) over each class that occurs: (classes, p)."""
    return np.stack([features[labels == kind].mean(0) for kind in np.unique(labels)])


def alignment(means: Floats, directions: Floats) -> tuple[float, float]:
    """Match target means (classes, p) with source directions (source classes, p): (raw, centred) mean cosines."""
    return _match(means, directions), _match(means - means.mean(0), directions - directions.mean(0))


def _match(means: Floats, directions: Floats) -> float:
    return float((_unit(means) @ _unit(directions).T).max(1).mean())


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300))
