"""Metrics that are no mean of losses, against scikit-learn, finite differences and their own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from autoxfer import statistics
from autoxfer.metrics import METRICS, get_metric

ALL = [metric for metric in METRICS.values() if metric.statistic is not None]


def answers(n_classes: int, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and labels that they know something of."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    known = rng.dirichlet(np.ones(n_classes), n) + 0.4 * np.eye(n_classes)[labels]
    return (known / known.sum(axis=1, keepdims=True)).round(2), labels


def twin(name: str, p: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
    """Scikit-learn's value."""
    hard, each = p.argmax(axis=1), np.eye(p.shape[1])[y]
    scores = (y, p[:, 1]) if p.shape[1] == 2 else (each, p)
    return {
        "auroc": lambda: sk.roc_auc_score(*scores, sample_weight=weights),
        "average_precision": lambda: sk.average_precision_score(*scores, sample_weight=weights),
        "f1_macro": lambda: sk.f1_score(y, hard, average="macro", sample_weight=weights),
        "f1": lambda: sk.f1_score(y, hard, sample_weight=weights),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(y, hard, sample_weight=weights),
        "f1_weighted": lambda: sk.f1_score(y, hard, average="weighted", sample_weight=weights),
        "precision_macro": lambda: sk.precision_score(y, hard, average="macro", sample_weight=weights, zero_division=0),
        "precision": lambda: sk.precision_score(y, hard, sample_weight=weights),
        "recall": lambda: sk.recall_score(y, hard, sample_weight=weights),
        "cohen_kappa": lambda: sk.cohen_kappa_score(y, hard, sample_weight=weights),
        "mcc": lambda: sk.matthews_corrcoef(y, hard, sample_weight=weights),
    }[name]()


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_values_are_scikit_learns_with_and_without_weights(metric, n_classes: int):
    if metric.binary and n_classes > 2:
        pytest.skip("two classes only")
    p, y = answers(n_classes)
    weights = np.random.default_rng(1).integers(1, 4, (5, len(y))).astype(float)
    assert metric.value(p, y) == pytest.approx(twin(metric.name, p, y, None))
    expected = [twin(metric.name, p, y, row) for row in weights]
    np.testing.assert_allclose(metric.statistic.value(p, y, weights), expected)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_weight_is_a_number_of_copies_and_an_influence_its_slope(metric):
    p, y = answers(2)
    statistic = metric.statistic
    copies = np.random.default_rng(2).integers(1, 4, len(y))
    weighed = statistic.value(p, y, copies[None].astype(float))[0]
    assert weighed == pytest.approx(statistic.value(np.repeat(p, copies, axis=0), np.repeat(y, copies))[0])
    steps = np.concatenate([1 + 1e-6 * np.eye(len(y)), 1 - 1e-6 * np.eye(len(y))])
    high, low = statistic.value(p, y, steps).reshape(2, -1)
    np.testing.assert_allclose(statistic.influences(p, y)[1], (high - low) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_the_mean_of_the_losses_is_one_minus_the_metric_and_their_spread_its_standard_error(metric):
    rng = np.random.default_rng(0)
    p, y = answers(2, 4000)
    assert metric.losses(p, y).mean() == pytest.approx(1 - metric.value(p, y))
    rows = rng.integers(0, 4000, (300, 200))
    values = [metric.value(p[row], y[row]) for row in rows]
    errors = [metric.losses(p[row], y[row]).std(ddof=1) / math.sqrt(200) for row in rows[:50]]
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
@pytest.mark.parametrize("y", [np.zeros(8, int), np.ones(8, int), np.array([0] * 7 + [1])], ids=["none", "all", "one"])
def test_a_missing_class_is_no_missing_number(metric, y: np.ndarray):
    p = np.random.default_rng(0).dirichlet(np.ones(2), 8)
    for predictions in (p, np.full((8, 2), 0.5), np.full((8, 2), np.nan), np.eye(2)[y]):
        assert math.isfinite(metric.value(predictions, y))
        assert np.isfinite(metric.losses(predictions, y)).all()


def test_where_there_is_nothing_to_rank_an_area_is_what_chance_gives():
    p = np.random.default_rng(0).dirichlet(np.ones(2), 8)
    assert METRICS["auroc"].value(p, np.zeros(8, int)) == 0.5


def test_a_class_without_examples_is_left_out_of_the_mean():
    p, y = answers(3)
    rows = y != 2
    expected = np.mean([sk.roc_auc_score(y[rows] == k, p[rows, k]) for k in (0, 1)])
    assert METRICS["auroc"].value(p[rows], y[rows]) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_prediction_that_is_no_number_is_the_worst_answer(metric):
    p, y = answers(2)
    broken, worst = p.copy(), p.copy()
    broken[:9] = np.nan
    worst[:9] = 1 - np.eye(2)[y[:9]] if metric.name not in ("mcc", "cohen_kappa") else np.nan
    assert metric.value(broken, y) <= metric.value(p, y)
    assert metric.value(broken, y) == pytest.approx(metric.value(worst, y), abs=0.1)


def test_two_classes_are_asked_for_by_name():
    from autoxfer.errors import InputError  # noqa: PLC0415

    assert get_metric("f1", "classification", 2).name == "f1"
    with pytest.raises(InputError, match=r"two classes for f1 \(f1_macro takes more\), found 3 classes"):
        get_metric("f1", "classification", 3)


def test_a_metric_is_one_line():
    hits = statistics.Statistic("weighted accuracy", lambda a, y, w: (w * (a[:, 0] == y)).sum(1) / w.sum(1), True)
    p, y = answers(4)
    assert hits.value(p, y)[0] == pytest.approx(METRICS["accuracy"].value(p, y))
    np.testing.assert_allclose(hits.losses(p, y), METRICS["accuracy"].losses(p, y), atol=1e-12)
