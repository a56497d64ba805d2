"""What a run is expected to take, against naive sums and against runs."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from test_live import record, tell
from test_selection import SETTINGS, Listener

import autoxfer
from autoxfer import forecasting, planning, selection
from autoxfer.config import load_config
from autoxfer.events import Foreseen, RunStarted
from autoxfer.forecasting import AFTER, CHANCE, DONE, LATER, SHARE, forecast
from autoxfer.metering import Meter, as_text, duration, peak_memory
from autoxfer.records import Job, Recipe
from autoxfer.report import Forecast, Usage, read_record
from autoxfer.runfolder import RunFolder
from autoxfer.terminal.leaderboard import cost
from autoxfer.terminal.progress import Progress
from autoxfer.trials import Price

SPACE: dict[str, BaseDistribution] = {
    "steps": IntDistribution(50, 300, log=True),
    "batch": CategoricalDistribution([16, 32, 64]),
    "augment": CategoricalDistribution(["none", "shift"]),
}
START = {"steps": 150, "batch": 32, "augment": "none"}
USED = Usage(130.4, 1_040_000_000)


def step_s(params: Mapping[str, Any]) -> float:
    return float(params["batch"] * {"none": 1e-4, "shift": 3e-4}[params["augment"]])


class Bench:
    """Knows what everything costs."""

    def __init__(self, slow: float = 0.0, step_s: float = 0.0) -> None:
        self.priced: list[Mapping[str, Any]] = []
        self.slow, self.step_s = slow, step_s

    def price(self, job: Job) -> Price:
        self.priced.append(job.params)
        time.sleep(self.slow)
        return Price(0.25, 0.1, self.step_s or step_s(job.params), 0.02, 1)

    def answer_s(self, job: Job) -> float:
        return 0.001


def setting(
    n_trials: int = 40,
    *,
    seconds: float | None = None,
    trial_seconds: float | None = None,
    folds: int = 0,
    final: str = "tested",
) -> Any:
    strategy = SimpleNamespace(name="scratch", recipe=Recipe())
    plan = SimpleNamespace(strategy=strategy, source=None, space=SPACE, defaults=(START,))
    rows = {"train": np.arange(50), "tune": np.arange(40), "guard": np.arange(100), "test": np.arange(30)}
    return SimpleNamespace(
        config=SimpleNamespace(
            budget=SimpleNamespace(trials=n_trials, trial_seconds=trial_seconds), seed=0, final=final
        ),
        studies={"scratch": plan},
        folds=(None,) * folds,
        rows=rows.__getitem__,
        splits=SimpleNamespace(rows=rows),
        judged=rows["guard"],
        seconds=seconds,
    )


def expect(made: Any, least: int = forecasting.MOST, slow: float = 0.0) -> Forecast | None:
    return forecast(made, Bench(slow), Meter(), {"setup": 2.0}, least=least)  # type: ignore[arg-type]


def draws(rng: np.random.Generator, n: int) -> Iterable[dict[str, Any]]:
    for _ in range(n):
        steps = round(float(np.exp(rng.uniform(np.log(50), np.log(300)))))
        yield {"steps": steps, "batch": int(rng.choice([16, 32, 64])), "augment": str(rng.choice(["none", "shift"]))}


def trial_s(params: Mapping[str, Any], share: float = 1.0) -> float:
    return 0.1 + share * params["steps"] * step_s(params) + 0.02 * (share * 12 + 1)


def test_a_study_is_expected_to_take_what_a_search_of_random_draws_takes() -> None:
    rng, found = np.random.default_rng(0), expect(setting())
    assert found is not None
    searches = [
        trial_s(START)
        + sum(trial_s(params) for params in draws(rng, CHANCE - 1))
        + sum(trial_s(params, DONE) for params in draws(rng, 40 - CHANCE))
        for _ in range(200)
    ]
    assert found.studies["scratch"] == pytest.approx(np.mean(searches), rel=0.15)


def test_the_late_trials_of_a_study_are_expected_to_be_stopped() -> None:
    bench = Bench()
    found = forecast(setting(), bench, Meter(), {}, least=3)  # type: ignore[arg-type]
    assert found is not None
    mean_steps = 250 / np.log(6)
    whole, late = (
        np.mean([trial_s({**params, "steps": mean_steps}, share) for params in bench.priced]) for share in (1.0, DONE)
    )
    expected = trial_s(START) + (CHANCE - 1) * whole + (40 - CHANCE) * late
    assert found.studies["scratch"] == pytest.approx(expected)


def test_no_choice_is_drawn_more_often_than_another() -> None:
    bench = Bench()
    forecast(setting(), bench, Meter(), {}, least=6)  # type: ignore[arg-type]
    drawn = bench.priced[1:7]
    assert [[params["batch"] for params in drawn].count(batch) for batch in (16, 32, 64)] == [2, 2, 2]
    assert [params["augment"] for params in drawn].count("shift") == 3


def test_the_stages_add_up_and_nothing_is_forgotten() -> None:
    found = expect(setting(final="refit"))
    assert found is not None
    assert found.expected.seconds == pytest.approx(sum(found.stages.values()))
    assert found.stages["setup"] == 2.0
    assert found.stages["search"] == pytest.approx(found.studies["scratch"] + 40 * 0.001)
    assert found.stages["guard"] == pytest.approx(140 * 0.001)
    assert found.stages["test"] == pytest.approx(30 * 0.001)
    assert found.stages["activations"] == pytest.approx(0.25 * (1 + forecasting.MOST))
    assert {"refit", *AFTER} < set(found.stages)
    assert found.expected.memory >= LATER + 50_000_000


def test_each_fold_is_a_search_of_its_own() -> None:
    alone, folded = expect(setting()), expect(setting(folds=3))
    assert alone is not None
    assert folded is not None
    assert folded.stages["folds"] == pytest.approx(3 * (alone.stages["search"] + alone.stages["activations"]) + 0.1)


def test_the_time_limit_bounds_what_is_expected() -> None:
    found = expect(setting(seconds=3.0))
    assert found is not None
    assert found.studies["scratch"] == 3.0


def test_pricing_takes_a_small_part_of_the_search_or_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expect(setting(n_trials=1), least=0) is None
    assert expect(setting(n_trials=1), least=1) is not None  # but a plan always says something
    bench = Bench(slow=0.1)
    found = forecast(setting(10), bench, Meter(), {})  # type: ignore[arg-type]
    assert found is not None
    assert len(bench.priced) < 1 + forecasting.MOST
    assert found.stages["forecast"] <= SHARE * found.studies["scratch"] + 0.2
    monkeypatch.setattr(forecasting, "GRACE", 0.05)
    two = setting(10)
    two.studies["other"] = two.studies["scratch"]
    monkeypatch.setattr(forecasting, "SHARE", 0.001)
    assert forecast(two, Bench(slow=0.1), Meter(), {}) is None  # type: ignore[arg-type]


def test_few_steps_are_forecast_where_each_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    five = setting(5)
    assert 5 * forecasting.mean(SPACE["steps"]) < forecasting.FEW
    assert forecast(five, Bench(step_s=0.01), Meter(), {}) is None  # type: ignore[arg-type]
    bench = Bench(step_s=1.0)
    found = forecast(five, bench, Meter(), {})  # type: ignore[arg-type]
    assert found is not None
    assert found.studies["scratch"] == pytest.approx(5 * 139.5, rel=0.1)
    assert bench.priced.count(START) == 1
    assert len(bench.priced) == 1 + forecasting.MOST
    monkeypatch.setattr(forecasting, "GRACE", 0.1)
    assert forecast(five, Bench(slow=0.2, step_s=1.0), Meter(), {}) is not None  # type: ignore[arg-type]
    solved = setting(5)
    solved.studies = {"solved": SimpleNamespace(**{**vars(five.studies["scratch"]), "space": {}, "defaults": ({},)})}
    solved.studies["solved"].strategy = SimpleNamespace(name="linear_probe", recipe=None)
    bench = Bench(step_s=1.0)
    assert forecast(solved, bench, Meter(), {}) is None  # type: ignore[arg-type]
    assert not bench.priced  # which would have been a whole trial


def test_what_is_left_is_what_was_expected_until_trials_say_otherwise() -> None:
    from test_live import finished  # noqa: PLC0415

    from autoxfer.events import StudyStarted  # noqa: PLC0415

    made = Forecast(USED, {}, {"a": 8.0, "b": 40.0})
    progress = Progress()
    tell(progress, RunStarted("r", Path("r"), ("a", "b"), 4, None, "accuracy"))
    assert progress.left == ""
    tell(progress, Foreseen(made))
    assert progress.left == "about 48 s left"
    tell(progress, StudyStarted("a"), finished("a", 0, 3.0))
    assert progress.left == "about 1 min 09 s left"  # 3 * 3 + 40 * 1.5: trials take half as long again
    part = Progress(forecast=Forecast(USED, {}, {"b": 40.0}))
    tell(part, RunStarted("r", Path("r"), ("a", "b"), 4, None, "accuracy"))
    assert part.left == "at least 40 s left"


def test_the_last_lines_say_how_far_it_was_off() -> None:
    made = record()
    assert cost(made) == []
    made = replace(made, forecast=Forecast(Usage(131.0, 1_100_000_000), {}, {}))
    assert cost(made) == []  # stopped and resumed: nobody knows how long it took
    assert made.forecast is not None
    made = replace(made, forecast=replace(made.forecast, used=Usage(151, 1_000_000_000, 2_500_000_000)))
    said = "expected 2 min 11 s and 1.1 GB, took 2 min 31 s and 1 GB (2.5 GB on the accelerator)"
    assert cost(made) == [said]
    assert read_record(json.loads(json.dumps(made.as_dict()))).forecast == made.forecast


def test_a_peak_is_remembered_and_memory_is_counted_in_bytes() -> None:
    before = peak_memory()
    block = np.ones(200_000_000 // 8)
    block.sum()
    del block
    assert 0 < before <= peak_memory()
    assert 50_000_000 < peak_memory() < 100_000_000_000
    assert as_text(Usage(75, 0)) == duration(75) == "1 min 15 s"


@pytest.mark.slow
def test_a_run_says_before_its_search_what_it_takes_and_after_it_what_it_took(tmp_path: Path) -> None:
    settings = {**SETTINGS, "strategies": [{"scratch": {"architecture": "compact"}}, "fine_tune"]}
    listener = Listener()
    made = autoxfer.run(settings, runs=tmp_path, observers=[listener]).record
    assert listener.names().index("Foreseen") < listener.names().index("StudyStarted")
    assert made.forecast is not None
    assert made.forecast.used is not None
    assert made.forecast.used.seconds > sum(made.timings.values())
    assert set(made.forecast.studies) == {"scratch", "fine_tune@digits"}
    assert 0.5 < made.forecast.expected.memory / made.forecast.used.memory < 2
    folder = RunFolder(tmp_path / made.run_id)
    folder.result.unlink()  # as if it had been killed
    listener = Listener()
    again = selection.resume(made.run_id, runs=tmp_path, observers=[listener]).record
    assert again.forecast == replace(made.forecast, used=None)
    assert "Foreseen" in listener.names()  # for whoever says how long it still takes


@pytest.mark.slow
def test_a_short_run_is_not_kept_waiting(tmp_path: Path) -> None:
    assert autoxfer.run(SETTINGS, runs=tmp_path).record.forecast is None


@pytest.mark.slow
def test_a_plan_tells_the_whole_run() -> None:
    planned = planning.plan(load_config(SETTINGS))
    assert planned.seconds > sum(study.seconds for study in planned.studies) > 0
    assert any("whole run" in line and " GB" in line for line in planned.lines())
    assert json.loads(json.dumps(planned.as_dict(), default=str))["seconds"] == planned.seconds


@pytest.mark.slow
def test_the_benchmark_of_predictions_answers_in_json() -> None:
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "examples/benchmarks/prediction.py", "--smoke", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    (row,) = json.loads(done.stdout)["rows"]
    assert row["trials"] == 6
    assert row["plan_s_off"] >= 1
    assert row["plan_gb_off"] < 1.5


class Failing(Bench):
    """Every trial of one study fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def price(self, job: Job) -> Price:
        if job.study == "broken":
            raise self.error
        return super().price(job)


