"""The benchmarks of the probe, of starting and of growing run, and judge as they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from autoxfer.records import Outcome, Trial
from autoxfer.tuning.pruning import floors

BENCHMARKS = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from common import finish  # noqa: E402
from growth import exponents_of, per_trial  # noqa: E402
from opponents import Rungs  # noqa: E402
from probe_contenders import Found  # noqa: E402
from probe_search import judge  # noqa: E402


def smoke(name: str, tmp_path: Path) -> dict[str, Any]:
    """Run a benchmark for seconds, where no data but the repository's own are at hand."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--smoke", "--json", "--data", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AUTOXFER_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


@pytest.mark.slow
def test_the_search_for_a_penalty_is_compared_with_what_people_write(tmp_path: Path) -> None:
    value = smoke("probe_search", tmp_path)
    names = {"naive_s", "hand_cached_s", "autoxfer_s", "forward_s", "speedup_naive", "speedup_hand_cached", "accuracy"}
    assert names <= set(value)
    assert value["naive_drift"] < 0.02  # with and without cached features the loop does the same
    assert value["accuracy"]["autoxfer"]["tune"] >= value["accuracy"]["hand_cached"]["tune"]
    assert value["speedup_naive"] == pytest.approx(value["naive_s"] / value["autoxfer_s"])


@pytest.mark.slow
def test_starting_is_timed(tmp_path: Path) -> None:
    value = smoke("startup", tmp_path)
    assert 0 < value["help_s"] < value["first_trial_s"]
    assert {row["what"] for row in value["rows"]} == {"help", "plugins", "torch", "first_trial", "again"}


@pytest.mark.slow
def test_growth_is_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    value = smoke("growth", tmp_path)
    assert [row["number"] for row in value["rows"]] == [row["trials_done"] for row in value["rows"]]
    assert set(value["exponents"]) == {"trials"}
    assert value["holds"] == {"memory_does_not_grow_with_trials": None}


@pytest.mark.parametrize("smoke", [True, False])
def test_a_smoke_run_is_asked_for_no_rule(capsys: pytest.CaptureFixture[str], smoke: bool) -> None:
    for as_json in (True, False):
        finish(Namespace(smoke=smoke, json=as_json, device="cpu"), [{"a": 1}], holds={"rule": False})
    value, *text = capsys.readouterr().out.splitlines()
    assert json.loads(value)["holds"] == {"rule": None if smoke else False}
    assert ("holds: not asked: a smoke run" in text) == (text.count("smoke: figures mean nothing") == 1) == smoke
    assert ("holds: {'rule': False}" in text) == (not smoke)


def test_an_exponent_is_a_slope_of_logarithms() -> None:
    rows = [{"number": n, "seconds": 3.0 * n**2, "cpu_seconds": 7.0, "megabytes": 0.1 * n} for n in (100, 200, 400)]
    assert exponents_of(rows) == {"seconds": 2.0, "cpu_seconds": 0.0, "megabytes": 1.0}


def test_what_a_trial_leaves_behind_is_not_moved_by_one_odd_point() -> None:
    rows = [{"number": n, "megabytes": 10 + 0.5 * n} for n in (5, 10, 20, 40, 80)]
    rows[1]["megabytes"] += 40
    assert per_trial(rows) == pytest.approx(0.5, abs=0.3)


def found(tune: float, n_right: int) -> Found:
    return Found(tune, torch.arange(1000) < n_right)


@pytest.mark.parametrize(
    ("seconds", "ours", "missed"),
    [
        ({}, found(0.9, 800), set()),
        ({"naive": 49.0}, found(0.9, 800), {"times_naive"}),
        ({"hand_cached": 4.9}, found(0.9, 800), {"times_hand_cached"}),
        ({"autoxfer": 2.1, "naive": 200.0, "hand_cached": 20.0}, found(0.9, 800), {"forward"}),
        ({}, found(0.89, 798), {"accuracy_tune"}),
        ({}, found(0.91, 780), {"accuracy_held_out"}),
    ],
)
def test_every_target_of_the_search_is_judged(seconds: dict[str, float], ours: Found, missed: set[str]) -> None:
    times = {"forward": 0.05, "autoxfer": 1.0, "hand_cached": 5.0, "naive": 50.0} | seconds
    holds = judge(times, {"autoxfer": ours, "hand_cached": found(0.9, 800)})
    assert {name for name, held in holds.items() if not held} == missed


def test_the_opponents_pruner_is_autoxfers() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    curves = [[0.1 * k + 0.01 * step for step in range(1, 21)] for k in (5, 3, 4, 6, 7)]
    study = optuna.create_study(direction="maximize", pruner=Rungs(20))
    for curve in curves:
        trial = study.ask()
        for step, rank in enumerate(curve, start=1):
            trial.report(rank, step)
            assert not trial.should_prune()  # too few have finished
        study.tell(trial, curve[-1])
    closed = [
        Trial(k, {}, Outcome("complete", None, tuple((step / 20, rank) for step, rank in enumerate(curve, start=1))))
        for k, curve in enumerate(curves)
    ]
    rungs = dict(floors(closed))
    trial = study.ask()
    for step in range(1, 21):
        trial.report(0.5, step)
        assert trial.should_prune() == (step < 20 and any(f > 0.5 for share, f in rungs.items() if step / 20 >= share))
