"""What people in the field would do instead, each in its usual few lines: the opponents of compare.py.

    embeddings    logistic regression, or ridge, its penalty cross-validated, on the source's features, standardised
    fine_tuning   the whole source with a new head: AdamW, 1e-4 for the backbone and 1e-3 for the head, 20 epochs
    scratch       the compact network newly initialised: AdamW, 1e-3, 30 epochs
    boosting      scikit-learn's HistGradientBoosting as it is, categories and missing values told to it as such
    tfidf         TF-IDF of words and pairs of words, and logistic regression, its penalty cross-validated

Each learns from train, as the winner does, or with ``--with-tune`` from train and tune together, as nothing is left
for it to choose on tune. Sources and examples are read by autoxfer, so that all see the same pixels, columns and words;
what follows is scikit-learn and plain PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import Raw, Source, Tap
from autoxfer.labelling import train_labels
from autoxfer.setting import Setting
from autoxfer.strategy import Input

Floats = NDArray[np.float64]
Predictions = Floats  # (n_judged, classes) probabilities, or (n_judged,) numbers
BATCH = 32


@dataclass(frozen=True)
class Material:
    """A task as an alternative gets it."""

    setting: Setting
    judged: Literal["test", "guard"]  # the split to be answered
    seed: int
    parts: tuple[str, ...] = ("train",)  # the splits that are learned from

    @property
    def source(self) -> Source:
        """The run's only source."""
        (source,) = self.setting.sources.values()
        return source

    @property
    def classes(self) -> int:
        """How many classes; none where numbers are predicted."""
        return len(self.setting.dataset.schema.classes)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """What there is to learn from."""
        return np.concatenate([self.setting.rows(part) for part in self.parts])

    @property
    def labels(self) -> NDArray[Any]:
        """(n,) classes or numbers to learn from."""
        return self.setting.dataset.labels[self.rows]

    def inputs(self, name: Input) -> tuple[Tensor, Tensor]:
        """Give what is learned from (n, ...), and what is to be answered (n_judged, ...)."""
        *known, judged = (self.setting.features.whole(name, split) for split in (*self.parts, self.judged))
        return torch.cat(known).cpu(), judged.cpu()

    def in_place(self, probabilities: Floats, seen: NDArray[np.int64]) -> Predictions:
        """Give every class its column, also one that was not there to learn from."""
        whole = np.zeros((len(probabilities), self.classes))
        whole[:, seen] = probabilities
        return whole


def embeddings(material: Material) -> Predictions:
    """Fit a linear model on the frozen source's features."""
    from sklearn.linear_model import RidgeCV  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    known, asked = (x.double().numpy() for x in material.inputs(Tap("last", material.source.name)))
    if material.classes:
        return _logistic(material, make_pipeline(StandardScaler()), known, asked)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15))).fit(known, material.labels)
    return np.asarray(ridge.predict(asked), np.float64)


def tfidf(material: Material) -> Predictions:
    """Fit a linear model on words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    texts, rows = material.setting.dataset.examples, material.setting.rows(material.judged)
    known, asked = texts[material.rows].tolist(), texts[rows].tolist()
    return _logistic(material, TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), known, asked)


def _logistic(material: Material, before: Any, known: Any, asked: Any) -> Predictions:
    """Fit logistic regression behind ``before``, the penalty chosen by five folds for the metric that is judged."""
    from sklearn.linear_model import LogisticRegressionCV  # noqa: PLC0415

    scoring = "neg_log_loss" if material.setting.metric.name == "log_loss" else "accuracy"
    known, asked = before.fit_transform(known), before.transform(asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rare classes, weak penalties that do not converge, arguments to be renamed
        model = LogisticRegressionCV(scoring=scoring, max_iter=200).fit(known, material.labels)
    return material.in_place(model.predict_proba(asked), model.classes_)


def boosting(material: Material) -> Predictions:
    """Fit boosted trees on the columns as they were read."""
    from sklearn.ensemble import (  # noqa: PLC0415
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    )

    setting = material.setting
    categorical = [column.kind == "categorical" for column in setting.dataset.schema.columns] or None
    known, asked = setting.dataset.examples[material.rows], setting.dataset.examples[setting.rows(material.judged)]
    if not material.classes:
        model = HistGradientBoostingRegressor(categorical_features=categorical, random_state=material.seed)
        return np.asarray(model.fit(known, material.labels).predict(asked), np.float64)
    model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=material.seed)
    model.fit(known, material.labels)
    return material.in_place(model.predict_proba(asked), model.classes_)


def fine_tuning(material: Material) -> Predictions:
    """Train the whole source, its new head ten times faster."""
    source, n_outputs = material.source, material.classes or 1
    torch.manual_seed(material.seed)
    backbone, head = source.suffix("input"), nn.Linear(source.n_features, n_outputs)
    groups = [{"params": backbone.parameters(), "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-3}]
    return _trained(material, nn.Sequential(backbone, head), groups, Tap("input", source.name), 20)


def scratch(material: Material) -> Predictions:
    """Train the compact network."""
    problem = material.setting.studies["scratch"].problem
    torch.manual_seed(material.seed)
    network = problem.architectures["compact"](material.classes or 1)
    return _trained(material, network, [{"params": network.parameters(), "lr": 1e-3}], Raw(), 30)


def _trained(
    material: Material, network: nn.Module, groups: list[dict[str, Any]], name: Input, n_epochs: int
) -> Predictions:
    """Train by AdamW on batches of 32, and answer."""
    known, asked = material.inputs(name)
    labels, center, spread = train_labels(material.setting.dataset, material.rows)
    loss = functional.cross_entropy if material.classes else functional.mse_loss
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-2)
    network.train()
    for _ in range(n_epochs):
        for rows in torch.split(torch.randperm(len(known)), BATCH):
            if len(rows) > 1:  # batch normalisation wants two
                optimiser.zero_grad()
                torch.autograd.backward(loss(network(known[rows]), labels[rows]))
                optimiser.step()
    network.eval()
    with torch.inference_mode():
        answer = torch.cat([network(part) for part in torch.split(asked, 256)]).double()
    if material.classes:
        return answer.softmax(1).numpy()
    return answer[:, 0].numpy() * spread + center


ALTERNATIVES: dict[str, tuple[Callable[[Material], Predictions], ...]] = {  # by modality
    "image": (embeddings, fine_tuning, scratch),
    "table": (embeddings, fine_tuning, scratch, boosting),
    "vector": (embeddings, fine_tuning, scratch, boosting),
    "text": (embeddings, scratch, tfidf),
}


def answers(material: Material) -> dict[str, Predictions]:
    """Let every alternative that suits the task answer the judged split."""
    return {one.__name__: one(material) for one in ALTERNATIVES[material.setting.dataset.schema.modality]}
