r"""Examples that come in groups (patients, sites, days): each group counts as one observation.

With D the difference on an example, d its mean over n examples and S_g the sum of D - d over group g of G,

    error^2 = G / (G - 1) * sum_g S_g^2 / n^2,        distance = d / error

(the cluster-robust variance: Liang and Zeger, Biometrika 73, 1986). The distance must be large by Student's t with
G - 1 degrees of freedom, and among those that come out where whole groups have their signs flipped at random: groups
of very unequal sizes make the t alone too generous. 0/1 losses take this way too, since McNemar's test needs
independent examples; and so do the shares (``Statistic.losses``) of metrics that read scores, in groups or each example
by itself: scores of two models are too unlike, and too dear, to be exchanged.

Measured: false acceptance at level .05 with 10 to 60 groups of 5 on average, three fifths of the examples sharing their
group's difference; 3,000 draws each. 0/1 losses, discordance .05, .12, .3, groups of equal size: t .005-.060, flips
.000-.051, McNemar's test up to .148. Groups of very unequal sizes (log-normal, sd 1), differences with t3 tails: t
alone .059-.080, flips .047-.054, the naive t .24-.26. Rare large losses shared by a group (exponential) pass both in
one case of ten at any of these numbers of groups: the limit of every test of a mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoxfer.guard.comparison import RealValued
from autoxfer.guard.estimate import (
    DRAWS,
    MIN_GROUPS,
    Referenced,
    compared,
    few_groups,
    least_error,
    mirrored,
    points,
    seeded,
)

Floats = NDArray[np.float64]

MIN_CLASS = 5  # groups in which a class must occur for its scores to be compared


@dataclass(frozen=True)
class Clustered(Referenced, RealValued):
    """Losses of examples in groups: mistakes, losses on a scale, or shares of a metric that has a title."""

    groups: NDArray[np.int64]  # (n,)
    zero_one: bool = False
    title: str = ""
    labels: NDArray[np.int64] | None = None  # (n,), or several for each example (n, k), where the metric reads scores

    @property
    def approximate(self) -> bool:
        """There are fewer groups than examples."""
        return True

    @property
    def method(self) -> str:  # type: ignore[override]
        """Groups of one are none."""
        return "clustered t" if self.n_groups < self.n else "sign flips"

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """Each example's group, counted from 0: (n,)."""
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)

    @property
    def skewness(self) -> float:
        """Not allowed for: that of groups of unequal sizes is another matter."""
        return 0.0

    @property
    def n_groups(self) -> int:
        """Groups in the guard."""
        return int(self.place.max()) + 1

    @property
    def degrees(self) -> float:
        """One less than there are groups."""
        return self.n_groups - 1

    @cached_property
    def sums(self) -> Floats:
        """What is tested, by group: (G,)."""
        return np.bincount(self.place, self.differences + self.allowance).astype(np.float64)

    @cached_property
    def error(self) -> float:
        """0 where the sums vary by no more than rounding."""
        if not self.finite or self.n_groups == 1:
            return 0.0
        error = float(self._distances(np.ones((1, self.n_groups)))[1][0])
        rounding = 1e-9 * float(np.abs(self.baseline).max() + np.abs(self.candidate).max()) / math.sqrt(self.n)
        least = least_error(self.margin, self.n) if self.in_points else 0.0
        return max(error if error > rounding else 0.0, least)

    @cached_property
    def reference(self) -> Floats:
        """Distances with flipped signs."""
        signs = seeded(self.candidate, self.baseline).choice([-1.0, 1.0], (DRAWS, self.n_groups))
        mean, error = self._distances(signs)
        return mirrored(np.divide(mean, error, out=np.zeros_like(mean), where=error > 1e-12))

    def _distances(self, signs: Floats) -> tuple[Floats, Floats]:
        """Mean and standard error with each group's sign: signs (draws, G) -> (draws,), (draws,)."""
        sizes = np.bincount(self.place).astype(np.float64)
        mean = signs @ self.sums / self.n
        squares = (
            np.square(self.sums).sum() - 2 * mean * (signs @ (self.sums * sizes)) + mean**2 * np.square(sizes).sum()
        )
        return mean, np.sqrt(np.maximum(squares, 0.0) * self.n_groups / (self.n_groups - 1)) / self.n

    @property
    def in_points(self) -> bool:
        """Whether the metric lies within [0, 1]."""
        return self.zero_one or bool(self.title)

    @property
    def fixed(self) -> int | None:
        """Examples."""
        return int((self.differences > 0).sum()) if self.zero_one else None

    @property
    def broken(self) -> int | None:
        """Examples."""
        return int((self.differences < 0).sum()) if self.zero_one else None

    def obstacle(self, level: float) -> str:
        """Too few groups, and what else stands in the way."""
        if self.n_groups < MIN_GROUPS:
            return few_groups(self.n_groups)
        return self.rare_class() or self.unusable() or super().obstacle(level)

    def rare_class(self) -> str:
        """Say that a class occurs too rarely for its scores to be compared."""
        if self.labels is None:
            return ""
        if self.labels.ndim == 2:
            return self.rare_label(self.labels)
        classes, counts = np.unique(np.unique([self.labels, self.place], axis=1)[0], return_counts=True)
        if len(classes) < 2:
            return f"{self.title} needs two classes, and all guard examples are of one"
        if counts.min() >= MIN_CLASS:
            return ""
        unit = "groups" if self.n_groups < self.n else "guard examples"
        return f"{self.title} needs at least {MIN_CLASS} {unit} with each class, and one has {counts.min()}"

    def rare_label(self, labels: NDArray[np.int64]) -> str:
        """Say the same of several labels (n, k), each of which has to be true somewhere and false somewhere."""
        held = np.zeros((2, self.n_groups, labels.shape[1]))
        np.add.at(held[0], self.place, labels)
        np.add.at(held[1], self.place, 1 - labels)
        fewest = int((held > 0).sum(axis=1).min())
        if fewest >= MIN_CLASS:
            return ""
        unit = "groups" if self.n_groups < self.n else "guard examples"
        return f"{self.title} needs at least {MIN_CLASS} {unit} with and {MIN_CLASS} without each label, not {fewest}"

    def summary(self) -> str:
        """As in "fixed 34, broke 18 of 300 in 60 groups"."""
        if self.zero_one:
            seen = f"fixed {self.fixed}, broke {self.broken} of {self.n}"
        elif self.title:
            seen = compared(self.title, self.effect, self.n)
        else:
            seen = super().summary()
        return f"{seen} in {self.n_groups} groups" if self.n_groups < self.n else seen

    def amount(self, gain: float) -> str:
        """In points, or in percent of the baseline's mean loss."""
        return points(gain) if self.in_points else super().amount(gain)
