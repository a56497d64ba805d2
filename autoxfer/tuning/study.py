"""The search of one study: ask a generation of trials, run them, tell their outcomes, until the budget is spent.

Killed at any instant and opened again, a study goes on to the same parameters and values (for trial budgets and an
unchanged number of slots): trials are told in their order, and what is asked depends on what is told alone.
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

from autoxfer import errors
from autoxfer.engines import Engine
from autoxfer.records import Floors, Job, Outcome, Score, StudyResult, Trial, derive_seed
from autoxfer.tuning.journal import Begun, Journal
from autoxfer.tuning.pruning import Baseline, bars, beaten, floors
from autoxfer.tuning.sampling import N_STARTUP, propose
from autoxfer.tuning.spaces import Space, clip
from autoxfer.tuning.warm import N_COLD, Earlier, WarmStart

MIN_FAILED = 5  # a study whose first trials all fail for one reason is given up


@final
class Study:
    """One search in the journal: its space, its defaults, its seed."""

    def __init__(
        self,
        journal: Journal,
        id: str,
        space: Space,
        defaults: Sequence[Mapping[str, Any]],  # the first trials, in this order; clipped into the space
        *,
        seed: int,  # of the run
        n_trials: int | None,  # None = no limit
        baseline: Baseline | None = None,  # what a transfer is held against; None = this is the baseline
        earlier: Sequence[Earlier] = (),  # trials of an earlier run that are worth trying
        behind: Callable[[tuple[Trial, ...]], str] | None = None,  # says why another source leads; empty = it does not
        confined: str = "",  # why there are no trials but the defaults
    ) -> None:
        self.id = id
        self.space = space
        self.seed = seed
        self.n_trials = n_trials
        self.baseline = baseline
        self.behind, self.confined = behind, confined
        self.defaults: list[dict[str, Any]] = []
        for params in (clip(default, space) for default in defaults):
            if params not in self.defaults:
                self.defaults.append(params)
        if confined:
            self.n_trials = min(len(self.defaults), n_trials or len(self.defaults))
        self._warm = WarmStart.of(earlier, space, len(self.defaults), n_trials or 0)
        self._n_startup = N_COLD if self._warm.seeds else N_STARTUP
        self._journal = journal
        self._study = journal.open_study(id)

    def trials(self) -> tuple[Trial, ...]:
        """Read the finished trials, in their order."""
        return self._journal.closed(self._study)

    def ask(self, n: int, limit: int | None = None) -> list[Begun]:
        """Begin the next ``n`` trials, or take up those that a killed run left; only numbers below ``limit``.

        A trial that was begun keeps its parameters. A generation of which some are told is not filled up: what
        comes next may learn from all of it. An empty list: nothing is left to begin.
        """
        end = min((bound for bound in (limit, self.n_trials) if bound is not None), default=sys.maxsize)
        closed, running = self.trials(), self._journal.running(self._study)
        first = running[0].generation if running else len(closed)
        is_half_told = any(trial.number >= first for trial in closed)
        asked = [trial for trial in running if trial.number < end]
        while not is_half_told and len(running) < n and len(closed) + len(running) < end:
            begun = self._begin(closed, running, first)
            if begun is None:
                break
            running.append(begun)
            asked.append(begun)
        return asked

    def tell(self, number: int, outcome: Outcome) -> Trial:
        """Write what came of a trial; the trial as the journal holds it."""
        return self._journal.finish(self._study, number, outcome)

    def warm_start(self) -> dict[str, int] | None:
        """Count an earlier run's trials that were on offer, were tried, were left out; None where there were none."""
        return self._warm.count(self.trials()) if self._warm.seeds else None

    def given_up(self) -> str:
        """Say why no further trial is asked, where there still could be one; empty = nothing speaks against it.

        Between generations alone, so that a killed search ends where the whole one does.
        """
        closed = self.trials()
        is_spent = self.n_trials is not None and len(closed) >= self.n_trials
        if is_spent or self._journal.running(self._study):
            return self.confined if is_spent else ""
        reason = beaten(closed, self.baseline) if self.baseline else ""
        return reason or (self.behind(closed) if self.behind else "")

    def _begin(self, closed: Sequence[Trial], running: Sequence[Begun], generation: int) -> Begun | None:
        number = len(closed) + len(running)
        if number < len(self.defaults):
            return self._journal.begin(self._study, self.defaults[number], self.space, (), generation)
        seed = derive_seed(self.seed, self.id, number, "params")
        pending = [trial.params for trial in running]
        params = self._warm.at(number, closed) or propose(self.space, closed, pending, seed, self._n_startup)
        if params is None:
            return None
        against = () if self.baseline is None else bars(closed, self.baseline)
        return self._journal.begin(self._study, params, self.space, floors(closed), generation, bars=against)


