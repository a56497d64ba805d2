"""One finalist beside the baseline: paired losses that answer the guard's questions in the same words.

Metrics that are no mean of losses have kinds of their own (``delong``, ``exchange``), and so have examples that come in
groups (``clustered``). ``weighing`` chooses.

effect      mean gain: baseline's loss minus candidate's, so that positive = candidate better
p_better    p-value of "the gain is at most minus the margin"
p_worse     p-value of the reverse, "the gain is at least minus the margin"
low, high   confidence bounds of the gain, each one-sided at 1 - level
detectable  smallest true gain accepted with probability .8 at a level, at the discordance or spread seen here
needed      about how many examples the observed gain would need for the same
approximate whether the level holds for many examples only
obstacle    why no test is possible at a level; empty where one is
summary, amount   what was seen, and a gain, in the user's words
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from autoxfer.guard import paired
from autoxfer.guard.estimate import Estimate, number, points

SKEWED = -1.0  # skewness below which the level of the t test, though corrected, is only near: .08 for .05 at n = 50
MIN_STUDENT = 50  # guard examples below which the t test's approximation is not trusted


@dataclass(frozen=True)
class ZeroOne:
    """0/1 losses: all that counts is how many examples were fixed and broken."""

    fixed: int
    broken: int
    n: int
    margin: float
    approximate: ClassVar[bool] = False

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
        return points(gain)


@dataclass(frozen=True)
class RealValued(Estimate):
    """Losses on a scale: all that counts is the difference on each example.

    A margin that is a share of the baseline's loss is not known but estimated, and so it is handed in for each example:
    the test asks whether the mean of baseline + allowance - candidate is above 0. With the mean as a fixed margin, what
    is worse by exactly the margin was accepted in three cases of ten where the two losses rise and fall together.
    """

    candidate: NDArray[np.float64]  # (n,)
    baseline: NDArray[np.float64]  # (n,)
    allowance: NDArray[np.float64]  # (n,) what each example may lose; its mean is the margin
    least: int = field(default=MIN_STUDENT, kw_only=True)  # examples below which the test is refused
    method: ClassVar[str] = "paired t"

    @property
    def approximate(self) -> bool:
        """Where the differences are skewed; else the level holds from MIN_STUDENT examples on, for t3 tails too.

        Of losses so rare that none may be among the examples, no test of a mean can know.
        """
        return self.skewness < SKEWED

    @property
    def n(self) -> int:
        """Guard examples."""
        return len(self.candidate)

    @cached_property
    def margin(self) -> float:
        """Mean loss; 0 where a loss of the baseline is not finite, and nothing can be tested."""
        return float(self.allowance.mean()) if np.isfinite(self.allowance).all() else 0.0

    @cached_property
    def differences(self) -> NDArray[np.float64]:
        """Gain on each example: (n,)."""
        with np.errstate(invalid="ignore"):  # infinity minus infinity is dealt with as an obstacle
            return self.baseline - self.candidate

    @cached_property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return bool(np.isfinite(self.differences).all())

    @cached_property
    def effect(self) -> float:
        """NaN where a loss is not finite."""
        return float(self.differences.mean()) if self.finite else math.nan

    @property
    def degrees(self) -> float:
        """One less than there are examples."""
        return self.n - 1

    @cached_property
    def error(self) -> float:
        """0 where the differences vary by no more than rounding."""
        if self.n == 1 or not self.finite:
            return 0.0
        sd = float((self.differences + self.allowance).std(ddof=1))
        rounding = 1e-9 * float(np.abs(self.baseline).max() + np.abs(self.candidate).max())
        return sd / math.sqrt(self.n) if sd > rounding else 0.0

    @cached_property
    def skewness(self) -> float:
        """Of the tested differences; negative where much is lost on few examples."""
        if not self.error:
            return 0.0
        tested = self.differences + self.allowance
        return float(((tested - tested.mean()) ** 3).mean() / tested.std() ** 3)

    def obstacle(self, level: float) -> str:
        """Too few examples, and what else stands in the way."""
        if self.finite and self.n < self.least:
            return f"a paired t test needs at least {self.least} guard examples, and there are {self.n}"
        return self.unusable()

    def unusable(self) -> str:
        """Say what is wrong with the losses: no numbers, or differences that do not vary; empty where nothing is."""
        for whose, losses in (("its", self.candidate), ("scratch's", self.baseline)):
            if n_broken := int((~np.isfinite(losses)).sum()):
                return f"{whose} loss is not a finite number on {n_broken} of {self.n} guard examples"
        if not self.error:
            return f"the losses differ by {self.effect:.3g} on every example, so there is no spread to judge by"
        return ""

    def summary(self) -> str:
        """As in "loss 12% lower than scratch's on 300 examples"."""
        direction = "lower" if self.effect >= 0 else "higher"
        return f"loss {self.amount(abs(self.effect))} {direction} than scratch's on {self.n} examples"

    def amount(self, gain: float) -> str:
        """In percent of the baseline's mean loss."""
        mean = float(self.baseline.mean())
        return f"{number(100 * gain / mean)}%" if mean > 0 else f"{gain:.3g}"


Comparison = ZeroOne | Estimate
