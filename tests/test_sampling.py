from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoxfer.records import Outcome, Score, Trial, derive_seed
from autoxfer.tuning.sampling import N_STARTUP, propose

INFINITE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-1, 1),
    "n": IntDistribution(1, 100, log=True),
    "c": CategoricalDistribution(["a", "b"]),
    "fixed": CategoricalDistribution([None]),
}


def done(number: int, params: dict[str, Any], rank: float, loss: float = 0.0) -> Trial:
    return Trial(number, params, Outcome("complete", Score(rank, rank, loss), ((0.5, rank), (1.0, rank))))


def search(space: dict[str, BaseDistribution], n: int, seed: int = 0) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(n):
        params = propose(space, trials, [], derive_seed(seed, number))
        if params is None:
            break
        trials.append(done(number, params, -abs(params.get("x", 0.0) - 0.3)))
    return trials


def test_the_same_history_and_seed_give_the_same_parameters() -> None:
    history = search(INFINITE, 8)
    first, again, other = (propose(INFINITE, history, [], seed) for seed in (5, 5, 6))
    assert first == again != other
    assert first is not None
    assert list(first) == list(INFINITE)
    assert {type(value) for value in first.values()} == {float, int, str, type(None)}


def test_the_search_homes_in() -> None:
    late = [
        trial.outcome.score.rank
        for seed in range(3)
        for trial in search(INFINITE, 20, seed)[10:]
        if trial.outcome.score
    ]
    assert sum(rank > -0.3 for rank in late) > 0.6 * len(late)  # at random: 0.3


def test_equal_metrics_are_ordered_by_loss() -> None:
    def mean(sign: float) -> float:
        history = [done(k, {"x": x}, 0.5, loss=sign * x) for k, x in enumerate((-0.9, -0.5, 0.0, 0.5, 0.9, -0.7, 0.7))]
        draws = [propose({"x": FloatDistribution(-1, 1)}, history, [], seed) for seed in range(10)]
        return float(np.mean([params["x"] for params in draws if params]))

    assert mean(-1.0) > 0.2 > -0.2 > mean(1.0)


def test_the_sampler_keeps_away_from_failures() -> None:
    space = {"c": CategoricalDistribution(["good", "breaks"]), "x": FloatDistribution(0, 1)}
    history = [done(k, {"c": "good", "x": k / 10}, 0.5) for k in range(N_STARTUP)]
    failed = [Trial(k, {"c": "breaks", "x": k / 20}, Outcome("failed", None, reason="x")) for k in range(5, 11)]
    draws = [propose(space, history + failed, [], seed) for seed in range(20)]
    assert sum(params["c"] == "breaks" for params in draws if params) <= 2


@pytest.mark.parametrize("n_pending", [0, 2])
def test_a_finite_space_is_exhausted_without_a_repetition(n_pending: int) -> None:
    space: dict[str, BaseDistribution] = {
        "a": CategoricalDistribution([True, False]),
        "b": FloatDistribution(0.1, 0.3, step=0.1),
        "c": IntDistribution(2, 6, step=2),
    }
    everything = set(itertools.product([True, False], [0.1, 0.2, 0.3], [2, 4, 6]))
    pending = [{"a": True, "b": 0.1, "c": 2 * k + 2} for k in range(n_pending)]
    trials: list[Trial] = []
    while (params := propose(space, trials, pending, derive_seed(0, len(trials)))) is not None:
        trials.append(done(len(trials), params, params["c"]))
    seen = [(t.params["a"], round(t.params["b"], 9), t.params["c"]) for t in trials]
    assert len(seen) == len(everything) - n_pending
    assert set(seen) == everything - {(p["a"], p["b"], p["c"]) for p in pending}


def test_an_empty_space_has_one_trial() -> None:
    assert [trial.params for trial in search({}, 5)] == [{}]


def test_optuna_stays_quiet_and_keeps_the_users_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    propose(INFINITE, [], [], 0)
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr() == ("", "")
