"""Several labels an example, several numbers: metrics against scikit-learn, and how the guard compares them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from autoxfer import guard
from autoxfer.errors import InputError
from autoxfer.metrics import METRICS, MULTILABEL, get_metric

N, K = 80, 4
rng = np.random.default_rng(0)
LABELS = (rng.random((N, K)) < [0.5, 0.3, 0.7, 0.1]).astype(np.float32)
PROBABILITIES = (0.6 * rng.random((N, K)) + 0.4 * LABELS).round(2)
NUMBERS = (rng.normal(size=(N, 3)) * [1, 10, 100] + 5).astype(np.float32)
GUESSES = NUMBERS + rng.normal(size=(N, 3)) * [1, 5, 200]

TWINS = {
    "hamming_loss": lambda p, y: sk.hamming_loss(y, p >= 0.5),
    "accuracy": lambda p, y: sk.accuracy_score(y, p >= 0.5),
    "log_loss": lambda p, y: np.mean([sk.log_loss(y[:, k], p[:, k], labels=[0, 1]) for k in range(y.shape[1])]),
    "f1_macro": lambda p, y: sk.f1_score(y, p >= 0.5, average="macro", zero_division=0),
    "f1_micro": lambda p, y: sk.f1_score(y, p >= 0.5, average="micro", zero_division=0),
    "f1_samples": lambda p, y: sk.f1_score(y, p >= 0.5, average="samples", zero_division=0),
    "average_precision": lambda p, y: sk.average_precision_score(y, p),
    "auroc": lambda p, y: sk.roc_auc_score(y, p),
}
WHOLES = [metric for metric in MULTILABEL.values() if metric.statistic is not None]


@pytest.mark.parametrize("name", MULTILABEL)
def test_values_are_scikit_learns(name: str):
    metric = get_metric(name, "multilabel")
    assert metric.value(PROBABILITIES, LABELS) == pytest.approx(TWINS[name](PROBABILITIES, LABELS))
    assert metric.losses(PROBABILITIES, LABELS).shape == (N,)
    assert metric.losses(PROBABILITIES, LABELS).dtype == np.float64


@pytest.mark.parametrize("name", ["hamming_loss", "f1_macro", "f1_micro", "f1_samples"])
def test_labels_and_examples_without_anything_true_count_as_scikit_learn_counts_them(name: str):
    labels, found = LABELS.copy(), PROBABILITIES.copy()
    labels[:, 0], found[:, 0], labels[:9], found[:5] = 0, 0.1, 0, 0.2
    assert get_metric(name, "multilabel").value(found, labels) == pytest.approx(TWINS[name](found, labels))


def test_a_label_that_is_never_true_has_no_area_and_no_precision():
    labels = LABELS.copy()
    labels[:, 0] = 0
    assert MULTILABEL["auroc"].value(PROBABILITIES, labels) == pytest.approx(
        sk.roc_auc_score(labels[:, 1:], PROBABILITIES[:, 1:])
    )
    rest = sk.average_precision_score(labels[:, 1:], PROBABILITIES[:, 1:])
    assert MULTILABEL["average_precision"].value(PROBABILITIES, labels) == pytest.approx(rest * 3 / 4)
    assert MULTILABEL["auroc"].value(PROBABILITIES, np.zeros_like(labels)) == 0.5


@pytest.mark.parametrize("name", MULTILABEL)
def test_a_lower_mean_loss_is_a_better_rank(name: str):
    metric, better = MULTILABEL[name], 0.7 * PROBABILITIES + 0.3 * LABELS
    assert metric.losses(better, LABELS).mean() < metric.losses(PROBABILITIES, LABELS).mean()
    assert metric.rank(metric.value(better, LABELS)) > metric.rank(metric.value(PROBABILITIES, LABELS))


@pytest.mark.parametrize("name", [name for name in MULTILABEL if name != "log_loss"])
def test_an_example_with_a_prediction_that_is_no_number_is_wrong_throughout(name: str):
    metric, broken, worst = MULTILABEL[name], PROBABILITIES.copy(), PROBABILITIES.copy()
    broken[:30, 1], worst[:30] = np.nan, np.where(LABELS[:30] > 0, -1.0, 2.0)
    assert metric.value(broken, LABELS) == pytest.approx(metric.value(worst, LABELS))
    assert np.isfinite(metric.losses(broken, LABELS)).all()
    assert math.isnan(MULTILABEL["log_loss"].value(broken, LABELS))


@pytest.mark.parametrize("metric", WHOLES, ids=lambda metric: metric.name)
def test_an_influence_is_a_slope_and_the_mean_of_the_losses_one_minus_the_metric(metric):
    steps = np.concatenate([1 + 1e-6 * np.eye(N), 1 - 1e-6 * np.eye(N)])
    high, low = metric.statistic.value(PROBABILITIES, LABELS, steps).reshape(2, -1)
    influences = metric.statistic.influences(PROBABILITIES, LABELS)[1]
    np.testing.assert_allclose(influences, (high - low) / 2e-6, atol=1e-8)
    assert metric.losses(PROBABILITIES, LABELS).mean() == pytest.approx(1 - metric.value(PROBABILITIES, LABELS))


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("rmse", sk.root_mean_squared_error),
        ("mse", sk.mean_squared_error),
        ("mae", sk.mean_absolute_error),
        ("mape", sk.mean_absolute_percentage_error),
        ("r2", sk.r2_score),
    ],
)
def test_several_numbers_are_averaged_as_scikit_learn_does(name: str, twin):
    metric = METRICS[name]
    assert metric.value(GUESSES, NUMBERS) == pytest.approx(twin(NUMBERS, GUESSES))
    assert metric.losses(GUESSES, NUMBERS).shape == (N,)
    perfect = GUESSES.copy()
    perfect[:, 1] = NUMBERS[:, 1]
    assert metric.value(perfect, NUMBERS) == pytest.approx(twin(NUMBERS, perfect))


@pytest.mark.parametrize("name", ["rmse", "mse", "mae", "r2"])
def test_the_mean_loss_of_several_numbers_orders_models_as_the_metric_does(name: str):
    metric, models = METRICS[name], [NUMBERS + rng.normal(size=(N, 3)) * [a, b, 50] for a in (1, 9) for b in (3, 30)]
    ranks = [metric.rank(metric.value(one, NUMBERS)) for one in models]
    losses = [metric.losses(one, NUMBERS).mean() for one in models]
    assert np.argsort(ranks).tolist() == np.argsort(losses)[::-1].tolist()
    if name != "r2":
        assert np.mean(losses) == pytest.approx(np.mean([metric.value(one, NUMBERS) for one in models]))


def test_an_output_that_never_varies_is_explained_by_perfect_predictions_only():
    labels, found = NUMBERS.copy(), GUESSES.copy()
    labels[:, 0] = 7
    for first in (7.0, 8.0):
        found[:, 0] = first
        assert METRICS["r2"].value(found, labels) == pytest.approx(sk.r2_score(labels, found))


def test_the_defaults_and_the_names_belong_to_the_task():
    assert get_metric(None, "multilabel").name == "hamming_loss"
    assert get_metric("accuracy", "multilabel") is not get_metric("accuracy", "classification")
    with pytest.raises(InputError, match=r"a metric for multilabel: hamming_loss, .*found 'mcc'"):
        get_metric("mcc", "multilabel")
    with pytest.raises(InputError, match=r"a metric for classification: accuracy, .*found 'hamming_loss'"):
        get_metric("hamming_loss", "classification")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"accuracy needs predictions and labels \(n, k\); got \(80, 4\) and \(80,\)"):
        MULTILABEL["accuracy"].value(PROBABILITIES, LABELS[:, 0])
    with pytest.raises(ValueError, match=r"rmse needs .* or \(n, k\) both; got \(80, 3\) and \(80, 4\)"):
        METRICS["rmse"].value(GUESSES, LABELS)


def judge(metric, better, worse, labels):
    """Hold one model against another on these labels."""
    seen = guard.weigh_whole(metric.statistic, better, worse, labels)
    return guard.judge([guard.Finalist("", seen, competes=True, tune_rank=0.0)])[0]


@pytest.mark.parametrize("metric", WHOLES, ids=lambda metric: metric.name)
def test_the_guard_tells_a_better_model_from_an_equal_one(metric):
    r = np.random.default_rng(2)
    labels = (r.random((300, 3)) < [0.5, 0.3, 0.2]).astype(np.float32)
    noise = r.normal(size=(2, 300, 3))
    good, poor, twin = (
        1 / (1 + np.exp(-(a * (labels - 0.5) + e))) for a, e in ((4, noise[0]), (1, noise[1]), (4, noise[1]))
    )
    verdict = judge(metric, good, poor, labels)
    assert verdict.decision == "accepted"
    assert verdict.effect == pytest.approx(metric.value(good, labels) - metric.value(poor, labels))
    assert judge(metric, poor, good, labels).decision == "harmful"
    assert judge(metric, good, twin, labels).decision == "undecided"


def test_an_area_is_not_compared_where_a_label_is_hardly_ever_true():
    labels = np.zeros((200, 2), np.float32)
    labels[:80, 0], labels[:3, 1] = 1, 1
    r = np.random.default_rng(0)
    verdict = judge(MULTILABEL["auroc"], 0.5 * labels + 0.5 * r.random((200, 2)), r.random((200, 2)), labels)
    assert "at least 5 guard examples with and 5 without each label, not 3" in verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "auroc", "hamming_loss", "f1_samples"])
def test_models_that_err_alike_are_accepted_no_more_often_than_alpha(name: str):
    r, metric, accepted, draws = np.random.default_rng(3), MULTILABEL[name], 0, 200
    for _ in range(draws):
        labels = (r.random((120, 3)) < [0.5, 0.3, 0.2]).astype(np.float32)
        shared = r.normal(size=(120, 3))
        one, other = (2 * (labels - 0.5) + shared + r.normal(size=(120, 3)) for _ in range(2))
        one, other = 1 / (1 + np.exp(-one)), 1 / (1 + np.exp(-other))
        if metric.statistic is not None:
            accepted += judge(metric, one, other, labels).accepted
        else:
            losses = metric.losses(one, labels), metric.losses(other, labels)
            accepted += guard.decide(*losses, kind="real").accepted
    assert accepted / draws <= 0.09  # .05 and two and a half standard errors


@pytest.mark.slow
def test_the_rmse_of_several_numbers_keeps_its_level():
    r, metric, accepted, draws = np.random.default_rng(4), METRICS["rmse"], 0, 400
    for _ in range(draws):
        labels = r.normal(size=(120, 3)) * [1, 10, 100]
        shared = r.normal(size=(120, 3)) * [1, 1, 20]
        losses = [metric.losses(labels + shared + r.normal(size=(120, 3)) * [1, 3, 40], labels) for _ in range(2)]
        accepted += guard.decide(*losses, kind="real").accepted
    assert accepted / draws <= 0.08
