r"""Tests for paired losses: is the candidate's mean gain above a bound? Pure maths; arrays broadcast.

| symbol   | meaning                                                             | shape   | units             |
|----------|---------------------------------------------------------------------|---------|-------------------|
| n        | guard examples                                                      | scalar  | count             |
| fixed    | examples that only the candidate gets right (b in the literature)   | any     | count             |
| broken   | examples that only the baseline gets right (c)                      | any     | count             |
| m        | fixed + broken, the discordant examples                             | any     | count             |
| rho      | discordance, m / n or what it tends to                              | any     | share of examples |
| gain     | true mean gain; 0/1 losses: P(fixed) - P(broken)                    | any     | mean loss         |
| bound    | the null hypothesis is "gain <= bound"; minus the margin            | scalar  | mean loss         |
| level    | probability of rejecting a null hypothesis that holds               | scalar  |                   |

McNemar, exact (Psychometrika 12, 1947). Given m, fixed ~ Binomial(m, 1/2) where gain = 0, so

    p = P(Binomial(m, 1/2) >= fixed),        valid at every n.

Tango's score statistic (Statistics in Medicine 17, 1998), q = P(broken) estimated under gain = bound:

    z = (fixed - broken - n bound) / sqrt(n (2 q + bound (1 - bound))).

Its normal approximation is up to 1.9 times too generous at n = 10 and 1.2 times at n = 300 (the worst rho). So the
p-value is the exact unconditional one (Hsueh, Liu and Chen, Biometrics 57, 2001): the largest probability over rho of a
z at least this large where gain = bound. It is valid at every n too.

Student's t for real-valued losses, on the differences; asymptotic, hence for n >= 50 only. Where a candidate gains a
little on most examples and loses much on a few, as the overconfident do by log loss, t is too generous. So it is held
against Hall's transformation as well, which removes the skewness g (Journal of the Royal Statistical Society B 54,
1992), and the less favourable of the two counts. With w = t / sqrt(n),

    Q = w + g w^2 / 3 + g^2 w^3 / 27 + g / (6 n),        t' = sqrt(n) Q.

Measured on log losses of real classifiers, an overconfident candidate that is no better (skewness about -4), at level
.05: t alone accepts .16 / .12 / .08 / .07 at n = 50 / 100 / 300 / 1000, the smaller of both .10 / .065 / .05 / .05.
Among Gaussian differences this costs less than .01 of power, among t3 ones .02.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

POWER = 0.8  # what "this guard finds" means
N_RHO = 64  # grid of discordances over which Tango's p-value is maximised


def mcnemar(fixed: ArrayLike, broken: ArrayLike) -> Floats:
    """P-value of "gain <= 0" for 0/1 losses, exact."""
    from scipy.special import bdtrc  # noqa: PLC0415

    fixed, broken = np.broadcast_arrays(np.asarray(fixed, np.int64), np.asarray(broken, np.int64))
    tail = bdtrc(np.maximum(fixed - 1, 0).astype(np.float64), fixed + broken, 0.5)  # P(more than fixed - 1)
    return np.where(fixed == 0, 1.0, tail)


def score(fixed: ArrayLike, broken: ArrayLike, n: int, bound: ArrayLike) -> Floats:
    """Tango's z for "gain <= bound"; at bound 0 it is (fixed - broken) / sqrt(m)."""
    fixed, broken, bound = (np.asarray(value, np.float64) for value in (fixed, broken, bound))
    linear = (2 * n - fixed + broken) * bound - fixed - broken
    root = np.sqrt(np.maximum(linear**2 + 8 * n * broken * bound * (1 - bound), 0.0))
    share = (root - linear) / (4 * n)  # q of the table above
    distance = fixed - broken - n * bound
    deviation = np.sqrt(np.maximum(n * (2 * share + bound * (1 - bound)), 0.0))
    safe = np.where(deviation > 1e-9, deviation, 1.0)
    certain = np.where(np.abs(distance) < 1e-9, 0.0, np.copysign(np.inf, distance))  # no variance under the null
    return np.where(deviation > 1e-9, distance / safe, certain)


