"""The run's memory of its trials: Optuna's journal, repaired on opening.

A trial takes one line to begin, with all its parameters, so that a kill never leaves half of them; its outcome is
one line too, written before the line that closes it. What is read back is always what the journal holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoxfer.errors import AutoxferError
from autoxfer.records import Bars, Floors, Outcome, Score, Trial
from autoxfer.runfolder import writing
from autoxfer.tuning.sampling import quiet
from autoxfer.tuning.spaces import Space

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@final
@dataclass(frozen=True)
class Begun:
    """A trial that runs, or ran when the run was killed."""

    number: int
    params: Mapping[str, Any]
    floors: Floors
    bars: Bars
    generation: int  # the number of the first trial that was asked together with it


@final
class Journal:
    """All studies of a run in one file, with one owner at a time: the run folder's lock is held elsewhere."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises AutoxferError where it is damaged in a way that no kill explains."""
        path = self._path = Path(path).resolve()
        try:
            with writing(path):
                cut_torn_line(path)
                remove_locks(path)
                backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
            self._storage = JournalStorage(backend)
        except (ValueError, LookupError, TypeError, AssertionError) as error:
            raise AutoxferError(f"{path.name} is no journal that can be read: {error}") from error

    def open_study(self, name: str) -> int:
        """Find a study, or create it; its number in the file. A trial that lacks only its last line is closed."""
        try:
            study = self._storage.get_study_id_from_name(name)
        except KeyError:
            with quiet(), writing(self._path):
                return self._storage.create_new_study([StudyDirection.MAXIMIZE], name)
        for trial in self._storage.get_all_trials(study, deepcopy=False, states=(TrialState.RUNNING,)):
            if "outcome" in trial.user_attrs:
                self.finish(study, trial.number, decode(trial.user_attrs["outcome"]))
        return study

    def begin(
        self,
        study: int,
        params: Mapping[str, Any],
        space: Space,
        floors: Floors,
        generation: int,
        *,
        bars: Bars = (),
    ) -> Begun:
        """Write that a trial runs: number, parameters, floors, bars, in one line."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(space),
            user_attrs={"floors": floors, "bars": bars, "generation": generation},
        )
        with writing(self._path):
            trial_id = self._storage.create_new_trial(study, template)
        return _begun(self._storage.get_trial(trial_id))

    def finish(self, study: int, number: int, outcome: Outcome) -> Trial:
        """Write a trial's curve, its whole outcome, and at last that it is closed."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        curve = {round(1000 * share): rank for share, rank in outcome.curve}
        value: float | None = None
        if outcome.state == "complete" and outcome.score is not None:
            value = outcome.score.rank
        elif outcome.state == "pruned" and curve:  # as Study.tell does: the last intermediate value
            value = curve[max(curve)]
        with writing(self._path):
            for step, rank in curve.items():
                self._storage.set_trial_intermediate_value(trial_id, step, rank)
            self._storage.set_trial_user_attr(trial_id, "outcome", encode(outcome))
            self._storage.set_trial_state_values(trial_id, _STATES[outcome.state], None if value is None else [value])
        return _trial(self._storage.get_trial(trial_id))

    def closed(self, study: int) -> tuple[Trial, ...]:
        """Read the finished trials, in their order."""
        frozen = self._storage.get_all_trials(study, deepcopy=False, states=tuple(_STATES.values()))
        return tuple(_trial(trial) for trial in frozen)

    def running(self, study: int) -> list[Begun]:
        """Read the trials that were begun and not finished, in their order."""
        frozen = self._storage.get_all_trials(study, deepcopy=False, states=(TrialState.RUNNING,))
        return [_begun(trial) for trial in frozen]


def cut_torn_line(path: Path) -> None:
    """Cut the file back to its last newline: once something follows a torn line, the journal is unreadable for good."""
    if not path.exists():
        return
    with path.open("r+b") as handle:
        content = handle.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            handle.truncate(whole)


def remove_locks(path: Path) -> None:
    """Remove the lock that a killed owner left behind; Optuna would wait 30 s for it."""
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink(missing_ok=True)


def encode(outcome: Outcome) -> dict[str, Any]:
    """Make an outcome plain data for JSON; floats stay exact."""
    score = outcome.score
    return {
        "state": outcome.state,
        "score": None if score is None else [float(score.value), float(score.rank), float(score.loss)],
        "curve": [[float(share), float(rank)] for share, rank in outcome.curve],
        "seconds": float(outcome.seconds),
        "steps": int(outcome.steps),
        "n_trained": int(outcome.n_trained),
        "reason": outcome.reason,
        "notes": _plain(outcome.notes),
    }


def decode(data: Mapping[str, Any]) -> Outcome:
    """Make the outcome again."""
    score, curve = data["score"], tuple((share, rank) for share, rank in data["curve"])
    return Outcome(**{**data, "score": None if score is None else Score(*score), "curve": curve})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's and torch's values
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _begun(frozen: FrozenTrial) -> Begun:
    floors = tuple((share, rank) for share, rank in frozen.user_attrs["floors"])
    bars = tuple((share, rank, theirs) for share, rank, theirs in frozen.user_attrs.get("bars", ()))
    return Begun(frozen.number, dict(frozen.params), floors, bars, frozen.user_attrs["generation"])


def _trial(frozen: FrozenTrial) -> Trial:
    return Trial(frozen.number, dict(frozen.params), decode(frozen.user_attrs["outcome"]))
