"""From finalists to verdicts, from verdicts to the winner, and the lines of the leaderboard. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import guard
from autoxfer.errors import AutoxferError
from autoxfer.records import StudyResult, Trial, Verdict
from autoxfer.report import Entry
from autoxfer.studies import BASELINE

if TYPE_CHECKING:
    from autoxfer.composed import Composed
    from autoxfer.metrics import Metric


POOLED_LEAST = 100  # examples of all folds below which real-valued losses are not tested; see ``folding``


@final
@dataclass(frozen=True)
class Finalist:
    """A study's best trial as one network, with its answers."""

    study: StudyResult
    trial: Trial
    composed: Composed
    guard: float  # the metric on the guard split
    loss: NDArray[np.float64]  # (n_guard,)
    tune_loss: NDArray[np.float64]  # (n_tune,)
    predictions: NDArray[np.float64] | None = None  # (n_guard, classes) or (n_guard,), for metrics without losses
    calibration: Mapping[str, float] | None = None  # temperature, error and error_before; None where it has no meaning

    def beats(self, other: Finalist) -> bool:
        """Whether this tuned better."""
        mine, others = self.trial.outcome.score, other.trial.outcome.score
        return mine is not None and (others is None or mine.beats(others))


def judge(
    results: Sequence[StudyResult],
    finalists: Mapping[str, Finalist],  # by study; a study without a completed trial has none
    metric: Metric,
    *,
    alpha: float,
    margin: float,  # as the user gave it
    min_trials: int,
    n_guard: int,
    procedure: guard.Procedure = "fallback",  # "holm": all compete, whatever their tune scores
    labels: NDArray[Any] | None = None,  # (n_guard,) for metrics that are no mean of losses
    groups: NDArray[np.int64] | None = None,  # (n_guard,) examples of one number belong together
) -> dict[str, Verdict]:
    """Give every transfer study its verdict, all at one family-wise level."""
    baseline = next(result for result in results if result.strategy == BASELINE)
    reason = under_tuned(baseline, min_trials)
    transfers = [result for result in results if result.strategy != BASELINE]
    verdicts = {study.id: untested(no_trial(study), n_guard) for study in transfers if study.id not in finalists}
    judged = [finalists[study.id] for study in transfers if study.id in finalists]
    own = finalists.get(baseline.id)
    if own is None:
        return verdicts | {finalist.study.id: untested(reason, n_guard) for finalist in judged}
    answers = guard.judge(
        # A coarse metric has ties: the place among the finalists breaks them by the loss on the tune split.
        [
            guard.Finalist(
                f.study.id,
                _weigh(f, own, metric, margin, labels=labels, groups=groups, pooled=procedure == "holm"),
                procedure == "holm" or competes(f, own),
                sum(f.beats(other) for other in judged),
            )
            for f in judged
        ],
        alpha=guard.pooled_alpha(alpha, n_guard) if procedure == "holm" else alpha,
        untested=reason,
        procedure=procedure,
    )
    return verdicts | {f.study.id: verdict for f, verdict in zip(judged, answers, strict=True)}


def competes(finalist: Finalist, baseline: Finalist) -> bool:
    """Whether a finalist tuned better than the baseline, or worse by at most one standard error of the difference.

    The guard holds its level whoever competes. With those above the baseline alone, a baseline that was lucky on its
    tune split shut out what was truly better. The price, where it was not lucky: more finalists share the level.
    """
    return finalist.beats(baseline) or _within_error(finalist, baseline)


def _within_error(finalist: Finalist, other: Finalist) -> bool:
    """Whether a finalist's mean loss on the tune split is at most a standard error of the paired difference higher."""
    difference = finalist.tune_loss - other.tune_loss
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()) <= error + 1e-12


