"""Temperatures and the expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoxfer.calibration import HIGHEST, LOWEST, at_temperature, expected_error, fit_temperature


def draw(n: int, temperature: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Labels that follow a softmax, and predictions that are too sure of themselves by ``temperature``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.5, (n, 5))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(5, p=p) for p in honest])
    return at_temperature(honest, 1.0 / temperature), labels


def test_the_temperature_that_was_put_in_comes_out() -> None:
    for wanted in (0.5, 1.0, 3.0):
        assert fit_temperature(*draw(4000, wanted)) == pytest.approx(wanted, rel=0.1)


def test_calibrated_probabilities_are_closer_to_the_truth() -> None:
    predictions, labels = draw(4000, 3.0)
    found = fit_temperature(predictions[:2000], labels[:2000])
    after = at_temperature(predictions[2000:], found)
    assert expected_error(predictions[2000:], labels[2000:]) > 0.2
    assert expected_error(after, labels[2000:]) < 0.04
    assert (after.argmax(1) == predictions[2000:].argmax(1)).all()


def test_several_labels_share_a_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 2.0, (3000, 4))
    labels = (rng.random((3000, 4)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    sure = 1 / (1 + np.exp(-3.0 * logits))
    found = fit_temperature(sure, labels)
    assert found == pytest.approx(3.0, rel=0.1)
    after = at_temperature(sure, found, multilabel=True)
    assert expected_error(after, labels) < 0.02 < expected_error(sure, labels)


def test_a_temperature_can_be_undone() -> None:
    predictions, _ = draw(50, 1.0)
    assert np.allclose(at_temperature(at_temperature(predictions, 2.5), 0.4), predictions)
    assert np.allclose(
        at_temperature(at_temperature(predictions, 2.5, multilabel=True), 0.4, multilabel=True), predictions
    )


def test_few_examples_that_are_all_right_do_not_make_a_model_certain() -> None:
    predictions = np.tile([0.9, 0.1], (5, 1))
    found = fit_temperature(predictions, np.zeros(5, np.int64))
    assert 0.9 < at_temperature(predictions, found).max() < 0.95
    many = fit_temperature(np.tile([0.9, 0.1], (500, 1)), np.zeros(500, np.int64))
    assert many < found  # more of them say more


def test_certain_and_wrong_probabilities_stay_finite() -> None:
    predictions = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = fit_temperature(predictions, np.array([0, 0, 0]))
    assert LOWEST <= found <= HIGHEST
    assert np.isfinite(at_temperature(predictions, found)).all()


def test_the_error_is_guo_and_others_own() -> None:
    confidence = np.array([0.95, 0.95, 0.65, 0.65])  # bins 14 and 9
    predictions = np.stack([confidence, 1 - confidence], 1)
    labels = np.array([0, 1, 0, 0])  # .5 where .95 was said, 1.0 where .65 was
    assert expected_error(predictions, labels) == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)
