"""How well predictions fit the labels: one number for the user, one loss per example for the guard.

The test follows the loss, not the task: "zero_one" losses go to McNemar's and Tango's tests, "real" ones to the
paired t test. The mean of the losses orders models as the metric does; RMSE and R2 therefore hand out squared errors.

A metric that is no mean of losses has a statistic of all examples together, which the guard compares by DeLong's test
("auroc") or by exchanging answers ("whole"). Its losses are each example's share of 1 - metric: their mean is
1 - metric and their sd / sqrt(n) its standard error, so that whoever averages losses is right to. One share says
little: it is neither a mistake nor a distance, and may be negative.
To add a metric, add a line to the table.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import multilabel, statistics
from autoxfer.errors import InputError
from autoxfer.records import Task

Floats = NDArray[np.float64]
Labels = NDArray[Any]
Kind = Literal["zero_one", "real", "auroc", "whole"]

SHAPES: dict[Task, dict[tuple[int, int], str]] = {  # dimensions of predictions and labels
    "classification": {(2, 1): "predictions (n, classes) and labels (n,)"},
    "multilabel": {(2, 2): "predictions and labels (n, k)"},
    "regression": {(1, 1): "predictions (n,) and labels (n,)", (2, 2): "(n, k) both"},
}
SMALLEST = float(np.finfo(np.float64).eps)  # probability given to a label that was ruled out


@final
@dataclass(frozen=True)
class Metric:
    """A metric, its direction, and the loss per example that the guard compares.

    Predictions: (n, classes) probabilities, or (n,) in the label's units. Labels: (n,) class indices or numbers.
    Of several labels, or numbers, both are (n, k), predictions probabilities of each label by itself.
    """

    name: str
    task: Task
    greater_is_better: bool
    bounded: bool  # at most 1 and in points, so that a margin can be given in the metric's own units
    kind: Kind  # which test the losses need
    of_losses: Callable[[Floats, Labels], float]  # (losses, labels) -> the metric
    per_example: Callable[[Floats, Labels], Floats]  # (predictions, labels) -> losses
    statistic: statistics.Statistic | None = None  # of all examples, where the metric is no mean of losses
    least: int = 50  # guard examples below which real-valued losses are not tested
    binary: bool = False  # only for two classes, of which the second is what is looked for

    def value(self, predictions: Floats, labels: Labels) -> float:
        """Compute the metric, in its own direction. Raises ValueError on shapes that do not fit."""
        return float(self.of_losses(self.losses(predictions, labels), labels))

    def losses(self, predictions: Floats, labels: Labels) -> Floats:
        """Compute the loss of each example, lower is better: (n,). Raises ValueError on shapes that do not fit."""
        shapes = SHAPES[self.task]
        alike = labels.shape == (predictions.shape[:1] if self.task == "classification" else predictions.shape)
        if (predictions.ndim, labels.ndim) not in shapes or not alike or not labels.size:
            expected = " or ".join(shapes.values())
            raise ValueError(f"{self.name} needs {expected}; got {predictions.shape} and {labels.shape}")
        return self.per_example(np.asarray(predictions, np.float64), labels)

    def rank(self, value: float) -> float:
        """Turn the metric so that higher is better."""
        return value if self.greater_is_better else -value

    def tolerance(self, margin: float, baseline_loss: Floats) -> float | Floats:
        """Turn the user's margin into loss: metric's units where bounded, else a share of the baseline's loss.

        That share is given for each example, (n,): it is known no better than the baseline's loss is.
        """
        return margin if self.bounded or not margin else margin * baseline_loss


def get_metric(name: str | None, task: Task, n_classes: int | None = None) -> Metric:
    """Find a metric by name; None is the task's default. Raises InputError with the names there are."""
    table = MULTILABEL if task == "multilabel" else METRICS
    names = [metric.name for metric in table.values() if metric.task == task]
    name = names[0] if name is None else usual_name(name)
    if name in names:
        if table[name].binary and n_classes not in (None, 2):
            raise InputError(f"two classes for {name} (f1_macro takes more)", f"{n_classes} classes", "task.metric")
        return table[name]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    others = [other.task for other in (*METRICS.values(), *MULTILABEL.values()) if other.name == name]
    if others:
        hint = f", which is for {others[0]} (task.kind: {others[0]} asks for that)"
    raise InputError(f"a metric for {task}: {', '.join(names)}", f"{name!r}{hint}", "task.metric")


def usual_name(name: str) -> str:
    """Find our name for one of scikit-learn's or torchmetrics'; any other stays as it is."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_").removeprefix("neg_")
    return ALIASES.get(plain, plain)


def _mistakes(predictions: Floats, labels: Labels) -> Floats:
    # argmax answers NaN with the first NaN's index, which may happen to be the label
    usable = np.isfinite(predictions).all(axis=1)
    wrong: NDArray[np.bool_] = (predictions.argmax(axis=1) != labels) | ~usable
    return wrong.astype(np.float64)


def _cross_entropies(predictions: Floats, labels: Labels) -> Floats:
    chosen = predictions[np.arange(len(labels)), labels.astype(np.int64)]
    losses: Floats = -np.log(np.clip(chosen, SMALLEST, 1.0))
    return losses


def _brier_scores(predictions: Floats, labels: Labels) -> Floats:
    """Squared distance to the truth; of two classes half of it, which is one class's own."""
    truth = np.eye(predictions.shape[1])[labels.astype(np.int64)]
    distances: Floats = np.square(predictions - truth).sum(axis=1)
    return distances / 2 if predictions.shape[1] == 2 else distances


def _errors(predictions: Floats, labels: Labels) -> Floats:
    errors: Floats = predictions - labels.astype(np.float64)
    return errors


