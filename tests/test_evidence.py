"""The evidence commands: what they simulate is the product's guard, and what they print can be read by a machine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from autoxfer import finalists, guard
from autoxfer.metrics import get_metric

EVIDENCE = Path(__file__).resolve().parents[1] / "examples" / "evidence"
GENEROUS = 3 * math.sqrt(0.05 * 0.95 / 4000)  # three standard errors of a share of .05 in 4,000 draws


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EVIDENCE))
    import pools  # noqa: PLC0415

    return pools


@pytest.fixture
def procedure(pools: ModuleType) -> ModuleType:
    return sys.modules["procedure"]


class Recorded(np.random.Generator):
    """A generator that remembers which examples it picked."""

    def integers(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.picked = super().integers(*args, **kwargs)
        return self.picked


def losses(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Baseline (500,) and candidates (6, 500), some better and some worse."""
    rng = np.random.default_rng(3)
    if kind == "zero_one":
        baseline = (rng.random(500) < 0.3).astype(float)
        flips = rng.random((6, 500)) < np.array([0.05, 0.1, 0.12, 0.2, 0.3, 0.05])[:, None]
        return baseline, np.where(flips, 1 - baseline, baseline) * (rng.random((6, 500)) < 0.85)
    baseline = rng.gamma(0.5, size=500)
    return baseline, baseline * rng.uniform(0.4, 1.4, (6, 500)) + rng.normal(0, 0.03, (6, 1))


# The simulated guard is the guard


