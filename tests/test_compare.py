"""The comparison with what people would do otherwise: the rule, the interval, fair opponents, and that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoxfer.metrics import get_metric

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import alternatives  # noqa: E402
import compare  # noqa: E402
import compared_pairs  # noqa: E402

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 400)


def answering(right: float) -> np.ndarray:
    """Give probabilities that are right for this share of the examples, the first ones."""
    said = np.where(np.arange(400) < right * 400, LABELS, 1 - LABELS)
    return np.eye(2)[said] * 0.8 + 0.1


def verdict(ours: float, *theirs: float) -> dict[str, Any]:
    found = {f"other{k}": answering(share) for k, share in enumerate(theirs)}
    return compare.judge(get_metric("accuracy", "classification"), LABELS, answering(ours), None, found)


def test_the_winner_is_held_against_the_best_of_the_alternatives() -> None:
    row = verdict(0.8, 0.7, 0.9, 0.6)
    assert (row["best_alternative"], row["best_alternative_metric"]) == ("other1", pytest.approx(0.9))
    assert not row["within_interval"]


def test_a_difference_that_chance_explains_is_no_worse() -> None:
    assert verdict(0.8, 0.8)["within_interval"]
    assert verdict(0.795, 0.8)["within_interval"]  # two examples: half width 0.0069
    assert not verdict(0.75, 0.8)["within_interval"]


def test_lower_is_better_where_the_metric_says_so() -> None:
    metric, y = get_metric("rmse", "regression"), RNG.normal(size=300)
    good, bad = y + 0.1 * RNG.normal(size=300), y + RNG.normal(size=300)
    assert compare.judge(metric, y, good, None, {"other": bad})["within_interval"]
    row = compare.judge(metric, y, bad, good, {"other": good})
    assert not row["within_interval"]
    assert row["refit_within_interval"]


@pytest.mark.parametrize("name", ["rmse", "mse", "mae"])
def test_the_half_width_is_what_redrawing_the_examples_gives(name: str) -> None:
    metric, y = get_metric(name, "regression"), RNG.normal(size=500)
    shared = RNG.normal(size=500)
    ours, theirs = y + shared, y + 0.8 * shared + 0.7 * RNG.normal(size=500)
    drawn = [RNG.integers(0, 500, 500) for _ in range(400)]
    differences = [metric.value(ours[rows], y[rows]) - metric.value(theirs[rows], y[rows]) for rows in drawn]
    assert compare.half_width(metric, ours, theirs, y) == pytest.approx(1.96 * np.std(differences), rel=0.12)


def test_a_metric_without_an_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="no interval for auroc"):
        compare.half_width(get_metric("auroc", "classification"), answering(0.8), answering(0.7), LABELS)


def test_the_rule_fails_below_nine_in_ten() -> None:
    rows = [{"within_interval": k > 0, "refit_within_interval": True} for k in range(10)]
    assert compare.summarise(rows)["holds"]
    rows[1]["within_interval"] = False
    assert not compare.summarise(rows)["holds"]
    assert compare.summarise(rows)["share_refit_within"] == 1
    assert not compare.summarise([])["holds"]
    assert "FAILS" in compare.in_words(compare.summarise(rows))


@pytest.mark.parametrize(("within", "code"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("smoke", [True, False])
def test_the_exit_code_is_the_rule_unless_it_is_a_smoke_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], within: bool, code: int, smoke: bool
) -> None:
    row = {"within_interval": within, "refit_within_interval": None}
    monkeypatch.setattr(compare, "compare", lambda *_: row)
    monkeypatch.setattr(compare, "line", lambda _: "")
    monkeypatch.setattr(compared_pairs.Pair, "missing", lambda *_: "")
    monkeypatch.setattr(sys, "argv", ["compare.py", "--data", ".", *["--smoke"] * smoke])
    assert compare.main() == (0 if smoke else code)
    told = capsys.readouterr().out
    assert ("not asked: a smoke run" in told) == ("smoke: figures mean nothing" in told) == smoke
    assert ("FAILS" in told) == (not smoke and not within)


def test_alternatives_learn_from_train_or_from_tune_too_and_from_nothing_else() -> None:
    rows = {"train": np.array([0, 1, 2]), "tune": np.array([7, 8]), "guard": np.array([3, 4]), "test": np.array([5])}
    setting: Any = SimpleNamespace(rows=rows.__getitem__, dataset=SimpleNamespace(labels=np.arange(10) * 10))
    assert alternatives.Material(setting, "test", 0).rows.tolist() == [0, 1, 2]
    material = alternatives.Material(setting, "test", 0, ("train", "tune"))
    assert material.rows.tolist() == [0, 1, 2, 7, 8]
    assert material.labels.tolist() == [0, 10, 20, 70, 80]


def test_a_class_that_was_not_learned_keeps_its_column() -> None:
    schema = SimpleNamespace(classes=("a", "b", "c"))
    material = alternatives.Material(SimpleNamespace(dataset=SimpleNamespace(schema=schema)), "test", 0)  # type: ignore[arg-type]
    assert material.in_place(np.array([[0.25, 0.75]]), np.array([0, 2])).tolist() == [[0.25, 0.0, 0.75]]


def test_words_are_enough_for_tfidf() -> None:
    texts = np.array([f"{word} {k}" for k in range(40) for word in ("fine", "awful")])
    rows = {"train": np.arange(40), "tune": np.arange(40, 60), "test": np.arange(60, 80)}
    labels = np.tile([1, 0], 40)
    dataset = SimpleNamespace(examples=texts, labels=labels, schema=SimpleNamespace(classes=("no", "yes")))
    setting: Any = SimpleNamespace(rows=rows.__getitem__, dataset=dataset, metric=get_metric(None, "classification"))
    answer = alternatives.tfidf(alternatives.Material(setting, "test", 0))
    assert (answer.argmax(axis=1) == labels[60:]).all()


def test_what_a_pair_lacks_is_named(tmp_path: Path) -> None:
    pair = compared_pairs.PAIRS["minilm-trec6"]
    assert "text/trec6.csv" in pair.missing(tmp_path)
    assert compared_pairs.SMOKE["digits"].missing(tmp_path) == ""


@pytest.mark.slow
def test_the_command_compares_and_a_smoke_run_asks_for_no_rule(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "compare.py"), "--smoke", "--json"]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "AUTOXFER_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=alone)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["holds"] is None
    digits, diabetes = told["pairs"]
    assert (digits["pair"], digits["judged_on"]) == ("digits", "test")
    assert (diabetes["pair"], diabetes["judged_on"], diabetes["metric"]) == ("diabetes", "guard", "rmse")
    assert set(digits["alternatives"]) == {"embeddings", "fine_tuning", "scratch"}
    assert set(diabetes["alternatives"]) == {"embeddings", "fine_tuning", "scratch", "boosting"}
    assert digits["refit_metric"] is not None
    assert diabetes["refit_metric"] is None  # it has learned from the guard, which judges here