def tune(
    study: Study,
    make_job: Callable[[int, Mapping[str, Any], Floors], Job],  # number, params, floors
    execute: Callable[[Job], Outcome],
    engine: Engine,
    *,
    deadline: float | None = None,  # time.monotonic() after which no trial begins
    outside_cap: int = 0,  # the first so many begin all the same
    on_trial: Callable[[Trial, Score | None], object] = lambda trial, best: None,  # the best so far
    warn: Callable[[str], object] = lambda text: None,
) -> tuple[Trial, ...]:
    """Search until the trials, the space or the time run out; all finished trials, those of a killed run included.

    A trial that a killed run left and that the deadline now shuts out stays begun; more time takes it up again.
    Raises what stops the whole run: InputError, a full or read-only disk, an interruption. Anything else that
    ``execute`` raises makes the trial a failed one.
    """
    while True:
        reason = hopeless(study.trials())
        if reason:
            warn(f"{study.id}: given up, the first {MIN_FAILED} trials failed alike: {reason}")
            break
        if reason := study.given_up():
            warn(f"{study.id}: no further trials, {reason}")
            break
        late = deadline is not None and time.monotonic() >= deadline
        generation = study.ask(engine.slots, outside_cap if late else None)
        if not generation:
            break
        jobs = [replace(make_job(each.number, each.params, each.floors), bars=each.bars) for each in generation]
        futures = [engine.executor.submit(functools.partial(attempt, execute), job) for job in jobs]
        for begun, future in zip(generation, futures, strict=True):
            trial = study.tell(begun.number, future.result())
            on_trial(trial, _best(study.trials()))
    return study.trials()


def attempt(execute: Callable[[Job], Outcome], job: Job) -> Outcome:
    """Run a job, where the worker is; an exception becomes a failed outcome, unless it should stop the run."""
    started = time.monotonic()
    try:
        outcome = execute(job)
    except Exception as error:
        if errors.is_fatal(error):
            raise
        # The exception ends here: kept longer, its frames would keep the memory that an out-of-memory error is about.
        return Outcome("failed", None, seconds=time.monotonic() - started, reason=errors.describe(error))
    score = outcome.score
    if outcome.state == "complete" and (score is None or not math.isfinite(score.rank)):
        found = "no score" if score is None else f"a score of {score.value}"
        return replace(outcome, state="failed", score=None, reason=f"training ended with {found}")
    return outcome


def hopeless(trials: Sequence[Trial]) -> str:
    """Name the reason for which each of the first trials failed; empty where one did not, or for another reason."""
    first = [trial.outcome for trial in trials[:MIN_FAILED]]
    # An allocator's message has other numbers every time.
    alike = {re.sub(r"\d+(\.\d+)?", "#", outcome.reason) for outcome in first}
    if len(first) < MIN_FAILED or len(alike) > 1 or any(outcome.state != "failed" for outcome in first):
        return ""
    return first[0].reason


def _best(trials: tuple[Trial, ...]) -> Score | None:
    best = StudyResult("", "", None, trials, 0.0).best
    return None if best is None else best.outcome.score


def trials_table(results: Iterable[StudyResult]) -> list[dict[str, Any]]:
    """Make flat rows for a table of all trials; parameters as JSON, since studies differ in names and types."""
    return [
        {
            "study": result.id,
            "strategy": result.strategy,
            "source": result.source,
            "number": trial.number,
            "state": trial.outcome.state,
            "params": json.dumps(dict(trial.params)),
            "value": None if trial.outcome.score is None else trial.outcome.score.value,
            "loss": None if trial.outcome.score is None else trial.outcome.score.loss,
            "seconds": trial.outcome.seconds,
            "steps": trial.outcome.steps,
            "n_trained": trial.outcome.n_trained,
            "reason": trial.outcome.reason,
        }
        for result in results
        for trial in result.trials
    ]
