"""All that is computed of one source: features and labels in, one record out. What fails is None and leaves a note."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from autoxfer.diagnostics.cautions import cautions
from autoxfer.diagnostics.centroids import alignment, class_means
from autoxfer.diagnostics.crossfit import RidgeFit, probabilities_out_of_fold, ridge_out_of_fold
from autoxfer.diagnostics.evidence import logme
from autoxfer.diagnostics.gain import overlap, predicted_gain
from autoxfer.diagnostics.labels import Labels
from autoxfer.diagnostics.separation import h_score
from autoxfer.diagnostics.sourcehead import leep, nce
from autoxfer.diagnostics.spectrum import Turned, standardised
from autoxfer.matching import match_classes

Floats = NDArray[np.float64]
Values = dict[str, float | None]

WIDEST = 256  # principal axes that probes read


@final
@dataclass(frozen=True)
class Assessment:
    """One source: the fields of its entry in ``diagnostics.json``. None = not defined here, or not to be had."""

    tap: str
    n: int  # train examples
    p: int  # features
    n_per_feature: float
    logme: float | None = None
    h_score: float | None = None  # classes only; of several labels it is not defined, as are the next two
    leep: float | None = None  # these two of a source with classes of its own, for a target with classes
    nce: float | None = None
    probe_score: float | None = None  # the metric, cross-validated
    chance_score: float | None = None  # the metric of the best constant
    overlap: float | None = None
    predicted_gain: float | None = None  # as a share of the labels' variance
    alignment: float | None = None
    alignment_centred: float | None = None
    zero_shot: float | None = None  # the metric of the source's own head
    effective_rank: float | None = None
    top_share: float | None = None
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Head:
    """The source's own classifier, and what it says of the target's examples."""

    logits: Floats  # (n, source outputs)
    weights: Floats  # (source outputs, p)
    classes: tuple[str, ...]  # names of the outputs; empty where unknown

    @property
    def classifies(self) -> bool:
        """Whether the outputs are classes: one output is a number."""
        return bool(self.logits.shape[1] > 1)

    @cached_property
    def probabilities(self) -> Floats:
        """Softmax over the source's own classes: (n, source classes)."""
        powers = np.exp(self.logits - self.logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))


@final
@dataclass(frozen=True)
class Case:
    """One source and the target's labels."""

    features: Floats  # (n, p)
    labels: Labels
    head: Head | None = None
    scratch_error: float | None = None  # squared error, on the labels' columns, of what was not transferred
    n_train: int | None = None  # where only some of the train examples are looked at

    @cached_property
    def turned(self) -> Turned:
        """The features along their principal axes."""
        return Turned.of(self.features)

    @cached_property
    def probed(self) -> Floats:
        """What probes read: columns of deviation 1, and of these the widest principal axes."""
        return Turned.of(standardised(self.features)).widest(WIDEST)

    @cached_property
    def ridge(self) -> RidgeFit:
        """A cross-fitted ridge on the labels' columns."""
        return ridge_out_of_fold(self.probed, self.labels.columns, self.labels.fold)


def examine(case: Case) -> Assessment:
    """Compute everything of one source."""
    n, p = case.features.shape
    n_train = case.n_train or n
    values: Values = {}
    notes = [] if n == n_train else [f"measured on {n:,} of the {n_train:,} train examples, drawn at random"]
    if case.head is not None and not case.head.classifies and case.labels.task == "regression":
        notes.append("the zero-shot score takes the source's number as it is; it may be in other units than the target")
    with np.errstate(all="ignore"):  # what comes out not finite is none
        for name, compute in DIAGNOSTICS.items():
            try:
                values |= compute(case)
            except Exception as error:  # a diagnostic never fails a run
                notes.append(f"no {name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    values = {key: value if value is not None and np.isfinite(value) else None for key, value in values.items()}
    rank, share = values.get("effective_rank"), values.get("top_share")
    if rank is not None and share is not None:
        n_classes = len(case.labels.classes) if case.labels.task == "classification" else 0
        notes += cautions(n_train, p, rank, share, n_classes=n_classes, overlap=values.get("overlap"))
    return Assessment("last", n_train, p, n_train / p, **values, notes=tuple(notes))


def _spectrum(case: Case) -> Values:
    return {"effective_rank": case.turned.effective_rank, "top_share": case.turned.top_share}


def _logme(case: Case) -> Values:
    return {"logme": logme(case.features, case.labels.columns)}


def _h_score(case: Case) -> Values:
    return {"h_score": h_score(case.turned, case.labels.values) if case.labels.task == "classification" else None}


def _probe(case: Case) -> Values:
    labels = case.labels
    if labels.classes:
        n_classes = len(labels.classes) if labels.task == "classification" else None
        found = probabilities_out_of_fold(case.probed, labels.values, n_classes, labels.fold)
        return {"probe_score": labels.score(found), "overlap": overlap(labels.log_loss(found), labels.entropy())}
    predictions = labels.numbers(case.ridge.predictions)
    return {"probe_score": labels.score(predictions), "overlap": overlap(case.ridge.error, labels.variance)}


def _chance(case: Case) -> Values:
    return {"chance_score": case.labels.chance()}


def _gain(case: Case) -> Values:
    if case.scratch_error is None:
        return {}
    gain = predicted_gain(case.ridge, case.scratch_error, case.labels.variance, len(case.features))
    return {"predicted_gain": gain}


def _own_classes(case: Case) -> Values:
    if case.head is None or not case.head.classifies or case.labels.task != "classification":
        return {}
    raw, centred = alignment(class_means(case.features, case.labels.values), case.head.weights)
    theta, values = case.head.probabilities, case.labels.values
    return {"leep": leep(theta, values), "nce": nce(theta, values), "alignment": raw, "alignment_centred": centred}


def _zero_shot(case: Case) -> Values:
    """Score the source's own answer: of the classes that have the target's names, or of its one number as it is."""
    head, labels = case.head, case.labels
    if head is None or head.classifies != bool(labels.classes) or labels.values.ndim == 2:
        return {}
    if not labels.classes:
        return {"zero_shot": labels.score(head.logits[:, 0])}
    wanted = [place for place in match_classes(labels.classes, head.classes) if place is not None]
    if len(set(wanted)) < len(labels.classes):
        return {}
    shares = np.maximum(head.probabilities[:, wanted], 1e-300)
    return {"zero_shot": labels.score(shares / shares.sum(1, keepdims=True))}


DIAGNOSTICS: Mapping[str, Callable[[Case], Values]] = {
    "spectrum": _spectrum,
    "LogME": _logme,
    "H-score": _h_score,
    "probe": _probe,
    "chance score": _chance,
    "predicted gain": _gain,
    "LEEP, NCE and alignment": _own_classes,
    "zero-shot score": _zero_shot,
}
