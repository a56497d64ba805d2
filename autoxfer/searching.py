"""Every study's search in turn, the baseline's first, on equal budgets (budget parity); the table of all trials.

Scratch and every transfer are offered the same trials (``budget.trials``, the defaults among them), the same range of
steps for a trial (``tuning.recipe_space``, unless the run file narrows a strategy's), the same seconds (an equal share
of ``budget.seconds``) and the same ``budget.trial_seconds``. No transfer is offered more than the baseline. It may get
less, since one that cannot win is given up (``tuning.pruning``, ``rivals``); scratch alone keeps its default trials
where the seconds are spent. Sources together are one study, and a warm start's trials are among those on offer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import runfolder, tuning
from autoxfer.engines import Engine, open_engine
from autoxfer.events import Event, StudyStarted, TrialFinished, Warned
from autoxfer.records import Floors, Job, StudyResult, Trial, derive_seed
from autoxfer.rivals import Rivals
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
    results: list[StudyResult] = []
    places = {name: place for place, name in enumerate(setting.studies)}
    if not folder.journal.exists() and folder.path.joinpath("studies").exists():
        tell(Warned("the journal of this run is gone: its finished trials are not known and run again"))
    journal = tuning.Journal(folder.journal)
    with open_engine(setting.config.engine) as engine:
        run = _Search(setting, bench, tell, journal, engine, _rivals(setting, bench))
        for name in order or places:
            results.append(run.study(name))
            results.sort(key=lambda result: places[result.id])
            _write_trials(folder, results)
    return results


@final
@dataclass
class _Search:
    """What the studies that are finished leave to those that come after."""

    setting: Setting
    bench: Bench
    tell: Callable[[Event], None]
    journal: tuning.Journal
    engine: Engine
    rivals: Rivals
    baseline: tuning.Baseline | None = None  # once it is searched, and if it is a fair opponent

    def study(self, name: str) -> StudyResult:
        """Tune one study, or what is left of it."""
        setting, plan = self.setting, self.setting.studies[name]
        is_baseline = plan.strategy.name == BASELINE
        so_far = partial(StudyResult, name, plan.strategy.name, plan.source)
        study = tuning.Study(
            self.journal,
            name,
            plan.space,
            plan.defaults,
            seed=setting.config.seed,
            n_trials=setting.config.budget.trials,
            baseline=self.baseline,
            behind=lambda closed: self.rivals.behind(so_far(closed, 0.0)),
            confined=self.rivals.confined(plan.source),
            earlier=setting.earlier.trials(plan.strategy.name, plan.source),
        )
        earlier = so_far(study.trials(), 0.0)
        self.tell(StudyStarted(name, len(earlier.trials), earlier.best.outcome.score if earlier.best else None))
        share = None if setting.seconds is None else setting.seconds / len(setting.studies)
        deadline = None if share is None else time.monotonic() + share - seconds(earlier.trials)
        outside_cap = len(study.defaults) if is_baseline else 0
        trials = tuning.tune(
            study,
            job_maker(setting, name, deadline, outside_cap),
            self.bench.execute,
            self.engine,
            deadline=deadline,
            outside_cap=outside_cap,
            on_trial=lambda trial, best: self.tell(TrialFinished(name, trial, best)),
            warn=lambda text: self.tell(Warned(text)),
        )
        result = so_far(trials, seconds(trials), study.given_up(), study.warm_start())
        self.rivals.note(result)
        if is_baseline:
            self.baseline = _baseline(setting, self.bench, result)
        return result


def _baseline(setting: Setting, bench: Bench, result: StudyResult) -> tuning.Baseline | None:
    """Make the baseline's best trial what the transfers are held against; None where it is no fair opponent."""
    best = result.best
    if best is None or best.outcome.score is None or result.count("complete") < setting.config.budget.min_trials:
        return None
    job = job_of(setting, result.id, best)
    predictions = bench.predict(bench.compose(result.id, bench.rebuild(job)), "tune")
    rng = np.random.default_rng(derive_seed(setting.config.seed, "error"))
    error = standard_error(predictions, setting.targets["tune"], setting.groups("tune"), rng)
    return tuning.Baseline(best.outcome.score, best.outcome.curve, error)


def _rivals(setting: Setting, bench: Bench) -> Rivals:
    def losses(study: str, best: Trial) -> NDArray[np.float64]:
        answers = bench.answers(job_of(setting, study, best))
        return setting.metric.losses(answers, setting.targets["tune"].labels)

    return Rivals(losses, setting.groups("tune"))


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


def job_of(setting: Setting, study: str, trial: Trial) -> Job:
    """Make a trial's job again, without floors and without a deadline."""
    return job_maker(setting, study)(trial.number, trial.params, ())


def seconds(trials: Sequence[Trial]) -> float:
    """Add up what trials took."""
    return sum(trial.outcome.seconds for trial in trials)


def _write_trials(folder: RunFolder, results: Sequence[StudyResult]) -> None:
    import pandas as pd  # noqa: PLC0415

    table = pd.DataFrame(tuning.trials_table(results))
    runfolder.write_whole(folder.trials, lambda path: table.to_parquet(path, index=False))