def _squared_errors(predictions: Floats, labels: Labels) -> Floats:
    return _average(np.square(_errors(predictions, labels)))


def _absolute_errors(predictions: Floats, labels: Labels) -> Floats:
    return _average(np.abs(_errors(predictions, labels)))


def _relative_errors(predictions: Floats, labels: Labels) -> Floats:
    sizes = np.maximum(np.abs(labels.astype(np.float64)), SMALLEST)
    return _average(np.abs(_errors(predictions, labels)) / sizes)


def _shares_of_roots(predictions: Floats, labels: Labels) -> Floats:
    squares = np.square(_errors(predictions, labels))
    if labels.ndim == 1:
        return squares
    roots = np.sqrt(squares.mean(axis=0))
    return _average(squares / np.where(roots > 0, roots, 1.0) + roots) / 2


def _unexplained(predictions: Floats, labels: Labels) -> Floats:
    squares = np.square(_errors(predictions, labels))
    if labels.ndim == 1:
        return squares
    variance = labels.var(axis=0, dtype=np.float64)
    constant = np.where(squares.any(axis=0), 1.0, 0.0)  # only perfect predictions explain an output that never varies
    return _average(np.where(variance > 0, squares / np.where(variance > 0, variance, 1.0), constant))


def _average(values: Floats) -> Floats:
    """Average over the outputs, where there are several: (n,)."""
    return values if values.ndim == 1 else values.mean(axis=1)


def _mean(losses: Floats, labels: Labels) -> float:
    return float(losses.mean())


def _share_right(losses: Floats, labels: Labels) -> float:
    return 1.0 - float(losses.mean())


def _root_mean(losses: Floats, labels: Labels) -> float:
    return math.sqrt(losses.mean()) if labels.ndim == 1 else float(losses.mean())


def _explained(losses: Floats, labels: Labels) -> float:
    if labels.ndim == 2:
        return 1.0 - float(losses.mean())
    total = float(np.square(labels - labels.mean(dtype=np.float64)).sum())
    if total == 0.0:  # constant labels: only perfect predictions explain them
        return 1.0 if not losses.any() else 0.0
    return 1.0 - float(losses.sum()) / total


def _whole(
    name: str,
    statistic: statistics.Statistic,
    *,
    task: Task = "classification",
    kind: Kind = "whole",
    binary: bool = False,
) -> Metric:
    return Metric(name, task, True, True, kind, _share_right, statistic.losses, statistic, binary=binary)


ALIASES = {  # scikit-learn's and torchmetrics' names, scorers' "neg_" left out
    "roc_auc": "auroc",
    "roc_auc_ovr": "auroc",
    "roc_auc_score": "auroc",
    "auc": "auroc",
    "pr_auc": "average_precision",
    "average_precision_score": "average_precision",
    "accuracy_score": "accuracy",
    "exact_match": "accuracy",
    "f1_score": "f1",
    "balanced_accuracy_score": "balanced_accuracy",
    "recall_macro": "balanced_accuracy",
    "matthews_corrcoef": "mcc",
    "cohen_kappa_score": "cohen_kappa",
    "precision_score": "precision",
    "recall_score": "recall",
    "cross_entropy": "log_loss",
    "brier_score_loss": "brier_score",
    "brier": "brier_score",
    "hamming": "hamming_loss",
    "root_mean_squared_error": "rmse",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "mean_absolute_percentage_error": "mape",
    "r2_score": "r2",
}

METRICS = {  # the first of each task is its default
    metric.name: metric
    for metric in (
        Metric("accuracy", "classification", True, True, "zero_one", _share_right, _mistakes),
        Metric(
            "log_loss", "classification", False, False, "real", _mean, _cross_entropies, least=75
        ),  # skewed: .09 for .05 at 50
        _whole("auroc", statistics.AUROC, kind="auroc"),
        _whole("f1_macro", statistics.F1_MACRO),
        _whole("f1", statistics.F1, binary=True),
        _whole("balanced_accuracy", statistics.BALANCED_ACCURACY),
        _whole("mcc", statistics.MCC),
        _whole("average_precision", statistics.AVERAGE_PRECISION),
        _whole("f1_weighted", statistics.F1_WEIGHTED),
        _whole("precision_macro", statistics.PRECISION_MACRO),
        _whole("precision", statistics.PRECISION, binary=True),
        _whole("recall", statistics.RECALL, binary=True),
        _whole("cohen_kappa", statistics.COHEN_KAPPA),
        Metric("brier_score", "classification", False, False, "real", _mean, _brier_scores),
        Metric("rmse", "regression", False, False, "real", _root_mean, _shares_of_roots),
        Metric("mse", "regression", False, False, "real", _mean, _squared_errors),
        Metric("mae", "regression", False, False, "real", _mean, _absolute_errors),
        Metric("mape", "regression", False, False, "real", _mean, _relative_errors),
        Metric("r2", "regression", True, False, "real", _explained, _unexplained),
    )
}

_of_labels = partial(_whole, task="multilabel")
MULTILABEL = {
    metric.name: metric
    for metric in (
        Metric("hamming_loss", "multilabel", False, True, "real", _mean, multilabel.mistaken_shares),
        Metric("accuracy", "multilabel", True, True, "zero_one", _share_right, multilabel.mistakes),
        Metric("log_loss", "multilabel", False, False, "real", _mean, multilabel.cross_entropies, least=75),
        _of_labels("f1_macro", multilabel.F1_MACRO),
        _of_labels("f1_micro", multilabel.F1_MICRO),
        Metric("f1_samples", "multilabel", True, True, "real", _share_right, multilabel.f1_losses),
        _of_labels("average_precision", multilabel.AVERAGE_PRECISION),
        _of_labels("auroc", multilabel.AUROC),
    )
}
