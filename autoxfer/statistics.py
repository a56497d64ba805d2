r"""Metrics that are no mean of losses: a value of all examples together, weighted, with each example's influence.

| symbol  | meaning                                                             | shape        |
|---------|---------------------------------------------------------------------|--------------|
| n       | examples                                                            | scalar       |
| B       | weightings: resamples, exchanges, or the one where all count once   | scalar       |
| answers | decided classes (n, 1), or scores (n, classes); of several labels   | (n, width)   |
|         | (``multilabel``) 0/1 decisions or scores, (n, k) both               |              |
| weights | how often each example counts                                       | (B, n)       |
| T       | the statistic                                                       | (B,)         |
| g       | influence: dT / dweight of each example; sums to 0 where all count  | (B, n)       |

The influences come from automatic differentiation, so that a new statistic is one weighted formula. They carry the
statistic's standard error, sqrt(sum g^2) ("infinitesimal jackknife": Efron, Biometrika 68, 1981). Of the area under
the ROC curve they are the structural components of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988).

Values are scikit-learn's. Where it has none, a statistic is still a number: a class without an example is left out of
a mean over classes; an area without both kinds of examples is .5, what chance gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Floats = NDArray[np.float64]
Weighted = Callable[[Tensor, Tensor, Tensor], Tensor]  # (answers, labels, weights) -> T


@final
@dataclass(frozen=True)
class Statistic:
    """One number for all examples, higher is better, at most 1."""

    title: str  # as in "macro F1 3 points higher"
    weighted: Weighted
    decided: bool  # reads which class was decided for; else the classes' scores

    def answers(self, predictions: Floats, labels: NDArray[Any]) -> Floats:
        """Reduce probabilities (n, classes) to what is read; a row with a NaN in it is the worst answer: (n, width).

        Labels (n, k) are several for each example, and so are decisions.
        """
        usable = np.asarray(np.isfinite(predictions).all(axis=1))
        if labels.ndim == 2:
            read = (predictions >= 0.5).astype(np.float64) if self.decided else predictions
            worst = 1.0 - labels if self.decided else 2.0 - 3.0 * labels  # beyond any probability
            return np.where(usable[:, None], read, worst)
        if self.decided:
            return np.where(usable, predictions.argmax(axis=1), -1.0)[:, None]
        scores = np.where(usable[:, None], predictions, 2.0)
        scores[~usable, labels[~usable].astype(np.int64)] = -1.0  # beyond any probability
        return scores

    def value(self, predictions: Floats, labels: NDArray[Any], weights: Floats | None = None) -> Floats:
        """Weigh predictions (n, classes) and labels (n,) with weights (B, n); none = all count once: (B,)."""
        weights = np.ones((1, len(labels))) if weights is None else weights
        return self.differentiate(self.answers(predictions, labels), labels, weights)[0]

    def differentiate(self, answers: Floats, labels: NDArray[Any], weights: Floats) -> tuple[Floats, Floats]:
        """Compute values and influences: (B,), (B, n)."""
        read, truth = torch.from_numpy(answers), torch.from_numpy(labels.astype(np.int64))
        with torch.enable_grad():
            leaf = torch.from_numpy(weights).requires_grad_()
            value = self.weighted(read, truth, leaf)
            (influence,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach().numpy(), influence.numpy()

    def influences(self, predictions: Floats, labels: NDArray[Any]) -> tuple[float, Floats]:
        """Give the value, and what each example contributes to it where all count once: (n,)."""
        answers = self.answers(np.asarray(predictions, np.float64), labels)
        value, influence = self.differentiate(answers, labels, np.ones((1, len(labels))))
        return float(value[0]), influence[0]

    def losses(self, predictions: Floats, labels: NDArray[Any]) -> Floats:
        """Spread 1 - T over the examples: (n,). Their mean is 1 - T, and their sd / sqrt(n) its standard error.

        A single one is no mistake or distance: 1 - T - n g, T's first-order share. Linear where T is a mean.
        """
        value, influence = self.influences(predictions, labels)
        losses: Floats = 1.0 - value - len(labels) * (influence - influence.mean())
        return losses


def _tallies(answers: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weigh the right decisions, all decisions and all labels of each class: three times (B, classes)."""
    decided = answers[:, 0].long()
    n_classes = max(2, int(labels.max()) + 1, int(decided.max()) + 1)
    actual = functional.one_hot(labels, n_classes).to(weights)
    chosen = functional.one_hot(decided + 1, n_classes + 1)[:, 1:].to(weights)  # -1, no decision, is in no class
    return weights @ (actual * chosen), weights @ chosen, weights @ actual


def ratio(over: Tensor, under: Tensor, otherwise: float = 0.0) -> Tensor:
    """Divide where there is something to divide by; its gradient is no NaN elsewhere."""
    there = under > 0
    return torch.where(there, over / torch.where(there, under, 1.0), otherwise)


