"""The benchmarks of trials and whole runs: their opponents do what a trial does, and their answers can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from autoxfer.config import load_config
from autoxfer.records import Job
from autoxfer.runfolder import RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.strategy import Tap
from autoxfer.training import CHECKS

BENCHMARKS = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"
SMOKE = Namespace(smoke=True, short=False, digits=False, device="cpu", seed=0, data=None)


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rivals  # noqa: PLC0415

    return rivals


@pytest.fixture
def setting(rivals: ModuleType) -> Setting:
    import strategies  # noqa: PLC0415

    return prepare(load_config(strategies.configure(SMOKE) | {"strategies": ["residual", "linear_probe"]}))


def answer(name: str, *flags: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--smoke", "--json", *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return json.loads(done.stdout)


def test_the_bound_has_as_many_steps_and_scores_as_a_trial(rivals: ModuleType, setting: Setting, tmp_path: Path):
    trial = rivals.first_trial(setting, "residual@source", 14, 0)
    job = Job("residual@source", 0, "residual", "source", trial.params, 0)
    _, trainer, _ = setting.bench(RunFolder(tmp_path))._train(job)
    cost = rivals.bound(setting, trial)
    assert (cost.n_steps, cost.n_scores) == (trainer.clock.n_steps, trainer.clock.n_scores) == (14, CHECKS + 1)


def test_the_plain_loop_reads_what_the_cache_holds(rivals: ModuleType, setting: Setting):
    plan = setting.studies["residual@source"]
    naive = rivals.Naive(setting, plan.problem, plan.strategy.recipe)
    torch.testing.assert_close(
        naive.data[Tap("last")], setting.features.whole(Tap("last", "source"), "train"), rtol=1e-4, atol=1e-5
    )


def test_the_plain_loop_stops_where_the_trial_was_stopped(rivals: ModuleType, setting: Setting):
    trial = rivals.first_trial(setting, "residual@source", 24, 0)
    cost = rivals.run(setting, rivals.Trial(trial.study, trial.params, 0, 12), rivals.Naive)
    assert (cost.n_steps, cost.n_scores) == (12, CHECKS // 2 + 1)


@pytest.mark.slow
def test_the_benchmark_of_strategies_answers():
    found = answer("strategies", "--strategy", "linear_probe", "--strategy", "residual")
    assert [row["strategy"] for row in found["rows"]] == ["linear_probe", "residual"]
    for row in found["rows"]:
        assert min(row["naive_s"], row["bound_s"], row["autoxfer_s"]) > 0
        assert row["share"] == pytest.approx(row["bound_s"] / row["autoxfer_s"])
        assert row["same"]


@pytest.mark.slow
def test_the_benchmark_of_a_whole_run_answers():
    found = answer("whole_run", "--trials", "2")
    (row,) = found["rows"]
    assert {"naive_s", "autoxfer_s", "speedup", "bound_s", "share", "overhead_share", "test"} <= row.keys()
    assert row["naive_s"].startswith("~")  # one trial of two was run
    assert 0 < row["bound_s"] < row["autoxfer_s"]
    assert 0 < row["overhead_share"] < 1
    assert sum(found["computing"].values()) < row["autoxfer_s"]
