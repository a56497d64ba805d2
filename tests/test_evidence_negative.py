"""The experiment on negative transfer: what it sums up, and that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoxfer.guard import paired

EVIDENCE = Path(__file__).resolve().parents[1] / "examples" / "evidence"
sys.path.insert(0, str(EVIDENCE))

from corrupted import PAIRS, permuted, shuffle  # noqa: E402
from negative_run import truth  # noqa: E402
from negative_summary import summarise, where  # noqa: E402
from negative_transfer import in_turn  # noqa: E402

UNREMARKABLE = {"power": 0.5, "level": 0.0, "seen": 0.0, "p_value": 0.5, "tune": 0.8}


def finalist(gain: float, decision: str = "undecided", error: float = 1.0) -> dict[str, Any]:
    return {"gain": gain, "low": gain - 2 * error, "high": gain + 2 * error, "decision": decision} | UNREMARKABLE


def run(winner: str, finalists: dict[str, dict[str, Any]], helpful: int = 0, n: int = 50) -> dict[str, Any]:
    harmful = [found for found in finalists.values() if found["high"] < 0]
    accepted = any(found["decision"] == "accepted" for found in finalists.values())
    return {
        "pair": "pair",
        "n": n,
        "seed": 0,
        "scratch": {"test": 0.8, "tune": 0.8},
        "finalists": finalists,
        "winner": winner,
        "harmful_total": len(harmful),
        "harmful_accepted": sum(found["decision"] == "accepted" for found in harmful),
        "helpful_total": helpful,
        "helpful_accepted": int(helpful and accepted),
    }


def test_a_selector_that_takes_help_and_leaves_harm_fulfils_every_rule() -> None:
    runs = [
        run("probe", {"probe": finalist(6, "accepted"), "tune": finalist(3)}, helpful=1),
        run("scratch", {"probe": finalist(-20, "harmful"), "tune": finalist(-1)}),
    ]
    summary = summarise(runs, 0.05)
    assert set(summary["holds"].values()) == {True}
    assert summary["policies"]["selector"] == {
        "mean_gain": 3,
        "worst": 0,
        "losses": 0,
        "mean_regret": 0,
    }
    assert summary["policies"]["probe"] == {"mean_gain": -7, "worst": -20, "losses": 1, "mean_regret": 10}
    assert summary["policies"]["scratch"]["mean_regret"] == 3


def test_a_selector_that_ships_harm_breaks_the_rules() -> None:
    summary = summarise([run("probe", {"probe": finalist(-20, "accepted"), "tune": finalist(5)}, helpful=1)], 0.05)
    assert (summary["harmful_accepted"], summary["harmful_total"]) == (1, 1)
    assert [line.partition(": truly")[0] for line in summary["surprises"]] == ["pair, 50, seed 0: probe accepted"]
    assert [rule for rule, holds in summary["holds"].items() if not holds] == [
        "harmful accepted at most at alpha",
        "no significant loss for the selector",
        "selector's regret below every fixed strategy's",
    ]


def test_nothing_helpful_and_nothing_harmful_leave_nothing_to_judge_by() -> None:
    holds = summarise([run("scratch", {"probe": finalist(0)})], 0.05)["holds"]
    assert holds["harmful accepted at most at alpha"] is None
    assert holds["helpful accepted in at least 90%"] is None


def test_the_table_names_the_best_and_who_beats_scratch_in_most_runs() -> None:
    runs = [
        run("probe", {"probe": finalist(gain), "tune": finalist(-gain)}, n=n)
        for n, gain in ((100, 1.0), (50, 8.0), (50, 4.0), (50, 1.0))
    ]
    few, more = where(runs)
    assert (few["n"], few["runs"], few["best"]) == (50, 3, "probe")
    assert few["gains"]["probe"] == pytest.approx(13 / 3)
    assert (few["beats_scratch"], few["loses_to_scratch"]) == (["probe"], ["tune"])
    assert (more["n"], more["beats_scratch"]) == (100, [])


def test_the_truth_has_an_interval_about_the_gain_and_the_power_of_the_guard() -> None:
    rng = np.random.default_rng(0)
    answers = rng.choice([1.0, 0.0, -1.0], p=[0.12, 0.84, 0.04], size=5000)
    found = truth(answers, n_guard=300, level=0.025, scale=1.0)
    assert found["low"] < 100 * answers.mean() < found["high"]
    drawn = rng.multinomial(300, [(answers > 0).mean(), (answers < 0).mean(), 1 - np.abs(answers).mean()], size=4000)
    simulated = (paired.mcnemar(drawn[:, 0], drawn[:, 1]) <= 0.025).mean()
    assert found["power"] == pytest.approx(simulated, abs=0.02)


def test_the_power_for_numbers_is_that_of_the_t_test() -> None:
    rng = np.random.default_rng(0)
    found = truth(0.15 + rng.standard_normal(200_000), n_guard=300, level=0.025, scale=2.0)
    assert found["gain"] == pytest.approx(7.5, abs=0.3)
    simulated = (paired.student(0.15 + rng.standard_normal((4000, 300)), 0.0) <= 0.025).mean()
    assert found["power"] == pytest.approx(simulated, abs=0.03)


def test_runs_alternate_between_pairs_and_sizes() -> None:
    pairs = [PAIRS["resnet20-cifar10_jpeg"], PAIRS["digits-clean"], PAIRS["digits-random"]]
    plans = list(in_turn(pairs, (50, 1000), 1, 6))
    cheap = [(plan.pair, plan.n) for plan in plans]
    # 1,000 of the 1,197 digits leave no test set; what is slow comes last
    assert cheap == [("digits-clean", 50), ("digits-random", 50), ("resnet20-cifar10_jpeg", 50)]


def test_a_permuted_image_has_the_same_pixels_at_other_places() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    moved = permuted(images)
    assert moved.shape == images.shape
    for before, after in zip(images, moved, strict=True):
        assert sorted(map(tuple, before.reshape(-1, 3))) == sorted(map(tuple, after.reshape(-1, 3)))
        assert not np.array_equal(before, after)
    labels = np.arange(1000)
    assert 390 <= (shuffle(labels, 0.4) != labels).sum() <= 400
    assert sorted(shuffle(labels, 1.0)) == labels.tolist()


@pytest.mark.slow
def test_the_experiment_runs_and_is_taken_up_again(tmp_path: Path) -> None:
    script = str(EVIDENCE / "negative_transfer.py")
    command = [sys.executable, script, "--smoke", "--json", "--runs", str(tmp_path), "--plot", str(tmp_path / "a.png")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first, again = (
        subprocess.run(command, capture_output=True, text=True, check=False, env=environment) for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    summary = json.loads(first.stdout)
    assert json.loads(again.stdout)["runs"] == summary["runs"]
    assert "[1/1]" in first.stderr
    assert "[1/1]" not in again.stderr
    (one,) = summary["runs"]
    assert set(one["finalists"]) == {"linear_probe", "fine_tune"}
    assert one["splits"]["guard"] == 300
    assert summary["harmful_total"] == sum(found["high"] < 0 for found in one["finalists"].values())
    assert (tmp_path / "a.png").stat().st_size > 10_000
