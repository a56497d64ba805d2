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

from autoxfer import datacheck, forecasting
from autoxfer.assessment import assess
from autoxfer.metering import Meter, as_text, duration
from autoxfer.prospects import Prospect, prospect
from autoxfer.report import Forecast
from autoxfer.runfolder import RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.strategy import Raw, Tap
from autoxfer.streaming import OnDisk

if TYPE_CHECKING:
    from torch import Tensor

    from autoxfer.config import RunConfig
    from autoxfer.tracking import TrackingSettings

DRAWS = 3  # trials of each study, beside the defaults, that are timed at least
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
    forecast: Forecast  # of a whole run
    sources: Mapping[str, Mapping[str, Any]]
    data: datacheck.Check
    other_sizes: Mapping[str, str]  # split -> why it has another number of examples than the run file asks for

    @property
    def seconds(self) -> float:
        """Expected, for the whole run."""
        return self.forecast.expected.seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"seconds": self.seconds}

    def lines(self) -> Iterator[str]:
        """Say it in words."""
        task = self.task
        besides = {name: f" ({reason})" for name, reason in self.other_sizes.items()}
        sizes = ", ".join(f"{n} {name}{besides.get(name, '')}" for name, n in task["sizes"].items() if n)
        several = "labels" if task["kind"] == "multilabel" else "classes"
        classes = f", {len(task['classes'])} {several}" if task["classes"] else ""
        classes += f", {len(task['targets'])} numbers each" if task["targets"] else ""
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
            yield f"  {planned.study:{width}}  {planned.n_trials:3} trials  {duration(planned.seconds):>12}  {searched}"
        searches = f", {n_folds} searches for the guard and one for what ships included," if n_folds else ""
        yield f"the whole run{searches} should take about {as_text(self.forecast.expected)} on this machine"
        for name, why in self.unavailable.items():
            yield f"  left out: {name}: {why}"
        for name, why in self.forecast.faults.items():
            yield f"  fails with its defaults: {name}: {why}"
        yield ""
        yield from self.guard.lines()
        for warning in task["warnings"]:
            yield f"warning: {warning}"


def _reads(card: Mapping[str, Any]) -> str:
    """Say what a source reads, as far as its card tells."""
    if "tokenizer" in card:
        return f"texts of up to {card['length']} tokens"
    return " x ".join(map(str, card.get("shape", ())))


def plan(
    config: RunConfig,
    say: Callable[[str], object] = lambda text: None,
    *,
    logs: bool = True,
    settings: TrackingSettings | None = None,
) -> Plan:
    """Check a configuration completely and time a few batches of each study. Raises InputError as a run would."""
    say("reading the data and the sources")
    meter, before = Meter(), dict[str, float]()
    setting = prepare(config, settings)
    before["setup"] = meter.read().seconds
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch))
        say("examining the sources")
        assess(setting, folder)
        before["diagnostics"] = meter.read().seconds - before["setup"]
        expected = forecasting.forecast(
            setting,
            setting.bench(folder),
            meter,
            before,
            least=DRAWS,
            logs=logs,
            say=lambda study: say(f"timing a few batches of {study}"),
        )
    assert expected is not None  # draws were asked for
    say("looking at the data")
    return Plan(
        setting.task(),
        tuple(_studies(setting, expected)),
        setting.unavailable,
        _prospect(setting),
        _groups(setting),
        expected,
        {name: source.card for name, source in setting.sources.items()},
        check_data(setting),
        dict(_other_sizes(setting)),
    )


def check_data(setting: Setting) -> datacheck.Check:
    """Look at the data; a probe of the sources' last features or, where narrow, of the inputs doubts the labels."""
    features: dict[str, Callable[[], Tensor]] = {
        f"source {name}": partial(setting.features.whole, Tap("last", name), "train") for name in setting.sources
    }
    known = setting.dataset.schema.modality != "text" and not isinstance(setting.features.stored("train"), OnDisk)
    if known and math.prod(setting.dataset.schema.shape) <= NARROW:
        n_words = setting.features.preparation.n_words  # which are names, not numbers
        name = "the columns" if n_words else "the inputs"
        features[name] = lambda: setting.features.whole(Raw(), "train").flatten(1)[:, n_words:]
    return datacheck.check(setting.dataset, setting.splits, features, setting.config.seed)


def _studies(setting: Setting, expected: Forecast) -> Iterator[PlannedStudy]:
    for name, planned in setting.studies.items():
        sizes = [forecasting.size(distribution) for distribution in planned.space.values()]
        searched = tuple(key for key, size in zip(planned.space, sizes, strict=True) if size > 1)
        n_trials = int(min(setting.config.budget.trials, math.prod(sizes)))
        yield PlannedStudy(name, n_trials, searched, expected.studies[name])


def _groups(setting: Setting) -> dict[str, int]:
    groups = setting.dataset.groups
    return {} if groups is None else {name: len(set(groups[rows])) for name, rows in setting.splits.rows.items()}


def _other_sizes(setting: Setting) -> Iterator[tuple[str, str]]:
    """Say which splits could not have the very number of examples that was asked for."""
    dataset, asked = setting.dataset, setting.config.task.splits or {}
    together = "copies" if dataset.groups is None else "groups and copies"
    together = together if dataset.times is None else "equal times"
    for name, rows in setting.splits.rows.items():
        size = asked.get(name)
        if isinstance(size, int) and len(rows) != size and not setting.folds:  # with folds sizes are a proportion
            yield name, f"{size} asked for; {together} stay together"


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
        n_outputs=setting.dataset.schema.n_outputs if setting.dataset.labels.ndim == 2 else 1,
    )
