r"""What a guard of this size can find, and what more examples would buy, before anything has been measured.

How far two models differ is not known yet, so three cases are shown. For squared errors they are correlations rho of
the two models' errors. If these are Gaussian with mean zero and one variance s^2, the difference D of the losses has

    sd(D) = 2 s^2 sqrt(1 - rho^2) = 2 sqrt(1 - rho^2) * mean loss,

since var(e^2) = 2 s^4 and cov(e1^2, e2^2) = 2 rho^2 s^4; for absolute errors sd(D) / mean loss is
sqrt(pi - 2 (sqrt(1 - rho^2) + rho asin(rho))). For log loss there is no such formula: linear models, small networks and
forests on 50 to 150 digits or tumours gave 0.4 to 3.4, most often 0.7 to 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from autoxfer import guard
from autoxfer.guard import paired
from autoxfer.guard.estimate import MIN_GROUPS
from autoxfer.metrics import Metric

SHARES = (0.05, 0.12, 0.3)  # of examples on which two models differ: alike, usual, unlike
CORRELATIONS = (0.9, 0.7, 0.3)  # of two models' errors
SPREADS = (0.5, 1.2, 3.0)  # of log losses: sd of the difference / scratch's mean
USUAL = 1  # which of the three
FACTORS = (1, 2, 4)  # sizes of guards that are shown
POINTS, PARTS = (0.1, 0.05, 0.02), (0.3, 0.2, 0.1)  # gains whose price is shown: of examples; of scratch's loss
FEW = 300  # guard examples up to which an exact number is cheap
MUCH, HALF = 0.2, 0.5  # gains that a guard of any use finds: of examples; of scratch's loss
SQUARED, ABSOLUTE = ("rmse", "mse", "r2"), ("mae",)


@final
@dataclass(frozen=True)
class Case:
    """How far the two models differ, and what follows."""

    label: str
    found: tuple[float, ...]  # smallest true gain accepted with probability .8, at each of the sizes
    needed: tuple[float, ...]  # guard examples that each of the gains takes


@final
@dataclass(frozen=True)
class Prospect:
    """What a guard can find. A gain is a share of the examples (points / 100), or of scratch's mean loss."""

    n: int  # guard examples
    metric: str
    least: int  # guard examples below which real-valued losses are not tested
    relative: bool  # gains are shares of scratch's loss
    alpha: float
    level: float  # at which the best of the finalists is tested first
    margin: float
    n_finalists: int
    pooled: bool  # over folds, where all finalists are tested together
    n_groups: int | None  # that the guard's examples come from
    n_outputs: int  # labels or numbers that an example has
    in_points: bool  # the margin is in the metric's own units
    sizes: tuple[int, ...]
    gains: tuple[float, ...]
    cases: tuple[Case, ...]  # alike, usual, unlike

    def lines(self) -> Iterator[str]:
        """Say it in a table and a few sentences."""
        counted = self.margin and not (self.relative and self.in_points)
        verb = f"accepts with the margin of {100 * self.margin:g}" if counted else "finds"
        yield f"the smallest true gain that the guard {verb} four times in five, in {self._unit()},"
        yield "and how many guard examples some gains take:"
        yield from _aligned([self._head(), *map(self._row, self.cases)])
        if self.relative and self.n < self.least and self.n_groups is None:
            yield f"  with fewer than {self.least} guard examples {self.metric} is not tested, and nothing is accepted"
        if self.relative and self.in_points and self.margin:
            yield f"  (reckoned without the margin, which is in points of {self.metric})"
        if self.metric in (*SQUARED, *ABSOLUTE):
            each = f" of one output, where a mean over {self.n_outputs} varies less" if self.n_outputs > 1 else ""
            yield f"  (for Gaussian errors{each}; with outliers it takes more)"
        elif not self.relative and self.metric != "accuracy":
            yield f"  (reckoned for accuracy: {self.metric} may take several times more, or fewer, examples)"
        if self.n_finalists > 1 and self.pooled:
            yield f"  (at level {self.level:.2g}: alpha shared among {self.n_finalists} transfers, tested together)"
        elif self.n_finalists > 1:
            yield (
                f"  (at level {self.level:g}, where of several transfers the one that tunes best starts; "
                f"one that competes alone is tested at {self.alpha:g} and takes fewer examples)"
            )
        if self.n_groups is not None:
            yield (
                f"  (the guard's {self.n:,} examples come from {self.n_groups:,} groups: the more alike those of one "
                f"group are, the less they tell; at worst they are worth {self.n_groups:,})"
            )

    def _unit(self) -> str:
        if self.relative:
            return f"percent of scratch's {'mean squared error' if self.metric in SQUARED else 'loss'}"
        return f"points ({'percent of the examples' if self.metric == 'accuracy' else f'hundredths of {self.metric}'})"

    def _head(self) -> list[str]:
        now = [f"{size:,}{' (now)' if size == self.n else ''}" for size in self.sizes]
        prices = [
            f"{self._gain(gain)} takes" if self.relative else f"{100 * gain:g} points take" for gain in self.gains
        ]
        return ["with a guard of", *now, *prices]

    def _row(self, case: Case) -> list[str]:
        prices = (f"{_rounded(n):,}" if math.isfinite(n) else "-" for n in case.needed)
        return [case.label, *map(self._gain, case.found), *prices]

    def _gain(self, gain: float) -> str:
        if not gain <= 1:
            return "none"
        number = f"{100 * gain:.0f}" if abs(gain) >= 0.0995 else f"{100 * gain:.1f}"
        return f"{number}%" if self.relative else number


