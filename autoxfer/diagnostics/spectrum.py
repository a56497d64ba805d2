r"""The features' spectrum: how many directions they really use.

Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007:

    erank = exp(- sum_j q_j log q_j),    q_j = eigenvalue j of the covariance / their sum
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from autoxfer.axes import principal_axes

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Turned:
    """Centred features along their principal axes, the axes without spread left out."""

    coordinates: Floats  # (n, r), the widest axis first
    eigenvalues: Floats  # (r,) of the covariance (1/n), descending
    n_features: int  # p

    @classmethod
    def of(cls, features: Floats) -> Turned:
        """Centre and turn (n, p) features."""
        axes = principal_axes(torch.from_numpy(np.ascontiguousarray(features)))
        coordinates, eigenvalues = axes.coordinates.numpy(), axes.curvature.numpy() / len(features)
        # A constant feature's rounding errors are no spread.
        kept = eigenvalues > np.square(np.abs(features).max(initial=0.0) * 1e-12)
        return cls(coordinates[:, kept][:, ::-1].copy(), eigenvalues[kept][::-1].copy(), features.shape[1])

    def widest(self, most: int) -> Floats:
        """Keep the widest axes: (n, at most ``most``); one axis of zeros where there is none."""
        if not len(self.eigenvalues):
            return np.zeros((len(self.coordinates), 1))
        return np.ascontiguousarray(self.coordinates[:, :most])

    @cached_property
    def effective_rank(self) -> float:
        """Between 1 and the number of axes; 0 where there is none."""
        shares = self.eigenvalues / self.eigenvalues.sum() if len(self.eigenvalues) else self.eigenvalues
        return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0

    @property
    def top_share(self) -> float:
        """The widest axis's share of all spread; 1 where there is none, as all examples are alike."""
        return float(self.eigenvalues[0] / self.eigenvalues.sum()) if len(self.eigenvalues) else 1.0


def standardised(features: Floats) -> Floats:
    """Give each column mean 0 and deviation 1; a column that is constant up to rounding becomes 0."""
    spread = features.std(0)
    spread[spread <= 1e-9 * np.abs(features).max(0, initial=0.0)] = np.inf
    found: Floats = (features - features.mean(0)) / spread
    return found
