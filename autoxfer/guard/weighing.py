"""From what two models answered to a comparison: which test, by the metric's kind and by whether examples are grouped.

| kind      | losses                              | test                                     | in groups   |
|-----------|-------------------------------------|------------------------------------------|-------------|
| zero_one  | mistakes                            | McNemar's, with a margin Tango's (exact) | clustered t |
| real      | distances                           | paired t                                 | clustered t |
| auroc     | shares (``Statistic.losses``)       | DeLong's                                 | clustered t |
| whole     | shares; decided classes             | exchange test                            | by groups   |
|           | shares; scores                      | sign flips                               | clustered t |
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoxfer.guard.clustered import Clustered
from autoxfer.guard.comparison import MIN_STUDENT, Comparison, RealValued, ZeroOne
from autoxfer.guard.delong import DeLong
from autoxfer.guard.exchange import Exchange
from autoxfer.statistics import AUROC, Statistic

Floats = NDArray[np.float64]
Kind = Literal["zero_one", "real"]


def weigh(
    candidate_loss: Floats,  # (n_guard,) per example, lower is better
    baseline_loss: Floats,  # (n_guard,) the same examples, same order
    *,
    kind: Kind,
    margin: float | Floats = 0.0,  # mean loss; for "real" also what each example may lose, (n_guard,)
    groups: NDArray[np.int64] | None = None,  # (n_guard,) examples of one number belong together
    least: int = MIN_STUDENT,  # examples below which a t test is refused; see Metric.least
) -> Comparison:
    """Check paired losses and reduce them to what the tests need. Raises ValueError."""
    candidate, baseline = _pair(candidate_loss, baseline_loss)
    groups = _grouped(groups, len(candidate))
    if kind == "real":
        allowance = _allowance(margin, len(candidate))
        if groups is not None:
            return Clustered(candidate, baseline, allowance, groups)
        return RealValued(candidate, baseline, allowance, least=least)
    if kind != "zero_one":
        raise ValueError(f"kind must be 'zero_one' or 'real'; got {kind!r}")
    share = _share(margin, "zero-one losses")
    for losses in (candidate, baseline):
        other = losses[(losses != 0.0) & (losses != 1.0)]
        if other.size:
            raise ValueError(f"zero-one losses must be 0 or 1; got {other[0]}")
    if groups is not None:
        return Clustered(candidate, baseline, np.full(len(candidate), share), groups, zero_one=True)
    fixed, broken = int((candidate < baseline).sum()), int((candidate > baseline).sum())
    return ZeroOne(fixed, broken, len(candidate), share)


def weigh_auroc(
    candidate: Floats,  # (n_guard, classes) probabilities
    baseline: Floats,  # (n_guard, classes)
    labels: NDArray[Any],  # (n_guard,)
    *,
    margin: float = 0.0,
    groups: NDArray[np.int64] | None = None,
) -> Comparison:
    """Compare two areas under the ROC curve. Raises ValueError."""
    _check(candidate, baseline, labels)
    if groups is not None:
        return weigh_whole(AUROC, candidate, baseline, labels, margin=margin, groups=groups)
    mine, ours = AUROC.influences(candidate, labels), AUROC.influences(baseline, labels)
    share = _share(margin, "an AUROC")
    return DeLong(mine[0] - ours[0], mine[1] - ours[1], np.asarray(labels, np.int64), share)


def weigh_whole(
    statistic: Statistic,
    candidate: Floats,  # (n_guard, classes) probabilities
    baseline: Floats,  # (n_guard, classes)
    labels: NDArray[Any],  # (n_guard,), or (n_guard, k) several for each example
    *,
    margin: float = 0.0,
    groups: NDArray[np.int64] | None = None,
) -> Comparison:
    """Compare two values of a metric that is no mean of losses. Raises ValueError."""
    _check(candidate, baseline, labels)
    share = _share(margin, statistic.title)
    groups, truth = _grouped(groups, len(labels)), np.asarray(labels, np.int64)
    if statistic.decided:
        mine, ours = (statistic.answers(np.asarray(one, np.float64), labels) for one in (candidate, baseline))
        return Exchange(statistic, mine, ours, truth, share, groups)
    mine, ours = (statistic.losses(one, labels) for one in (candidate, baseline))
    alone = np.arange(len(labels)) if groups is None else groups
    return Clustered(mine, ours, np.full(len(labels), share), alone, title=statistic.title, labels=truth)


def _pair(candidate_loss: ArrayLike, baseline_loss: ArrayLike) -> tuple[Floats, Floats]:
    candidate, baseline = np.asarray(candidate_loss, np.float64), np.asarray(baseline_loss, np.float64)
    if candidate.shape != baseline.shape or candidate.ndim != 1 or not candidate.size:
        raise ValueError(f"paired losses need one shape (n_guard,); got {candidate.shape} and {baseline.shape}")
    return candidate, baseline


def _check(candidate: Floats, baseline: Floats, labels: NDArray[Any]) -> None:
    alike = labels.shape in (candidate.shape[:1], candidate.shape)
    fits = candidate.ndim == 2 and candidate.shape == baseline.shape and alike
    if not fits or not labels.size:
        raise ValueError(
            f"paired predictions need one shape (n_guard, classes) and labels (n_guard,); "
            f"got {candidate.shape}, {baseline.shape} and {labels.shape}"
        )


def _grouped(groups: NDArray[np.int64] | None, n: int) -> NDArray[np.int64] | None:
    if groups is not None and groups.shape != (n,):
        raise ValueError(f"groups need shape ({n},); got {groups.shape}")
    return groups


def _allowance(margin: float | Floats, n: int) -> Floats:
    margins = np.asarray(margin, np.float64)
    if margins.shape not in ((), (n,)):
        raise ValueError(f"margin must be a number or one for each example, ({n},); got {margins.shape}")
    if margins.ndim == 0 and not 0.0 <= margins < np.inf:
        raise ValueError(f"margin must be a finite number from 0; got {margins}")
    return np.broadcast_to(margins, (n,))


def _share(margin: float | Floats, what: str) -> float:
    share = np.asarray(margin, np.float64)
    if share.ndim or not 0.0 <= share < 1.0:
        raise ValueError(f"margin must lie between 0 and 1 for {what}; got {margin}")
    return float(share)
