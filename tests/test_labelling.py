"""How much classes count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoxfer
from autoxfer.dataset import Dataset, Schema
from autoxfer.errors import InputError
from autoxfer.labelling import class_center, skew_warning, train_labels
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
