"""A run explained in words: what won and why, each strategy beside scratch, what the sources' diagnostics said."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autoxfer.report import Entry
from autoxfer.terminal import aligned
from autoxfer.terminal.diagnostics import source_words
from autoxfer.terminal.leaderboard import ranked
from autoxfer.terminal.progress import number
from autoxfer.terminal.wording import competed, main_failure, seen, sentence, study_words

if TYPE_CHECKING:
    from autoxfer.explaining import Explanation

WORDS = {
    "accepted": "accepted",
    "harmful": "harmful: negative transfer",
    "undecided": "undecided, so not accepted",
    "untested": "untested, so not accepted",
}


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
        return f"{winner.study} won, NOT CERTIFIED: {why}. {sentence(seen(winner.verdict, record))}"
    if not winner.verdict.accepted:
        why = "no transfer was accepted, and it is shipped because it tuned best (guard.when_undecided: best_tune)"
        return f"{winner.study} won, NOT CERTIFIED: {why}. {sentence(seen(winner.verdict, record))}"
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
    first = f"{winner.study} won: {seen(winner.verdict, record)}."
    return f"{first} {len(accepted)} of {len(judged)} transfers {_were(len(accepted))} accepted, and it {why}."


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


def _better(one: Entry, other: Entry, task: Mapping[str, Any]) -> bool:
    if one.tune is None or other.tune is None:
        return other.tune is None
    return one.tune < other.tune if task.get("direction") == "minimize" else one.tune > other.tune


def _n_guard(task: Mapping[str, Any]) -> str:
    return f"{task.get('sizes', {}).get('guard', 0):,}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
