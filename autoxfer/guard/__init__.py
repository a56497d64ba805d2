"""The guard: may a finalist be deployed in the baseline's place? Pure: losses in, verdicts out.

A finalist is accepted where a one-sided test rejects "its mean gain is at most minus the margin", and harmful where
the reverse test rejects "its mean gain is at least minus the margin". Both look at one boundary, so that more data
moves a verdict from undecided to one of the two and not (but for chance) from one to the other.

Several finalists are tested together by a weighted fallback: in the order of their tune scores they get alpha / 2,
alpha / 4, ..., the last as much as the one before it, so that the levels sum to alpha. One that is accepted hands its
level on to the next that is still waiting (after the last, the first); one that is not stops nothing. This is the
fallback procedure (Wiens, Pharmaceutical Statistics 2, 2003) as a graph whose arrows form a ring (Bretz, Maurer,
Brannath and Posch, Statistics in Medicine 28, 2009). It accepts anything that is not better with probability at most
alpha, however the tests depend on one another: up to the first false acceptance only truly better ones have handed
levels on, so those that are not better hold at most alpha between them, and Bonferroni's inequality does the rest.
The order must not depend on the guard split; tune scores do not. Where they do, as with folds, in which every example
of the guard has tuned other models, Holm's procedure stands in (Scandinavian Journal of Statistics 6, 1979): it
needs no order, all compete, and the family's error is at most alpha under any dependence too.

Harm is a warning beside the decision, tested at alpha for each finalist by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoxfer.guard import paired
from autoxfer.guard.comparison import MIN_STUDENT, Comparison
from autoxfer.guard.weighing import Kind, weigh, weigh_auroc, weigh_whole
from autoxfer.records import Decision, Verdict

__all__ = [
    "Comparison",
    "Finalist",
    "Kind",
    "Procedure",
    "decide",
    "fallback",
    "holm",
    "judge",
    "plan_detectable",
    "weigh",
    "weigh_auroc",
    "weigh_whole",
]

POOLED_FEW = 200  # examples of all folds below which ``pooled_alpha`` is more cautious
Procedure = Literal["fallback", "holm"]


@dataclass(frozen=True)
class Finalist:
    """The best trial of a transfer study, as the guard sees it."""

    name: str
    seen: Comparison  # with the baseline, on the same guard examples; see ``weigh``
    competes: bool  # tune score above the baseline's, or not far below
    tune_rank: float  # tune score, higher is better


def decide(
    candidate_loss: NDArray[np.float64],  # (n_guard,) per example, lower is better
    baseline_loss: NDArray[np.float64],  # (n_guard,) the same examples, same order
    *,
    kind: Kind,
    margin: float | NDArray[np.float64] = 0.0,  # mean loss; see Metric.tolerance
    alpha: float = 0.05,
    groups: NDArray[np.int64] | None = None,  # (n_guard,) examples of one number belong together
) -> Verdict:
    """Judge one finalist that competes alone, at the full alpha.

    Raises ValueError: shapes that differ, losses other than 0 and 1 for "zero_one", margin or alpha out of range.
    """
    seen = weigh(candidate_loss, baseline_loss, kind=kind, margin=margin, groups=groups)
    return judge([Finalist("", seen, competes=True, tune_rank=0.0)], alpha=alpha)[0]


def judge(
    finalists: Sequence[Finalist],
    *,
    alpha: float = 0.05,
    untested: str = "",  # why nothing may be decided, as "undecided: the baseline is under-tuned"
    procedure: Procedure = "fallback",  # "holm" where the tune ranks are not independent of the guard examples
) -> tuple[Verdict, ...]:
    """Judge all finalists of a run, with family-wise error at most alpha; verdicts in the order given.

    Raises ValueError: alpha out of range.
    """
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5; got {alpha}")
    seen = [finalist.seen for finalist in finalists]
    if untested:
        return tuple(_verdict(one, "untested", 0.0, alpha, untested) for one in seen)
    order = sorted(
        (i for i, finalist in enumerate(finalists) if finalist.competes), key=lambda i: -finalists[i].tune_rank
    )
    share = holm if procedure == "holm" else fallback
    shares, accepted = share([seen[i].p_better for i in order], alpha)
    levels = dict(zip(order, shares, strict=True))
    winners = {i for i, won in zip(order, accepted, strict=True) if won}
    return tuple(_conclude(one, levels.get(i, 0.0), alpha, accepted=i in winners) for i, one in enumerate(seen))


def fallback(p_values: Sequence[float], alpha: float) -> tuple[list[float], list[bool]]:
    """Test hypotheses in the order given; return the level at which each was last tested, and which are rejected."""
    n = len(p_values)
    levels = [alpha / 2 ** min(i + 1, n - 1) for i in range(n)]
    waiting = list(range(n))
    while (rejected := next((i for i in waiting if p_values[i] <= levels[i]), None)) is not None:
        waiting.remove(rejected)
        if waiting:
            heir = next((i for i in waiting if i > rejected), waiting[0])
            levels[heir] += levels[rejected]
    return levels, [i not in waiting for i in range(n)]


def holm(p_values: Sequence[float], alpha: float) -> tuple[list[float], list[bool]]:
    """Test hypotheses from the smallest p-value on; return the level of each, and which are rejected.

    What comes after the first that is not rejected has the level that this one failed at.
    """
    n = len(p_values)
    order = sorted(range(n), key=lambda i: p_values[i])
    n_rejected = next((place for place, i in enumerate(order) if not p_values[i] <= alpha / (n - place)), n)
    places = {i: place for place, i in enumerate(order)}
    levels = [alpha / (n - min(places[i], n_rejected)) for i in range(n)]
    return levels, [places[i] < n_rejected for i in range(n)]


def pooled_alpha(alpha: float, n: int) -> float:
    """Say at which level folds of ``n`` examples in all are tested: two thirds of alpha below 200.

    Learners of a few dozen examples differ by luck, and differ alike on all that they answer: in simulations of six
    procedures that are equally good on average (``examples/evidence/folded.py``) .10 passed a level of .05 at n = 60
    and 100, .08 at 200, .06 at 500.
    """
    return alpha * 2 / 3 if n < POOLED_FEW else alpha


def plan_detectable(
    n: int,
    *,
    kind: Kind,
    discordance: float = 0.12,  # share of examples on which the two models will differ; .05 low, .3 high
    sd: float = 1.0,  # of the loss difference, in whatever unit the answer is wanted
    margin: float = 0.0,
    alpha: float = 0.05,
) -> float:
    """Smallest true gain that a guard of n examples finds with probability .8, before anything has been measured."""
    if kind == "zero_one":
        return paired.zero_one_detectable(n, discordance, -margin, alpha)
    return math.inf if n < MIN_STUDENT else paired.student_detectable(n, sd, -margin, alpha)


def _conclude(seen: Comparison, level: float, alpha: float, *, accepted: bool) -> Verdict:
    """Turn the comparison and the family's answer into a verdict."""
    boundary = f"by more than the margin of {seen.amount(seen.margin)}" if seen.margin else ""
    if accepted:
        claim = f"not worse than scratch {boundary}" if boundary else "better than scratch"
        return _verdict(seen, "accepted", level, alpha, f"{_tested(seen, seen.p_better, level)}: {claim}")
    reverse = _tested(seen, seen.p_worse, alpha, "reverse p")
    if seen.p_worse <= alpha:
        return _verdict(seen, "harmful", level, alpha, f"{reverse}: worse than scratch {boundary}".rstrip())
    if obstacle := seen.obstacle(level or alpha):
        return _verdict(seen, "undecided", level, alpha, f"undecided: {obstacle}")
    if not level:
        why = "it did not compete, since its tune score is more than a standard error below scratch's"
        reason = f"undecided: {why}; harm alone was tested: {reverse}"
        return _verdict(seen, "undecided", level, alpha, reason)
    reason = f"{_tested(seen, seen.p_better, level)}: undecided; {_prospect(seen, level)}"
    return _verdict(seen, "undecided", level, alpha, reason)


