"""Predictions of real models on real data: a baseline and many candidates, from learners that fit in moments.

Every candidate is fitted on rows and columns of its own, drawn at random, so that the candidates of a pool differ from
its baseline by little and by much. A few thousand examples that no model has seen are the pool.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pools import Pool
from safetensors.torch import load_file
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from autoxfer.metrics import get_metric
from autoxfer.records import Task

Array = NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """What the models said of the pool."""

    name: str
    task: Task
    labels: Array  # (N,)
    baseline: Array  # (N, classes) probabilities or (N,)
    candidates: Array  # (candidates, N, ...)

    def pool(self, metric: str | None = None) -> Pool:
        """Let the product's metric turn them into losses."""
        chosen = get_metric(metric, self.task)
        losses = [chosen.losses(predicted, self.labels) for predicted in (self.baseline, *self.candidates)]
        return Pool(chosen.kind, losses[0], np.array(losses[1:]))


def collect(data: Path | None, rng: np.random.Generator, n_candidates: int) -> Iterator[Predictions]:
    """Fit the pools' models: all of them where there is a folder of data, else on scikit-learn's digits."""
    makers = [_digits] if data is None else [_mnist, _cifar, _trec, _adult, _wine]
    for make in makers:
        yield make(data, rng, n_candidates)


def _digits(data: Path | None, rng: np.random.Generator, n_candidates: int) -> Predictions:
    X, y = load_digits(return_X_y=True)
    learners = [LogisticRegression(), KNeighborsClassifier(), GaussianNB()]
    return _fit("digits", (X / 16, y), 197, learners, rng=rng, n_candidates=n_candidates)


def _mnist(data: Path, rng: np.random.Generator, n_candidates: int) -> Predictions:
    with np.load(data / "vision" / "mnist.npz") as arrays:
        X = np.concatenate([arrays["train_images"][:400], arrays["test_images"]]).reshape(4400, -1) / 255.0
        y = np.concatenate([arrays["train_labels"][:400], arrays["test_labels"]])
    kept = X.std(axis=0) > 0.1
    learners = [
        LogisticRegression(C=0.1),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3),
        KNeighborsClassifier(),
    ]
    return _fit(
        "mnist",
        (X[:, kept], y),
        400,
        [*learners, RandomForestClassifier(50, random_state=0)],
        rng=rng,
        n_candidates=n_candidates,
    )


def _cifar(data: Path, rng: np.random.Generator, n_candidates: int) -> Predictions:
    """Probes on the features of two published networks."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import networks  # noqa: PLC0415

    with np.load(data / "vision" / "cifar10_jpeg.npz") as arrays:
        images = np.concatenate([arrays["train_images"], arrays["test_images"]])
        y = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    batches = [batch.permute(0, 3, 1, 2).float() for batch in torch.from_numpy(images).split(500)]
    twenty, eight = networks.CifarResNet(), networks.ResNet8()
    twenty.load_state_dict(load_file(data / "weights" / "resnet20_cifar10.safetensors"))
    eight.load_state_dict(load_file(data / "weights" / "resnet8_cifar10_mlperftiny.safetensors"))
    twenty.linear = eight.fc = torch.nn.Identity()  # type: ignore[assignment]
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        parts = [torch.cat([twenty.eval()((b / 255 - mean) / deviation), eight.eval()(b)], 1) for b in batches]
    X = torch.cat(parts).double().numpy()
    order = rng.permutation(len(X))
    learners = [LogisticRegression(C=0.03), LogisticRegression(C=1.0), GaussianNB(), KNeighborsClassifier(15)]
    return _fit("cifar10", (X[order], y[order]), 1000, learners, rng=rng, n_candidates=n_candidates)


def _trec(data: Path, rng: np.random.Generator, n_candidates: int) -> Predictions:
    table = pd.read_csv(data / "text" / "trec6.csv").sample(frac=1.0, random_state=int(rng.integers(2**31)))
    X = TfidfVectorizer(ngram_range=(1, 2), min_df=3).fit_transform(table["text"])
    y = table["label"].astype("category").cat.codes.to_numpy(np.int64)
    return _fit(
        "trec", (X, y), 1500, [LogisticRegression(C=10.0), MultinomialNB(alpha=0.1)], rng=rng, n_candidates=n_candidates
    )


def _adult(data: Path, rng: np.random.Generator, n_candidates: int) -> Predictions:
    table = pd.read_parquet(data / "tabular" / "adult.parquet").drop(columns=["fnlwgt", "split"])
    table = table.sample(6000, random_state=int(rng.integers(2**31)))
    y = table.pop("income").astype("category").cat.codes.to_numpy(np.int64)
    numbers = table.select_dtypes("number")
    codes = table.drop(columns=numbers.columns).apply(lambda column: column.astype("category").cat.codes)
    X = np.hstack([numbers.to_numpy(float), codes.to_numpy(float)])
    learners = [HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=leaf) for leaf in (5, 20)]
    return _fit("adult", (X, y), 1000, [*learners, GaussianNB()], rng=rng, n_candidates=n_candidates)


def _wine(data: Path, rng: np.random.Generator, n_candidates: int) -> Predictions:
    table = pd.read_csv(data / "tabular" / "wine_quality_white.csv")
    X, y = table.drop(columns="quality").to_numpy(float), table["quality"].to_numpy(float)
    order = rng.permutation(len(X))
    learners = [Ridge(1.0), HistGradientBoostingRegressor(max_iter=30), KNeighborsRegressor(15)]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return _fit("wine", (X[order], y[order]), 500, learners, rng=rng, n_candidates=n_candidates, task="regression")


def _fit(
    name: str,
    data: tuple[Any, Array],  # (n, columns), sparse or not; (n,)
    n_train: int,  # the first rows; all others are the pool
    learners: list[Any],
    *,
    rng: np.random.Generator,
    n_candidates: int,
    task: Task = "classification",
) -> Predictions:
    """Fit the first learner on everything as the baseline, and all in turn on random parts as candidates."""
    X, y = data
    test = X[n_train:]
    predict: Callable[[Any, Any], Array] = lambda model, rows: (  # noqa: E731
        model.predict_proba(rows) if task == "classification" else model.predict(rows)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some do not converge; they only have to differ
        baseline = predict(clone(learners[0]).fit(X[:n_train], y[:n_train]), test)
        candidates = []
        while len(candidates) < n_candidates:
            rows = rng.permutation(n_train)[: int(n_train * rng.uniform(0.6, 1.0))]
            columns = rng.permutation(X.shape[1])[: max(2, int(X.shape[1] * rng.uniform(0.5, 1.0)))]
            if task == "classification" and len(np.unique(y[rows])) < len(np.unique(y)):
                continue
            model = clone(learners[len(candidates) % len(learners)]).fit(X[rows][:, columns], y[rows])
            candidates.append(predict(model, test[:, columns]))
    return Predictions(name, task, y[n_train:], baseline, np.array(candidates))
