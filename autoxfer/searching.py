"""Every study's search in turn, the baseline's first; the table of all trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoxfer import runfolder, tuning
from autoxfer.engines import open_engine
from autoxfer.records import (
    Event,
    Floors,
    Job,
    Score,
    StudyResult,
    StudyStarted,
    Trial,
    TrialFinished,
    Warned,
    derive_seed,
)
from autoxfer.runfolder import RunFolder
from autoxfer.scoring import standard_error
from autoxfer.studies import BASELINE

if TYPE_CHECKING:
    from autoxfer.setting import Setting
    from autoxfer.trials import Bench

JobMaker = Callable[[int, Mapping[str, Any], Floors], Job]


def search(
    setting: Setting, folder: RunFolder, bench: Bench, tell: Callable[[Event], None], order: Sequence[str] = ()
) -> list[StudyResult]:
    """Tune every study: nothing gets more trials or seconds than the baseline was offered.

    ``order`` names all studies, the baseline first. The results stand as in the run file, whatever came first.
    """
    config, results = setting.config, list[StudyResult]()
    baseline: tuning.Baseline | None = None
    places = {name: place for place, name in enumerate(setting.studies)}
    share = None if setting.seconds is None else setting.seconds / len(setting.studies)
    if not folder.journal.exists() and folder.path.joinpath("studies").exists():
        tell(Warned("the journal of this run is gone: its finished trials are not known and run again"))
    journal = tuning.Journal(folder.journal)
    with open_engine(config.engine) as engine:
        for name in order or places:
            plan = setting.studies[name]
            n_trials = config.budget.trials
            study = tuning.Study(
                journal, name, plan.space, plan.defaults, seed=config.seed, n_trials=n_trials, baseline=baseline
            )
            earlier = StudyResult(name, plan.strategy.name, plan.source, study.trials(), 0.0)
            best = earlier.best.outcome.score if earlier.best else None
            tell(StudyStarted(name, len(earlier.trials), best))
            spent = seconds(earlier.trials)
            deadline = None if share is None else time.monotonic() + share - spent
            outside_cap = len(study.defaults) if plan.strategy.name == BASELINE else 0

            def told(trial: Trial, best: Score | None, name: str = name) -> None:
                tell(TrialFinished(name, trial, best))

            trials = tuning.tune(
                study,
                job_maker(setting, name, deadline, outside_cap),
                bench.execute,
                engine,
                deadline=deadline,
                outside_cap=outside_cap,
                on_trial=told,
                warn=lambda text: tell(Warned(text)),
            )
            result = StudyResult(name, plan.strategy.name, plan.source, trials, seconds(trials), study.given_up())
            if plan.strategy.name == BASELINE:
                baseline = _baseline(setting, bench, result)
            results.append(result)
            results.sort(key=lambda result: places[result.id])
            _write_trials(folder, results)
    return results


def _baseline(setting: Setting, bench: Bench, result: StudyResult) -> tuning.Baseline | None:
    """Make the baseline's best trial what the transfers are held against; None where it is no fair opponent."""
    best = result.best
    if best is None or best.outcome.score is None or result.count("complete") < setting.config.budget.min_trials:
        return None
    job = job_maker(setting, result.id)(best.number, best.params, ())
    predictions = bench.predict(bench.compose(result.id, bench.rebuild(job)), "tune")
    rng = np.random.default_rng(derive_seed(setting.config.seed, "error"))
    error = standard_error(predictions, setting.targets["tune"], setting.groups("tune"), rng)
    return tuning.Baseline(best.outcome.score, best.outcome.curve, error)


def job_maker(setting: Setting, name: str, deadline: float | None = None, outside_cap: int = 0) -> JobMaker:
    """Make what turns number, parameters and floors into a job; the first ``outside_cap`` have no deadline."""
    plan, config = setting.studies[name], setting.config

    def make(number: int, params: Mapping[str, Any], floors: Floors) -> Job:
        return Job(
            name,
            number,
            plan.strategy.name,
            plan.source,
            params,
            derive_seed(config.seed, name, number),
            floors,
            None if number < outside_cap else deadline,
            config.budget.trial_seconds,
        )

    return make


def seconds(trials: Sequence[Trial]) -> float:
    """Add up what trials took."""
    return sum(trial.outcome.seconds for trial in trials)


def _write_trials(folder: RunFolder, results: Sequence[StudyResult]) -> None:
    import pandas as pd  # noqa: PLC0415

    table = pd.DataFrame(tuning.trials_table(results))
    runfolder.write_whole(folder.trials, lambda path: table.to_parquet(path, index=False))
