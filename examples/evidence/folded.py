"""A guard of folds and a guard split on the same examples, with learners that are fitted in closed form.

Targets are linear in many features with noise. Each procedure sees a group of features of its own, so that all are
equally good on average, fits ridge regressions on the train split and keeps the penalty that tunes best. Whether a
fitted model is better than scratch's is then known exactly: features are independent and Gaussian.

With folds the claim is about the procedure: "equal on average" tells how often anything was accepted, though all are
equally good on average. "Shipped no better" counts only draws in which what was accepted, and the last search ships, is
truly no better than scratch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from procedure import ALPHA, Floats, Kind, judge

from autoxfer import guard
from autoxfer.finalists import POOLED_LEAST
from autoxfer.guard import paired
from autoxfer.guard.comparison import MIN_STUDENT

PENALTIES = np.array([0.1, 3.0, 30.0])
WIDTH = 5  # features of each procedure
NOISE = 2.0
KINDS: tuple[tuple[Kind, str], ...] = (("zero_one", "0/1"), ("real", "squared error"))
Rows = NDArray[np.int64]
Accepted = NDArray[np.bool_]


@dataclass(frozen=True)
class Data:
    """Many data sets, and as many ways to look at them: the first procedure is scratch."""

    features: Floats  # (draws, procedures, n, WIDTH)
    target: Floats  # (draws, n); for 0/1 losses its sign is the label
    strength: Floats  # (procedures,) what each of its features counts in the target
    kind: Kind

    def fit(self, train: Rows, tune: Rows) -> tuple[Floats, Floats]:
        """Fit each penalty, keep the best: weights (draws, procedures, WIDTH) and tune losses (draws, procedures)."""
        label = np.sign(self.target) if self.kind == "zero_one" else self.target
        X, y = self.features[:, :, train], label[:, None, train, None]
        gram, moment = X.swapaxes(2, 3) @ X, X.swapaxes(2, 3) @ y
        ridges = [np.linalg.solve(gram + penalty * np.eye(WIDTH), moment)[..., 0] for penalty in PENALTIES]
        losses = np.stack([self.losses(weights, tune).mean(axis=2) for weights in ridges])
        best = losses.argmin(axis=0)
        weights = np.take_along_axis(np.stack(ridges), best[None, :, :, None], 0)[0]
        return weights, losses.min(axis=0)

    def losses(self, weights: Floats, rows: Rows) -> Floats:
        """Loss of each example: (draws, procedures, rows)."""
        said = (self.features[:, :, rows] @ weights[..., None])[..., 0]
        target = self.target[:, None, rows]
        return ((said > 0) != (target > 0)).astype(float) if self.kind == "zero_one" else (said - target) ** 2

    def risk(self, weights: Floats) -> Floats:
        """Compute the true mean loss of each fit: (draws, procedures)."""
        total = WIDTH * (self.strength**2).sum() + NOISE**2
        if self.kind == "zero_one":  # the angle between two Gaussian directions
            agreement = self.strength * weights.sum(axis=2) / np.sqrt((weights**2).sum(axis=2) * total)
            return np.arccos(np.clip(agreement, -1, 1)) / np.pi
        own = ((weights - self.strength[:, None]) ** 2).sum(axis=2)
        return total - WIDTH * self.strength**2 + own


@dataclass(frozen=True)
class Found:
    """What came of many data sets, by folds and by one split: each (draws, k)."""

    folds: Accepted
    split: Accepted
    shipped_gain: Floats  # true, of the last search, which folds ship; squared error: a share of scratch's
    split_gain: Floats  # true, of what the split judged

    @property
    def false(self) -> tuple[float, float]:
        """Share of draws that ship what is truly no better, by folds and by one split."""
        pairs = (self.folds, self.shipped_gain), (self.split, self.split_gain)
        folds, split = ((accepted & (gain <= 0)).any(axis=1).mean() for accepted, gain in pairs)
        return float(folds), float(split)


def settings(smoke: bool, rng: np.random.Generator, draws: int) -> Iterator[tuple[str, int, int, float]]:
    """Yield name, guard examples, finalists, share accepted."""
    for kind, what in KINDS:
        for n in (100,) if smoke else (60, 100, 200, 500):
            for k in (1,) if smoke else (1, 6):
                found = simulate(kind, n, np.ones(k + 1), rng, draws)
                folds, split = found.false
                yield f"5 folds, ridge, {what}, shipped no better", n, k, folds
                yield f"5 folds, ridge, {what}, equal on average", n, k, float(found.folds.any(axis=1).mean())
                if kind == "zero_one" or 0.4 * n >= 50:
                    yield f"one split of the same {n}, ridge, {what}", int(0.4 * n), k, split


def simulate(kind: Kind, n: int, strength: Floats, rng: np.random.Generator, draws: int) -> Found:
    """Run the procedures on many data sets of n examples, five hundred at a time."""
    parts = [_batch(kind, n, strength, rng, min(500, draws - done)) for done in range(0, draws, 500)]
    return Found(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def _batch(kind: Kind, n: int, strength: Floats, rng: np.random.Generator, draws: int) -> tuple[Any, ...]:
    features = rng.standard_normal((draws, len(strength), n, WIDTH))
    signal = np.einsum("dpnw,p->dn", features, strength)
    data, order = Data(features, signal + NOISE * rng.standard_normal((draws, n)), strength, kind), np.arange(n)
    losses = np.empty((draws, len(strength), n))
    for rows in np.array_split(order, 5):
        rest = np.setdiff1d(order, rows)
        losses[:, :, rows] = data.losses(data.fit(*_two_to_one(rest))[0], rows)
    p_values = _p_values(losses, kind, POOLED_LEAST)
    accepted = np.zeros(p_values.shape, bool)
    for draw in np.flatnonzero((p_values <= ALPHA).any(axis=1)):
        accepted[draw] = guard.holm(p_values[draw].tolist(), guard.pooled_alpha(ALPHA, n))[1]
    train, tune, held = np.split(order, [int(0.4 * n), n - int(0.4 * n)])
    weights, tuned = data.fit(train, tune)
    split = judge(tuned[:, :1] - tuned[:, 1:], _p_values(data.losses(weights, held), kind))
    risks = data.risk(data.fit(*_two_to_one(order))[0]), data.risk(weights)
    unit = 1.0 if kind == "zero_one" else risks[0][:, :1]
    return accepted, split, *((risk[:, :1] - risk[:, 1:]) / unit for risk in risks)


def _two_to_one(rows: Rows) -> tuple[Rows, Rows]:
    return rows[: 2 * len(rows) // 3], rows[2 * len(rows) // 3 :]


def _p_values(losses: Floats, kind: Kind, least: int = MIN_STUDENT) -> Floats:
    """Test each procedure against the first: (draws, k)."""
    gains = losses[:, :1] - losses[:, 1:]
    if kind == "zero_one":
        return paired.mcnemar((gains > 0).sum(axis=2), (gains < 0).sum(axis=2))
    return paired.student(gains, 0.0) if gains.shape[2] >= least else np.ones(gains.shape[:2])
