"""A guard of folds: a whole search for each, so that every example but test's is judged by models that never saw it.

With few data a guard split sees little. Here everything but test is dealt into K folds (``partitioning``). Each is the
guard once: a search of its own tunes every study on the other folds, split into train and tune, and its finalists
predict it. The predictions are pooled, and the metric's usual test compares each study with scratch on all of them
(Bayle, Bayle, Janson and Mackey, NeurIPS 2020, arXiv 2007.12671: with a stable procedure the ordinary variance of
pooled paired losses serves). As every example tuned models in other folds, the order of tune scores is not independent
of the guard: all studies compete, by Holm's procedure. One more search, on everything but test, makes what is shipped.

The claim is therefore about the procedure, search included, and approximate; it is about no weights, and certifies
none. How far it can be trusted, measured with cheap learners on two procedures that are equally good on average (4,000
draws; one half of 20 features against the other, tuned on the tune split; 5 folds, level .05; in brackets one split of
40/20/40). Shipped: accepted, though what the last search ships is truly no better than scratch.

| losses  | learner          | accepted at n = 60, 100, 200, 500                  | shipped |
|---------|------------------|----------------------------------------------------|---------|
| 0/1     | nearest centroid | .05 (.02), .05 (.03), .04 (.04), .04 (.04)         | .02     |
| 0/1     | ridge            | .07 (.04), .07 (.05), .06 (.05), .05 (.04)         | .02     |
| 0/1     | best one feature | .06 (.03), .06 (.04), .09 (.05), .09 (.07)         | .04     |
| squared | ridge            | .12 (.09), .11 (.09), .09 (.07), .06 (.05)         | .04     |

The level is passed where models differ by luck: an unstable learner, squared errors of fits to a few dozen examples.
Losses on a scale are therefore tested from 100 examples on (``finalists.POOLED_LEAST``), and fewer than 200 of any kind
at two thirds of alpha (``guard.pooled_alpha``); the table was made before that.
Many of those acceptances are of models that are truly better. What it buys: ridge that is 5 points better is accepted
.23 (.11) / .34 (.17) / .62 (.33) of the time at n = 100 / 200 / 500, 8 to 9 points .50 (.24) / .74 (.41) / .98 (.75).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from autoxfer import runfolder, tuning
from autoxfer.events import Event, StudyStarted, TrialFinished, Warned
from autoxfer.records import StudyResult, Verdict
from autoxfer.runfolder import RunFolder
from autoxfer.searching import job_of, search, seconds

if TYPE_CHECKING:
    from autoxfer.setting import Setting

Rows = NDArray[np.int64]
Predictions = Mapping[str, NDArray[np.float64]]  # study -> (n, classes) probabilities, or (n,) values


@final
@dataclass(frozen=True)
class Fold:
    """One fold, searched: what its finalists say of the examples that they have not seen."""

    rows: Rows  # (n,)
    predictions: Predictions  # of the studies with a completed trial
    results: tuple[StudyResult, ...]


@final
@dataclass(frozen=True)
class Pooled:
    """All folds together."""

    rows: Rows  # (n,) everything but test
    number: Rows  # (n,) the fold of each, counted from 1
    predictions: Predictions  # of the studies with a finalist in every fold
    weakest: tuple[StudyResult, ...]  # each study's result in the fold where the fewest trials were completed


def names(setting: Setting) -> tuple[str, ...]:
    """Name all studies of a run in the order of their searches; without folds, the studies' own names."""
    n_folds = len(setting.folds)
    each = [_name(number + 1, n_folds, study) for number in range(n_folds) for study in setting.studies]
    return (*each, *setting.studies)


def search_folds(setting: Setting, folder: RunFolder, tell: Callable[[Event], None]) -> Pooled:
    """Search every fold that is not finished yet, and pool what the finalists say."""
    numbers = range(1, len(setting.folds) + 1)
    folds = [_searched(setting, number, folder.fold(number), tell) for number in numbers]
    everywhere = [name for name in setting.studies if all(name in fold.predictions for fold in folds)]
    return Pooled(
        np.concatenate([fold.rows for fold in folds]),
        np.repeat(numbers, [len(fold.rows) for fold in folds]),
        {name: np.concatenate([fold.predictions[name] for fold in folds]) for name in everywhere},
        tuple(_weakest(setting, name, folds) for name in setting.studies),
    )


