"""Metrics against scikit-learn, and their losses against the metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from autoxfer.errors import InputError
from autoxfer.metrics import METRICS, get_metric

rng = np.random.default_rng(0)
PROBABILITIES = rng.dirichlet(np.ones(4), 60)
CLASSES = rng.integers(0, 4, 60)
NUMBERS = rng.normal(5.0, 2.0, 60).astype(np.float32)
GUESSES = NUMBERS + rng.normal(0.0, 1.0, 60)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("accuracy", lambda p, y: sk.accuracy_score(y, p.argmax(1))),
        ("log_loss", lambda p, y: sk.log_loss(y, p)),
        ("rmse", lambda p, y: sk.root_mean_squared_error(y, p)),
        ("mse", lambda p, y: sk.mean_squared_error(y, p)),
        ("mae", lambda p, y: sk.mean_absolute_error(y, p)),
        ("r2", lambda p, y: sk.r2_score(y, p)),
    ],
)
def test_values_are_scikit_learns(name: str, twin):
    metric = METRICS[name]
    data = (PROBABILITIES, CLASSES) if metric.task == "classification" else (GUESSES, NUMBERS)
    assert metric.value(*data) == pytest.approx(twin(*data))
    assert metric.losses(*data).shape == (60,)
    assert metric.losses(*data).dtype == np.float64


@pytest.mark.parametrize("name", METRICS)
def test_a_lower_mean_loss_is_a_better_rank(name: str):
    metric = METRICS[name]
    if metric.task == "classification":
        labels, better = CLASSES, 0.5 * PROBABILITIES + 0.5 * np.eye(4)[CLASSES]
        worse = PROBABILITIES
    else:
        labels, better, worse = NUMBERS, NUMBERS + 0.5 * (GUESSES - NUMBERS), GUESSES
    assert metric.losses(better, labels).mean() < metric.losses(worse, labels).mean()
    assert metric.rank(metric.value(better, labels)) > metric.rank(metric.value(worse, labels))


def test_accuracy_alone_counts_mistakes():
    assert set(METRICS["accuracy"].losses(PROBABILITIES, CLASSES)) <= {0.0, 1.0}
    assert [metric.name for metric in METRICS.values() if metric.kind == "zero_one"] == ["accuracy"]
    assert not any(metric.bounded for metric in METRICS.values() if metric.kind == "real")


def test_a_prediction_that_is_no_number_is_a_mistake():
    broken = PROBABILITIES.copy()
    broken[:, 0] = np.nan
    assert METRICS["accuracy"].value(broken, np.zeros(60, np.int64)) == 0.0
    assert math.isnan(METRICS["log_loss"].value(broken, np.zeros(60, np.int64)))


def test_a_label_that_was_ruled_out_costs_much_but_not_everything():
    sure = np.array([[1.0, 0.0]])
    assert 30 < METRICS["log_loss"].value(sure, np.array([1])) < 40


def test_constant_labels_are_explained_by_perfect_predictions_only():
    labels = np.ones(5)
    assert METRICS["r2"].value(labels, labels) == 1.0
    assert METRICS["r2"].value(labels + 0.1, labels) == 0.0


def test_defaults_are_accuracy_and_rmse():
    assert get_metric(None, "classification").name == "accuracy"
    assert get_metric(None, "regression").name == "rmse"
    assert get_metric("r2", "regression").name == "r2"


def test_an_unknown_metric_is_answered_with_the_list_and_the_nearest():
    with pytest.raises(InputError, match=r"accuracy, log_loss.*'acuracy' \(did you mean accuracy\?\)"):
        get_metric("acuracy", "classification")
    with pytest.raises(InputError, match="a metric for regression: rmse, mse, mae, mape, r2, found 'accuracy'"):
        get_metric("accuracy", "regression")


def test_a_margin_is_in_points_for_accuracy_and_a_share_of_the_loss_otherwise():
    assert METRICS["accuracy"].tolerance(0.02, np.array([0.0, 1.0])) == 0.02
    np.testing.assert_allclose(METRICS["rmse"].tolerance(0.02, np.array([4.0, 6.0])), [0.08, 0.12])
    assert METRICS["rmse"].tolerance(0.0, np.array([4.0, np.inf])) == 0.0


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"accuracy needs predictions \(n, classes\) and labels \(n,\); got \(60,\)"):
        METRICS["accuracy"].value(GUESSES, CLASSES)
    with pytest.raises(ValueError, match=r"rmse needs predictions \(n,\)"):
        METRICS["rmse"].value(GUESSES[:, None], NUMBERS)


def test_the_usual_names_of_other_libraries_are_understood() -> None:
    for alias, name in {
        "roc_auc": "auroc",
        "neg_log_loss": "log_loss",
        "F1_Score": "f1",
        "recall_macro": "balanced_accuracy",
    }.items():
        assert get_metric(alias, "classification").name == name
    for alias, name in {
        "neg_root_mean_squared_error": "rmse",
        "r2_score": "r2",
        "mean_absolute_percentage_error": "mape",
    }.items():
        assert get_metric(alias, "regression").name == name


def test_brier_scores_and_relative_errors_are_scikit_learns() -> None:
    from sklearn import metrics as sk  # noqa: PLC0415

    rng = np.random.default_rng(0)
    for n_classes in (2, 7):
        p, y = rng.dirichlet(np.ones(n_classes), 200), rng.integers(0, n_classes, 200)
        expected = sk.brier_score_loss(
            y, p[:, 1] if n_classes == 2 else p, **({} if n_classes == 2 else {"labels": range(7)})
        )
        assert get_metric("brier_score", "classification").value(p, y) == pytest.approx(expected)
    truth, guess = rng.normal(5, 1, 50), rng.normal(5, 1, 50)
    expected = sk.mean_absolute_percentage_error(truth, guess)
    assert get_metric("mape", "regression").value(guess, truth) == pytest.approx(expected)
