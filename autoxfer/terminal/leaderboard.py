"""The end of a run for people: what was tried, what the guard says of it, what won and how to use it."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoxfer.metering import as_text
from autoxfer.report import Entry, RunRecord
from autoxfer.terminal import aligned
from autoxfer.terminal.progress import number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SQUARED = ("rmse", "r2")  # metrics of squared errors: the guard tests these, so that a gain is in percent of their mean
WIDE = 100  # columns from which the gain's interval has room
STYLES = {"accepted": "green", "harmful": "red", "undecided": "yellow", "untested": "dim", "baseline": "cyan"}


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard, as text."""

    winner: bool
    verdict: str
    cells: tuple[str, ...]  # in the order of `headings`


def ranked(record: RunRecord) -> list[Entry]:
    """Order the entries: the winner, then by the guard's score, then by tune."""
    sign = -1.0 if record.task.get("direction") == "minimize" else 1.0

    def key(entry: Entry) -> tuple[bool, float, float]:
        guard, tune = (-float("inf") if value is None else sign * value for value in (entry.guard, entry.tune))
        return _is_winner(record, entry), guard, tune

    return sorted(record.entries, key=key, reverse=True)


def table(record: RunRecord, *, interval: bool) -> tuple[tuple[str, ...], list[Row]]:
    """Lay the leaderboard out as headings and rows of text."""
    test = any(entry.test is not None for entry in record.entries)
    squared = record.task.get("metric") in SQUARED and not record.task.get("targets")
    gained = "gain (mse)" if squared else "gain"
    headings = ("", "strategy", "source", "tune", "guard", *(["test"] if test else []), gained)
    exploratory = any(entry.verdict is not None and entry.verdict.exploratory for entry in record.entries)
    headings = (*headings, *(["interval"] if interval else []), "exploratory verdict" if exploratory else "verdict")
    rows, whole = [], scratchs_loss(record)
    for entry in ranked(record):
        verdict = entry.verdict
        scores = [entry.tune, entry.guard, *([entry.test] if test else [])]
        gains = (verdict.effect, verdict.ci_low, verdict.ci_high) if verdict else (None, None, None)
        gain, *ends = [_gain(each, whole) for each in gains]
        spread = "" if "-" in ends else f"[{ends[0]}, {ends[1]}]"
        word = verdict.decision if verdict else "baseline"
        wins = _is_winner(record, entry)
        cells = ("*" if wins else "", entry.strategy, entry.source or "", *map(number, scores), gain)
        rows.append(Row(wins, word, (*cells, *([spread] if interval else []), word)))
    return headings, rows


def scratchs_loss(record: RunRecord) -> float | None:
    """Find scratch's mean loss on guard where a gain is told as a share of it; None where it is told in points."""
    # Imported here, since it loads torch, which a mistyped command need not wait for.
    from autoxfer.metrics import METRICS, MULTILABEL  # noqa: PLC0415

    table = MULTILABEL if record.task.get("kind") == "multilabel" else METRICS
    metric = table.get(str(record.task.get("metric")))
    guards = (entry.guard for entry in record.entries if entry.verdict is None)  # scratch has none
    baseline = next((value for value in guards if value is not None), None)
    if metric is None or metric.kind != "real" or baseline is None:
        return None
    if metric.bounded:
        return 1 - baseline if metric.greater_is_better else baseline
    if metric.name == "rmse":
        return baseline if record.task.get("targets") else baseline**2
    if metric.name != "r2":
        return baseline
    for entry in record.entries:  # one minus R2 is the loss, in units that a gain in losses tells
        if entry.verdict is not None and entry.guard is not None and entry.guard != baseline:
            return entry.verdict.effect * (1 - baseline) / (entry.guard - baseline)
    return None


def _gain(gain: float | None, whole: float | None) -> str:
    """Show a gain, or an end of its interval: in percent of scratch's loss, or in the metric's own units."""
    shown = number(gain, "+")
    if gain is None or not whole or shown == "-":
        return shown
    share = 100 * gain / whole
    return f"{share:+.1f}%" if abs(share) < 99.95 else f"{share:+.0f}%"


