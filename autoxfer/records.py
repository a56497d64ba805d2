"""The values that pass between floors: frozen, plain, without a library's objects in them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Modality = Literal["image", "vector", "table", "text", "mixed"]
Task = Literal["classification", "multilabel", "regression"]
Decision = Literal["accepted", "harmful", "undecided", "untested"]
TrialState = Literal["complete", "pruned", "failed"]

Floors = tuple[tuple[float, float], ...]  # (share of the steps done, rank below which to stop)
Bars = tuple[tuple[float, float, float], ...]  # (share, rank below which to stop, rank of the baseline by then)

SPLITS = ("train", "tune", "guard", "test")
SCHEMA_VERSION = 1


def derive_seed(*parts: object) -> int:
    """Make a seed in [0, 2**31) from what it is for: run seed, study, trial number, parameter name."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class Recipe:
    """The training hyperparameters that every gradient-trained candidate shares (AdamW, warm-up, cosine decay)."""

    lr: float = 3e-3  # peak learning rate
    decay: float = 1e-4  # AdamW's decoupled weight decay
    steps: int | None = None  # optimiser steps; None = the core's default for this many examples
    batch: int = 32
    augment: str = "none"  # images: "none", "shift", "shift_flip"; anything else: "none"


@dataclass(frozen=True)
class SourceSpec:
    """A source as the user named it."""

    name: str
    model: str  # "package.module:Factory", "file.py:Factory" or "scheme:NAME"
    weights: Path | None = None
    input: Mapping[str, Any] = field(default_factory=dict)  # shape, mean, std, channels, classes: as in a JSON card
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of the factory
    directory: Path = Path()  # where relative names start: the run file's folder


@dataclass(frozen=True)
class Score:
    """How good a candidate is on one split."""

    value: float  # the metric, in its own direction
    rank: float  # the metric turned so that higher is better
    loss: float  # mean cross-entropy or squared error: breaks ties of a coarse metric

    def beats(self, other: Score) -> bool:
        """Whether this is better; of equal metrics the lower loss wins."""
        return (self.rank, -self.loss) > (other.rank, -other.loss)


@dataclass(frozen=True)
class Job:
    """One trial, frozen: all that a worker is told."""

    study: str  # "linear_probe@even"
    number: int  # of the trial within its study
    strategy: str
    source: str | None  # "even"; "even+odd" for both together
    params: Mapping[str, Any]  # the strategy's own and the recipe's, in one flat namespace
    seed: int
    floors: Floors = ()  # by the study's own trials
    deadline: float | None = None  # time.monotonic() at which training must stop; None = never
    seconds: float | None = None  # after which it has failed; None = no limit
    bars: Bars = ()  # for a transfer: by the baseline's best trial


@dataclass(frozen=True)
class Outcome:
    """What came of one trial. The weights are on disk before this is told."""

    state: TrialState
    score: Score | None  # on the tune split, at the kept checkpoint; None if failed
    curve: tuple[tuple[float, float], ...] = ()  # (share of the steps done, rank on the tune split)
    seconds: float = 0.0
    steps: int = 0  # optimiser steps done
    n_trained: int = 0  # trainable parameters
    reason: str = ""  # why it failed or was stopped
    notes: Mapping[str, Any] = field(default_factory=dict)  # what the strategy reports: chosen strength, shares


@dataclass(frozen=True)
class Trial:
    """A finished trial as the journal knows it."""

    number: int
    params: Mapping[str, Any]
    outcome: Outcome