def test_what_fails_while_it_is_priced_is_named_and_the_rest_is_forecast() -> None:
    two = setting()
    two.studies["broken"] = two.studies["scratch"]
    found = forecast(two, Failing(FloatingPointError("the loss became nan")), Meter(), {}, least=3)  # type: ignore[arg-type]
    assert found is not None
    assert list(found.faults) == ["broken"]
    assert "FloatingPointError: the loss became nan" in found.faults["broken"]
    assert found.studies["broken"] == 0 < found.studies["scratch"]


def test_a_full_disk_is_no_fault_of_a_strategy() -> None:
    two = setting()
    two.studies["broken"] = two.studies["scratch"]
    with pytest.raises(OSError, match="no space left"):
        forecast(two, Failing(OSError(errno.ENOSPC, "no space left")), Meter(), {}, least=3)  # type: ignore[arg-type]


def test_a_trial_that_hangs_does_not_hang_its_forecast() -> None:
    started = time.monotonic()
    found = forecast(setting(trial_seconds=0.05), Bench(slow=30.0), Meter(), {}, least=3)  # type: ignore[arg-type]
    assert found is not None
    assert found.faults["scratch"].startswith("TimeoutError: the trial took more than budget.trial_seconds = 0.05")
    assert time.monotonic() - started < 10
