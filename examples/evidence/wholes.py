"""Metrics that are no mean of losses, and examples in groups: one comparison at a time, by the guard itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pools import counts
from procedure import ALPHA, TUNE, Floats, judge

from autoxfer import guard
from autoxfer.guard.estimate import Estimate
from autoxfer.metrics import Metric, get_metric

if TYPE_CHECKING:
    from real_losses import Predictions

N_CANDIDATES = 6
SETTINGS = (
    ("adult", "auroc", (100, 300, 1000)),
    ("adult", "f1_macro", (100, 300)),
    ("trec", "balanced_accuracy", (300,)),
    ("digits", "f1_macro", (100,)),
)
Row = tuple[str, int, int, float]  # name, guard examples, finalists, share accepted


@dataclass(frozen=True)
class Level:
    """Candidates whose metric over the pool is below the baseline's by the margin, or by a hair more."""

    metric: Metric
    margin: float
    labels: NDArray[np.int64]  # (N,)
    baseline: Floats  # (N, classes)
    candidates: Floats  # (candidates, N, classes)

    def tuned(self, n: int, rng: np.random.Generator, draws: int) -> Floats:
        """Compute each candidate's gain on tune splits of n examples: (draws, candidates)."""
        assert self.metric.statistic is not None
        parts = []
        for done in range(0, draws, 250):
            weights = counts(rng, len(self.labels), n, min(250, draws - done)).astype(float)
            both = (self.baseline, *self.candidates)
            ours, *values = (self.metric.statistic.value(one, self.labels, weights) for one in both)
            parts.append(np.stack(values, axis=1) - ours[:, None])
        return np.concatenate(parts)

    def p_values(self, rows: NDArray[np.int64], gains: Floats) -> Floats:
        """Test those that compete on these examples: (candidates,)."""
        assert self.metric.statistic is not None
        p_values = np.ones(len(self.candidates))
        for k in np.flatnonzero(gains >= 0):
            pair, labels = (self.candidates[k][rows], self.baseline[rows]), self.labels[rows]
            if self.metric.kind == "auroc":
                seen = guard.weigh_auroc(*pair, labels, margin=self.margin)
            else:
                seen = guard.weigh_whole(self.metric.statistic, *pair, labels, margin=self.margin)
            p_values[k] = p_value(seen)
        return p_values


def of_all_examples(found: Predictions, margin: float, rng: np.random.Generator, draws: int) -> Iterator[Row]:
    """Judge real predictions by metrics of all examples together."""
    for pool, name, sizes in SETTINGS:
        if pool == found.name and not (margin and name == "f1_macro"):  # the slowest, and like the next
            level = levelled(found, get_metric(name, "classification"), margin, rng)
            for n in sizes:
                gains = level.tuned(min(n // 2, TUNE), rng, draws)
                rows = rng.integers(len(level.labels), size=(draws, n))
                p_values = np.array([level.p_values(*one) for one in zip(rows, gains, strict=True)])
                for k in (1, N_CANDIDATES):
                    yield f"{name}, {pool}", n, k, accepted_of(gains, p_values, k)


def accepted_of(gains: Floats, p_values: Floats, k: int) -> float:
    """Share of draws in which anything is accepted: of one study that keeps its best trial, or of one trial each."""
    if k == 1:
        best = gains.argmax(axis=1)[:, None]
        gains, p_values = (np.take_along_axis(one, best, 1) for one in (gains, p_values))
    return float(judge(gains, p_values).any(axis=1).mean())


def p_value(seen: guard.Comparison) -> float:
    """Compute the guard's, or Student's where that exceeds ALPHA: simulated exchanges can only add to it."""
    if isinstance(seen, Estimate) and not seen.obstacle(1.0):
        students = Estimate.tail(seen, (seen.effect + seen.margin) / seen.error)
        if students > ALPHA:
            return students
    return seen.p_better


def levelled(found: Predictions, metric: Metric, margin: float, rng: np.random.Generator) -> Level:
    """Mend or spoil answers until every candidate is at its level.

    In a random order, examples get the right answer, or what was said of another example, until that is reached.
    """
    target = metric.value(found.baseline, found.labels) - margin
    truth = np.eye(found.baseline.shape[1])[found.labels]
    made = []
    for candidate in found.candidates[:N_CANDIDATES]:
        place, mends = rng.permutation(len(truth)), metric.value(candidate, found.labels) < target
        other = truth if mends else candidate[rng.permutation(len(truth))]

        def mixed(n: int, candidate: Floats = candidate, other: Floats = other, place: Floats = place) -> Floats:
            return np.where((place < n)[:, None], other, candidate)

        below = lambda n, mixed=mixed: metric.value(mixed(n), found.labels) <= target  # noqa: E731
        made.append(mixed(_edge(below, len(truth), rising=mends)))
    return Level(metric, margin, found.labels, found.baseline, np.array(made))


def _edge(below: Callable[[int], bool], n: int, *, rising: bool) -> int:
    """Find a number of changed answers at which the value is below its target, next to one at which it is not."""
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if below(middle) == rising else (low, middle)
    return low if rising else high


def in_groups(sizes: Sequence[int], rng: np.random.Generator, draws: int) -> Iterator[tuple[Row, bool]]:
    """Examples in groups of 2 to 18 that are easy or hard together, for one model or the other; no gain on average.

    Yields rows, and whether the groups were kept from the guard: what then happens is why there is a group column.
    """
    for kind, what in (("zero_one", "0/1 losses"), ("real", "absolute errors")):
        for n_groups in sizes:
            p_values = np.array([_grouped(kind, n_groups, rng) for _ in range(draws)])  # (draws, 2, candidates)
            for untold, name in enumerate((f"{what} in {n_groups} groups", f"{what} in {n_groups} groups, untold")):
                for k in (1, N_CANDIDATES):
                    chosen = p_values[:, untold, :k]
                    share = float(judge(np.ones_like(chosen), chosen).any(axis=1).mean())
                    yield (name, 10 * n_groups, k, share), bool(untold)


def _grouped(kind: guard.Kind, n_groups: int, rng: np.random.Generator) -> list[list[float]]:
    groups = np.repeat(np.arange(n_groups), rng.permutation(np.resize([2, 6, 14, 18], n_groups)))
    shared = rng.standard_normal((N_CANDIDATES + 1, n_groups))[:, groups]
    error = 0.7 * shared + rng.standard_normal(shared.shape)
    losses = (error > 0.9).astype(float) if kind == "zero_one" else np.abs(error)
    told = [guard.weigh(one, losses[0], kind=kind, margin=0.0, groups=groups) for one in losses[1:]]
    untold = [guard.weigh(one, losses[0], kind=kind, margin=0.0) for one in losses[1:]]
    return [[p_value(seen) for seen in way] for way in (told, untold)]