def _weigh(
    candidate: Finalist,
    baseline: Finalist,
    metric: Metric,
    margin: float,
    *,
    labels: NDArray[Any] | None,
    groups: NDArray[np.int64] | None,
    pooled: bool,
) -> guard.Comparison:
    """Hold a finalist against scratch, by losses or, where the metric is no mean of losses, by predictions."""
    if metric.kind == "zero_one" or metric.kind == "real":  # noqa: PLR1714 - a set would lose the type
        tolerance = metric.tolerance(margin, baseline.loss)
        least = max(metric.least, POOLED_LEAST if pooled else 0)
        return guard.weigh(
            candidate.loss, baseline.loss, kind=metric.kind, margin=tolerance, groups=groups, least=least
        )
    if candidate.predictions is None or baseline.predictions is None or labels is None or metric.statistic is None:
        raise ValueError(f"{metric.name} is no mean of losses: the guard needs predictions and labels")
    pair = candidate.predictions, baseline.predictions
    if metric.kind == "auroc":
        return guard.weigh_auroc(*pair, labels, margin=margin, groups=groups)
    return guard.weigh_whole(metric.statistic, *pair, labels, margin=margin, groups=groups)


def choose(finalists: Mapping[str, Finalist], verdicts: Mapping[str, Verdict], when_undecided: str = "scratch") -> str:
    """Choose the accepted finalist that tuned best; within one standard error of it the one with fewer parameters.

    The error is that of the difference on the same examples. By the spread of the losses themselves, which for log loss
    is many times larger, a head that was not trained at all passed for as good as a plainly better model.

    Where none is accepted: scratch, or with "best_tune" the best among scratch and all that are not known to be
    harmful. Raises AutoxferError where there is none of these.
    """
    accepted = [finalist for name, finalist in finalists.items() if name in verdicts and verdicts[name].accepted]
    if not accepted:
        open_to = [f for name, f in finalists.items() if name not in verdicts or verdicts[name].decision != "harmful"]
        if when_undecided == "best_tune" and open_to:
            return _best(open_to).study.id
        if BASELINE not in finalists:
            raise AutoxferError("no trial of scratch was completed, so that nothing can be compared or shipped")
        return BASELINE
    best = _best(accepted)
    near = [f for f in accepted if f is best or _within_error(f, best)]
    return min(near, key=lambda f: (f.trial.outcome.n_trained, f is not best)).study.id


def _best(finalists: Sequence[Finalist]) -> Finalist:
    """Find the one that tuned best; the first of two equals."""
    best = finalists[0]
    for finalist in finalists[1:]:
        if finalist.beats(best):
            best = finalist
    return best


def certified(study: str, verdicts: Mapping[str, Verdict]) -> bool:
    """Whether a winner is scratch, or a guard that was asked for the first time has accepted these very weights."""
    return study not in verdicts or not verdicts[study].caveat


def under_tuned(baseline: StudyResult, min_trials: int) -> str:
    """Say why a baseline is no fair opponent; empty = it is one."""
    done = baseline.count("complete")
    if done >= min_trials:
        return ""
    return f"undecided: the baseline is under-tuned ({done} completed trials, {min_trials} needed)"


def no_trial(study: StudyResult) -> str:
    """Say why a study has no finalist."""
    reasons = [trial.outcome.reason for trial in study.trials if trial.outcome.reason]
    return "no trial was completed" + (f": {reasons[0]}" if reasons else "")


def untested(reason: str, n: int) -> Verdict:
    """Make the verdict of what could not be tested at all."""
    unknown = math.nan
    return Verdict("untested", unknown, unknown, unknown, unknown, 0.0, "none", n, None, None, unknown, reason)


def entry(result: StudyResult, finalist: Finalist | None, verdict: Verdict | None, test: Mapping[str, float]) -> Entry:
    """Write a study's line of the leaderboard."""
    score = finalist.trial.outcome.score if finalist else None
    return Entry(
        result.strategy,
        result.source,
        "complete" if finalist else "no_complete_trial",
        len(result.trials),
        result.count("complete"),
        result.count("pruned"),
        result.count("failed"),
        result.seconds,
        finalist.trial.params if finalist else {},
        score.value if score else None,
        finalist.guard if finalist else None,
        test.get(result.id),
        verdict,
        result.given_up,
        result.warm_start,
        finalist.calibration if finalist else None,
    )
