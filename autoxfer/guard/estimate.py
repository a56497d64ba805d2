"""A gain with a standard error, held against Student's t: what most comparisons have in common."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autoxfer.guard import paired

DRAWS = 2000  # half of the simulated ones: each counts with its mirror image too
MIN_GROUPS = 10  # below which the approximation for examples in groups is not trusted
TIE = 1e-9  # distances no further apart are the same


class Estimate(ABC):
    """Answers from an effect, its error and its degrees of freedom; see ``comparison`` for the words."""

    method: ClassVar[str]

    @property
    def approximate(self) -> bool:
        """Whether the level holds for many examples only."""
        return True

    @property
    @abstractmethod
    def n(self) -> int:
        """Guard examples."""

    @property
    @abstractmethod
    def margin(self) -> float:
        """Mean loss that may be lost."""

    @property
    @abstractmethod
    def effect(self) -> float:
        """Mean gain; NaN where it is unknown."""

    @property
    @abstractmethod
    def error(self) -> float:
        """Standard error of the effect plus the margin; 0 where nothing varies."""

    @property
    @abstractmethod
    def degrees(self) -> float:
        """Of freedom, of the standard error."""

    @property
    def skewness(self) -> float:
        """Of what is averaged, where the tests are to allow for it."""
        return 0.0

    @property
    def fixed(self) -> int | None:
        """Examples that only the candidate gets right; None where losses are no mistakes."""
        return None

    @property
    def broken(self) -> int | None:
        """Examples that only the baseline gets right."""
        return None

    @abstractmethod
    def summary(self) -> str:
        """Say what was seen."""

    @abstractmethod
    def amount(self, gain: float) -> str:
        """Say a gain."""

    @abstractmethod
    def obstacle(self, level: float) -> str:
        """Say why no test is possible at a level; empty where one is."""

    def tail(self, distance: float) -> float:
        """Probability of so large an effect, in standard errors from the boundary, by chance."""
        from scipy.special import stdtr  # noqa: PLC0415

        return float(stdtr(self.degrees, -distance))

    def quantile(self, probability: float) -> float:
        """Distance that chance stays below with this probability."""
        return paired.student_quantile(self.degrees + 1, probability)

    def away(self, sign: int) -> float:
        """Distance above the boundary (sign 1) or below it (-1), in standard errors."""
        distance = sign * (self.effect + self.margin) / self.error
        return float(paired.unskewed(distance, sign * self.skewness, self.n)) if self.skewness else distance

    def _reach(self, level: float, sign: int) -> float:
        """Count the standard errors from the effect down to its lower bound (sign 1), or up to its upper one (-1)."""
        return paired.skewed(self.quantile(1 - level), sign * self.skewness, self.n)

    @cached_property
    def p_better(self) -> float:
        """1 where the test is refused."""
        return 1.0 if self.obstacle(1.0) else self.tail(self.away(1))

    @cached_property
    def p_worse(self) -> float:
        """1 where the test is refused."""
        return 1.0 if self.obstacle(1.0) else self.tail(self.away(-1))

    def low(self, level: float) -> float:
        """Without a spread nothing bounds the gain."""
        return self.effect - self._reach(level, 1) * self.error if self.error else -math.inf

    def high(self, level: float) -> float:
        """Without a spread nothing bounds the gain."""
        return self.effect + self._reach(level, -1) * self.error if self.error else math.inf

    def detectable(self, level: float) -> float:
        """Infinite where the test is refused."""
        if self.obstacle(level):
            return math.inf
        reach = self.quantile(1 - level) + paired.student_quantile(self.degrees + 1, paired.POWER)
        return reach * self.error - self.margin

    def needed(self, level: float) -> float:
        """By the rule 6.2 * variance / gain^2 (at level .05)."""
        variance = self.n * self.error**2
        return paired.examples_needed(self.effect, variance=variance, bound=-self.margin, level=level)


class Referenced(Estimate):
    """An estimate whose distance is held against simulated ones as well; the less favourable answer counts."""

    @property
    @abstractmethod
    def reference(self) -> NDArray[np.float64]:
        """Distances that chance gave, ascending and symmetric about 0: (draws,)."""

    def tail(self, distance: float) -> float:
        """Take the larger of Student's and the simulated probability, the one seen counted among the draws."""
        n_beyond = len(self.reference) - int(np.searchsorted(self.reference, distance - TIE))
        return max(super().tail(distance), (1 + n_beyond) / (1 + len(self.reference)))

    def quantile(self, probability: float) -> float:
        """Take the larger of Student's and the simulated distance; infinite where there are too few draws."""
        n_beyond = math.floor((1 - probability) * (1 + len(self.reference)) + TIE) - 1
        if n_beyond < 0:
            return math.inf
        return max(super().quantile(probability), float(self.reference[-1 - n_beyond]))

    def obstacle(self, level: float) -> str:
        """Even the most extreme draw may be likely enough."""
        if self.tail(math.inf) > level:
            return f"{len(self.reference):,} simulated exchanges cannot show a level of {level:.2g}"
        least = self.tail(float(self.reference[-1]))
        return f"it differs from scratch on too few examples to reach level {level:.2g}" if least > level else ""


def seeded(*data: NDArray[Any]) -> np.random.Generator:
    """Make a generator that is the same for the same data, in whatever order they are named."""
    digests = sorted(hashlib.sha256(np.ascontiguousarray(part).tobytes()).digest() for part in data)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(b"".join(digests)).digest()[:8], "big"))


def mirrored(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add the draws with every coin turned over, and sort."""
    return np.sort(np.concatenate([distances, -distances]))


def compared(title: str, effect: float, n: int) -> str:
    """Say what was seen of a metric within [0, 1]: "macro F1 3.2 points higher than scratch's on 300 examples"."""
    return f"{title} {points(abs(effect))} {'higher' if effect >= 0 else 'lower'} than scratch's on {n} examples"


def few_groups(n_groups: int) -> str:
    """Say that there are too few."""
    return f"examples in groups need at least {MIN_GROUPS} groups in the guard, and there are {n_groups}"


def points(gain: float) -> str:
    """Say a gain of a metric within [0, 1]."""
    shown = number(100 * gain)
    return f"{shown} point" if shown in {"1", "-1"} else f"{shown} points"


def number(value: float) -> str:
    """Round for a sentence."""
    value = round(value, 4) + 0.0  # no minus before a zero
    return (f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}").removesuffix(".0")


def least_error(margin: float, n: int) -> float:
    """Give the standard error that a loss of ``margin`` cannot do without, where each example costs at most 1.

    Who loses the margin loses it somewhere: the variance of one difference is at least margin * (1 - margin). Without
    this a few examples that happen to agree would prove that nothing is lost.
    """
    return math.sqrt(margin * (1 - margin) / n)