def _f1_macro(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, decided, actual = _tallies(answers, labels, weights)
    present = decided + actual
    return ratio(2 * hits, present).sum(dim=1) / (present > 0).sum(dim=1).clamp(min=1)


def _f1(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, decided, actual = (tally[:, 1] for tally in _tallies(answers, labels, weights))
    return ratio(2 * hits, decided + actual)


def _f1_weighted(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, decided, actual = _tallies(answers, labels, weights)
    return ratio((actual * ratio(2 * hits, decided + actual)).sum(dim=1), actual.sum(dim=1))


def _precision_macro(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, decided, actual = _tallies(answers, labels, weights)
    present, lost = decided + actual, _undecided(answers, weights)
    return ratio(hits, decided + lost[:, None]).sum(dim=1) / (present > 0).sum(dim=1).clamp(min=1)


def _precision(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, decided, _ = (tally[:, 1] for tally in _tallies(answers, labels, weights))
    return ratio(hits, decided + _undecided(answers, weights))


def _undecided(answers: Tensor, weights: Tensor) -> Tensor:
    """Weigh the examples without an answer, (B,): whoever counts decisions counts them as wrong ones."""
    return weights @ (answers[:, 0] < 0).to(weights)


def _recall(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, _, actual = (tally[:, 1] for tally in _tallies(answers, labels, weights))
    return ratio(hits, actual)


def _cohen_kappa(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, decided, actual = _tallies(answers, labels, weights)
    total = weights.sum(dim=1)
    chance = (decided * actual).sum(dim=1)
    return ratio(hits.sum(dim=1) * total - chance, total**2 - chance)


def _balanced_accuracy(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, _, actual = _tallies(answers, labels, weights)
    return ratio(hits, actual).sum(dim=1) / (actual > 0).sum(dim=1).clamp(min=1)


def _mcc(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    hits, decided, actual = _tallies(answers, labels, weights)
    total = weights.sum(dim=1)
    agreement = hits.sum(dim=1) * total - (decided * actual).sum(dim=1)
    spread = (total**2 - decided.square().sum(dim=1)) * (total**2 - actual.square().sum(dim=1))
    there = spread > 1e-9
    return torch.where(there, agreement / torch.where(there, spread, 1.0).sqrt(), 0.0)


def _auroc(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return over_columns(area, _classes(answers, labels), weights, otherwise=0.5)


def _average_precision(answers: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return over_columns(precision, _classes(answers, labels), weights, otherwise=0.0)


def _classes(answers: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Set each class against the rest, as scores and truth (n,); of two classes, the second is the one."""
    classes = [1] if answers.shape[1] == 2 else sorted(set(labels.tolist()))
    return [(answers[:, one], labels == one) for one in classes]


def over_columns(
    one: Callable[[Tensor, Tensor], Tensor],
    columns: Sequence[tuple[Tensor, Tensor]],  # scores and truth of each, (n,)
    weights: Tensor,
    *,
    otherwise: float,
    every: bool = False,  # count columns without a true or without a false example too
) -> Tensor:
    """Average a statistic of scores against a truth over columns; ``otherwise`` where none counts: (B,)."""
    values, there = [], []
    for answers, truth in columns:
        scores, place = torch.unique(answers, return_inverse=True)
        masses = weights.new_zeros(len(weights), len(scores))
        positive = truth.to(weights)
        hit, missed = (masses.index_add(1, place, weights * kind) for kind in (positive, 1 - positive))
        values.append(one(hit, missed))
        there.append((hit.sum(dim=1) > 0) & (missed.sum(dim=1) > 0) | every)
    present = torch.stack(there).to(weights)
    return ratio((torch.stack(values) * present).sum(dim=0), present.sum(dim=0), otherwise)


def area(hit: Tensor, missed: Tensor) -> Tensor:
    """Share of pairs that are in order, ties half; both (B, distinct scores), from the lowest score."""
    below = missed.cumsum(dim=1) - missed / 2
    return ratio((hit * below).sum(dim=1), hit.sum(dim=1) * missed.sum(dim=1))


def precision(hit: Tensor, missed: Tensor) -> Tensor:
    """Mean over the class's examples of the precision at their score; both (B, distinct scores), from the lowest."""
    found = hit.flip(1).cumsum(dim=1)
    shown = found + missed.flip(1).cumsum(dim=1)
    return ratio((hit.flip(1) * ratio(found, shown)).sum(dim=1), hit.sum(dim=1))


AUROC = Statistic("AUROC", _auroc, decided=False)
AVERAGE_PRECISION = Statistic("average precision", _average_precision, decided=False)
BALANCED_ACCURACY = Statistic("balanced accuracy", _balanced_accuracy, decided=True)
F1 = Statistic("F1", _f1, decided=True)
COHEN_KAPPA = Statistic("Cohen's kappa", _cohen_kappa, decided=True)
F1_WEIGHTED = Statistic("weighted F1", _f1_weighted, decided=True)
PRECISION = Statistic("precision", _precision, decided=True)
PRECISION_MACRO = Statistic("macro precision", _precision_macro, decided=True)
RECALL = Statistic("recall", _recall, decided=True)
F1_MACRO = Statistic("macro F1", _f1_macro, decided=True)
MCC = Statistic("Matthews correlation", _mcc, decided=True)
