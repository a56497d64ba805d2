"""A run's record as MLflow shows it: parameters, metrics, tags and a page of Markdown. Pure: no library, no file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autoxfer.records import SPLITS, StudyResult, Verdict
from autoxfer.report import Entry, Look, RunRecord

LOOK = {  # a look's field -> the tag that carries it
    "time": "autoxfer.looked_at",
    "data": "autoxfer.data_fingerprint",
    "guard": "autoxfer.guard_fingerprint",
    "config": "autoxfer.config_hash",
    "run_id": "autoxfer.run_id",
}
TESTED, REFIT = "tested", "refit"  # which of a run's weights


def winner_entry(record: RunRecord) -> Entry:
    """Find the winner's line of the leaderboard."""
    winner = record.winner
    return next(e for e in record.entries if (e.strategy, e.source) == (winner.strategy, winner.source))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested settings into dotted names and text; a list of mappings counts its items, any other is one value."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            items = (item if isinstance(item, Mapping) else {"": item} for item in value)
            for number, item in enumerate(items):
                flat.update({key.rstrip("."): text for key, text in flatten(item, f"{name}.{number}.").items()})
        elif value is not None:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep what can be drawn: a metric without a value is left out."""
    numbers = {key: float(value) for key, value in values.items() if value is not None}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def verdict_metrics(verdict: Verdict | None) -> dict[str, Any]:
    """Name the verdict's numbers."""
    if verdict is None:
        return {}
    names = ("effect", "ci_low", "ci_high", "p_value", "level", "detectable", "fixed", "broken")
    return {name: getattr(verdict, name) for name in names}


def entry_metrics(entry: Entry) -> dict[str, float]:
    """Name a study's numbers; scores carry the split's name, so that parent and children stand in one column."""
    counts = {name: getattr(entry, name) for name in ("n_trials", "n_complete", "n_pruned", "n_failed", "seconds")}
    scores = {split: getattr(entry, split) for split in SPLITS[1:]}
    honesty = {f"calibration/{name}": value for name, value in (entry.calibration or {}).items()}
    return finite({**scores, **verdict_metrics(entry.verdict), **counts, **honesty})


def run_metrics(record: RunRecord) -> dict[str, float]:
    """Name the run's numbers: the winner's scores and verdict, sizes, seconds by stage."""
    entry = winner_entry(record)
    scores = {split: getattr(record.winner, split) for split in SPLITS[1:]}
    sizes = record.task.get("sizes")
    return finite(
        {
            **scores,
            **verdict_metrics(entry.verdict),
            "n_trials": sum(e.n_trials for e in record.entries),
            **{f"examples/{split}": n for split, n in (sizes if isinstance(sizes, Mapping) else {}).items()},
            **{f"seconds/{stage}": seconds for stage, seconds in record.timings.items()},
        }
    )


def tags(record: RunRecord) -> dict[str, str]:
    """Name what one searches for: the run, the winner, the verdict, which look at the guard it was."""
    entry, winner, looks = winner_entry(record), record.winner, record.looks
    verdict = entry.verdict
    values = {
        "run_id": record.run_id,
        "task": record.task.get("name"),
        "metric": record.task.get("metric"),
        "data_fingerprint": record.task.get("data_fingerprint"),
        "winner": entry.study,
        "verdict": "baseline" if verdict is None else verdict.decision,
        "certified": "true" if winner.certified else "false",
        "look": None if looks is None else looks.number,
        "weights": TESTED,
    }
    taken = {} if looks is None else {tag: getattr(looks.own, name) for name, tag in LOOK.items()}
    return taken | {f"autoxfer.{key}": str(value) for key, value in values.items() if value is not None}


def look(tags: Mapping[str, str]) -> Look | None:
    """Read a run's look at the guard from its tags; None where it did not count any."""
    if any(tag not in tags for name, tag in LOOK.items() if name != "guard"):
        return None
    return Look(**{name: tags.get(tag, "") for name, tag in LOOK.items()})


def as_refit(tags: Mapping[str, str]) -> dict[str, str]:
    """Turn the tested winner's tags into the refit's: what was measured on the tested weights is not said of it."""
    measured = [f"autoxfer.{name}" for name in (*SPLITS[1:], "effect", "p_value", "verdict")]
    kept = {key: value for key, value in tags.items() if key not in measured}
    return {**kept, "autoxfer.weights": REFIT, "autoxfer.certified": "false"}


