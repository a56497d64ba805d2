from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution

from autoxfer.engines import Engine, InlineExecutor
from autoxfer.records import Job, Outcome, Score, Trial
from autoxfer.tuning import Earlier, Journal, Study, tune
from autoxfer.tuning.warm import ENOUGH, SHARE, WarmStart

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
DEFAULT = {"x": 0.5, "y": 0.5}
EARLIER = [Earlier({"x": k / 20, "y": 0.9}, k / 20) for k in range(20)]  # good where x is high


def search(path: Path, sign: float, n_trials: int, earlier: list[Earlier]) -> Study:
    """Search for a high x, or with sign -1 for a low one."""
    study = Study(Journal(path), "s", SPACE, [DEFAULT], seed=0, n_trials=n_trials, earlier=earlier)

    def make(number: int, params: Mapping[str, Any], floors: Any) -> Job:
        return Job("s", number, "s", None, params, seed=number, floors=floors)

    def train(job: Job) -> Outcome:
        value = sign * job.params["x"]
        return Outcome("complete", Score(value, value, -value))

    tune(study, make, train, Engine(InlineExecutor(), 1))
    return study


def taken(study: Study) -> list[int]:
    """Numbers of the trials that were taken over."""
    seeds = [dict(each.params) for each in EARLIER]
    return [trial.number for trial in study.trials() if dict(trial.params) in seeds]


def test_at_most_a_fifth_of_the_trials_are_taken_over_and_never_two_in_a_row(tmp_path: Path) -> None:
    study = search(tmp_path / "journal.log", 1.0, 20, EARLIER)
    assert taken(study) == [2, 4, 6, 8]
    assert study.trials()[2].params["x"] == 0.95  # the best first
    assert study.warm_start() == {"offered": 4, "used": 4, "dropped": 0}


def test_what_did_well_elsewhere_is_dropped_once_the_order_here_is_another(tmp_path: Path) -> None:
    good = search(tmp_path / "good.log", 1.0, 60, EARLIER)
    bad = search(tmp_path / "bad.log", -1.0, 60, EARLIER)
    assert len(taken(good)) == int(SHARE * 60)
    assert len(taken(bad)) <= ENOUGH
    counts = bad.warm_start()
    assert counts is not None
    assert counts["used"] == len(taken(bad))
    assert counts["dropped"] > 0


def test_three_that_are_all_worse_than_half_of_the_others_are_enough() -> None:
    warm = WarmStart.of(EARLIER, SPACE, 0, 50)
    told = [
        Trial(2 * k + 1, seed.params, Outcome("complete", Score(0.1, 0.1, 0.0))) for k, seed in enumerate(warm.seeds)
    ]
    cold = [Trial(2 * k, {"x": 0.0, "y": 0.0}, Outcome("complete", Score(k / 4, k / 4, 0.0))) for k in range(4)]
    assert not warm.misleads([*cold, *told[:2]])
    assert warm.misleads([*cold, *told[:3]])


def test_a_cold_search_knows_nothing_of_warm_ones(tmp_path: Path) -> None:
    study = search(tmp_path / "journal.log", 1.0, 12, [])
    assert study.warm_start() is None
    assert taken(study) == []


def test_a_killed_warm_search_goes_on_as_it_would_have_gone_on(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole.log", -1.0, 60, EARLIER)
    for n in (5, 17, 60):
        study = Study(Journal(tmp_path / "cut.log"), "s", SPACE, [DEFAULT], seed=0, n_trials=60, earlier=EARLIER)
        while len(study.trials()) < n:
            (begun,) = study.ask(1)
            value = -begun.params["x"]
            study.tell(begun.number, Outcome("complete", Score(value, value, -value)))
    assert [dict(t.params) for t in study.trials()] == [dict(t.params) for t in whole.trials()]


def test_parameters_are_brought_into_the_space_and_alike_ones_are_tried_once() -> None:
    earlier = [Earlier({"x": 2.0, "z": 1}, 0.9), Earlier({"x": 3.0}, 0.8), Earlier({"x": 0.1}, math.nan)]
    warm = WarmStart.of(earlier, SPACE, 1, 100)
    assert [dict(seed.params) for seed in warm.seeds] == [{"x": 1.0, "y": 0.5}]


def test_one_that_failed_counts_as_the_worst() -> None:
    warm = WarmStart.of(EARLIER, SPACE, 0, 50)
    closed = [
        Trial(2 * k + 1, seed.params, Outcome("complete", Score(seed.rank, seed.rank, 0.0)))
        for k, seed in enumerate(warm.seeds)
    ]
    assert not warm.misleads(closed)
    failed = [Trial(trial.number, trial.params, Outcome("failed", None)) for trial in closed]
    assert warm.misleads(failed[:3] + closed[3:])


def test_the_evidence_command_compares_every_prior_with_a_cold_search() -> None:
    command = Path(__file__).resolve().parents[1] / "examples" / "evidence" / "warm_start.py"
    done = subprocess.run([sys.executable, command, "--smoke", "--json"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert [row["prior"] for row in told["rows"]] == 2 * ["cold", "like", "same", "opposite"]
    assert all(row["regret"] >= 0 for row in told["rows"])
    assert told["holds"] is None  # two seeds say nothing