def prospect(
    n: int,
    metric: Metric,
    *,
    alpha: float,
    margin: float,
    n_finalists: int,
    pooled: bool = False,
    n_groups: int | None = None,
    n_outputs: int = 1,
) -> Prospect:
    """Work out what ``n`` guard examples can find with so many transfers to judge, and what more would buy."""
    level = _first_level(n_finalists, guard.pooled_alpha(alpha, n) if pooled else alpha, pooled=pooled)
    relative, asked = metric.kind == "real", margin
    margin = _reckoned(margin, metric)
    gains, sizes = PARTS if relative else POINTS, tuple(factor * n for factor in FACTORS)
    cases = tuple(
        Case(
            label,
            tuple(_found(size, spread, margin, level, relative=relative) for size in sizes),
            tuple(_price(gain, spread, margin, level, metric) for gain in gains),
        )
        for label, spread in _spreads(metric)
    )
    named = n, metric.name, metric.least, relative
    of = n_groups, n_outputs, metric.bounded
    return Prospect(*named, alpha, level, asked, n_finalists, pooled, *of, sizes, gains, cases)


def too_small(
    n: int,
    metric: Metric,
    *,
    alpha: float,
    margin: float,
    n_finalists: int,
    pooled: bool = False,
    n_all: int | None = None,  # examples of which these n are a share; None = n is a count that the user gave
) -> str:
    """Say that ``n`` guard examples find not even a large gain, and how many would; empty where they do."""
    relative, spread, margin = metric.kind == "real", _spreads(metric)[USUAL][1], _reckoned(margin, metric)
    level = _first_level(n_finalists, guard.pooled_alpha(alpha, n) if pooled else alpha, pooled=pooled)
    much = HALF if relative else MUCH
    if _found(n, spread, margin, level, relative=relative) <= much:
        return ""
    enough = _rounded(max(_needed(much, spread, margin, level, relative=relative), metric.least if relative else 0))
    while _found(enough, spread, margin, level, relative=relative) > much:  # the power of an exact test has teeth
        enough += 1
    in_all = f", with these splits some {_rounded(n_all * enough / n):,} labelled examples in all" if n_all else ""
    told = f"a loss {100 * much:.0f}% lower than scratch's" if relative else f"a gain of {100 * much:.0f} points"
    return f"the guard's {n:,} examples find not even {told} reliably; about {enough:,} would{in_all}"


