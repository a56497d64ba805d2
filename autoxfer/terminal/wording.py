"""One study's story in words: how it tuned, what the guard saw of it, how its trials went."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoxfer.records import StudyResult, Verdict
from autoxfer.report import Entry, RunRecord
from autoxfer.terminal.leaderboard import scratchs_loss
from autoxfer.terminal.progress import number

if TYPE_CHECKING:
    from autoxfer.explaining import Explanation

MOST = 4  # parameters that are named


def study_words(explanation: Explanation, entry: Entry) -> str:
    """Tell one study's story to a practitioner."""
    record = explanation.record
    parts = [_tuned(entry, explanation.baseline, record.task)]
    if entry.verdict is not None:
        parts.append(_judged(entry.verdict, record))
    parts += [
        _trials(entry, explanation.studies.get(entry.study)),
        f"It had no further trials: {entry.given_up}." if entry.given_up else "",
        _warm_start(entry),
        _honesty(entry),
        _params(entry, explanation.studies.get(entry.study)),
    ]
    if found := explanation.diagnoses.get(entry.study):
        parts.append(f"Learning curve: {found.kind}: {found.reason}.")
    return " ".join(part for part in parts if part)


def competed(verdict: Verdict | None) -> bool | None:
    """Whether a finalist was tested for acceptance; None where there was nothing to test."""
    return None if verdict is None or verdict.decision == "untested" else verdict.level > 0


def main_failure(study: StudyResult | None) -> str:
    """Name the reason for which most trials failed; empty where none did, or no reason is known."""
    reasons = (
        [t.outcome.reason for t in study.trials if t.outcome.state == "failed" and t.outcome.reason] if study else []
    )
    return Counter(reasons).most_common(1)[0][0] if reasons else ""


def _tuned(entry: Entry, baseline: Entry | None, task: Mapping[str, Any]) -> str:
    metric = task.get("metric", "score")
    if entry.tune is None:
        return "No trial was completed, so there is nothing to compare."
    if entry.verdict is None:
        return f"The opponent of all the others: {metric} {number(entry.tune)} on tune, {number(entry.guard)} on guard."
    against = "" if baseline is None or baseline.tune is None else f" against scratch's {number(baseline.tune)}"
    text = f"On tune its {metric} is {number(entry.tune)}{against}"
    if entry.verdict.decision == "untested":
        return f"{text}."
    if entry.verdict.claim == "procedure":
        return f"{text}; over folds every study competes."
    if entry.verdict.level > 0:
        return f"{text}, so it competed."
    return (
        f"{text}: more than a standard error below, so it did not compete for acceptance, "
        "and the guard was asked for harm alone."
    )


def _judged(verdict: Verdict, record: RunRecord) -> str:
    if verdict.decision == "untested" or not math.isfinite(verdict.effect):
        return sentence(verdict.reason.removeprefix("untested: ").removeprefix("undecided: "))
    text = sentence(seen(verdict, record))
    if verdict.decision == "accepted":
        text += f" That is enough: {_p(verdict.p_value)} at its level {verdict.level:.2g} ({verdict.method})."
    elif verdict.decision == "harmful":
        text += f" The reverse test rejects ({verdict.method}): it is worse than scratch, beyond chance."
    elif verdict.level > 0:
        text += f" That is not enough: {_p(verdict.p_value)} at its level {verdict.level:.2g} ({verdict.method})."
        prospect = verdict.reason.partition("undecided; ")[2]
        text += f" {sentence(prospect)}" if prospect else ""
    else:
        text += " No harm is shown either."
    text += " The test is approximate." if verdict.approximate else ""
    text += " Exploratory: these data were looked at before." if verdict.exploratory else ""
    return text


def seen(verdict: Verdict, record: RunRecord) -> str:
    """Say what the guard saw, without a judgement."""
    whole = scratchs_loss(record)
    ends = f"{amount(verdict.ci_low, whole, unit=False)} and {amount(verdict.ci_high, whole)}"
    interval = f"(interval of the gain: between {ends})"
    size = amount(abs(verdict.effect), whole, sign="")
    if verdict.fixed is None:
        better = verdict.effect >= 0
        what, word = ("loss", "lower" if better else "higher") if whole else _of_whole(record, better=better)
        return f"its {what} on {verdict.n:,} guard examples is {size} {word} than scratch's {interval}"
    word = "better" if verdict.effect > 0 else "worse" if verdict.effect < 0 else "better or worse"
    seen = f"of {verdict.n:,} guard examples it got {verdict.fixed} right that scratch gets wrong"
    return f"{seen} and {verdict.broken} wrong that scratch gets right, {size} {word} {interval}"


def _of_whole(record: RunRecord, *, better: bool) -> tuple[str, str]:
    return str(record.task.get("metric", "score")), "higher" if better else "lower"


def amount(value: float, whole: float | None, sign: str = "+", *, unit: bool = True) -> str:
    """Write a gain: in percent of ``whole``, scratch's mean loss, or where there is none in points."""
    if not math.isfinite(value):
        return f"{'minus ' if value < 0 else ''}infinity" if math.isinf(value) else "unknown"
    share = 100 * value / (whole or 1.0) + 0.0
    return f"{share:{sign}.1f}{('%' if whole else ' points') if unit else ''}"


def _trials(entry: Entry, study: StudyResult | None) -> str:
    lost = [(entry.n_pruned, "stopped early"), (entry.n_failed, "failed")]
    told = ", ".join(f"{count} {word}" for count, word in lost if count)
    if not told:
        return f"All {entry.n_trials} trials were completed." if entry.n_trials > 1 else ""
    reason = main_failure(study)
    return f"Of {entry.n_trials} trials {told}{f' (mostly: {reason})' if entry.n_failed and reason else ''}."


def _honesty(entry: Entry) -> str:
    told = entry.calibration
    if not told:
        return ""
    sure, right = "the probability of its answers", "the share of them that is right"
    change = (
        ""
        if told["temperature"] == 1.0
        else (f", {_points(told['error_before'])} before its logits were divided by {told['temperature']:.2g}")
    )
    return f"On guard {sure} and {right} lie {_points(told['error'])} apart on average{change}."


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _warm_start(entry: Entry) -> str:
    warm = entry.warm_start
    if not warm:
        return ""
    dropped = f", and {warm['dropped']} were left out: what did well there does not do so here" * bool(warm["dropped"])
    return f"It tried {warm['used']} trials of an earlier run{dropped}."


def _params(entry: Entry, study: StudyResult | None) -> str:
    """Name the best trial's parameters that differ from the defaults, which were tried first."""
    if not study or not study.best or not study.trials:
        return ""
    first = next((trial.params for trial in study.trials if trial.number == 0), {})
    best = study.best.params
    moved = [name for name, value in best.items() if name in first and _value(first[name]) != _value(value)]
    if not moved:
        return "The defaults were best."
    shown = [f"{name} {_value(best[name])} (default {_value(first[name])})" for name in moved[:MOST]]
    more = f" and {len(moved) - MOST} more" if len(moved) > MOST else ""
    return f"Best with {', '.join(shown)}{more}."


def _value(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"


def sentence(text: str) -> str:
    """Begin with a capital, end with a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
