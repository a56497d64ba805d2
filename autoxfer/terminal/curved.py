"""A curve over target sizes in words, as a table and as a plot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoxfer.errors import AutoxferError, InputError
from autoxfer.events import Event, StageStarted, StudyStarted, Warned
from autoxfer.explaining.figure import GAIN, LOOKS, gain_units
from autoxfer.metrics import Metric, get_metric
from autoxfer.runfolder import write_whole
from autoxfer.studies import BASELINE
from autoxfer.terminal import aligned

if TYPE_CHECKING:
    from autoxfer.curve import Curve, Point
    from autoxfer.report import Entry

EXPLORATORY = "These data have been looked at before: all verdicts are exploratory."
MARK = {"accepted": "+", "harmful": "!", "undecided": "", "untested": "?"}


class Teller:
    """Says on stderr how far a curve is (events.Observer)."""

    def notify(self, event: Event) -> None:
        """Name each size, and each study as it begins."""
        if isinstance(event, StageStarted) and event.name.endswith("examples"):
            print(event.name, file=sys.stderr, flush=True)
        elif isinstance(event, StudyStarted):
            print(f"  {event.study}", file=sys.stderr, flush=True)
        elif isinstance(event, Warned):
            print(f"  warning: {event.text}", file=sys.stderr, flush=True)


def numbers(text: str) -> list[int]:
    """Read the sizes. Raises InputError for what is no whole number."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError("whole numbers with commas between, such as 50,100,200", repr(text), "--sizes") from None


def lines(curve: Curve) -> list[str]:
    """Say what each size showed, and where transfer stops helping."""
    task = curve.points[0].record.task
    studies = [entry.study for entry in curve.points[-1].record.entries]
    head = ("examples", *studies, "winner")
    rows = [_row(point, studies) for point in curve.points]
    told = [
        f"{task['metric']} on the same {task['sizes']['guard']:,} guard examples; + accepted, ! harmful, ? not tested",
        aligned([head, *rows]),
        "",
    ]
    again = [EXPLORATORY] if _exploratory(curve) else []
    return [*told, *_words(curve), *again, f"curve: {curve.folder / 'curve.json'}"]


def _exploratory(curve: Curve) -> bool:
    verdicts = [entry.verdict for point in curve.points for entry in point.record.entries]
    return any(verdict is not None and verdict.exploratory for verdict in verdicts)


def _row(point: Point, studies: Sequence[str]) -> tuple[str, ...]:
    entries = {entry.study: entry for entry in point.record.entries}
    winner = point.record.winner
    name = winner.strategy if winner.source is None else f"{winner.strategy}@{winner.source}"
    return (f"{point.size:,}", *(_cell(entries.get(study)) for study in studies), name)


def _cell(entry: Entry | None) -> str:
    if entry is None or entry.guard is None:
        return "-"
    mark = "" if entry.verdict is None else MARK[entry.verdict.decision]
    return f"{entry.guard:.3f}{mark}"


def _words(curve: Curve) -> list[str]:
    """Name the sizes at which transfer helps, and those from which nothing shows that it does."""
    helped = [point.size for point in curve.points if point.accepted]
    lines = []
    if not helped:
        lines.append("At no size is a transfer shown to beat training from scratch.")
    else:
        sizes = ", ".join(f"{size:,}" for size in helped)
        lines.append(f"A transfer is shown to beat training from scratch with {sizes} examples.")
        if after := [point.size for point in curve.points if point.size > helped[-1]]:
            lines.append(f"From {after[0]:,} examples on none is.")
        else:
            lines.append("Where that ends lies beyond the largest size.")
    harmful = {study: point.size for point in curve.points for study in point.harmful}
    lines += [f"{study} hurts, up to {size:,} examples." for study, size in harmful.items()]
    return lines


def draw(curve: Curve, path: Path) -> None:
    """Draw scores and gains over the sizes. Raises AutoxferError where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise AutoxferError(f"a plot needs matplotlib (pip install matplotlib): {error}") from error
    figure = Figure(figsize=(11.5, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    task = curve.points[0].record.task
    _scores(left, curve, str(task["metric"]))
    _gains(right, curve, get_metric(str(task["metric"]), task["kind"]))
    again = " (exploratory: looked at before)" if _exploratory(curve) else ""
    figure.suptitle(f"{task.get('name', 'task')}: where does transfer stop helping?{again}", fontsize=11)
    write_whole(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:].lower(), metadata=None))


def _scores(axes: Any, curve: Curve, metric: str) -> None:
    colours = (f"C{k}" for k in range(100))
    for study in (entry.study for entry in curve.points[-1].record.entries):
        at = [(p.size, e.guard) for p in curve.points for e in p.record.entries if e.study == study]
        sizes = [size for size, score in at if score is not None]
        scores = [score for _, score in at if score is not None]
        is_scratch = study == BASELINE
        style = {"color": "black", "linewidth": 2.2} if is_scratch else {"linewidth": 1.3, "color": next(colours)}
        axes.plot(sizes, scores, marker=".", label=study, **style)
    _sized(axes, curve)
    axes.set_ylabel(f"{metric} on guard")
    axes.legend(fontsize=7)


def _gains(axes: Any, curve: Curve, metric: Metric) -> None:
    """Draw each transfer's gain with its interval, in its colour of the other side, shaped by its verdict."""
    factor, units = gain_units(metric)
    axes.axhline(0, color="black", linewidth=1)
    transfers = [entry.study for entry in curve.points[-1].record.entries if entry.verdict is not None]
    shown: set[str] = set()
    for point in curve.points:
        for entry in point.record.entries:
            verdict = entry.verdict
            if verdict is None or verdict.decision == "untested" or entry.study not in transfers:
                continue
            shift = 1.0 + 0.03 * (transfers.index(entry.study) - (len(transfers) - 1) / 2)
            colour, marker = f"C{transfers.index(entry.study)}", LOOKS[verdict.decision][1]
            low, high = verdict.effect - verdict.ci_low, verdict.ci_high - verdict.effect
            shown.add(verdict.decision)
            axes.errorbar(
                point.size * shift,
                factor * verdict.effect,
                [[factor * low], [factor * high]],
                color=colour,
                marker=marker,
                ms=5,
                lw=1,
            )
    _sized(axes, curve)
    axes.set_ylabel(f"{GAIN} ({units})")
    for decision in sorted(shown):
        axes.plot([], [], color="grey", marker=LOOKS[decision][1], linestyle="", label=decision)
    axes.legend(fontsize=7)


def _sized(axes: Any, curve: Curve) -> None:
    sizes = [point.size for point in curve.points]
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("examples that are learned from (train and tune)")
