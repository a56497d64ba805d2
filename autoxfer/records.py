"""The values that searching and judging pass between floors: frozen, plain, without a library's objects in them."""

from __future__ import annotations

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
