"""What ``result.json`` says of a run: as values, as plain data, and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal

from autoxfer.records import Verdict

SCHEMA_VERSION = 1


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
        plain = asdict(self)
        if self.looks is not None:
            plain["looks"] |= {"number": self.looks.number, "note": self.looks.note}
        for entry, record in zip(plain["entries"], self.entries, strict=True):
            if record.verdict is not None:
                entry["verdict"]["accepted"] = record.verdict.accepted
        return plain


def read_record(value: Mapping[str, Any]) -> RunRecord:
    """Make a record of ``result.json`` again; what is not finite stands there as null, and comes back as NaN."""
    return RunRecord(
        **{
            **value,
            "winner": Winner(**value["winner"]),
            "entries": tuple(Entry(**{**line, "verdict": _verdict(line["verdict"])}) for line in value["entries"]),
            "mlflow": Logged(**value["mlflow"]),
            "refit": Winner(**value["refit"]) if value.get("refit") else None,
            "looks": _looks(value["looks"]) if value.get("looks") else None,
            "forecast": read_forecast(value["forecast"]) if value.get("forecast") else None,
        }
    )


def read_forecast(value: Mapping[str, Any]) -> Forecast:
    """Make a forecast of plain data again."""
    used = Usage(**value["used"]) if value["used"] else None
    return Forecast(**{**value, "expected": Usage(**value["expected"]), "used": used})


def _looks(value: Mapping[str, Any]) -> Looks:
    return Looks(Look(**value["own"]), tuple(Look(**look) for look in value["earlier"]))


def _verdict(value: Mapping[str, Any] | None) -> Verdict | None:
    if value is None:
        return None
    # An earlier version's verdict lacks what was added since; those fields have defaults.
    known: dict[str, Any] = {
        each.name: value[each.name] for each in fields(Verdict) if each.name in value or each.default is MISSING
    }
    lost = {name: math.nan for name, item in known.items() if item is None and name not in ("fixed", "broken")}
    return Verdict(**(known | lost))
