"""What a run tells its observers while it goes on, and what an observer is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoxfer.records import Score, Trial, Verdict
from autoxfer.report import Forecast, RunRecord


@dataclass(frozen=True)
class RunStarted:
    """A run begins, or goes on."""

    run_id: str
    folder: Path
    studies: tuple[str, ...]
    n_trials: int | None  # per study
    seconds: float | None  # for the whole run
    metric: str


@dataclass(frozen=True)
class StageStarted:
    """One of "data", "sources", "search", "guard", "test", "export", "log" begins."""

    name: str


@dataclass(frozen=True)
class Foreseen:
    """What the run will take, from a few timed steps."""

    forecast: Forecast


@dataclass(frozen=True)
class StudyStarted:
    """A study begins, or goes on."""

    study: str
    n_done: int = 0  # trials of an earlier sitting
    best: Score | None = None  # of these


@dataclass(frozen=True)
class TrialFinished:
    """A trial is told."""

    study: str
    trial: Trial
    best: Score | None  # of the study so far


@dataclass(frozen=True)
class VerdictReached:
    """The guard has judged a finalist."""

    study: str
    verdict: Verdict


@dataclass(frozen=True)
class RunFinished:
    """Everything is written."""

    record: RunRecord
    folder: Path


@dataclass(frozen=True)
class Warned:
    """Something that the user should know; the run goes on."""

    text: str


Event = RunStarted | StageStarted | Foreseen | StudyStarted | TrialFinished | VerdictReached | RunFinished | Warned


class Observer(Protocol):
    """Is told what happens."""

    def notify(self, event: Event) -> None:
        """Take note of one event; must not raise."""
