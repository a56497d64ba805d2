"""The guard's procedure, thousands of times at once: finalists of a search, their verdicts, the winner.

What a split shows of the candidates is kept as sums over its examples, since the tests need no more. The p-values, the
order and the levels are the guard's own (``autoxfer.guard``); tests/test_evidence.py shows that the decisions are those
of ``guard.judge`` and ``finalists.choose``, draw by draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoxfer import guard
from autoxfer.guard import paired
from autoxfer.guard.comparison import MIN_STUDENT, SKEWED

Floats = NDArray[np.float64]
Kind = Literal["zero_one", "real"]
ALPHA = 0.05  # of every setting
TUNE = 100  # examples at most to tune on; by many more, few that are worse would compete


@dataclass(frozen=True)
class Seen:
    """What a split of n examples shows of each candidate, beside the baseline: sums, each (draws, candidates)."""

    kind: Kind
    n: int
    sums: tuple[Floats, ...]  # 0/1: examples fixed, examples broken; real: of the gains, their squares, their cubes
    baseline: Floats  # sum of the baseline's losses: (draws, 1)
    bound: float = 0.0  # the null hypothesis is "gain <= bound"

    @property
    def gain(self) -> Floats:
        """Mean gain over the baseline."""
        return (self.sums[0] - self.sums[1] if self.kind == "zero_one" else self.sums[0]) / self.n

    @property
    def error(self) -> Floats:
        """Standard error of the gain."""
        spread = sum(self.sums) / self.n - self.gain**2 if self.kind == "zero_one" else self._moments()[1]
        return np.sqrt(np.maximum(spread, 0.0) / (self.n - 1))

    def of(self, columns: NDArray[np.int64]) -> Seen:
        """Keep these candidates (draws, k) of each draw."""
        sums = tuple(np.take_along_axis(one, columns, 1) for one in self.sums)
        return Seen(self.kind, self.n, sums, self.baseline, self.bound)

    def p_values(self) -> Floats:
        """P-values of the guard's test of each candidate by itself."""
        if self.kind == "zero_one":
            fixed, broken = self.sums
            return _tango(fixed, broken, self.n, self.bound) if self.bound else paired.mcnemar(fixed, broken)
        if self.n < MIN_STUDENT:
            return np.ones_like(self.sums[0])
        mean, square, cube = self._moments()
        return paired.student_of(mean - self.bound, square, cube, self.n)

    @property
    def approximate(self) -> bool:
        """Whether the guard calls its test approximate for some candidate in a typical draw."""
        if self.kind == "zero_one":
            return False
        _, square, cube = self._moments()
        return bool(np.min(np.mean(cube / np.maximum(square, 1e-300) ** 1.5, axis=0)) < SKEWED)

    def _moments(self) -> tuple[Floats, Floats, Floats]:
        mean, square, cube = (total / self.n for total in self.sums)
        return mean, np.maximum(square - mean**2, 0.0), cube - 3 * mean * square + 2 * mean**3


def search(tune: Seen, n_studies: int) -> NDArray[np.int64]:
    """Share the candidates out among the studies as trials, and pick each study's best: (draws, n_studies)."""
    studies = np.array_split(np.arange(tune.gain.shape[1]), n_studies)
    return np.stack([trials[tune.gain[:, trials].argmax(axis=1)] for trials in studies], axis=1)


def judge(
    tune_gain: Floats, p_values: Floats, tune_error: Floats | float = 0.0, alpha: float = ALPHA
) -> NDArray[np.bool_]:
    """Tell which finalists (draws, k) are accepted: the weighted fallback over those that compete.

    These are the ones that tuned above the baseline or, as ``finalists.competes`` has it, at most an error below it.
    """
    accepted = np.zeros(p_values.shape, bool)
    competes = (tune_gain > 0) | (tune_gain >= -tune_error - 1e-12)
    for draw in np.flatnonzero(((p_values <= alpha) & competes).any(axis=1)):
        order = [k for k in np.argsort(-tune_gain[draw], kind="stable") if competes[draw, k]]
        accepted[draw, order] = guard.fallback(p_values[draw, order].tolist(), alpha)[1]
    return accepted


def choose(tune: Seen, differ: Floats, accepted: NDArray[np.bool_], n_trained: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose the winner among the finalists: its column, or -1 for scratch: (draws,). For 0/1 losses.

    It is the accepted one that tuned best; within a standard error of the difference the one with fewer trained
    parameters (k,). On ``differ`` (draws, k, k) of the examples one of two is right.
    """
    best = np.where(accepted, tune.gain, -np.inf).argmax(axis=1)[:, None]
    behind = np.take_along_axis(tune.gain, best, 1) - tune.gain
    spread = np.take_along_axis(differ, best[:, :, None], 1)[:, 0] / tune.n - behind**2
    near = accepted & (behind <= np.sqrt(np.maximum(spread, 0.0) / (tune.n - 1)) + 1e-12)
    return np.where(accepted.any(axis=1), np.where(near, n_trained, np.inf).argmin(axis=1), -1)


def unlike(tune: Seen) -> Floats:
    """Expect on how many examples two candidates differ, (draws, k, k), if they are alike in the baseline alone."""
    found = np.zeros((*tune.sums[0].shape, tune.sums[0].shape[1]))
    for turned, of in zip(tune.sums, (tune.baseline, tune.n - tune.baseline), strict=True):
        both = turned[:, :, None] * turned[:, None, :] / np.maximum(of, 1.0)[:, :, None]
        found += turned[:, :, None] + turned[:, None, :] - 2 * both
    return found


def _tango(fixed: Floats, broken: Floats, n: int, bound: float) -> Floats:
    """Tango's p-values; 1 where the score shows without a long sum that they exceed ALPHA."""
    p_values = np.ones(fixed.shape)
    for index in zip(*np.nonzero(paired.score(fixed, broken, n, bound) > _hopeless(n, bound)), strict=True):
        p_values[index] = _tango_once(int(fixed[index]), int(broken[index]), n, bound)
    return p_values


@lru_cache(maxsize=200_000)
def _tango_once(fixed: int, broken: int, n: int, bound: float) -> float:
    return paired.tango(fixed, broken, n, bound)


@lru_cache
def _hopeless(n: int, bound: float) -> float:
    """Find a score, not far from the critical one, whose p-value exceeds ALPHA; it falls as the score grows."""
    return next((z for z in np.arange(1.62, 0.0, -0.04) if paired.rarity(float(z), n, bound) > ALPHA), -math.inf)
