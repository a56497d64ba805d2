r"""DeLong's test: the difference of two areas under the ROC curve on the same examples.

With g the influence of an example on the candidate's area minus that on the baseline's (DeLong, DeLong and
Clarke-Pearson's structural components, Biometrics 44, 1988, divided by the class's size m_k),

    error^2 = sum_k m_k / (m_k - 1) * sum_{i in class k} g_i^2,

which for two classes is their covariance formula to the letter. The mean of one-against-rest areas has influences too,
and the same formula. In place of the normal distribution stands Student's t with Welch and Satterthwaite's degrees of
freedom, since a rare class is all that there is to estimate its share of the error by.

Measured: false acceptance at level .05 where two scores with errors correlated .7 have one area, 2,000 draws each.
Areas .7, .9 and .98, positives a tenth to a half, n = 40, 100 and 300. Models that err alike: .003-.058 (with DeLong's
normal distribution up to .073). A candidate that spreads one class 2.7 times as wide as the other, so that its curve
crosses the baseline's: .04-.085 with an area of .7, .05-.12 with .9, .005-.09 with .98, worst with ten to thirty
positives, since the rare positive that it ranks far down is seldom among so few. More examples of a class than the
five asked for do not cure that.

Examples in groups take another way (``clustered``), with the same influences summed over groups as in Obuchowski
(Biometrics 53, 1997).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from autoxfer.guard.estimate import Estimate, compared, least_error, points

MIN_CLASS = 5  # examples of each class below which the test's approximation is not trusted


@dataclass(frozen=True)
class DeLong(Estimate):
    """Two areas, with the influence of each example on their difference."""

    gain: float
    influences: NDArray[np.float64]  # (n,) candidate's minus baseline's
    labels: NDArray[np.int64]  # (n,)
    tolerance: float  # the margin
    method: ClassVar[str] = "DeLong"

    @property
    def n(self) -> int:
        """Guard examples."""
        return len(self.labels)

    @property
    def margin(self) -> float:
        """Share of the metric's range."""
        return self.tolerance

    @property
    def effect(self) -> float:
        """Candidate's area minus baseline's."""
        return self.gain

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Examples of each class that there is."""
        return np.unique(self.labels, return_counts=True)[1]

    @cached_property
    def parts(self) -> NDArray[np.float64]:
        """What each class adds to the squared error: (classes,)."""
        place = np.unique(self.labels, return_inverse=True)[1]
        sums = np.bincount(place, self.influences**2)
        return np.asarray(sums * self.counts / np.maximum(self.counts - 1, 1))

    @cached_property
    def error(self) -> float:
        """0 where the two rank alike."""
        error = math.sqrt(self.parts.sum())
        return max(error if error > 1e-12 else 0.0, least_error(self.margin, self.n))

    @cached_property
    def degrees(self) -> float:
        """Welch and Satterthwaite's."""
        spread = float((self.parts**2 / np.maximum(self.counts - 1, 1)).sum())
        return float(self.parts.sum()) ** 2 / spread if spread > 0 else self.n - 1

    def obstacle(self, level: float) -> str:
        """Too few classes, or examples of one; or no difference at all."""
        if len(self.counts) < 2:
            return "an AUROC needs two classes, and all guard examples are of one"
        if self.counts.min() < MIN_CLASS:
            fewest = self.counts.min()
            return f"DeLong's test needs at least {MIN_CLASS} guard examples of each class, and one has {fewest}"
        return "" if self.error else "the two rank every guard example alike, so there is no spread to judge by"

    def summary(self) -> str:
        """As in "AUROC 3.2 points higher than scratch's on 300 examples"."""
        return compared("AUROC", self.effect, self.n)

    def amount(self, gain: float) -> str:
        """In points."""
        return points(gain)
