"""How much each column tells of the label by itself, and which columns tell too much, or nothing.

Measured out of fold: a column's values are sorted into at most ``BINS`` bins (a missing value and each category are
bins of their own), and each example is predicted by the mean label of its bin in the other folds. The score is R2 (of
the straight line, where that is better), or for classes the mean over classes of 2 AUC - 1: 0 = nothing, 1 = the label.
Of several labels, or several numbers, each is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.dataset import Dataset
from autoxfer.mapped import mapping, pieces
from autoxfer.pool import Rows
from autoxfer.records import derive_seed

Floats = NDArray[np.float64]
Labels = NDArray[Any]

BINS = 16
FOLDS = 5
SMOOTHING = 1.0  # examples of the average label that each bin is given
MODALITIES = ("table", "vector", "mixed")  # that have columns
ENOUGH = 2000  # train examples that are looked at
MOST_OUTPUTS = 20  # labels, or numbers, that are looked at where there are several
ALIKE = 0.99  # share of one value from which a column is nearly constant
LABEL_ITSELF = 0.99  # score from which a column is nearly the label
STRONG, NEAR, FAR = 0.65, 0.6, 0.5  # the best's score; shares of it: at least that, at most this
FEW, OTHERS = 3, 3  # columns that may stand out together, and others that it takes to stand out from


def bins(values: Floats, categorical: bool) -> NDArray[np.int64]:
    """Sort a column's values (n,) into bins; missing ones have the last bin to themselves."""
    missing = np.isnan(values)
    present = values[~missing]
    if categorical or len(np.unique(present)) <= BINS:
        edges = np.unique(present)[1:]
    else:
        edges = np.unique(np.quantile(present, np.arange(1, BINS) / BINS))
    found = np.searchsorted(edges, values, side="right")
    found[missing] = len(edges) + 1
    return found.astype(np.int64)


def tells(values: Floats, labels: Labels, n_classes: int, rng: np.random.Generator, *, categorical: bool) -> float:
    """Measure how well a column (n,) predicts the labels (n,) by itself, 0 to 1; ``n_classes`` 0 is regression."""
    n = len(labels)
    fold, place = rng.permutation(n) % FOLDS, bins(values, categorical)
    targets = np.eye(n_classes)[labels] if n_classes else labels.astype(np.float64)[:, None]
    predicted = np.empty_like(targets)
    for held_out in range(FOLDS):
        rest, here = fold != held_out, fold == held_out
        counts = np.bincount(place[rest], minlength=place.max() + 1)[:, None]
        sums = np.zeros((place.max() + 1, targets.shape[1]))
        np.add.at(sums, place[rest], targets[rest])
        means = (sums + SMOOTHING * targets[rest].mean(0)) / (counts + SMOOTHING)
        predicted[here] = means[place[here]]
    if not n_classes:
        total = np.square(targets - targets.mean()).sum()
        binned = 1.0 - float(np.square(targets - predicted).sum() / total) if total else 0.0
        return max(0.0, binned, 0.0 if categorical else _straight(values, targets[:, 0]))
    areas = [area(predicted[:, k], labels == k) for k in range(n_classes) if 0 < (labels == k).sum() < n]
    return max(0.0, 2 * float(np.mean(areas)) - 1) if areas else 0.0


def _straight(values: Floats, targets: Floats) -> float:
    """Compute the R2 of the straight line through the values: a copy in other units is no staircase."""
    filled = np.where(np.isnan(values), np.nanmean(values) if not np.isnan(values).all() else 0.0, values)
    x, y = filled - filled.mean(), targets - targets.mean()
    product = float(x @ x) * float(y @ y)
    return float(x @ y) ** 2 / product if product else 0.0


def area(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Compute the area under the ROC curve: the chance that a positive example scores above a negative one."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def columns_tell(dataset: Dataset, train: Rows, seed: int = 0) -> dict[str, dict[str, float]]:
    """Measure what each column of numbers or categories tells of each target: target -> column -> score.

    At most ``ENOUGH`` train rows are looked at, and ``MOST_OUTPUTS`` of several targets.
    """
    if dataset.schema.modality not in MODALITIES:
        return {}
    rng = np.random.default_rng(derive_seed(seed, "check"))
    rows = _some(train, ENOUGH, rng)
    targets, n_classes = _targets(dataset, rows)
    examples = np.concatenate(list(pieces(dataset.examples, rows)))
    found: dict[str, dict[str, float]] = {target: {} for target in targets}
    for index, (name, categorical) in enumerate(_columns(dataset)):
        values = examples[:, index].astype(np.float64)
        for target, labels in targets.items():
            found[target][name] = tells(values, labels, n_classes, rng, categorical=categorical)
    return found


def _targets(dataset: Dataset, rows: Rows) -> tuple[dict[str, Labels], int]:
    """Name what is predicted, each with its labels (n,), and say how many classes each has; numbers have 0."""
    schema, labels = dataset.schema, dataset.labels[rows]
    if labels.ndim == 1:
        return {schema.target: labels}, len(schema.classes)
    columns = labels.T if schema.targets else labels.T.astype(np.int64)
    names = (schema.targets or schema.classes)[:MOST_OUTPUTS]
    return dict(zip(names, columns, strict=False)), 0 if schema.targets else 2


def strongest(told: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, str]]:
    """Find of each column the target that it tells most of: column -> (score, target), the highest score first."""
    best: dict[str, tuple[float, str]] = {}
    for target, scores in told.items():
        for name, score in scores.items():
            best[name] = max(best.get(name, (-1.0, "")), (score, target), key=lambda each: each[0])
    return dict(sorted(best.items(), key=lambda item: -item[1][0]))


def leaks(told: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Find the columns that tell too much of a target, each judged by itself: column -> target -> score."""
    found: dict[str, dict[str, float]] = {}
    for target, scores in told.items():
        for name in suspicious(scores):
            found.setdefault(name, {})[target] = scores[name]
    return found


def suspicious(told: Mapping[str, float]) -> tuple[str, ...]:
    """Name the columns that are nearly the label, or stand far above all the others: column -> score, of one target."""
    order = sorted(told, key=lambda name: -told[name])
    best = told[order[0]] if order else 0.0
    n_near = sum(score >= NEAR * best for score in told.values())
    n_far = sum(score <= FAR * best for score in told.values())
    stands_out = best >= STRONG and n_near <= FEW and n_far >= OTHERS and n_near + n_far == len(told)
    return tuple(order[:n_near]) if stands_out else tuple(name for name in order if told[name] >= LABEL_ITSELF)


def _columns(dataset: Dataset) -> list[tuple[str, bool]]:
    """Name each column, and say whether it is categorical."""
    if dataset.schema.columns:
        return [(column.name, column.kind == "categorical") for column in dataset.schema.table_columns]
    return [(f"column {index}", False) for index in range(dataset.schema.shape[0])]


def near_constant(dataset: Dataset, train: Rows) -> dict[str, float]:
    """Find the columns that are nearly the same everywhere, with the share of their most frequent value."""
    if dataset.schema.modality not in MODALITIES:
        return {}
    examples, found = dataset.examples, {}
    if mapping(examples) is not None:  # all of it does not fit
        train = _some(train, ENOUGH, np.random.default_rng(0))
        examples, train = np.concatenate(list(pieces(examples, train))), np.arange(len(train))
    for index, (name, _) in enumerate(_columns(dataset)):
        counts = np.unique(examples[train, index], return_counts=True)[1]  # NaN counts as one value
        if counts.max() >= ALIKE * len(train):
            found[name] = float(counts.max() / len(train))
    return found


def _some(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
