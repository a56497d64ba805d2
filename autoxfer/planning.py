"""What a run would do, what its guard could find and how long it would take; nothing is searched."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoxfer import datacheck
from autoxfer.prospects import Prospect, prospect
from autoxfer.records import Job
from autoxfer.runfolder import RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.strategy import Raw, Tap
from autoxfer.studies import BASELINE, StudyPlan
from autoxfer.tuning import clip

if TYPE_CHECKING:
    from torch import Tensor

    from autoxfer.config import RunConfig
    from autoxfer.trials import Bench

NARROW = 1024  # numbers of an example up to which the examples themselves are probed


@final
@dataclass(frozen=True)
class PlannedStudy:
    """One study, before it is searched."""

    study: str
    n_trials: int
    parameters: tuple[str, ...]  # that are searched
    seconds: float  # expected


@final
@dataclass(frozen=True)
class Plan:
    """What ``autoxfer plan`` prints."""

    task: Mapping[str, Any]
    studies: tuple[PlannedStudy, ...]
    unavailable: Mapping[str, str]
    guard: Prospect  # what it could find
    groups: Mapping[str, int]  # split -> groups that its examples come from; empty where each example stands alone
    seconds: float  # expected, for all that is searched
    sources: Mapping[str, Mapping[str, Any]]
    data: datacheck.Check

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Say it in words."""
        task = self.task
        sizes = ", ".join(f"{n} {name}" for name, n in task["sizes"].items() if n)
        classes = f", {len(task['classes'])} classes" if task["classes"] else ""
        yield f"task {task['name']}: {task['kind']} of {task['modality']} examples{classes}; metric {task['metric']}"
        n_folds = task["folds"]
        yield f"splits: {sizes}" + (f", each of {n_folds} folds in turn" if n_folds else "")
        if self.groups:
            yield f"groups: {', '.join(f'{n} in {name}' for name, n in self.groups.items() if n)}"
        yield from self.data.lines()
        for name, card in self.sources.items():
            reads = _reads(card.get("input", {}))
            yield f"source {name}: {card.get('model', '')}{f', reads {reads}' if reads else ''}"
        yield ""
        width = max(len(planned.study) for planned in self.studies)
        for planned in self.studies:
            searched = ", ".join(planned.parameters) or "nothing to search"
            yield f"  {planned.study:{width}}  {planned.n_trials:3} trials  {_time(planned.seconds):>7}  {searched}"
        searches = f"the searches, one for each of {n_folds} folds and one for what ships," if n_folds else "the search"
        yield f"{searches} should take about {_time(self.seconds)} on this machine"
        for name, why in self.unavailable.items():
            yield f"  left out: {name}: {why}"
        yield ""
        yield from self.guard.lines()
        for warning in task["warnings"]:
            yield f"warning: {warning}"


def _reads(card: Mapping[str, Any]) -> str:
    """Say what a source reads, as far as its card tells."""
    if "tokenizer" in card:
        return f"texts of up to {card['length']} tokens"
    return " x ".join(map(str, card.get("shape", ())))


def plan(config: RunConfig, say: Callable[[str], object] = lambda text: None) -> Plan:
    """Check a configuration completely and time a few batches of each study. Raises InputError as a run would."""
    say("reading the data and the sources")
    setting = prepare(config)
    with tempfile.TemporaryDirectory() as scratch:
        bench = setting.bench(RunFolder(Path(scratch)))
        studies = []
        for name, planned in setting.studies.items():
            say(f"timing a few batches of {name}")
            studies.append(_study(name, planned, setting, bench))
    say("looking at the data")
    return Plan(
        setting.task(),
        tuple(studies),
        setting.unavailable,
        _prospect(setting),
        _groups(setting),
        sum(study.seconds for study in studies) * (1 + len(setting.folds)),
        {name: source.card for name, source in setting.sources.items()},
        check_data(setting),
    )


def check_data(setting: Setting) -> datacheck.Check:
    """Look at the data; a probe of the sources' last features or, where narrow, of the inputs doubts the labels."""
    features: dict[str, Callable[[], Tensor]] = {
        f"source {name}": partial(setting.features.whole, Tap("last", name), "train") for name in setting.sources
    }
    if setting.dataset.schema.modality != "text" and math.prod(setting.dataset.schema.shape) <= NARROW:
        features["the inputs"] = lambda: setting.features.whole(Raw(), "train").flatten(1)
    return datacheck.check(setting.dataset, setting.splits, features, setting.config.seed)


def _study(name: str, planned: StudyPlan, setting: Setting, bench: Bench) -> PlannedStudy:
    budget, n_studies = setting.config.budget, len(setting.studies)
    sizes = [_size(distribution) for distribution in planned.space.values()]
    n_trials = int(min(budget.trials, math.prod(sizes)))
    n_steps = _mean(planned.space["steps"]) if "steps" in planned.space else 0.0
    starts = [clip(start, planned.space) for start in planned.defaults]
    jobs = [
        Job(name, 0, planned.strategy.name, planned.source, {**start, **change}, 0)
        for start in starts
        for change in _variants(planned.space)
    ]
    each = sum(bench.estimate(job, n_steps) for job in jobs) / len(jobs)
    expected = n_trials * each
    if setting.seconds is not None:
        outside_cap = len(starts) * each if planned.strategy.name == BASELINE else 0.0
        expected = min(expected, max(setting.seconds / n_studies, outside_cap))
    searched = tuple(key for key, size in zip(planned.space, sizes, strict=True) if size > 1)
    return PlannedStudy(name, n_trials, searched, expected)


def _variants(space: Mapping[str, BaseDistribution]) -> list[dict[str, Any]]:
    """List what changes a step's price by much: with augmentation nothing can be read from the cache."""
    kinds = getattr(space.get("augment"), "choices", ("none",))
    return [{"augment": kind} for kind in kinds] if "augment" in space else [{}]


def _size(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    return 1 if distribution.single() else math.inf


def _mean(distribution: BaseDistribution) -> float:
    """Give the mean of a parameter that is drawn as the search draws it at first."""
    if isinstance(distribution, CategoricalDistribution):
        return sum(distribution.choices) / len(distribution.choices)  # type: ignore[arg-type]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log and low < high:
        return (high - low) / math.log(high / low)
    return (low + high) / 2


def _groups(setting: Setting) -> dict[str, int]:
    groups = setting.dataset.groups
    return {} if groups is None else {name: len(set(groups[rows])) for name, rows in setting.splits.rows.items()}


def _prospect(setting: Setting) -> Prospect:
    rows, groups = setting.judged, setting.dataset.groups
    return prospect(
        len(rows),
        setting.metric,
        alpha=setting.config.guard.alpha,
        margin=setting.config.guard.margin,
        n_finalists=len(setting.studies) - 1,
        pooled=bool(setting.folds),
        n_groups=None if groups is None else len(np.unique(groups[rows])),
    )


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