def too_few_groups(n: int) -> str:
    """Say that so few groups in the guard cannot be tested; empty where they can."""
    if n >= MIN_GROUPS:
        return ""
    return f"the guard's examples come from {n} groups; with fewer than {MIN_GROUPS} nothing is tested, nor accepted"


def _reckoned(margin: float, metric: Metric) -> float:
    """Leave a margin out that is in points where gains are shares of a loss that is not known yet."""
    return 0.0 if metric.kind == "real" and metric.bounded else margin


def _first_level(n_finalists: int, alpha: float, *, pooled: bool) -> float:
    """Look up the level at which the best of so many finalists is tested first: the fallback's, or Holm's."""
    if pooled:
        return alpha / max(1, n_finalists)
    return guard.fallback([1.0] * max(1, n_finalists), alpha)[0][0]


def spread_of_squares(correlation: float) -> float:
    """Compute the standard deviation of the difference of two squared errors, in mean losses; see above."""
    return 2 * math.sqrt(1 - correlation**2)


def spread_of_sizes(correlation: float) -> float:
    """Compute the same for absolute errors."""
    return math.sqrt(math.pi - 2 * (math.sqrt(1 - correlation**2) + correlation * math.asin(correlation)))


def _spreads(metric: Metric) -> list[tuple[str, float]]:
    """Name three cases of how far two models differ: the discordance, or sd(D) / mean loss."""
    if metric.name in SQUARED:
        return [(f"the two models' errors correlate {each}", spread_of_squares(each)) for each in CORRELATIONS]
    if metric.name in ABSOLUTE:
        return [(f"the two models' errors correlate {each}", spread_of_sizes(each)) for each in CORRELATIONS]
    if metric.kind == "real":
        return [(f"the losses of an example differ by {each} times scratch's mean", each) for each in SPREADS]
    return [(f"the two models differ on {each:.0%} of the examples", each) for each in SHARES]


def _found(n: int, spread: float, margin: float, level: float, *, relative: bool) -> float:
    if relative:
        return guard.plan_detectable(n, kind="real", sd=spread, margin=margin, alpha=level)
    return guard.plan_detectable(n, kind="zero_one", discordance=spread, margin=margin, alpha=level)


def _price(gain: float, spread: float, margin: float, level: float, metric: Metric) -> float:
    """Count the guard examples that find this gain, as many as a test needs at all; infinite where it cannot be."""
    relative = metric.kind == "real"
    if not relative and gain > spread + 1e-9:
        return math.inf  # two models that differ on 5% of the examples cannot be 10 points apart
    needed = _needed(gain, spread, margin, level, relative=relative)
    return max(needed, float(metric.least)) if relative else needed


def _needed(gain: float, spread: float, margin: float, level: float, *, relative: bool) -> float:
    """Count the guard examples that find this gain: halving where they are few, else correcting the rule."""
    variance = spread**2 if relative else max(spread, gain)
    rule = float(paired.examples_needed(gain, variance=variance, bound=-margin, level=level))
    if rule > FEW:
        found = _found(round(rule), spread, margin, level, relative=relative)
        return rule * ((found + margin) / (gain + margin)) ** 2
    low, high = 4, 2 * FEW  # finds it not; finds it
    while high - low > 1:
        middle = (low + high) // 2
        enough = _found(middle, spread, margin, level, relative=relative) <= gain
        low, high = (low, middle) if enough else (middle, high)
    return float(high)


def _rounded(n: float) -> int:
    """Round up to two figures: the rule is no better than that."""
    step = int(10 ** max(0, math.floor(math.log10(n)) - 1))
    return math.ceil(n / step - 1e-9) * step


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = "  ".join(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield f"  {first:{widths[0]}}  {cells}"