def tango(fixed: int, broken: int, n: int, bound: float) -> float:
    """P-value of "gain <= bound" for 0/1 losses: the exact unconditional one of Tango's statistic."""
    return rarity(float(score(fixed, broken, n, bound)), n, bound)


def rarity(z: float, n: int, bound: float) -> float:
    """Largest probability, over the discordance, of a Tango statistic of at least ``z`` where gain = bound."""
    counts = critical(lambda fixed, broken: score(fixed, broken, n, bound) >= z - 1e-9, n)
    # evenly spaced on the arcsine scale; a discordance below |gain| does not exist
    rho = np.sin(np.linspace(np.arcsin(math.sqrt(abs(bound))), np.pi / 2, N_RHO)) ** 2
    return float(min(1.0, reach(counts, n, np.clip(rho, max(abs(bound), 1e-9), 1.0), bound).max()))


def critical(rejects: Callable[[Counts, Counts], NDArray[np.bool_]], n: int) -> Counts:
    """Find the smallest number fixed that rejects, for m = 0..n discordant examples; m + 1 where none does: (n + 1,).

    ``rejects(fixed, broken)`` must be monotone: another fixed example never turns a rejection back.
    """
    m = np.arange(n + 1)
    low, high = np.zeros(n + 1, np.int64), m + 1
    while (low < high).any():
        middle = (low + high) // 2
        enough = (middle > m) | rejects(np.minimum(middle, m), np.maximum(m - middle, 0))
        high = np.where(enough, middle, high)
        low = np.where(enough | (low >= high), low, middle + 1)
    return high


def reach(counts: Counts, n: int, rho: ArrayLike, gain: ArrayLike) -> Floats:
    """Probability that a test with these critical counts rejects, for each true discordance (k,) and gain (k,)."""
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy  # noqa: PLC0415

    rho, gain = (np.atleast_1d(np.asarray(value, np.float64))[:, None] for value in (rho, gain))
    width = min(n, math.ceil(3.5 * math.sqrt(n)) + 5)  # seven standard deviations of m either side
    m = np.rint(n * rho).astype(np.int64) + np.arange(-width, width + 1)  # (k, 2 * width + 1)
    inside = (m >= 0) & (m <= n)
    m = np.clip(m, 0, n)
    mass = np.exp(gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, rho) + xlog1py(n - m, -rho))
    share = np.clip((1 + gain / rho) / 2, 0.0, 1.0)  # of the discordant examples that are fixed
    tail = bdtrc(np.maximum(counts[m] - 1, 0).astype(np.float64), m, share)
    total: Floats = np.where(inside, mass * np.where(counts[m] == 0, 1.0, tail), 0.0).sum(axis=1)
    return total


@lru_cache(maxsize=64)
def threshold(n: int, bound: float, level: float) -> float:
    """Smallest Tango statistic, to a thousandth, whose p-value is at most ``level``; infinite where none is."""
    low, high = 0.0, float(score(n, 0, n, bound))
    if rarity(high, n, bound) > level:
        return math.inf
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if rarity(middle, n, bound) <= level else (middle, high)
    return high


@lru_cache(maxsize=64)
def zero_one_counts(n: int, bound: float, level: float) -> Counts:
    """Critical counts of the test for 0/1 losses: McNemar's at bound 0, Tango's otherwise."""
    if bound == 0.0:
        return critical(lambda fixed, broken: mcnemar(fixed, broken) <= level, n)
    least = threshold(n, bound, level)
    return critical(lambda fixed, broken: score(fixed, broken, n, bound) >= least, n)


def zero_one_power(n: int, discordance: float, gain: float, bound: float, level: float) -> float:
    """Probability of accepting a candidate of this true gain; the discordance is raised to |gain| where below it."""
    rho = max(discordance, abs(gain), 1e-9)
    return float(reach(zero_one_counts(n, bound, level), n, rho, gain)[0])