def of_procedure(verdict: Verdict, n_folds: int) -> Verdict:
    """Say of a verdict on pooled predictions what it is about."""
    if verdict.decision == "untested":
        return replace(verdict, claim="procedure")
    return replace(
        verdict,
        claim="procedure",
        approximate=True,
        method=f"{verdict.method}, pooled over {n_folds} folds",
        reason=f"{verdict.reason} (pooled over {n_folds} folds: said of the search, not of these very weights)",
    )


def _searched(setting: Setting, number: int, folder: RunFolder, tell: Callable[[Event], None]) -> Fold:
    """Search a fold, or read what a finished one left."""

    def told(event: Event) -> None:
        tell(_renamed(event, number, len(setting.folds)))

    rows = setting.folds[number - 1].rows["guard"]
    if (predictions := _read(folder, rows)) is not None:
        results = tuple(_results(setting, folder))
        for result in results:
            told(StudyStarted(result.id, len(result.trials), result.best.outcome.score if result.best else None))
        return Fold(rows, predictions, results)
    with runfolder.writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    fold = setting.fold(number)
    for name in setting.studies.keys() - fold.studies.keys():
        told(Warned(f"{name}: {fold.unavailable[name]}"))
    bench = fold.bench(folder)
    searched = search(fold, folder, bench, told)
    predictions = {}
    for result in searched:
        if result.best is not None:
            candidate = bench.rebuild(job_of(fold, result.id, result.best))
            predictions[result.id] = bench.predict(bench.calibrated(result.id, candidate)[0], "guard")
    _write(folder, rows, predictions)
    shutil.rmtree(folder.path / "studies", ignore_errors=True)  # weights that nobody ships, as large as the sources
    return Fold(rows, predictions, tuple(searched))


def _weakest(setting: Setting, name: str, folds: Sequence[Fold]) -> StudyResult:
    plan = setting.studies[name]
    nothing = StudyResult(name, plan.strategy.name, plan.source, (), 0.0)
    found = [next((result for result in fold.results if result.id == name), nothing) for fold in folds]
    return min(found, key=lambda result: result.count("complete"))


def _results(setting: Setting, folder: RunFolder) -> Iterator[StudyResult]:
    """Read the trials of a finished fold."""
    journal = tuning.Journal(folder.journal)
    for name, plan in setting.studies.items():
        trials = journal.closed(journal.open_study(name))
        yield StudyResult(name, plan.strategy.name, plan.source, trials, seconds(trials))


def _write(folder: RunFolder, rows: Rows, predictions: Predictions) -> None:
    arrays: dict[str, Any] = {"rows": rows, **{f"of {name}": values for name, values in predictions.items()}}

    def write(path: Path) -> None:
        with path.open("wb") as handle:  # a name would be given another ending
            np.savez(handle, **arrays)

    runfolder.write_whole(folder.predictions, write)


def _read(folder: RunFolder, rows: Rows) -> Predictions | None:
    """Read a finished fold's predictions; None where it is not finished, or they are not of these rows."""
    if not folder.journal.exists():
        return None
    try:
        with folder.predictions.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            if not np.array_equal(file["rows"], rows):
                return None
            return {name.removeprefix("of "): file[name] for name in file.files if name != "rows"}
    except (OSError, ValueError, LookupError, EOFError, BadZipFile):
        return None


def _name(number: int, n_folds: int, study: str) -> str:
    return f"fold {number}/{n_folds} {study}"


def _renamed(event: Event, number: int, n_folds: int) -> Event:
    """Say of which fold an event is."""
    if isinstance(event, StudyStarted | TrialFinished):
        return replace(event, study=_name(number, n_folds, event.study))
    return Warned(_name(number, n_folds, event.text)) if isinstance(event, Warned) else event
