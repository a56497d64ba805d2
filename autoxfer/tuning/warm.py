"""A warm start that cannot poison a search: what did well elsewhere is tried between cold proposals, never believed.

A source of good parameters may mislead: where the two tasks' scores run against each other, a model that is told both
searches in the wrong place. So what is taken over are trials and nothing else. They are at most a fifth of the study's,
one after each that the sampler proposes for itself; no range is narrowed, no score is carried over. The rest of them
are left out where the first three are all worse than half of what the sampler proposed, or where six or more came out
in an order that has nothing of the earlier one.

What it gains and costs was measured by ``python examples/evidence/warm_start.py``, whose table stands there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from autoxfer.records import Trial
from autoxfer.tuning.spaces import Space, clip

SHARE = 0.2  # of a study's trials, at most
N_COLD = 10  # trials before the sampler models anything, in place of its own number
FEW = 3  # told ones from which they are held against what the sampler proposed
ENOUGH = 6  # told ones from which their order is held against the earlier one


@dataclass(frozen=True)
class Earlier:
    """A trial of another run: its parameters, and how good they were there."""

    params: Mapping[str, Any]
    rank: float  # higher is better


@final
@dataclass(frozen=True)
class WarmStart:
    """What a study tries of an earlier one's trials, and when."""

    seeds: tuple[Earlier, ...] = ()  # in the order in which they are tried, the best first
    first: int = 0  # number of the first trial that is not a default

    @classmethod
    def of(cls, earlier: Sequence[Earlier], space: Space, first: int, n_trials: int) -> WarmStart:
        """Take the best of ``earlier``, brought into the space; of those that become alike, one."""
        seeds: list[Earlier] = []
        for each in sorted(earlier, key=lambda trial: -trial.rank):
            params = clip(each.params, space)
            if math.isfinite(each.rank) and all(params != seed.params for seed in seeds):
                seeds.append(Earlier(params, each.rank))
        return cls(tuple(seeds[: int(SHARE * n_trials)]), first)

    def at(self, number: int, closed: Sequence[Trial]) -> Mapping[str, Any] | None:
        """Give the parameters that trial ``number`` takes over; None where the sampler proposes, as every other time.

        Depends on the finished trials alone, so that a killed search goes on as it would have gone on.
        """
        place, rest = divmod(number - self.first, 2)
        if rest == 0 or not 0 <= place < len(self.seeds) or self.misleads(closed):
            return None
        return self.seeds[place].params

    def misleads(self, closed: Sequence[Trial]) -> bool:
        """Whether those that are told are worse than what the sampler proposed, or their order here is another."""
        told = self._told(closed)
        places = {self._number(place) for place in range(len(self.seeds))}
        cold = [_rank(trial) for trial in closed if trial.number not in places]
        if len(told) >= FEW and cold and max(rank for _, rank in told) < float(np.median(cold)):
            return True
        return len(told) >= ENOUGH and _spearman([seed.rank for seed, _ in told], [rank for _, rank in told]) <= 0

    def count(self, closed: Sequence[Trial]) -> dict[str, int]:
        """Say for the record how many were on offer, were tried, and were left out."""
        passed = sum(any(trial.number == self._number(place) for trial in closed) for place in range(len(self.seeds)))
        n_used = len(self._told(closed))
        return {"offered": len(self.seeds), "used": n_used, "dropped": passed - n_used}

    def _number(self, place: int) -> int:
        return self.first + 2 * place + 1

    def _told(self, closed: Sequence[Trial]) -> list[tuple[Earlier, float]]:
        """Pair those that are told with their rank here; one that failed has the lowest."""
        known = {trial.number: trial for trial in closed}
        told = []
        for place, seed in enumerate(self.seeds):
            trial = known.get(self._number(place))
            if trial is not None and dict(trial.params) == dict(seed.params):
                told.append((seed, _rank(trial)))
        return told


def _rank(trial: Trial) -> float:
    """Give how good a trial was; one that failed is the worst."""
    score = trial.outcome.score
    return -math.inf if score is None or math.isnan(score.rank) else score.rank


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; 0 where one of them does not vary."""
    ranks = [np.unique(values, return_inverse=True)[1] for values in (a, b)]
    places = [np.array([np.flatnonzero(np.sort(r) == value).mean() for value in r]) for r in ranks]
    if any(place.std() == 0 for place in places):
        return 0.0
    return float(np.corrcoef(places[0], places[1])[0, 1])