@dataclass(frozen=True)
class StudyResult:
    """All finished trials of one (strategy, source)."""

    id: str
    strategy: str
    source: str | None
    trials: tuple[Trial, ...]
    seconds: float
    given_up: str = ""  # why it was given no further trials, where it could not win any more
    warm_start: Mapping[str, int] | None = None  # an earlier run's trials: offered, used, dropped; None = a cold start

    def count(self, state: TrialState) -> int:
        """How many trials ended in ``state``."""
        return sum(trial.outcome.state == state for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The best completed trial; the earlier of two equals; None where none completed."""
        best: Trial | None = None
        for trial in self.trials:
            score = trial.outcome.score
            if trial.outcome.state != "complete" or score is None:
                continue
            if best is None or best.outcome.score is None or score.beats(best.outcome.score):
                best = trial
        return best


@dataclass(frozen=True)
class Verdict:
    """The guard's answer for one finalist. Gains are baseline minus candidate: positive = transfer better."""

    decision: Decision
    effect: float  # mean gain, in the units of the loss (accuracy: a share of examples)
    ci_low: float  # interval at confidence 1 - 2 * alpha or more, in agreement with the one-sided tests
    ci_high: float
    p_value: float  # of the one-sided test for acceptance
    level: float  # at which it was tested; 0 where it did not compete
    method: str  # "exact McNemar", "Tango", "paired t", "DeLong", "exchange test", "sign flips", "clustered t"
    n: int  # guard examples
    fixed: int | None  # examples that the baseline gets wrong and the candidate right; None for real-valued losses
    broken: int | None
    detectable: float  # smallest true gain that this guard finds with power .8 at this level
    reason: str  # one sentence for a practitioner
    approximate: bool = False  # the test holds its level for many examples only, not exactly at every number of them
    exploratory: bool = False  # an earlier run with other settings has looked at these data: certifies nothing
    claim: Literal["model", "procedure"] = "model"  # what it is about: these weights, or the search over many folds

    @property
    def accepted(self) -> bool:
        """Whether the finalist may be deployed in the baseline's place."""
        return self.decision == "accepted"

    @property
    def caveat(self) -> str:
        """Why a winner with this verdict is not certified; empty where it is."""
        if not self.accepted:
            return "no test has shown that it beats scratch"
        if self.claim == "procedure":
            return "the folds have tested the search, not its weights"
        return "the guard was asked before" if self.exploratory else ""


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard: a study, its finalist and what the splits say of it."""

    strategy: str
    source: str | None
    status: Literal["complete", "no_complete_trial", "unavailable"]
    n_trials: int
    n_complete: int
    n_pruned: int
    n_failed: int
    seconds: float
    params: Mapping[str, Any]
    tune: float | None
    guard: float | None
    test: float | None
    verdict: Verdict | None  # None for scratch
    given_up: str = ""  # why it was given no further trials, where it could not win any more
    warm_start: Mapping[str, int] | None = None  # an earlier run's trials: offered, used, dropped; None = a cold start
    # Of the probabilities: temperature, and expected calibration error on guard with it ("error") and without.
    calibration: Mapping[str, float] | None = None

    @property
    def study(self) -> str:
        """The study's id, as in the run folder."""
        return self.strategy if self.source is None else f"{self.strategy}@{self.source}"


@dataclass(frozen=True)
class Winner:
    """What is shipped."""

    strategy: str
    source: str | None
    params: Mapping[str, Any]
    tune: float | None
    guard: float | None
    test: float | None
    certified: bool  # these very weights were accepted by the guard, or are scratch itself


@dataclass(frozen=True)
class Look:
    """One question put to the guard: of which examples, with which settings, by whom, when."""

    time: str  # ISO 8601, UTC
    data: str  # fingerprint of the data set
    guard: str  # of the guard split's examples and labels; empty where there is no such split
    config: str  # of all that decides what the guard is asked
    run_id: str


@dataclass(frozen=True)
class Looks:
    """A run's look at the guard, and those that others took at the same examples before it."""

    own: Look
    earlier: tuple[Look, ...] = ()

    @property
    def number(self) -> int:
        """Which look this is, counted from 1; from the second on the verdicts are exploratory."""
        return len(self.earlier) + 1

    @property
    def note(self) -> str:
        """Say what earlier looks mean for this one, and what to do; empty for the first."""
        if not self.earlier:
            return ""
        named = " and ".join(f"run {look.run_id} on {look.time[:10]}" for look in self.earlier[-2:])
        more = f"{len(self.earlier) - 2} before, then " if len(self.earlier) > 2 else ""
        return (
            f"this is look {self.number} at these data, with other settings than earlier ones ({more}{named}): its "
            "verdicts are exploratory, and no transfer is certified; a guard split of fresh examples certifies again"
        )


@dataclass(frozen=True)
class Logged:
    """Where MLflow keeps the run; empty strings where tracking is off."""

    tracking_uri: str = ""
    run_id: str = ""
    model_uri: str = ""
    name: str = ""
    version: str = ""
    refit_version: str = ""  # of the same weights' name: the recipe trained again, where `final: refit` asks for it


@dataclass(frozen=True)
class Usage:
    """What a run takes of the machine."""

    seconds: float  # from reading the data to the last line of the log
    memory: int  # bytes, at the process's peak
    device_memory: int | None = None  # bytes, at the peak; None without an accelerator


@dataclass(frozen=True)
class Forecast:
    """What a run was expected to take, and what it took."""

    expected: Usage
    stages: Mapping[str, float]  # seconds that add up to the expected ones
    studies: Mapping[str, float]  # seconds of the search, by study; with folds, of each
    used: Usage | None = None  # None where it was not run in one go
    faults: Mapping[str, str] = field(default_factory=dict)  # why none of a study's default trials could be timed


@dataclass(frozen=True)
class RunRecord:
    """``result.json``."""

    run_id: str
    task: Mapping[str, Any]  # name, kind, modality, metric, direction, classes, sizes, data fingerprint, warnings
    winner: Winner
    entries: tuple[Entry, ...]
    mlflow: Logged
    timings: Mapping[str, float]  # seconds by stage
    refit: Winner | None = None  # the winner's recipe trained again on everything but test; never certified
    looks: Looks | None = None  # at the guard; None in records of versions that did not count them
    forecast: Forecast | None = None  # None where making one would have taken too much of the run
    schema_version: int = SCHEMA_VERSION

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; every verdict carries ``accepted`` beside its decision, the looks number and note."""
        plain = dataclasses.asdict(self)
        if self.looks is not None:
            plain["looks"] |= {"number": self.looks.number, "note": self.looks.note}
        for entry, record in zip(plain["entries"], self.entries, strict=True):
            if record.verdict is not None:
                entry["verdict"]["accepted"] = record.verdict.accepted
        return plain
