"""Where splits come from: real losses, or made-up ones, with candidates whose true gains are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from procedure import Floats, Kind, Seen

CHUNK = 20_000_000  # numbers held at once
WRONG = 0.3  # the baseline's share of mistakes where losses are made up


class Population(Protocol):
    """Where splits come from."""

    kind: Kind
    n_candidates: int

    def look(self, rng: np.random.Generator, n: int, draws: int, margin: float = 0.0) -> Seen:
        """Draw splits of n examples; ``margin`` is tolerated by the test that will judge them."""
        ...


@dataclass(frozen=True)
class Pool:
    """A finite population of real losses, drawn from with replacement."""

    kind: Kind
    baseline: Floats  # (N,)
    candidates: Floats  # (candidates, N)

    @property
    def n_candidates(self) -> int:
        """All that may be tried."""
        return len(self.candidates)

    def look(self, rng: np.random.Generator, n: int, draws: int, margin: float = 0.0) -> Seen:
        """Count how often each example is drawn; all sums are matrix products with these counts."""
        tolerated = margin * self.baseline if self.kind == "real" else 0.0  # a share of the baseline's loss
        gains = (self.baseline + tolerated - self.candidates).T  # (N, candidates)
        terms = (gains > 0, gains < 0) if self.kind == "zero_one" else (gains, gains**2, gains**3)
        exact = np.float32 if self.kind == "zero_one" else np.float64  # counts stay far below 2^24
        table = np.hstack([*terms, self.baseline[:, None]]).astype(exact)
        step = max(1, CHUNK // max(len(gains), n))
        sums = [counts(rng, len(gains), n, min(step, draws - k)).astype(exact) @ table for k in range(0, draws, step)]
        bound = -margin if self.kind == "zero_one" else 0.0
        *shown, baseline = np.split(np.vstack(sums).astype(float), np.arange(1, len(terms) + 1) * len(gains.T), axis=1)
        return Seen(self.kind, n, tuple(shown), baseline, bound)

    def recentred(self, gain: float, rng: np.random.Generator) -> Pool:
        """Give every candidate exactly this true gain (for real losses: a share of the baseline's mean loss).

        Real losses are scaled, so that none becomes negative. Of 0/1 losses as few as possible are turned, half of them
        where the candidates differ from the baseline and half where they do not, so that the discordance stays; similar
        candidates, whose examples are turned in one order, stay similar.
        """
        if self.kind == "real":
            factor = (1 - gain) * self.baseline.mean() / self.candidates.mean(axis=1, keepdims=True)
            return Pool(self.kind, self.baseline, self.candidates * factor)
        order = rng.permutation(len(self.baseline))
        turned = [_turned(self.baseline, losses, gain, order) for losses in self.candidates]
        return Pool(self.kind, self.baseline, np.array(turned))

    @property
    def discordance(self) -> float:
        """Mean share of examples on which candidate and baseline differ."""
        return float(np.mean(self.candidates != self.baseline))


@dataclass(frozen=True)
class Coins:
    """0/1 losses that are made up: all candidates share a baseline, and are independent otherwise."""

    discordance: float  # raised to a gain that is larger
    gains: tuple[float, ...]  # true gain of each candidate
    kind: Kind = "zero_one"

    @property
    def n_candidates(self) -> int:
        """All that may be tried."""
        return len(self.gains)

    def look(self, rng: np.random.Generator, n: int, draws: int, margin: float = 0.0) -> Seen:
        """Draw the numbers fixed and broken."""
        gains = np.array(self.gains)
        rho = np.maximum(self.discordance, np.abs(gains))
        wrong = rng.binomial(n, WRONG, size=(draws, 1))
        fixed = rng.binomial(wrong, (rho + gains) / 2 / WRONG)
        broken = rng.binomial(n - wrong, (rho - gains) / 2 / (1 - WRONG))
        return Seen(self.kind, n, (fixed.astype(float), broken.astype(float)), wrong, -margin)


@dataclass(frozen=True)
class Errors:
    """Squared errors that are made up: correlated .7 with the baseline's, Gaussian or t with 3 degrees of freedom."""

    tail: Literal["gaussian", "t3"]
    gains: tuple[float, ...]  # true gain of each candidate, as a share of the baseline's mean loss
    blow_ups: float = 0.0  # share of the candidates' errors that are 4 times larger; the others are smaller for it
    kind: Kind = "real"

    @property
    def n_candidates(self) -> int:
        """All that may be tried."""
        return len(self.gains)

    def look(self, rng: np.random.Generator, n: int, draws: int, margin: float = 0.0) -> Seen:
        """Draw errors, a few draws at a time."""
        step = max(1, CHUNK // (n * self.n_candidates))
        parts = [self._sums(rng, n, min(step, draws - k), margin) for k in range(0, draws, step)]
        *sums, baseline = np.concatenate(parts, axis=1)
        return Seen(self.kind, n, tuple(sums), baseline[:, :1])

    def _sums(self, rng: np.random.Generator, n: int, draws: int, margin: float) -> Floats:
        sums = np.empty((4, draws, self.n_candidates))
        baseline, wild = rng.standard_normal((draws, n)), np.ones((draws, n))
        if self.tail == "t3":  # the same example is hard for all
            wild = 3.0 / rng.chisquare(3, (draws, n))
        for k, gain in enumerate(self.gains):
            error = 0.7 * baseline + math.sqrt(1 - 0.7**2) * rng.standard_normal((draws, n))
            spread = 1.0 + 15.0 * (rng.random((draws, n)) < self.blow_ups) if self.blow_ups else 1.0
            scale = (1 - gain) / (1 + 15.0 * self.blow_ups)
            difference = wild * ((1 + margin) * baseline**2 - scale * spread * error**2)
            sums[:3, :, k] = [np.einsum(f"{','.join(['ij'] * power)}->i", *[difference] * power) for power in (1, 2, 3)]
        sums[3] = (wild * baseline**2).sum(axis=1)[:, None]
        return sums


def counts(rng: np.random.Generator, size: int, n: int, draws: int) -> NDArray[np.int64]:
    """How often each of ``size`` examples is among n drawn with replacement: (draws, size)."""
    picked = rng.integers(size, size=(draws, n)) + size * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * size).reshape(draws, size)


def _turned(baseline: Floats, losses: Floats, gain: float, order: NDArray[np.int64]) -> Floats:
    surplus = round((baseline - losses).sum() - gain * len(losses))  # more fixed than broken ones than there should be
    losses, wanted = losses.copy(), 1.0 if surplus > 0 else 0.0  # what turned examples become
    open_to = order[losses[order] != wanted]
    different = baseline[open_to] != losses[open_to]
    half = min(abs(surplus) // 2, int(different.sum()))
    losses[open_to[different][:half]] = wanted
    losses[open_to[~different][: abs(surplus) - half]] = wanted
    return losses