def leaderboard(record: RunRecord, width: int = 80) -> Table:
    """Draw the leaderboard for a terminal of ``width`` columns."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    headings, rows = table(record, interval=width >= WIDE)
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in headings:
        words = name in ("", "strategy", "source") or name.endswith("verdict")
        # A long source's name gives way, on two lines: every number and verdict has to be read.
        drawn.add_column(name, justify="left" if words else "right", no_wrap=name != "source", overflow="fold")
    for row in rows:
        styled = [Text(cell) for cell in row.cells]
        styled[-1].stylize(STYLES.get(row.verdict, ""))
        drawn.add_row(*styled, style="bold" if row.winner else "")
    return drawn


def text(record: RunRecord) -> str:
    """Write the leaderboard as aligned plain text, nothing cut off."""
    headings, rows = table(record, interval=True)
    return aligned([headings, *(row.cells for row in rows)])


def calibrated(entry: Entry) -> str:
    """Say how far a study's probabilities can be believed."""
    told = entry.calibration or {}
    before = "as trained" if told["temperature"] == 1.0 else f"{told['error_before']:.3f} before calibration"
    return f"its probabilities: expected calibration error {told['error']:.3f} on guard ({before})"


def sentences(record: RunRecord) -> list[str]:
    """Say in words what the guard says of each study, and what won."""
    lines = [f"{entry.study}: {entry.verdict.reason}" for entry in ranked(record) if entry.verdict]
    winner, metric = record.winner, record.task.get("metric", "score")
    study = winner.strategy if winner.source is None else f"{winner.strategy}@{winner.source}"
    scores = [
        f"{number(value)} on {name}"
        for name, value in (("guard", winner.guard), ("test", winner.test))
        if value is not None
    ]
    verdict = next((entry.verdict for entry in record.entries if _is_winner(record, entry)), None)
    certified = "" if winner.certified else ", NOT CERTIFIED"
    if verdict is not None and verdict.accepted and verdict.claim == "procedure":
        certified += f" ({verdict.caveat})"
    if record.looks is not None and record.looks.note:
        certified += f", look {record.looks.number} at these data"
    lines.append(f"winner: {study}{certified}, {metric} {', '.join(scores) or 'unknown'}")
    lines += [calibrated(entry) for entry in record.entries if _is_winner(record, entry) and entry.calibration]
    if record.refit is not None:
        measured = "" if record.refit.test is None else f", {metric} {number(record.refit.test)} on test"
        lines.insert(
            -1, f"refit of {study}, NOT CERTIFIED{measured}: the guard has tested the winner's weights, not these"
        )
    return lines


def usage(record: RunRecord, folder: Path) -> list[str]:
    """Say where everything lies and how to use the winner."""
    runs = "" if str(folder.parent) == "runs" else f" --runs {shlex.quote(str(folder.parent))}"
    lines = [f"files:   {folder}", f"predict: autoxfer predict {record.run_id} FILE{runs}"]
    lines.append(f"explain: autoxfer explain {record.run_id}{runs}")
    logged = record.mlflow
    if logged.name:
        address = f"MLFLOW_TRACKING_URI={shlex.quote(logged.tracking_uri)}"
        model = f"models:/{logged.name}/{logged.version}"
        lines.append(f"MLflow:  {logged.name} version {logged.version}, run {logged.run_id}")
        if logged.refit_version:
            lines.append(
                f"refit:   {logged.name} version {logged.refit_version}, NOT CERTIFIED, never champion by itself"
            )
        lines.append(f"serve:   {address} mlflow models serve -m {shlex.quote(model)} --env-manager local")
    elif logged.run_id:
        lines.append(f"MLflow:  run {logged.run_id} at {logged.tracking_uri}")
    return lines


def cost(record: RunRecord) -> list[str]:
    """Say how far what was expected was off."""
    forecast = record.forecast
    if forecast is None or forecast.used is None:
        return []
    return [f"expected {as_text(forecast.expected)}, took {as_text(forecast.used)}"]


def show(record: RunRecord, folder: Path, warnings: Sequence[str], console: Console) -> None:
    """Print the leaderboard, the sentences, the commands and the warnings."""
    if console.is_terminal:
        console.print()
        console.print(leaderboard(record, console.width))
        width = max(console.width, 40)
    else:
        console.print(text(record), soft_wrap=True, markup=False, highlight=False)
        width = 10_000

    def say(lines: Sequence[str], style: str = "") -> None:
        for line in lines:
            wrapped = textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            console.print(wrapped, style=style, soft_wrap=True, markup=False, highlight=False)

    *verdicts, winner = sentences(record)
    console.print()
    say(verdicts)
    say([winner], "bold")
    console.print()
    say(cost(record))
    for line in usage(record, folder):  # commands are copied: never broken
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if warnings:
        console.print()
        say([f"warning: {warning}" for warning in warnings], "yellow")


def _is_winner(record: RunRecord, entry: Entry) -> bool:
    return (entry.strategy, entry.source) == (record.winner.strategy, record.winner.source)
