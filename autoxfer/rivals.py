"""Which source is plainly worse than another, by what is finished: it is searched less, and the report says why.

Sources compete within a strategy, whose best finished study leads. Another source's study ends early where its best
trial lies behind by more than chance explains, example by example on the tune split; what was plainly worse in two
strategies has only its default trials in those that come after. Either way its best trial stands as a finalist, scratch
is never touched, and the guard is not asked: which transfers it accepts cannot hang on this, but for the one given up.

Diagnostics are no witness. They are probes of the last features, as ``linear_probe`` is, and where a probe is poor,
training the whole network may be what helps most: it takes a second strategy to say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from autoxfer.records import StudyResult, Trial

ALLOWANCE = 3.0  # standard errors of the paired difference that a source may lie behind
LEAST = 5  # trials, completed or stopped, before a source is judged
WITNESSES = 2  # strategies in which it has to be plainly worse before others are cut short

Floats = NDArray[np.float64]
Losses = Callable[[str, Trial], Floats]  # (study, its best trial) -> its loss on each tune example: (n_tune,)


def errors_behind(loss: Floats, leader: Floats, groups: NDArray[np.int64] | None = None) -> float:
    """Say how many standard errors a mean loss lies above the leader's, on the same (n,) examples.

    Examples of one group count as one. Two more are added, the largest difference there is for either side: a few
    examples that all speak for one source do not mean that nothing can go wrong.
    """
    units = loss - leader
    if groups is not None:
        units = np.bincount(np.unique(groups, return_inverse=True)[1], weights=units).astype(np.float64)
    most = float(np.abs(units).max())
    if not most or not math.isfinite(most):
        return 0.0
    units = np.append(units, (most, -most))
    return float(units.mean() / (units.std(ddof=1) / math.sqrt(len(units))))


@final
class Rivals:
    """The finished studies of a run, by strategy; what they say depends on closed trials alone."""

    def __init__(self, losses: Losses, groups: NDArray[np.int64] | None = None) -> None:
        self._losses, self._groups = losses, groups  # (n_tune,) which examples belong together
        self._leaders: dict[str, tuple[StudyResult, Trial]] = {}  # by strategy
        self._behind: dict[str, dict[str, str]] = {}  # source -> strategy -> the source that leads there
        self._kept: dict[str, tuple[int, Floats]] = {}  # study -> number of its best trial, that trial's losses

    def note(self, result: StudyResult) -> None:
        """Take note of a finished study; scratch has no rivals."""
        best = result.best
        if result.source is None or best is None:
            return
        leader = self._leaders.get(result.strategy)
        if leader is not None and self.behind(result):
            self._behind.setdefault(result.source, {})[result.strategy] = str(leader[0].source)
        if leader is None or _rank(best) > _rank(leader[1]):
            self._leaders[result.strategy] = result, best

    def behind(self, study: StudyResult) -> str:
        """Say of a study, as far as it has come, why its source is plainly worse than another; empty = it is not."""
        leader, best = self._leaders.get(study.strategy), study.best
        n = study.count("complete") + study.count("pruned")  # stopped: behind the best of its own study too
        if leader is None or best is None or n < LEAST or _rank(best) >= _rank(leader[1]):
            return ""
        distance = errors_behind(self._of(study.id, best), self._of(leader[0].id, leader[1]), self._groups)
        if distance <= ALLOWANCE:
            return ""
        return (
            f"{study.source} is plainly worse than {leader[0].source}: after {n} trials its best is "
            f"{_value(best):.3g} on tune, {leader[0].id}'s {_value(leader[1]):.3g}: {distance:.1f} standard errors of "
            f"the difference behind"
        )

    def confined(self, source: str | None) -> str:
        """Say why further studies of a source have their default trials alone; empty = they have all."""
        known: Mapping[str, str] = self._behind.get(str(source), {})
        if len(known) < WITNESSES:
            return ""
        told = " and ".join(f"than {leader} in {strategy}" for strategy, leader in list(known.items())[:WITNESSES])
        return f"{source} was plainly worse {told}: only its default trials"

    def _of(self, study: str, best: Trial) -> Floats:
        if study not in self._kept or self._kept[study][0] != best.number:
            self._kept[study] = best.number, self._losses(study, best)
        return self._kept[study][1]


def _rank(trial: Trial) -> float:
    return -math.inf if trial.outcome.score is None else trial.outcome.score.rank


def _value(trial: Trial) -> float:
    return math.nan if trial.outcome.score is None else trial.outcome.score.value
