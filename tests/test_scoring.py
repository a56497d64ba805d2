"""How sure a score is, by the size and the make-up of its split."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoxfer.metrics import get_metric
from autoxfer.scoring import Target, standard_error


def target(labels: np.ndarray, name: str) -> Target:
    task = "classification" if labels.dtype.kind == "i" else "regression"
    return Target(labels, get_metric(name, task))


def answers(n: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, the first ``right`` examples right."""
    labels = np.arange(n) % 2
    predicted = np.where(np.arange(n) < right, labels, 1 - labels)
    return np.eye(2)[predicted] * 0.8 + 0.1, labels


def error(predictions: np.ndarray, labels: np.ndarray, name: str, groups: np.ndarray | None = None) -> float:
    return standard_error(predictions, target(labels, name), groups, np.random.default_rng(0))


@pytest.mark.parametrize(("n", "right"), [(200, 150), (1000, 600), (6000, 4500)])
def test_the_error_of_an_accuracy_is_the_binomial_one(n: int, right: int) -> None:
    share = right / n
    assert error(*answers(n, right), "accuracy") == pytest.approx(math.sqrt(share * (1 - share) / n), rel=0.2)


def test_fifty_right_of_fifty_are_not_certain() -> None:
    assert error(*answers(50, 50), "accuracy") == pytest.approx(math.sqrt(52 / 54 * 2 / 54 / 50))


def test_the_error_of_a_mean_squared_error_is_that_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    labels = rng.normal(size=400)
    predictions = labels + rng.normal(size=400)
    losses = (predictions - labels) ** 2
    by_hand = losses.std(ddof=1) / math.sqrt(400)
    assert error(predictions, labels, "mse") == pytest.approx(by_hand, rel=0.25)
    assert error(predictions, labels, "rmse") == pytest.approx(by_hand / (2 * math.sqrt(losses.mean())), rel=0.25)


def test_examples_that_stand_or_fall_together_count_as_one() -> None:
    predictions, labels = answers(400, 200)
    groups = np.repeat(np.arange(20), 20)
    assert error(predictions, labels, "accuracy", groups) > 3 * error(predictions, labels, "accuracy")
    alone = np.random.default_rng(2).permutation(400)
    assert error(predictions, labels, "accuracy", alone) == pytest.approx(
        error(predictions, labels, "accuracy"), rel=0.3
    )


def test_what_cannot_be_estimated_is_infinite() -> None:
    labels = np.array([0.0, 1.0, 2.0])
    assert error(np.array([0.0, 1.0, math.inf]), labels, "mse") == math.inf