@pytest.mark.parametrize("n_draws", [12, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("setting", [("zero_one", 40), ("zero_one", 120), ("real", 40), ("real", 120)])
def test_draws_are_decided_as_the_guard_decides(pools, procedure, setting, margin, n_draws):
    kind, n = setting
    baseline, candidates = losses(kind)
    pool, rng = pools.Pool(kind, baseline, candidates), Recorded(np.random.PCG64(0))
    metric = get_metric("accuracy" if kind == "zero_one" else "log_loss", "classification")
    tune, tuned = pool.look(rng, 60, n_draws), rng.picked % 500
    seen, guarded = pool.look(rng, n, n_draws, margin), rng.picked % 500
    accepted = procedure.judge(tune.gain, seen.p_values(), tune.error)
    assert accepted.any() or n == 40
    assert not accepted.all()
    for draw in range(n_draws):
        own = baseline[guarded[draw]]
        scratch = entry("scratch", baseline[tuned[draw]], 1)
        scores = -candidates[:, tuned[draw]].mean(axis=1)
        tolerance = metric.tolerance(margin, own)
        seen_by_it = [guard.weigh(loss[guarded[draw]], own, kind=kind, margin=tolerance) for loss in candidates]
        verdicts = guard.judge(
            [
                guard.Finalist(
                    str(k),
                    one,
                    competes=finalists.competes(entry(str(k), candidates[k, tuned[draw]], 1), scratch),
                    tune_rank=round(scores[k], 12),
                )
                for k, one in enumerate(seen_by_it)
            ]
        )
        assert [verdict.accepted for verdict in verdicts] == accepted[draw].tolist()


def test_the_winner_is_the_one_that_the_product_chooses(pools, procedure):
    baseline, candidates = losses("zero_one")
    pool, rng = pools.Pool("zero_one", baseline, candidates), Recorded(np.random.PCG64(0))
    tune, tuned = pool.look(rng, 60, 200), rng.picked % 500
    accepted = np.random.default_rng(0).random((200, 6)) < 0.4
    n_trained = np.array([300, 200, 100, 30, 10, 3])
    seen = candidates[:, tuned].transpose(1, 0, 2)  # (draws, 6, 60)
    differ = (seen[:, :, None] != seen[:, None]).sum(axis=-1)
    winners = procedure.choose(tune, differ, accepted, n_trained)
    assert len(set(winners)) >= 6
    for draw, winner in enumerate(winners):
        loss = candidates[:, tuned[draw]]
        entries = {"scratch": entry("scratch", baseline[tuned[draw]], 1)} | {
            str(k): entry(str(k), loss[k], int(n_trained[k])) for k in range(6)
        }
        verdicts = {str(k): SimpleNamespace(accepted=bool(accepted[draw, k]), decision="") for k in range(6)}
        chosen = finalists.choose(entries, verdicts)
        assert chosen == ("scratch" if winner < 0 else str(winner))


def entry(name: str, tune_loss: np.ndarray, n_trained: int) -> finalists.Finalist:
    """A finalist with what the winner's rule looks at."""

    class Score(float):
        def beats(self, other: float) -> bool:
            return self > other

    study = SimpleNamespace(id=name)
    trial = SimpleNamespace(outcome=SimpleNamespace(score=Score(-tune_loss.mean()), n_trained=n_trained))
    return finalists.Finalist(study, trial, None, 0.0, tune_loss, tune_loss)  # type: ignore[arg-type]


@pytest.mark.parametrize("gain", [0.0, -0.02, 0.05])
def test_a_pool_is_recentred_exactly_and_keeps_its_discordance(pools, gain: float):
    for kind in ("zero_one", "real"):
        baseline, candidates = losses(kind)
        pool = pools.Pool(kind, baseline, candidates)
        level = pool.recentred(gain, np.random.default_rng(0))
        share = gain if kind == "zero_one" else gain * baseline.mean()
        np.testing.assert_allclose(level.baseline.mean() - level.candidates.mean(axis=1), share, atol=1e-12)
        if kind == "zero_one":
            assert set(np.unique(level.candidates)) == {0.0, 1.0}
            assert level.discordance == pytest.approx(pool.discordance, abs=0.02)


# Measured promises of the guard


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("rho", [0.05, 0.12, 0.3])
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_what_is_not_better_by_the_margin_passes_at_most_at_the_level(
    pools, procedure, n: int, rho: float, margin: float
):
    seen = pools.Coins(rho, (-margin,)).look(np.random.default_rng(n), n, 4000, margin)
    accepted = procedure.judge(np.ones((4000, 1)), seen.p_values())
    assert accepted.mean() <= 0.05 + GENEROUS


@pytest.mark.parametrize("tail", ["gaussian", "t3"])
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_squared_errors_of_no_gain_pass_at_about_the_level(pools, procedure, tail: str, margin: float):
    seen = pools.Errors(tail, (-margin,)).look(np.random.default_rng(0), 100, 4000, margin)
    assert procedure.judge(np.ones((4000, 1)), seen.p_values()).mean() <= 0.065


def best_of_a_hundred(pools, procedure, *, same_split: bool) -> float:
    """Share of runs that accept the best of a hundred equal candidates, judged on a guard or where it was chosen."""
    rng = np.random.default_rng(0)
    population = pools.Coins(0.12, (0.0,) * 100)
    tune = population.look(rng, 200, 2000)
    judged = tune if same_split else population.look(rng, 300, 2000)
    best = procedure.search(tune, 1)
    accepted = procedure.judge(*(np.take_along_axis(one, best, 1) for one in (tune.gain, judged.p_values())))
    return float(accepted.mean())


def test_the_best_of_a_hundred_equal_candidates_is_not_accepted(pools, procedure):
    assert best_of_a_hundred(pools, procedure, same_split=False) <= 0.06


def test_a_guard_wired_to_the_tune_split_fails_that_test(pools, procedure):
    assert best_of_a_hundred(pools, procedure, same_split=True) > 0.5


@pytest.mark.parametrize("kind", ["zero_one", "real"])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_candidate_made_worse_on_guard_points_never_passes_where_it_did_not(kind, margin):
    rng = np.random.default_rng(1)
    baseline, candidates = (one[..., :100] for one in losses(kind))
    metric = get_metric("accuracy" if kind == "zero_one" else "log_loss", "classification")
    for candidate in candidates[[1, 4]]:
        mine, accepted = candidate.copy(), True
        for place in rng.permutation(100):
            tolerance = metric.tolerance(margin, baseline)
            now = guard.weigh(mine, baseline, kind=kind, margin=tolerance).p_better <= 0.05
            assert accepted or not now
            accepted = now
            mine[place] = 1.0 if kind == "zero_one" else mine[place] + 0.2
        assert not accepted


# The commands


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EVIDENCE / f"{name}.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_false_acceptance_answers_in_json(tmp_path: Path):
    result = run("false_acceptance", "--smoke", "--json", "--plot", str(tmp_path / "plot.png"))
    value = json.loads(result.stdout)
    assert result.returncode == 0, [row for row in value["settings"] if not row["kept"]]
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    for row in value["settings"]:
        assert {"name", "guard", "finalists", "alpha", "accepted", "n", "se", "approximate"} <= set(row)
        assert row["se"] == pytest.approx(math.sqrt(row["accepted"] * (1 - row["accepted"]) / row["n"]))
        promised = row["alpha"] * (1.5 if row["approximate"] else 1)
        assert row["limit"] or row["accepted"] <= promised + 3 * math.sqrt(promised * (1 - promised) / row["n"])


@pytest.mark.slow
def test_power_answers_in_json_and_beats_the_naive_ways(tmp_path: Path):
    result = run("power", "--smoke", "--json", "--plot", str(tmp_path / "plot.png"))
    value = json.loads(result.stdout)
    assert result.returncode == 0, value["summary"]
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert all(row["kept"] for row in value["settings"] if row["part"] != "folds")
    assert all(row["accepted"] > row["one_split"] for row in value["settings"] if row["part"] == "folds")
    summary = value["summary"]
    assert summary["known_run_accepted"] > summary["known_run_top_alone"] + 0.03
    false = summary["worst_false_acceptance"]
    assert false["guard"] <= 0.05
    assert false["point"] > 0.3
    assert false["same split"] > 0.1