def zero_one_detectable(n: int, discordance: float, bound: float, level: float) -> float:
    """Smallest true gain that is accepted with probability POWER, by exact power; infinite where none is."""
    low, high = bound, 1.0
    if zero_one_power(n, discordance, high, bound, level) < POWER:
        return math.inf
    for _ in range(20):
        middle = (low + high) / 2
        enough = zero_one_power(n, discordance, middle, bound, level) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def score_bound(fixed: int, broken: int, n: int, level: float) -> float:
    """Lower confidence bound of the gain at 1 - level: the bound at which Tango's z stops rejecting."""
    low, high = -1.0, (fixed - broken) / n
    for _ in range(50):
        middle = (low + high) / 2
        rejected = bool(score(fixed, broken, n, middle) > quantile(1 - level))
        low, high = (middle, high) if rejected else (low, middle)
    return low


def student(differences: Floats, bound: float) -> Floats:
    """P-value of "gain <= bound" for real-valued differences (..., n); 1 where they do not vary."""
    n = differences.shape[-1]
    mean = differences.mean(axis=-1)
    centred = differences - mean[..., None]
    return student_of(mean - bound, (centred**2).mean(axis=-1), (centred**3).mean(axis=-1), n)


def student_of(distance: Floats, square: Floats, cube: Floats, n: int) -> Floats:
    """P-value from the mean's distance to the bound, and the mean squared and cubed deviation from the mean."""
    from scipy.special import stdtr  # noqa: PLC0415

    varies = square > 0
    sd = np.sqrt(np.where(varies, square, 1.0))
    t = distance / sd * math.sqrt(n - 1)
    return np.where(varies, stdtr(n - 1, -unskewed(t, cube / sd**3, n)), 1.0)


def unskewed(t: ArrayLike, skewness: ArrayLike, n: int) -> Floats:
    """Take the smaller of t and Hall's transformation of it."""
    t, g = np.asarray(t, np.float64), np.asarray(skewness, np.float64)
    w = t / math.sqrt(n)
    smaller: Floats = np.minimum(t, math.sqrt(n) * (w + g * w**2 / 3 + g**2 * w**3 / 27 + g / (6 * n)))
    return smaller


def skewed(t: float, skewness: float, n: int) -> float:
    """Find the t that ``unskewed`` turns into this one."""
    g, q = skewness, t / math.sqrt(n) - skewness / (6 * n)
    if abs(g) < 1e-6:
        return t
    return max(t, math.sqrt(n) * 3 * (float(np.cbrt(1 + g * q)) - 1) / g)


def student_quantile(n: float, probability: float) -> float:
    """Quantile of Student's t for n differences."""
    from scipy.special import stdtrit  # noqa: PLC0415

    return float(stdtrit(n - 1, probability))


def student_detectable(n: int, sd: float, bound: float, level: float) -> float:
    """Smallest true gain that is accepted with probability POWER: bound + (t_{1-level} + t_POWER) sd / sqrt(n)."""
    return bound + (student_quantile(n, 1 - level) + student_quantile(n, POWER)) * sd / math.sqrt(n)


def examples_needed(gain: float, *, variance: float, bound: float = 0.0, level: float = 0.05) -> float:
    """About how many examples a true gain needs to be accepted with probability POWER; infinite at or below bound.

    (z_{1-level} + z_POWER)^2 variance / (gain - bound)^2, which is 6.2 variance / gain^2 at level .05. The variance is
    that of one difference: the discordance for 0/1 losses.
    """
    if not gain > bound:
        return math.inf
    return math.ceil((quantile(1 - level) + quantile(POWER)) ** 2 * variance / (gain - bound) ** 2)


def quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    from scipy.special import ndtri  # noqa: PLC0415

    return float(ndtri(probability))
