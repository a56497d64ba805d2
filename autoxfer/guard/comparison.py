"""One finalist beside the baseline: two kinds of paired losses that answer the guard's questions in the same words.

effect      mean gain: baseline's loss minus candidate's, so that positive = candidate better
p_better    p-value of "the gain is at most minus the margin"
p_worse     p-value of the reverse, "the gain is at least minus the margin"
low, high   confidence bounds of the gain, each one-sided at 1 - level
detectable  smallest true gain accepted with probability .8 at a level, at the discordance or spread seen here
needed      about how many examples the observed gain would need for the same
obstacle    why no test is possible at a level; empty where one is
summary, amount   what was seen, and a gain, in the user's words
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from autoxfer.guard import paired

MIN_STUDENT = 50  # guard examples below which the t test's approximation is not trusted


@dataclass(frozen=True)
class ZeroOne:
    """0/1 losses: all that counts is how many examples were fixed and broken."""

    fixed: int
    broken: int
    n: int
    margin: float

    @property
    def method(self) -> str:
        """Exact in both cases; see ``paired``."""
        return "Tango" if self.margin else "exact McNemar"

    @property
    def effect(self) -> float:
        """Share of examples."""
        return (self.fixed - self.broken) / self.n

    @cached_property
    def p_better(self) -> float:
        """McNemar's at margin 0, Tango's otherwise."""
        if self.margin:
            return paired.tango(self.fixed, self.broken, self.n, -self.margin)
        return float(paired.mcnemar(self.fixed, self.broken))

    @cached_property
    def p_worse(self) -> float:
        """The same test with the roles exchanged."""
        if self.margin:
            return paired.tango(self.broken, self.fixed, self.n, self.margin)
        return float(paired.mcnemar(self.broken, self.fixed))

    def low(self, level: float) -> float:
        """Invert Tango's score test."""
        return paired.score_bound(self.fixed, self.broken, self.n, level)

    def high(self, level: float) -> float:
        """Invert Tango's score test."""
        return -paired.score_bound(self.broken, self.fixed, self.n, level)

    @property
    def discordance(self) -> float:
        """Share of examples on which the two differ."""
        return (self.fixed + self.broken) / self.n

    def detectable(self, level: float) -> float:
        """By exact power."""
        return paired.zero_one_detectable(self.n, self.discordance, -self.margin, level)

    def needed(self, level: float) -> float:
        """By the rule 6.2 * discordance / gain^2 (at level .05)."""
        return paired.examples_needed(self.effect, variance=self.discordance, bound=-self.margin, level=level)

    def obstacle(self, level: float) -> str:
        """Even the best outcome, every example fixed, may be likely enough by chance."""
        if ((1 - self.margin) / 2) ** self.n > level:
            return f"no outcome of {self.n} guard examples could reach level {level:.2g}"
        return ""

    def summary(self) -> str:
        """As in "fixed 34, broke 18 of 300"."""
        return f"fixed {self.fixed}, broke {self.broken} of {self.n}"

    def amount(self, gain: float) -> str:
        """In points."""
        number = _number(100 * gain)
        return f"{number} point" if number in {"1", "-1"} else f"{number} points"


@dataclass(frozen=True)
class RealValued:
    """Losses on a scale: all that counts is the difference on each example."""

    candidate: NDArray[np.float64]  # (n,)
    baseline: NDArray[np.float64]  # (n,)
    margin: float
    fixed: ClassVar[None] = None
    broken: ClassVar[None] = None
    method: ClassVar[str] = "paired t"

    @property
    def n(self) -> int:
        """Guard examples."""
        return len(self.candidate)

    @cached_property
    def differences(self) -> NDArray[np.float64]:
        """Gain on each example: (n,)."""
        with np.errstate(invalid="ignore"):  # infinity minus infinity is dealt with as an obstacle
            return self.baseline - self.candidate

    @cached_property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return bool(np.isfinite(self.differences).all())

    @property
    def effect(self) -> float:
        """NaN where a loss is not finite."""
        return float(self.differences.mean()) if self.finite else math.nan

    @cached_property
    def sd(self) -> float:
        """Standard deviation of the differences; 0 where they vary by no more than rounding."""
        if self.n == 1 or not self.finite:
            return 0.0
        sd = float(self.differences.std(ddof=1))
        return sd if sd > 1e-9 * float(np.abs(self.baseline).max() + np.abs(self.candidate).max()) else 0.0

    @cached_property
    def p_better(self) -> float:
        """1 where the test is refused."""
        return 1.0 if self.obstacle(1.0) else float(paired.student(self.differences, -self.margin))

    @cached_property
    def p_worse(self) -> float:
        """1 where the test is refused."""
        return 1.0 if self.obstacle(1.0) else float(paired.student(-self.differences, self.margin))

    def low(self, level: float) -> float:
        """Student's bound; without a spread nothing bounds the gain."""
        return self.effect - self._half_width(level) if self.sd else -math.inf

    def high(self, level: float) -> float:
        """Student's bound; without a spread nothing bounds the gain."""
        return self.effect + self._half_width(level) if self.sd else math.inf

    def _half_width(self, level: float) -> float:
        return paired.student_quantile(self.n, 1 - level) * self.sd / math.sqrt(self.n)

    def detectable(self, level: float) -> float:
        """Infinite where the test is refused."""
        return math.inf if self.obstacle(level) else paired.student_detectable(self.n, self.sd, -self.margin, level)

    def needed(self, level: float) -> float:
        """By the rule 6.2 * variance / gain^2 (at level .05)."""
        return paired.examples_needed(self.effect, variance=self.sd**2, bound=-self.margin, level=level)

    def obstacle(self, level: float) -> str:
        """Losses that are no numbers, too few examples, or differences that do not vary."""
        for whose, losses in (("its", self.candidate), ("scratch's", self.baseline)):
            if n_broken := int((~np.isfinite(losses)).sum()):
                return f"{whose} loss is not a finite number on {n_broken} of {self.n} guard examples"
        if self.n < MIN_STUDENT:
            return f"a paired t test needs at least {MIN_STUDENT} guard examples, and there are {self.n}"
        if not self.sd:
            return f"the losses differ by {self.effect:.3g} on every example, so there is no spread to judge by"
        return ""

    def summary(self) -> str:
        """As in "loss 12% lower than scratch's on 300 examples"."""
        direction = "lower" if self.effect >= 0 else "higher"
        return f"loss {self.amount(abs(self.effect))} {direction} than scratch's on {self.n} examples"

    def amount(self, gain: float) -> str:
        """In percent of the baseline's mean loss."""
        mean = float(self.baseline.mean())
        return f"{_number(100 * gain / mean)}%" if mean > 0 else f"{gain:.3g}"


Comparison = ZeroOne | RealValued


def _number(value: float) -> str:
    value = round(value, 4) + 0.0  # no minus before a zero
    return (f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}").removesuffix(".0")