def _verdict(seen: Comparison, decision: Decision, level: float, alpha: float, reason: str) -> Verdict:
    """Fill in the numbers; each end of the interval is the bound of one of the two one-sided tests.

    For 0/1 losses the ends come from the score test and the decisions from exact ones. Where the two disagree by a
    hair the decision stands, and the end is moved to minus the margin.
    """
    boundary = 0.0 - seen.margin
    low, high = seen.low(level or alpha), seen.high(alpha)
    if level:  # what did not compete may look better than it is allowed to claim; its sentence says why
        low = max(low, boundary) if decision == "accepted" else min(low, boundary)
    if decision != "untested":
        high = min(high, boundary) if decision == "harmful" else max(high, boundary)
    return Verdict(
        decision=decision,
        effect=seen.effect,
        ci_low=low,
        ci_high=high,
        p_value=seen.p_better,
        level=level,
        method=seen.method,
        n=seen.n,
        fixed=seen.fixed,
        broken=seen.broken,
        detectable=seen.detectable(level or alpha),
        reason=reason,
        approximate=seen.approximate,
    )


def _tested(seen: Comparison, p_value: float, level: float, name: str = "p") -> str:
    digits = next((n for n in range(2, 6) if f"{p_value:.{n}g}" != f"{level:.{n}g}"), 6)  # 0.0503 is not 0.05
    shown = f"= {p_value:.{digits}g}" if p_value >= 1e-4 else "< 0.0001"
    by = f" ({seen.method}, approximate)" if seen.approximate else ""
    return f"{seen.summary()}, {name} {shown}{by} at level {level:.{digits}g}"


def _prospect(seen: Comparison, level: float) -> str:
    """Say what this guard could have found, and what the observed gain would take."""
    detectable, needed = seen.detectable(level), seen.needed(level)
    if math.isinf(detectable):
        power = f"{seen.n} examples find no gain reliably"
    elif seen.margin:
        power = f"{seen.n} examples accept a true gain of {seen.amount(detectable)} or more"
    else:
        power = f"{seen.n} examples find a gain of {seen.amount(detectable)}"
    if math.isinf(needed):
        return f"{power}, and none was seen" if not seen.margin else power
    if seen.effect >= detectable or needed <= seen.n:
        return f"{power} in four cases of five, and this one fell short"
    about = round(needed, min(-1, 2 - math.floor(math.log10(needed))))  # the rule is no better than that
    return f"{power}; the observed {seen.amount(seen.effect)} would need about {about:,}"