def version_tags(record: RunRecord) -> dict[str, str]:
    """Name what one reads before promoting a version; few enough for the registry's list, the rest is in its text."""
    verdict = winner_entry(record).verdict
    numbers = {split: getattr(record.winner, split) for split in SPLITS[1:]}
    if verdict is not None:
        numbers |= {"effect": verdict.effect, "p_value": verdict.p_value}
    shown = {f"autoxfer.{key}": f"{value:.6g}" for key, value in finite(numbers).items()}
    left_out = {"autoxfer.task", *LOOK.values()} - {LOOK["run_id"]}
    kept = {key: value for key, value in tags(record).items() if key not in left_out}
    return kept | shown


def verdict_text(record: RunRecord) -> str:
    """Say in Markdown what won and why, for someone who decides whether to deploy it."""
    entry, winner = winner_entry(record), record.winner
    verdict = entry.verdict
    # No bold: the registry's list of versions shows this line as it is written.
    if verdict is None:
        lines = [f"{entry.study} wins: no transfer was accepted, so the model trained from scratch is kept."]
    else:
        state = f"{entry.study} wins ({verdict.decision})"
        if not winner.certified:
            short = "wins, exploratory" if verdict.accepted else "is only the best on tune"
            if verdict.accepted and verdict.claim == "procedure":
                short = f"wins, but {verdict.caveat}"
            state = f"NOT CERTIFIED: {entry.study} {short} ({verdict.decision})"
        lines = [
            f"{state}. {verdict.reason[:1].upper()}{verdict.reason[1:]}.",
            f"Gain over scratch {verdict.effect:+.4g} (interval {verdict.ci_low:+.4g} to {verdict.ci_high:+.4g}), "
            f"{verdict.method}, {verdict.n} guard examples.",
        ]
    scores = [f"{split} {getattr(winner, split):.4g}" for split in SPLITS[1:] if getattr(winner, split) is not None]
    if record.looks is not None and record.looks.note:
        lines.append(f"{record.looks.note[:1].upper()}{record.looks.note[1:]}.")
    return "\n\n".join([*lines, f"{record.task.get('metric', 'score')}: {', '.join(scores)}."])


def refit_text(record: RunRecord, tested: str) -> str:
    """Say in Markdown what the refit is, and that no test has seen it; ``tested`` names the weights that one has."""
    test = record.refit and record.refit.test
    measured = "" if test is None else f" {record.task.get('metric', 'score')}: test {test:.4g}."
    return (
        f"NOT CERTIFIED: refit of {winner_entry(record).study} on train, tune and guard together.{measured}\n\n"
        f"What the guard says holds for {tested} only: it has not seen these weights."
    )


def page(record: RunRecord) -> str:
    """Write the run's page: the verdict and the leaderboard."""
    verdict, *rest = verdict_text(record).split("\n\n")
    # Second, since MLflow shows three paragraphs and folds the others away.
    refit = [refit_text(record, "the tested weights")] if record.refit else []
    return "\n\n".join([verdict, *refit, *rest, leaderboard(record)])


def leaderboard(record: RunRecord) -> str:
    """Draw the leaderboard as a Markdown table, best tune score first."""
    sign = 1 if record.task.get("direction") == "minimize" else -1
    entries = sorted(record.entries, key=lambda e: (e.tune is None, sign * (e.tune or 0.0)))
    head = ("", *SPLITS[1:], "verdict", "gain", "p", "trials", "seconds")
    return "\n".join(_row(cells) for cells in (head, ["---"] * len(head), *map(_cells, entries)))


def _cells(entry: Entry) -> Iterable[str]:
    verdict = entry.verdict
    if verdict is None:
        judged = ("baseline", "", "")
    else:
        word = f"{verdict.decision}{' (exploratory)' * verdict.exploratory}"
        judged = (word, _number(verdict.effect, "+.4g"), _number(verdict.p_value, ".3g"))
    scores = (_number(getattr(entry, split), ".4g") for split in SPLITS[1:])
    return (entry.study, *scores, *judged, str(entry.n_trials), f"{entry.seconds:.0f}")


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else format(value, form)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def trial_table(studies: Sequence[StudyResult]) -> dict[str, list[Any]]:
    """Lay out every trial as a row: ``columns`` and ``data``, as MLflow's tables are."""
    names = list(dict.fromkeys(name for study in studies for trial in study.trials for name in trial.params))
    columns = ["study", "trial", "state", "tune", "loss", "seconds", "steps", "n_trained", "reason", *names]
    data = []
    for study in studies:
        for trial in study.trials:
            outcome = trial.outcome
            score = (None, None) if outcome.score is None else (outcome.score.value, outcome.score.loss)
            facts = (outcome.seconds, outcome.steps, outcome.n_trained, outcome.reason)
            params = (trial.params.get(name) for name in names)
            data.append([study.id, trial.number, outcome.state, *score, *facts, *params])
    return {"columns": columns, "data": data}
