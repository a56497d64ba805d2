r"""H-score: how far a class's mean features lie apart, measured against the features' own spread.

Bao et al., "An information-theoretic approach to transferability in task transfer learning", ICIP 2019,
https://arxiv.org/abs/2212.10082:

    H = tr(cov(F)^-1 cov(E[F | y]))

0 = the means of the classes coincide; the number of classes less one = nothing but the means differs. Differs from the
paper: the covariance is shrunk towards a multiple of the identity, d mu I + (1 - d) S, by the share d of Ledoit and
Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate Analysis 2004, or with
more features than examples it could not be inverted (as Ibrahim, Ponomareva and Mazumder, "Newer is not always better:
rethinking transferability metrics, their peculiarities, stability and performance", 2021, propose).
H may exceed the number of classes then.

Both matrices are taken along the principal axes, where S is diagonal; beyond them the means do not differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.diagnostics.spectrum import Turned

Floats = NDArray[np.float64]


def h_score(turned: Turned, labels: NDArray[Any]) -> float:
    """Compute H for labels (n,). A feature space without any spread has H = 0."""
    n = len(labels)
    if not len(turned.eigenvalues):
        return 0.0
    share = shrinkage(turned)
    spread = share * turned.eigenvalues.sum() / turned.n_features + (1 - share) * turned.eigenvalues  # (r,)
    between = np.zeros_like(spread)
    for kind in np.unique(labels):
        rows = labels == kind
        between += rows.sum() / n * np.square(turned.coordinates[rows].mean(0))
    return float((between / spread).sum())


def shrinkage(turned: Turned) -> float:
    """Compute Ledoit and Wolf's share of the identity, which does not change when the features are turned.

    d = min(b, c) / c with c = |S - mu I|^2 and b = (sum_i |x_i|^4 / n - |S|^2) / n, mu the mean eigenvalue of S.
    """
    n, s = len(turned.coordinates), turned.eigenvalues
    mean = s.sum() / turned.n_features
    distance = np.square(s).sum() - turned.n_features * mean**2
    noise = (np.square(np.square(turned.coordinates).sum(1)).mean() - np.square(s).sum()) / n
    return float(min(noise, distance) / distance) if distance > 0 else 0.0
