from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from autoxfer.errors import AutoxferError
from autoxfer.records import Outcome, Score
from autoxfer.tuning.journal import Journal, decode, encode

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution([None, "a", 3])}
OUTCOME = Outcome(
    "complete",
    Score(0.1 + 0.2, 1 / 3, 2**-60),
    ((0.0, 0.1), (0.5, 1 / 3), (1.0, -math.inf)),
    seconds=1.23,
    steps=150,
    n_trained=12345678901,
    reason="",
    notes={"chosen": 1e-3, "kept": [1, True, None, "a"], "by": {"layer": 0.1}},
)


def test_an_outcome_comes_back_exactly(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log")
    study = journal.open_study("a")
    begun = journal.begin(study, {"x": 0.1 + 0.2, "c": None}, SPACE, ((0.5, 1 / 3),), 0)
    told = journal.finish(study, begun.number, OUTCOME)
    read = Journal(tmp_path / "journal.log").closed(study)
    assert read == (told,)
    assert told.outcome == OUTCOME
    assert dict(told.params) == {"x": 0.1 + 0.2, "c": None}


def test_notes_of_any_kind_become_plain() -> None:
    notes: dict[Any, Any] = {"a": np.float32(0.5), "b": np.arange(3), 4: {"c": (1, np.bool_(True))}, "p": Path("x")}
    plain = decode(encode(Outcome("failed", None, reason="why", notes=notes)))
    assert plain.notes == {"a": 0.5, "b": [0, 1, 2], "4": {"c": [1, True]}, "p": "x"}


def test_a_running_trial_keeps_its_parameters_and_floors(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log")
    study = journal.open_study("a")
    begun = journal.begin(study, {"x": 1 / 3, "c": 3}, SPACE, ((0.25, 0.1), (0.5, 1 / 3)), 4)
    again = Journal(tmp_path / "journal.log")
    assert again.open_study("a") == study
    assert again.running(study) == [begun]
    assert again.closed(study) == ()


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study = Journal(path).open_study("a")
    with path.open("ab") as handle:
        handle.write(b'{"op_code": 4, "worker')
    journal = Journal(path)
    journal.begin(study, {"x": 0.5, "c": "a"}, SPACE, (), 0)
    assert len(Journal(path).running(study)) == 1


def test_damage_in_the_middle_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    Journal(path).open_study("a")
    damaged = b"{torn" + path.read_bytes()
    path.write_bytes(damaged * 2)
    with pytest.raises(AutoxferError, match=r"journal\.log is no journal that can be read"):
        Journal(path)
    assert path.read_bytes() == damaged * 2


@pytest.mark.parametrize("kind", ["file", "symlink", "renamed"])
def test_a_left_over_lock_costs_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "journal.log"
    study = Journal(path).open_study("a")
    lock = tmp_path / ("journal.log.lock" + "1234.rename" * (kind == "renamed"))
    if kind == "symlink":
        lock.symlink_to(tmp_path / "nowhere")
    else:
        lock.touch()
    started = time.monotonic()
    Journal(path).begin(study, {"x": 0.5, "c": "a"}, SPACE, (), 0)
    assert time.monotonic() - started < 5  # Optuna waits 30 s
    assert [file.name for file in tmp_path.iterdir()] == ["journal.log"]


def test_optunas_own_tools_can_read_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log")
    study = journal.open_study("probe@even")
    for state in ("complete", "pruned", "failed"):
        score = None if state == "failed" else OUTCOME.score
        curve = () if state == "failed" else ((0.5, 0.25), (1.0, 0.75))
        number = journal.begin(study, {"x": 0.5, "c": "a"}, SPACE, (), 0).number
        journal.finish(study, number, Outcome(state, score, curve))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    loaded = optuna.load_study(study_name="probe@even", storage=optuna.storages.JournalStorage(backend))
    assert [trial.state.name for trial in loaded.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert loaded.best_value == 1 / 3
    assert loaded.trials[1].intermediate_values == {500: 0.25, 1000: 0.75}
