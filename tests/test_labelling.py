"""How much classes count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

import autoxfer
from autoxfer.dataset import Dataset, Schema
from autoxfer.errors import InputError
from autoxfer.guard import decide
from autoxfer.labelling import class_center, scale_warning, skew_warning, train_labels
from autoxfer.metrics import get_metric
from autoxfer.scoring import Target, probabilities


def made(labels: np.ndarray, task: Any = "classification", classes: tuple[str, ...] = ("cat", "dog")) -> Dataset:
    schema = Schema("vector", task, (1,), "float32", classes)
    return Dataset("made", schema, np.zeros((len(labels), 1), np.float32), labels)


SKEWED = np.repeat([0, 1], [90, 10])


def test_balanced_classes_answer_as_if_all_were_equally_frequent() -> None:
    data = made(SKEWED)
    center = class_center(data, np.arange(100), "balanced")
    honest = torch.log(torch.tensor([[0.9, 0.1]]))  # what a network says that knows nothing but the shares
    target = Target(np.array([0]), get_metric("accuracy", "classification"), center)
    assert probabilities(honest, target) == pytest.approx(np.array([[0.5, 0.5]]))
    assert class_center(data, np.arange(100), None) == 0.0


def test_a_users_weight_is_that_of_so_many_more_examples() -> None:
    center = class_center(made(SKEWED), np.arange(100), {"dog": 9.0})
    target = Target(np.array([0]), get_metric("accuracy", "classification"), center)
    assert probabilities(torch.log(torch.tensor([[0.9, 0.1]])), target) == pytest.approx(np.array([[0.5, 0.5]]))


def test_several_labels_are_each_brought_to_one_half() -> None:
    labels = np.array([[1, 0]] * 10 + [[0, 0]] * 85 + [[0, 1]] * 5, np.float32)
    center = class_center(made(labels, "multilabel", ("a", "b")), np.arange(100), "balanced")
    target = Target(labels, get_metric(None, "multilabel"), center)
    shares = torch.tensor([[0.10, 0.05]])
    assert probabilities(torch.logit(shares), target) == pytest.approx(np.array([[0.5, 0.5]]), abs=1e-6)


def test_an_unknown_class_and_numbers_are_one_clear_message() -> None:
    with pytest.raises(InputError, match=r"'god'"):
        class_center(made(SKEWED), np.arange(100), {"god": 2.0})
    with pytest.raises(InputError, match=r"classes, for task\.class_weight"):
        train_labels(made(np.linspace(0, 1, 9, dtype=np.float32), "regression", ()), np.arange(9), "balanced")


def test_skewed_classes_are_worth_a_word_unless_the_metric_knows() -> None:
    data = made(np.repeat([0, 1], [95, 5]))
    assert "19 times as frequent" in skew_warning(data, "accuracy", None)
    assert skew_warning(data, "balanced_accuracy", None) == ""
    assert skew_warning(data, "accuracy", "balanced") == ""
    assert skew_warning(made(np.repeat([0, 1], [60, 40])), "accuracy", None) == ""


def numbers(**deviations: float) -> Dataset:
    """Several numbers of 60 examples, each with the deviation of its name."""
    values = np.random.default_rng(0).normal(size=(60, len(deviations)))
    values *= np.array(list(deviations.values())) / values.std(0)
    data = made(values.astype(np.float32), "regression", ())
    return replace(data, schema=replace(data.schema, targets=tuple(deviations)))


def test_numbers_of_unlike_units_are_worth_a_word_unless_the_metric_knows() -> None:
    data, rows = numbers(metres=0.3, grams=300.0), np.arange(60)
    for metric in ("rmse", "mse", "mae"):
        told = scale_warning(data, rows, metric)
        assert "'grams' varies in train 1,000 times as much as 'metres', and " + metric in told
        assert "task.metric: r2" in told
    assert scale_warning(data, rows, "r2") == scale_warning(data, rows, "mape") == ""
    assert scale_warning(numbers(metres=0.3, grams=2.9), rows, "rmse") == ""
    assert scale_warning(numbers(still=0.0, grams=2.9), rows, "rmse") == ""
    many = scale_warning(numbers(a=1.0, b=2.0, c=3.0, d=4.0, e=50.0, f=60.0), rows, "rmse")
    assert "'f' varies in train up to 60 times as much as 'a', 'b', 'c' and 1 more" in many
    assert scale_warning(made(SKEWED), rows, "accuracy") == ""
    odd = numbers(metres=0.3, grams=2.0)
    odd.labels[50:, 1] *= 100  # outside train
    assert scale_warning(odd, rows[:50], "rmse") == ""


def test_r2_weighs_numbers_of_unlike_units_alike_for_the_guard_too() -> None:
    data, metric = numbers(metres=0.3, grams=300.0), get_metric("r2", "regression")
    assert metric.kind == "real"
    truth, noise = data.labels.astype(np.float64), np.random.default_rng(1).normal(size=(60, 2))
    scale = truth.std(0)
    bad, good_at_metres, good_at_grams = (truth + scale * noise * np.array(k) for k in [(1, 1), (0.1, 1), (1, 0.1)])
    assert metric.value(bad, truth) == pytest.approx(r2_score(truth, bad, multioutput="uniform_average"))
    losses = {name: metric.losses(each, truth) for name, each in (("m", good_at_metres), ("g", good_at_grams))}
    assert 1 - losses["m"].mean() == pytest.approx(metric.value(good_at_metres, truth))
    baseline = metric.losses(bad, truth)
    effects = {name: decide(each, baseline, kind="real").effect for name, each in losses.items()}
    assert 0.5 < effects["m"] / effects["g"] < 2
    in_units = get_metric("rmse", "regression")
    assert in_units.value(good_at_metres, truth) > 0.99 * in_units.value(bad, truth)  # which does not hear of it


@pytest.mark.slow
def test_a_balanced_run_finds_more_of_the_rare_class_and_ships_what_it_judged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(1200) < 0.08, "rare", "usual")
    features = rng.normal(0.0, 1.0, (1200, 6)) + 0.9 * (labels == "rare")[:, None]
    np.savez(tmp_path / "made.npz", features=features.astype(np.float32), labels=labels)
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")

    def run(**task: Any) -> autoxfer.Result:
        config = {
            "task": {"data": str(tmp_path / "made.npz"), "metric": "balanced_accuracy", **task},
            "budget": {"trials": 5},
        }
        return autoxfer.run(config, runs=tmp_path / "runs", mlflow=tmp_path / "mlflow.yaml")

    plain, balanced = run(), run(class_weight="balanced")
    assert balanced.record.winner.guard > plain.record.winner.guard + 0.03
    found = balanced.winner.predict(features)
    scores = [np.mean(found[labels == name] == name) for name in ("rare", "usual")]
    assert np.mean(scores) == pytest.approx(balanced.record.winner.guard, abs=0.08)
