"""What a run has done so far and how long the rest may take: events in, numbers out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from autoxfer.events import Event, Foreseen, RunFinished, RunStarted, StageStarted, StudyStarted, TrialFinished, Warned
from autoxfer.metering import duration
from autoxfer.report import Forecast

STAGES = {
    "data": "reading the data and the sources",
    "sources": "loading the sources",
    "diagnostics": "examining the sources",
    "folds": "searching fold by fold",
    "forecast": "timing a few batches",
    "search": "searching",
    "guard": "asking the guard",
    "test": "scoring on test",
    "export": "writing the winner",
    "refit": "training the winner's recipe again",
    "log": "logging to MLflow",
}


@dataclass
class StudyProgress:
    """One study so far."""

    name: str
    n_trials: int | None  # the budget
    state: Literal["waiting", "running", "done"] = "waiting"
    n_done: int = 0  # trials of an earlier sitting included
    n_failed: int = 0
    best: float | None = None  # the metric on tune
    seconds: float = 0.0  # of the trials seen
    n_seen: int = 0

    @property
    def trials(self) -> str:
        """Trials done, of how many."""
        return f"{self.n_done}" if self.n_trials is None else f"{self.n_done}/{self.n_trials}"


@dataclass
class Progress:
    """Everything that the views show."""

    clock: Callable[[], float] = time.monotonic
    run: RunStarted | None = None
    stage: str = "data"
    studies: dict[str, StudyProgress] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    started: float = 0.0
    forecast: Forecast | None = None

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    @property
    def running(self) -> StudyProgress | None:
        """The study that trials come from."""
        return next((study for study in self.studies.values() if study.state == "running"), None)

    def note(self, event: Event) -> list[StudyProgress]:
        """Take note of one event; returns the studies that it ends."""
        ended: list[StudyProgress] = []
        match event:
            case RunStarted():
                self.run = event
                self.studies = {name: StudyProgress(name, event.n_trials) for name in event.studies}
            case Foreseen():
                self.forecast = event.forecast
            case StageStarted():
                self.stage = event.name
                ended = self._end()
            case StudyStarted():
                ended = self._end()
                study = self._study(event.study)
                study.state, study.n_done = "running", max(study.n_done, event.n_done)
                study.best = study.best if event.best is None else event.best.value
            case TrialFinished():
                self._count(event)
            case Warned():
                if event.text not in self.warnings:
                    self.warnings.append(event.text)
            case RunFinished():
                self.warnings += [text for text in event.record.task.get("warnings", ()) if text not in self.warnings]
        return ended

    @property
    def left(self) -> str:
        """Say how long the search still takes, as far as that is known; empty where nothing is known, or left."""
        late = self._late()
        rest = [self._rest(study, late) for study in self.studies.values() if study.state != "done"]
        known = sum(seconds for seconds in rest if seconds is not None)
        return f"{'at least' if None in rest else 'about'} {duration(known)} left" if known >= 0.5 else ""

    def _rest(self, study: StudyProgress, late: float) -> float | None:
        """Estimate the seconds that a study still takes; None = unknown."""
        share = None if self.run is None or self.run.seconds is None else self.run.seconds / len(self.studies)
        within = None if share is None else max(share - study.seconds, 0.0)
        if study.n_trials is None:
            return within
        n_left = max(study.n_trials - study.n_done, 0)
        each = self._each(study, late) if n_left else 0.0
        return each if each is None else min(n_left * each, math.inf if within is None else within)

    def _each(self, study: StudyProgress, late: float) -> float | None:
        """Expect the seconds of a trial: as its study's so far, as forecast, or as in other folds.

        Never as another study's: what is solved takes a second where a network is trained for an hour.
        """
        if study.n_seen:
            return study.seconds / study.n_seen
        if (forecast := self._forecast(study)) is not None:
            return late * forecast
        others = [other for other in self.studies.values() if other.n_seen and _plain(other) == _plain(study)]
        return sum(other.seconds for other in others) / sum(other.n_seen for other in others) if others else None

    def _forecast(self, study: StudyProgress) -> float | None:
        """Say what a trial of a study was expected to take."""
        if self.forecast is None or not study.n_trials or _plain(study) not in self.forecast.studies:
            return None
        return self.forecast.studies[_plain(study)] / study.n_trials

    def _late(self) -> float:
        """By what factor the trials so far have taken longer than was forecast."""
        pairs = [(study, self._forecast(study)) for study in self.studies.values() if study.n_seen]
        expected = sum(study.n_seen * each for study, each in pairs if each is not None)
        taken = sum(study.seconds for study, each in pairs if each is not None)
        return taken / expected if expected else 1.0

    def _study(self, name: str) -> StudyProgress:
        return self.studies.setdefault(name, StudyProgress(name, self.run.n_trials if self.run else None))

    def _count(self, event: TrialFinished) -> None:
        study, outcome = self._study(event.study), event.trial.outcome
        study.n_done = max(study.n_done, event.trial.number + 1)
        study.n_failed += outcome.state == "failed"
        study.n_seen += 1
        study.seconds += outcome.seconds
        study.best = study.best if event.best is None else event.best.value

    def _end(self) -> list[StudyProgress]:
        ended = [study for study in self.studies.values() if study.state == "running"]
        for study in ended:
            study.state = "done"
        return ended


def _plain(study: StudyProgress) -> str:
    """Name a study without the fold that it is of: it takes as long in every one."""
    return study.name.split(" ")[-1]


def number(value: float | None, sign: str = "") -> str:
    """Show a metric's value in few figures; a dash where there is none."""
    if value is None or value != value:  # noqa: PLR0124 - not a number
        return "-"
    return f"{value:{sign}.3f}" if 0.001 <= abs(value) < 10 or value == 0 else f"{value:{sign}.3g}"
