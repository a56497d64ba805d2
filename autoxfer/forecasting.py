"""What a run will take, from a few timed steps of trials like those that it will search.

The default trials are priced, then others that are drawn as the search draws its first ones: a step's price hangs on
the architecture, the batch and the augmentation, and the search's choices are not known yet. Over 639 studies of 6 to
25 trials, from 130 runs on digits, photographs, tables and texts, trials asked for 1.03 times the mean number of steps
of such draws, and did, once there were enough others to stop them, .85 of these.

Memory is what the process has held at its peak by then, the largest of the priced trials included, and what comes
after.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, final

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoxfer import tuning
from autoxfer.errors import describe, is_fatal
from autoxfer.limits import limited
from autoxfer.metering import Meter
from autoxfer.records import Job, derive_seed
from autoxfer.report import Forecast
from autoxfer.studies import BASELINE, StudyPlan
from autoxfer.trials import Price

if TYPE_CHECKING:
    from autoxfer.setting import Setting
    from autoxfer.trials import Bench

SHARE = 0.05  # of the time that a search is expected to take, which pricing may take
GRACE = 3.0  # seconds that pricing the defaults may take in any case
FEW = 1000  # steps; a search of fewer is mostly over before it is forecast
LONG = GRACE / SHARE  # seconds of a search of few steps from which it is forecast all the same
MOST = 8  # draws of each study
CHANCE = 5  # trials of a study that none can stop
DONE = 0.85  # share of its steps that a later one does
AFTER = {"export": 1.0, "plot": 1.0, "log": 2.0}  # seconds, whatever the task
LATER = 80 << 20  # bytes that exporting, drawing and logging take
TRACKING = (4.0, 170 << 20)  # seconds and bytes that MLflow and its database take, where it is not loaded yet


def forecast(
    setting: Setting,
    bench: Bench,
    meter: Meter,
    before: Mapping[str, float],  # seconds by stage: what is over
    *,
    least: int = 0,  # draws of each study, however long they take
    logs: bool = True,
    say: Callable[[str], object] = lambda study: None,
) -> Forecast | None:
    """Predict what a run takes, from its beginning; None where it is short, or pricing its defaults takes too long."""
    samples = [Sample(name, plan, setting, bench) for name, plan in setting.studies.items()]
    samples.sort(key=lambda sample: sample.is_solved)  # whose price is a whole trial's
    started = time.perf_counter()
    if not least and _is_short(samples):
        return None
    for n_draws in range(1 + MOST):
        for sample in samples:
            spent, affordable = time.perf_counter() - started, SHARE * _search_s(samples)
            if n_draws > least and spent > affordable:
                break
            if not n_draws and not least and spent > max(affordable, GRACE):
                return None
            if not n_draws:
                say(sample.name)
            if not sample.fault:
                sample.take(n_draws)
    pricing = min(time.perf_counter() - started, max(SHARE * _search_s(samples), GRACE))
    stages = {**before, "forecast": pricing, **_stages(setting, samples, logs=logs)}
    usage, later = meter.read(), LATER
    if logs and "mlflow" not in sys.modules:
        stages["tracking"], later = TRACKING[0], LATER + TRACKING[1]
    expected = replace(usage, seconds=sum(stages.values()), memory=usage.memory + later)
    shares = {sample.name: sample.search_s for sample in samples}
    faults = {sample.name: sample.fault for sample in samples if sample.fault}
    return Forecast(expected, stages, {name: shares[name] for name in setting.studies}, faults=faults)


def _is_short(samples: Sequence[Sample]) -> bool:
    """Whether a search is over before it is forecast: few steps, and quick ones by one trial of each study."""
    trained = [sample for sample in samples if not sample.is_solved]  # another's price is a whole trial's
    if sum(sample.n_trials * sample.n_steps for sample in trained) >= FEW:
        return False
    return not any(seconds > LONG for seconds in accumulate(sample.peek() for sample in trained))


def _search_s(samples: Sequence[Sample]) -> float:
    return sum(sample.search_s for sample in samples)


def _stages(setting: Setting, samples: Sequence[Sample], *, logs: bool) -> dict[str, float]:
    """Expect the seconds of every stage from the search on."""
    n_folds, n_tune, n_guard = len(setting.folds), len(setting.rows("tune")), len(setting.judged)
    n_test = len(setting.splits.rows.get("test", ()))
    search, answer = _search_s(samples), sum(sample.answer_s for sample in samples)
    warm_up = sum(sample.warm_up_s for sample in samples)
    stages = {"activations": warm_up, "search": search + n_tune * samples[0].answer_s, "test": n_test * answer}
    if n_folds:
        stages["folds"] = n_folds * (warm_up + stages["search"]) + n_guard * answer
        stages["guard"] = n_tune * answer
    else:
        stages["guard"] = (n_tune + n_guard) * answer
    if setting.config.final == "refit":
        stages["refit"] = max(sample.trial_s for sample in samples) + AFTER["export"]
    return {**stages, **{name: seconds for name, seconds in AFTER.items() if name != "log" or logs}}


@final
@dataclass
class Sample:
    """The prices of some trials of one study."""

    name: str
    plan: StudyPlan
    setting: Setting
    bench: Bench
    prices: list[Price] = field(default_factory=list)  # of the defaults, then of the draws
    faults: list[str] = field(default_factory=list)  # why each of them fails; empty = it does not
    answer_s: float = 0.0  # for one example, by the composed model

    @property
    def is_solved(self) -> bool:
        """Whether no trial of it is trained by gradient."""
        return self.plan.strategy.recipe is None

    @property
    def fault(self) -> str:
        """Why none of the defaults works; empty = at least one does, or not all are priced."""
        first = self.faults[: len(self.starts)]
        return first[0] if len(first) == len(self.starts) and all(first) else ""

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The trials that come first."""
        n = min(self.n_trials, len(self.plan.defaults))
        return [tuning.clip(start, self.plan.space) for start in self.plan.defaults[:n]]

    @property
    def n_trials(self) -> int:
        """Those of the budget, or all that there can be."""
        sizes = [size(distribution) for distribution in self.plan.space.values()]
        return int(min(self.setting.config.budget.trials, math.prod(sizes)))

    @property
    def n_steps(self) -> float:
        """Steps of a mean trial."""
        return mean(self.plan.space["steps"]) if "steps" in self.plan.space else 0.0

    def peek(self) -> float:
        """Price the first default: the seconds of the study if every trial is like it."""
        self._price(self.starts[0])
        return self.n_trials * self.prices[0].seconds(self.n_steps)

    def take(self, n: int) -> None:
        """Price the defaults that are not priced yet (n = 0), or the ``n``-th draw."""
        for params in [self._draw(n)] if n else self.starts[len(self.prices) :]:
            self._price(params)
        if n:
            return
        if not self.fault:
            self.answer_s = self.bench.answer_s(self._job(self.starts[0]))

    def _price(self, params: Mapping[str, Any]) -> None:
        """Price one trial. What fails at once costs the search next to nothing."""
        price, fault = Price(0.0, 0.0), ""
        try:
            job = self._job(params)
            with limited(job.seconds):  # a trial that hangs hangs here first
                price = self.bench.price(job)
        except (Exception, SystemExit) as error:  # of a strategy's own code: the search will meet it
            if is_fatal(error):
                raise
            fault = describe(error)
        self.prices.append(price)
        self.faults.append(fault)

    def _job(self, params: Mapping[str, Any]) -> Job:
        limit = self.setting.config.budget.trial_seconds
        return Job(self.name, 0, self.plan.strategy.name, self.plan.source, params, 0, seconds=limit)

    def _draw(self, n: int) -> dict[str, Any]:
        """Draw parameters as the search does at first, but of every choice each value in turn."""
        seed = derive_seed(self.setting.config.seed, self.name, "forecast")
        drawn = tuning.propose(self.plan.space, (), (), derive_seed(seed, n)) or self.starts[0]
        begin = np.random.default_rng(seed)
        for name, distribution in self.plan.space.items():
            first = int(begin.integers(1 << 30))
            if isinstance(distribution, CategoricalDistribution):
                drawn[name] = distribution.choices[(first + n) % len(distribution.choices)]
        return drawn

    @property
    def warm_up_s(self) -> float:
        """Activations that its trials read and others have not."""
        return sum(price.warm_up_s for price in self.prices)

    @property
    def trial_s(self) -> float:
        """Seconds of a mean trial that nothing stops."""
        return sum(price.seconds(self.n_steps) for price in self.prices) / len(self.prices)

    @property
    def search_s(self) -> float:
        """Seconds of the whole study; 0 before anything is priced."""
        if not self.prices:
            return 0.0
        starts = self.starts
        first = sum(price.seconds(start.get("steps", 0)) for price, start in zip(self.prices, starts, strict=False))
        n_late = max(self.n_trials - max(len(starts), CHANCE), 0)
        n_free = self.n_trials - len(starts) - n_late
        late = sum(price.seconds(self.n_steps, DONE) for price in self.prices) / len(self.prices)
        seconds = first + n_free * self.trial_s + n_late * late
        if self.setting.seconds is None:
            return seconds
        outside_cap = first if self.plan.strategy.name == BASELINE else 0.0
        return min(seconds, max(self.setting.seconds / len(self.setting.studies), outside_cap))


def size(distribution: BaseDistribution) -> float:
    """Count what a parameter can be."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    return 1 if distribution.single() else math.inf


def mean(distribution: BaseDistribution) -> float:
    """Give the mean of a parameter that is drawn as the search draws it at first."""
    if isinstance(distribution, CategoricalDistribution):
        return sum(distribution.choices) / len(distribution.choices)  # type: ignore[arg-type]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log and low < high:
        return (high - low) / math.log(high / low)
    return (low + high) / 2
