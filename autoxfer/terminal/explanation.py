"""A run explained in words: what won and why, each strategy beside scratch, what the sources' diagnostics said."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autoxfer.records import Entry, RunRecord, StudyResult, Verdict
from autoxfer.terminal import aligned
from autoxfer.terminal.diagnostics import source_words
from autoxfer.terminal.leaderboard import ranked, scratchs_loss
from autoxfer.terminal.progress import number

if TYPE_CHECKING:
    from autoxfer.explaining import Explanation

WORDS = {
    "accepted": "accepted",
    "harmful": "harmful: negative transfer",
    "undecided": "undecided, so not accepted",
    "untested": "untested, so not accepted",
}
MOST = 4  # parameters that are named


def as_object(explanation: Explanation) -> dict[str, Any]:
    """Give all of it as plain data, the words included."""
    record, diagnoses = explanation.record, explanation.diagnoses
    entries = {entry.study: line for entry, line in zip(record.entries, record.as_dict()["entries"], strict=True)}
    studies = []
    for entry in ranked(record):
        curve = explanation.curves.get(entry.study)
        found = diagnoses.get(entry.study)
        studies.append(
            {
                "study": entry.study,
                **entries[entry.study],
                "competed": competed(entry.verdict),
                "main_failure": main_failure(explanation.studies.get(entry.study)),
                "curve": None if curve is None else curve.as_dict() | (found.as_dict() if found else {}),
                "text": study_words(explanation, entry),
            }
        )
    return {
        "run_id": record.run_id,
        "task": dict(record.task),
        "winner": record.as_dict()["winner"],
        "text": headline(explanation),
        "studies": studies,
        "sources": explanation.diagnostics.get("sources", {}),
        "order": explanation.diagnostics.get("order", []),
        "notes": list(explanation.notes),
    }


def lines(explanation: Explanation, width: int = 100) -> Iterator[str]:
    """Write the explanation as text of ``width`` columns."""

    def paragraph(text: str, indent: str = "") -> str:
        return textwrap.fill(
            text,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    yield paragraph(headline(explanation))
    for entry in ranked(explanation.record):
        word = "the baseline" if entry.verdict is None else WORDS[entry.verdict.decision]
        yield f"\n{entry.study}: {word}"
        yield paragraph(study_words(explanation, entry), "  ")
    sources = explanation.diagnostics.get("sources", {})
    for name, facts in sources.items():
        yield f"\nsource {name}"
        yield paragraph(source_words(facts, explanation.record.task), "  ")
    if sources:
        yield "\n" + paragraph("Diagnostics order the search; they never accept or reject anything.")
    if order := explanation.diagnostics.get("order"):
        yield paragraph(f"Searched in this order: {', '.join(order)}.")
    if explanation.diagnoses:
        yield f"\n{curve_table(explanation)}\n{paragraph(_measured(explanation))}"
    for note in explanation.notes:
        yield paragraph(f"note: {note}")


def headline(explanation: Explanation) -> str:
    """Say in two sentences what won and why."""
    record = explanation.record
    judged = [entry for entry in record.entries if entry.verdict is not None]
    winner = next(e for e in record.entries if (e.strategy, e.source) == (record.winner.strategy, record.winner.source))
    accepted = [e for e in judged if e.verdict and e.verdict.accepted]
    counts = Counter(entry.verdict.decision for entry in judged if entry.verdict)
    if winner.verdict is None:
        told = ", ".join(f"{counts[word]} {word}" for word in ("harmful", "undecided", "untested") if counts[word])
        many = f"none of the {len(judged)} transfers" if len(judged) > 1 else "the one transfer was not"
        was = "was shown to be better" if len(judged) > 1 else "shown to be better"
        against = f"{many} {was} on the {_n_guard(record.task)} guard examples ({told})"
        untested = next((e.verdict.reason for e in judged if e.verdict and e.verdict.decision == "untested"), "")
        why = f" Untested: {untested.removeprefix('untested: ').removeprefix('undecided: ')}." if untested else ""
        looked = any(entry.verdict and entry.verdict.exploratory for entry in judged)
        again = " These data have been looked at before, so that all verdicts are exploratory." if looked else ""
        kept = "The model trained from scratch is kept, and nothing was taken over."
        return f"{winner.study} won: {against}. {kept}{why}{again}"
    if winner.verdict.accepted and not record.winner.certified:
        why = "it passed the test, but these data have been looked at before, so that the verdict is exploratory"
        if winner.verdict.claim == "procedure":
            why = f"it passed the test, but {winner.verdict.caveat}"
        return f"{winner.study} won, NOT CERTIFIED: {why}. {_sentence(_seen(winner.verdict, record))}"
    if not winner.verdict.accepted:
        why = "no transfer was accepted, and it is shipped because it tuned best (guard.when_undecided: best_tune)"
        return f"{winner.study} won, NOT CERTIFIED: {why}. {_sentence(_seen(winner.verdict, record))}"
    best = accepted[0]
    for entry in accepted:
        best = entry if _better(entry, best, record.task) else best
    if best is winner or winner.tune == best.tune:
        tied = [entry.study for entry in accepted if entry.tune == winner.tune and entry is not winner]
        why = "had the best tune score of those accepted" if len(accepted) > 1 else "is the only one accepted"
        if tied:
            why += f", as had {', '.join(tied)}, which have more parameters or a higher loss there"
    else:
        why = f"tuned within one standard error of the best of those accepted ({best.study}) with fewer parameters"
    first = f"{winner.study} won: {_seen(winner.verdict, record)}."
    return f"{first} {len(accepted)} of {len(judged)} transfers {_were(len(accepted))} accepted, and it {why}."


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


def curve_table(explanation: Explanation) -> str:
    """Lay the learning curves out: mean loss on train / on tune by the number of train examples."""
    sizes = sorted({size for curve in explanation.curves.values() for size in curve.sizes})
    rows = [("train / tune loss with", *(f"{size:,} examples" for size in sizes), "diagnosis")]
    for study, found in explanation.diagnoses.items():
        points = explanation.curves[study].points()
        cells = (" / ".join(map(number, points[size])) if size in points else "-" for size in sizes)
        rows.append((study, *cells, found.kind))
    return aligned(rows)


def _measured(explanation: Explanation) -> str:
    task = explanation.record.task
    loss = "mean squared error" if task.get("kind") == "regression" else "mean cross-entropy"
    loss += " of standardised targets" if task.get("targets") else ""
    guess = f"; a constant prediction has {number(explanation.chance_loss)}"
    tune = f"on the {task['sizes']['tune']:,} tune examples, which chose the recipes too"
    return f"({loss}{guess}; {tune}: a diagnosis, no test)"


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
        return _sentence(verdict.reason.removeprefix("untested: ").removeprefix("undecided: "))
    text = _sentence(_seen(verdict, record))
    if verdict.decision == "accepted":
        text += f" That is enough: {_p(verdict.p_value)} at its level {verdict.level:.2g} ({verdict.method})."
    elif verdict.decision == "harmful":
        text += f" The reverse test rejects ({verdict.method}): it is worse than scratch, beyond chance."
    elif verdict.level > 0:
        text += f" That is not enough: {_p(verdict.p_value)} at its level {verdict.level:.2g} ({verdict.method})."
        prospect = verdict.reason.partition("undecided; ")[2]
        text += f" {_sentence(prospect)}" if prospect else ""
    else:
        text += " No harm is shown either."
    text += " The test is approximate." if verdict.approximate else ""
    text += " Exploratory: these data were looked at before." if verdict.exploratory else ""
    return text


def _seen(verdict: Verdict, record: RunRecord) -> str:
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


def _better(one: Entry, other: Entry, task: Mapping[str, Any]) -> bool:
    if one.tune is None or other.tune is None:
        return other.tune is None
    return one.tune < other.tune if task.get("direction") == "minimize" else one.tune > other.tune


def _n_guard(task: Mapping[str, Any]) -> str:
    return f"{task.get('sizes', {}).get('guard', 0):,}"


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
