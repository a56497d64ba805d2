"""When a trial, or the rest of a study, is not worth its time. Pure: finished trials in, numbers and reasons out.

Two opponents set the bars: the study's own finished trials (``floors``) and, for a transfer, the best trial of the
baseline, whose study is over by then (``bars``, ``beaten``). The guard is never asked.

What the baseline's bars save and cost was measured by holding the curves of finished searches against them
(``python examples/evidence/stopping.py RUNS...``): 261 transfer studies of 5 to 12 trials on the digits examples, LeNet
on fashion and on permuted digits, ResNet-20 on photographs, and tables under RMSE, log loss and MAE. Of 2,486 trials:

    variant                         stopped  time saved  competitors lost  finalists lost, at most by
    as it is                            654       8.6 %                 0               7  1.1 errors
    allowance of 1 error                763      11.1 %                 6              14  1.1
    allowance of 3                      579       7.1 %                 0               6  1.1
    a rung at a third of the steps      727      14.1 %                 9              20  1.6
    own study's best not spared         740      10.1 %                 0              40  4.9

An error is the standard error of the baseline's tune score; a competitor is a trial that ended above the baseline; a
finalist is its study's best. None that the guard accepted was ever stopped. A quarter of the time was saved where the
source's labels were shuffled, 4 % on plain digits, 1 % or less with ResNet-20 and on tables. What leads its own study
is spared since it is what the report calls harmful or not: otherwise that would often be a transfer that was not tuned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autoxfer.records import Bars, Floors, Score, Trial

RUNGS = ((0.3, 0.0), (0.5, 0.5), (0.75, 0.5))  # share of the steps, quantile of the finished trials to be reached there
BAR_RUNGS = (0.5, 0.75)  # shares of the steps at which a transfer is held against the baseline
ALLOWANCE = 2.0  # standard errors that a transfer's trial may lie behind there
STUDY_ALLOWANCE = 3.0  # that the best of a whole study may lie behind at the end of its trials
MIN_COMPLETED = 5  # completed trials before anything is pruned; also what an honest baseline needs


@dataclass(frozen=True)
class Baseline:
    """The baseline's best trial, which a transfer has to beat on the tune split to compete at all."""

    score: Score
    curve: tuple[tuple[float, float], ...]  # (share of the steps done, rank on the tune split)
    error: float  # standard error of the rank, by the size of the tune split


def floors(closed: Iterable[Trial]) -> Floors:
    """Set the rank that a new trial must have reached at each rung, by what the finished trials had reached there.

    Early it need only not be the worst, halfway and later it must reach the median: early ranks say little of the
    end, since many steps or a low learning rate start late. On simulated curves with a tune split of 50 this saves a
    fifth of the steps of 20 trials and loses the best of them in one study of 12; a median at a quarter of the way
    would lose it in one of three. Pruned trials count at the rungs that they reached; without them the survivors
    alone would raise the floor from trial to trial. Failed ones never count.
    """
    closed = [trial for trial in closed if trial.outcome.state != "failed"]
    if sum(trial.outcome.state == "complete" for trial in closed) < MIN_COMPLETED:
        return ()
    reached = {share: sorted(_reached(closed, share)) for share, _ in RUNGS}
    return tuple(
        (share, reached[share][int(part * (len(reached[share]) - 1))])
        for share, part in RUNGS
        if len(reached[share]) >= MIN_COMPLETED
    )


def bars(closed: Sequence[Trial], baseline: Baseline) -> Bars:
    """Set the rank below which a transfer's trial has no chance left: (share, rank, what the baseline had by then).

    Below it lies what is behind the baseline by more than the allowance, and behind the best of its own study too:
    where nothing beats the baseline, the best of the study still is what the report calls harmful or not. Before
    another trial of the study has reached a rung, and against a baseline that was solved, there is no bar.
    """
    closed = [trial for trial in closed if trial.outcome.state != "failed"]
    found = []
    for share in BAR_RUNGS:
        own = max(_reached(closed, share), default=None)
        theirs = max((rank for at, rank in baseline.curve if at <= share), default=-math.inf)
        is_trained = any(0 < at <= share for at, _ in baseline.curve)
        if own is None or not is_trained or not math.isfinite(theirs - baseline.error):
            continue
        found.append((share, min(theirs - ALLOWANCE * baseline.error, own), theirs))
    return tuple(found)


def beaten(closed: Sequence[Trial], baseline: Baseline) -> str:
    """Say why a study that has had its chance needs no further trials; empty = it may still win.

    In the same replay it kept 18 trials from being begun, and cost one of the seven finalists, 1.1 errors; with an
    allowance of 2 errors 32 trials, and three finalists. It says little beside the bars, which leave few trials of a
    hopeless study complete, but it is all that ends a study of trials that have no curve. Pruned trials do not count
    as chances: with them one study of three where the source hurts would end with a finalist up to 6 errors too weak.
    """
    scores = [trial.outcome.score for trial in closed if trial.outcome.score is not None]
    n = sum(trial.outcome.state == "complete" for trial in closed)
    if n < MIN_COMPLETED or not scores or not math.isfinite(baseline.error):
        return ""
    best = max(scores, key=lambda score: score.rank)
    if best.rank >= baseline.score.rank - STUDY_ALLOWANCE * baseline.error:
        return ""
    return (
        f"after {n} completed trials its best is {best.value:.3g} on tune, scratch's {baseline.score.value:.3g}: "
        f"more than {STUDY_ALLOWANCE:g} standard errors ({baseline.error:.2g}) behind"
    )


def _reached(trials: Iterable[Trial], share: float) -> Iterator[float]:
    """Give the best rank up to ``share`` of the steps, for each trial that got there."""
    for trial in trials:
        curve = [(at, -math.inf if math.isnan(rank) else rank) for at, rank in trial.outcome.curve]
        before = [rank for at, rank in curve if at <= share]
        if before and curve[-1][0] >= share:
            yield max(before)
