r"""LEEP and NCE: what the source's own classes tell of the target's.

LEEP: Nguyen, Hassner, Seeger and Archambeau, "LEEP: a new measure to evaluate transferability of learned
representations", ICML 2020, https://arxiv.org/abs/2002.12462:

    LEEP = mean_i log sum_z P(y_i | z) T_iz,    P(y, z) = 1/n sum over i with y_i = y of T_iz

NCE: Tran, Nguyen and Hassner, "Transferability and hardness of supervised classification tasks", ICCV 2019,
https://arxiv.org/abs/1908.08142:  NCE = - H(y | z) with z_i = argmax_z T_iz.

Both are mean log likelihoods: at most 0, which says that the source's answer determines the target's class.

| symbol | meaning                                           | shape               |
|--------|---------------------------------------------------|---------------------|
| T      | the source head's probabilities of target examples | (n, source classes) |
| y      | target classes                                    | (n,)                |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def leep(source: Floats, labels: NDArray[Any]) -> float:
    """Compute LEEP of probabilities (n, source classes) and labels (n,)."""
    joint = _sums(source, labels)
    given = joint / np.maximum(joint.sum(0), 1e-300)  # (classes, source classes): P(y | z)
    return float(np.log((given[_places(labels)] * source).sum(1)).mean())


def nce(source: Floats, labels: NDArray[Any]) -> float:
    """Compute NCE of probabilities (n, source classes) and labels (n,)."""
    joint = _sums(np.eye(source.shape[1])[source.argmax(1)], labels)
    share = np.divide(joint, joint.sum(0), out=np.ones_like(joint), where=joint > 0)
    return float((joint * np.log(share)).sum() / len(labels))


def _places(labels: NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _sums(source: Floats, labels: NDArray[Any]) -> Floats:
    """Add up the source's probabilities over each class's examples: (classes, source classes)."""
    places = _places(labels)
    return np.asarray(np.eye(places.max() + 1)[places].T @ source)
