"""Labels as a loss takes them, and how much examples and classes count.

Weights reach whatever is fitted to labels. The inputs are prepared by all examples alike (means, deviations, words).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoxfer.dataset import Dataset
from autoxfer.errors import InputError, nearest
from autoxfer.scoring import Scale

ClassWeight = Literal["balanced"] | Mapping[str, float] | None
SKEWED = 10  # times as many examples of one class as of another from which a word about it is due
UNLIKE = 10  # times as large a deviation of one number as of another, likewise
NAMED = 3  # numbers that a warning names
IN_UNITS = ("rmse", "mse", "mae")  # metrics that add up errors of several numbers as they are


def train_weights(dataset: Dataset, rows: NDArray[np.int64], device: torch.device) -> Tensor | None:
    """Make the weights that a loss takes, (n,) of mean 1; None where all count alike. Raises InputError for no sum."""
    weights = _weights(dataset, rows)
    return None if weights is None else torch.from_numpy(weights.astype(np.float32)).to(device)


def _weights(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    if dataset.weights is None:
        return None
    weights = dataset.weights[rows].astype(np.float64)
    if not weights.any():
        raise InputError("weights above 0 in train", f"0 for all of {len(rows):,} examples", "task.weight")
    return np.asarray(weights / weights.mean())


def train_labels(
    dataset: Dataset, rows: NDArray[np.int64], class_weight: ClassWeight = None
) -> tuple[Tensor, Scale, Scale]:
    """Make the labels that a loss takes, as ``Setting.labels``, with the mean and deviation of each output.

    Of classes and labels the mean is what is added to their logits (``class_center``), and the deviation 1. Examples
    count by their weights. Raises InputError where none of them counts.
    """
    values = dataset.labels[rows]
    labels = torch.from_numpy(np.ascontiguousarray(values))
    if class_weight is not None and dataset.schema.task == "regression":
        raise InputError("classes, for task.class_weight", "numbers", "task.class_weight")
    if dataset.schema.task != "regression":
        return labels, class_center(dataset, rows, class_weight), 1.0
    if labels.dim() == 2:
        means, deviations = _moments(values, _weights(dataset, rows))
        deviations[deviations == 0] = 1.0
        return torch.from_numpy((values - means) / deviations).float(), means, deviations
    mean, deviation = _moments(values, _weights(dataset, rows))
    center, spread = float(mean), float(deviation) or 1.0
    return ((labels.double() - center) / spread).float()[:, None], center, spread


def _moments(values: NDArray[Any], weights: NDArray[np.float64] | None) -> tuple[Any, Any]:
    """Mean and deviation over the examples; the plain deviation where those that count are all alike."""
    plain = values.std(axis=0, dtype=np.float64)
    if weights is None:
        return values.mean(axis=0, dtype=np.float64), plain
    mean = np.average(values, axis=0, weights=weights)
    deviation = np.sqrt(np.average(np.square(values - mean), axis=0, weights=weights))
    return mean, np.where(deviation > 1e-9 * np.abs(mean), deviation, plain)


def class_center(dataset: Dataset, rows: NDArray[np.int64], class_weight: ClassWeight) -> Scale:
    """Give what is added to logits so that classes count by their weight: (k,), or 0 where they count as they come.

    The logarithm of a class's weight, after training (Menon et al., "Long-tail learning via logit adjustment", ICLR
    2021, https://arxiv.org/abs/2007.07314): whatever was trained answers as if each class were that much more frequent,
    closed forms, trees and networks alike. "balanced": n / (k n_c), as if all were equally frequent; of several labels
    (n - n_c) / n_c, as if each were there in half of the examples. Where examples have weights of their own, n and n_c
    are sums of these, since what was trained has seen the classes so often: weights that make classes equal already
    leave nothing to balance.

    Raises InputError for a weight of a class that there is not.
    """
    classes, labels = dataset.schema.classes, dataset.labels[rows]
    weights = _weights(dataset, rows)
    if class_weight is None:
        return 0.0
    if class_weight == "balanced":
        if labels.ndim == 2:
            share = np.clip(
                np.average(labels.astype(np.float64), axis=0, weights=weights), 0.5 / len(labels), 1 - 0.5 / len(labels)
            )
            return np.asarray(np.log((1 - share) / share))
        counts = np.bincount(labels.astype(np.int64), weights=weights, minlength=len(classes))
        return np.asarray(-np.log(np.maximum(counts, 0.5) * len(classes) / len(labels)))
    if unknown := [name for name in class_weight if name not in classes]:
        expected = f"classes among {', '.join(classes[:9])}{', ...' if len(classes) > 9 else ''}"
        raise InputError(expected, f"{unknown[0]!r}{nearest(unknown[0], classes)}", "task.class_weight")
    return np.log([float(class_weight.get(name, 1.0)) for name in classes])


def skew_warning(dataset: Dataset, metric: str, class_weight: ClassWeight) -> str:
    """Say where classes are so unequal that accuracy rewards guessing the most frequent; empty where they are not."""
    if dataset.schema.task != "classification" or metric not in ("accuracy", "log_loss") or class_weight is not None:
        return ""
    counts = np.bincount(dataset.labels.astype(np.int64), minlength=len(dataset.schema.classes))
    if counts.max() < SKEWED * max(counts.min(), 1):
        return ""
    most, least = dataset.schema.classes[int(counts.argmax())], dataset.schema.classes[int(counts.argmin())]
    times = counts.max() / max(counts.min(), 1)
    return (
        f"{most!r} is {times:.0f} times as frequent as {least!r}, and {metric} takes every example alike; where every "
        "class should count, task.metric: balanced_accuracy and task.class_weight: balanced"
    )


def scale_warning(dataset: Dataset, rows: NDArray[np.int64], metric: str) -> str:
    """Say where one of several numbers is so large that a metric in their own units hardly hears the others.

    Empty where none is, and for other metrics. A number that never varies is not counted: there is nothing to hear.
    """
    if not dataset.schema.targets or metric not in IN_UNITS:
        return ""
    deviations = dataset.labels[rows].std(axis=0, dtype=np.float64)
    order = [int(each) for each in np.argsort(deviations, kind="stable") if deviations[each] > 0]
    largest = order[-1] if order else 0
    unheard = [each for each in order if deviations[largest] > UNLIKE * deviations[each]]
    if not unheard:
        return ""
    names = [repr(dataset.schema.targets[each]) for each in unheard[:NAMED]]
    more = f" and {len(unheard) - NAMED} more" if len(unheard) > NAMED else ""
    times = f"{deviations[largest] / deviations[unheard[0]]:,.0f}"
    return (
        f"{dataset.schema.targets[largest]!r} varies in train {'up to ' if len(unheard) > 1 else ''}{times} times as "
        f"much as {', '.join(names)}{more}, and {metric} is the plain mean over all numbers, each in its own units: "
        "trials are chosen by the largest; task.metric: r2 weighs all alike"
    )
