"""The plot of a run: on the left every transfer's gain with its interval, on the right how scores came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoxfer.errors import AutoxferError, InputError
from autoxfer.metrics import get_metric
from autoxfer.report import Entry
from autoxfer.runfolder import RunFolder, write_whole
from autoxfer.studies import BASELINE

if TYPE_CHECKING:
    from autoxfer.explaining import Explanation
    from autoxfer.metrics import Metric

SUFFIXES = (".png", ".svg", ".pdf")
GAIN = "gain over scratch on the guard split"  # on every axis that shows one
# Okabe and Ito's colours, which are told apart with any colour vision; shapes say it once more.
LOOKS = {
    "accepted": ("#009E73", "o"),
    "undecided": ("#E69F00", "s"),
    "harmful": ("#D55E00", "v"),
    "untested": ("#777777", "x"),
}
WINNER, OTHER = "#0072B2", "#BBBBBB"


def check(path: Path) -> None:
    """Make sure that a plot can be drawn there, before anything expensive. Raises InputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"a file that ends in {', '.join(SUFFIXES)}", repr(path.name), "--plot")
    if not path.absolute().parent.is_dir():
        raise InputError("a folder that exists", f"no {path.absolute().parent}", f"--plot {path}")


def draw(explanation: Explanation, path: Path) -> None:
    """Draw a run into a file by its suffix, whole. Raises AutoxferError where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise AutoxferError(f"a plot needs matplotlib (pip install matplotlib): {error}") from error
    n_rows = max(len(_rows(explanation)), 1)
    figure = Figure(figsize=(11.5, max(4.2, 1.9 + 0.34 * n_rows)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    record = explanation.record
    figure.suptitle(f"{record.task.get('name', 'task')}, run {record.run_id} (★ the winner)", fontsize=11)
    _forest(left, explanation)
    if any(len(curve.sizes) > 1 for curve in explanation.curves.values()):
        _curves(right, explanation)
    else:
        _searches(right, explanation)
    write_whole(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:].lower(), metadata=None))


def _rows(explanation: Explanation) -> list[Entry]:
    """Give the transfers from the greatest gain to the least; those without one last."""
    judged = [entry for entry in explanation.record.entries if entry.verdict is not None]
    return sorted(judged, key=lambda entry: -_finite(entry.verdict.effect if entry.verdict else math.nan, -math.inf))


def _finite(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise


def _forest(axes: Any, explanation: Explanation) -> None:
    """One row a transfer: its gain on the guard and the interval, coloured and shaped by the verdict."""
    rows = _rows(explanation)
    factor, label = _units(explanation)
    axes.axvline(0, color="black", linewidth=1)
    boundary = _boundary(explanation)
    if boundary:
        axes.axvline(-factor * boundary, color="black", linewidth=1, linestyle="--", label="minus the margin")
    shown: set[str] = set()
    ends = [v for e in rows if e.verdict for v in (e.verdict.ci_low, e.verdict.ci_high, e.verdict.effect)]
    reach = max((abs(end) for end in ends if math.isfinite(end)), default=1.0) or 1.0
    for row, entry in enumerate(rows):
        verdict = entry.verdict
        assert verdict is not None
        colour, marker = LOOKS[verdict.decision]
        name = None if verdict.decision in shown else verdict.decision
        if not math.isfinite(verdict.effect):
            axes.annotate("no trial to compare", (0, row), (6, 0), textcoords="offset points", va="center", fontsize=8)
            continue
        shown.add(verdict.decision)
        low, high = _finite(verdict.ci_low, -2 * reach), _finite(verdict.ci_high, 2 * reach)
        axes.plot([factor * low, factor * high], [row, row], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot(factor * verdict.effect, row, marker, color=colour, markersize=7, linestyle="none", label=name)
    axes.set_xlim(-1.12 * factor * _span(ends, -1), 1.12 * factor * _span(ends, 1))
    axes.set_yticks(range(len(rows)), [_name(explanation, entry) for entry in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{GAIN} ({label}),\nwith its interval; right of 0 = better than scratch")
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, fontsize=8, frameon=False)


def _span(ends: Sequence[float], side: int) -> float:
    """How far the axis reaches to one side of zero: all that is finite, and never nothing."""
    finite = [end for end in ends if math.isfinite(end)]
    reach = max((abs(end) for end in finite), default=1.0) or 1.0
    return max([side * end for end in finite] + [0.08 * reach])


def _units(explanation: Explanation) -> tuple[float, str]:
    """Give what turns a gain into the units of the axis, and their name."""
    factor, name = gain_units(_metric(explanation))
    whole = _scratchs_loss(explanation) if factor == 1.0 else 0.0
    return (100.0 / whole, "% of scratch's loss") if whole else (factor, name)


def gain_units(metric: Metric) -> tuple[float, str]:
    """Give what turns a gain into units that can be read beside other runs', and their name."""
    if metric.bounded and metric.kind != "real":
        return 100.0, f"points of {metric.name}"
    return 1.0, f"in the loss of {metric.name}"


def _metric(explanation: Explanation) -> Metric:
    task = explanation.record.task
    return get_metric(str(task["metric"]), task["kind"])


def _scratchs_loss(explanation: Explanation) -> float:
    """Give scratch's mean loss on the guard; 0 where it is not known any more."""
    import pandas as pd  # noqa: PLC0415

    try:
        losses = pd.read_parquet(RunFolder(explanation.folder).losses)
    except (OSError, ValueError):
        return 0.0
    mean = float(losses.loss[losses.finalist == BASELINE].mean())
    return mean if math.isfinite(mean) else 0.0


def _boundary(explanation: Explanation) -> float:
    """Give the margin in the units of the gains; 0 where it is none, or the losses are gone."""
    if not explanation.margin or _metric(explanation).bounded:
        return explanation.margin
    return explanation.margin * _scratchs_loss(explanation)


def _name(explanation: Explanation, entry: Entry) -> str:
    name = entry.study if len(entry.study) <= 34 else f"{entry.study[:33]}…"
    return f"★ {name}" if entry.study == _winner(explanation) else name


def _winner(explanation: Explanation) -> str:
    winner = explanation.record.winner
    return winner.strategy if winner.source is None else f"{winner.strategy}@{winner.source}"


def _rival(explanation: Explanation) -> str | None:
    """Name the winner, or where that is scratch the transfer that gained most."""
    if (winner := _winner(explanation)) != BASELINE:
        return winner
    rows = [entry.study for entry in _rows(explanation)]
    return rows[0] if rows else None


def _colour(study: str, rival: str | None) -> str:
    return "black" if study == BASELINE else WINNER if study == rival else OTHER


def _width(study: str, rival: str | None) -> float:
    """Choose a line's width: one of two equal lines is seen on either side of the other."""
    return 3.4 if study == BASELINE else 1.8 if study == rival else 1.0


def _curves(axes: Any, explanation: Explanation) -> None:
    """Learning curves: scratch and its best rival, on tune and, dotted, on train; the others in grey."""
    rival = _rival(explanation)
    for study, curve in sorted(explanation.curves.items(), key=lambda item: item[0] in (BASELINE, rival)):
        named, colour = study in (BASELINE, rival), _colour(study, rival)
        style = {"color": colour, "linewidth": _width(study, rival)}
        axes.plot(
            curve.sizes,
            curve.tune_loss,
            marker="o",
            markersize=4,
            label=f"{study}, on tune" if named else None,
            **style,
        )
        if named:
            axes.plot(curve.sizes, curve.train_loss, linestyle=":", marker=".", label=f"{study}, on train", **style)
    sizes = sorted({size for curve in explanation.curves.values() for size in curve.sizes})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("train examples")
    task = explanation.record.task
    loss = "mean squared error" if task["kind"] == "regression" else "mean cross-entropy (nats)"
    if task.get("targets"):
        loss = "mean squared error of standardised targets"
    axes.set_ylabel(loss)
    axes.set_ylim(bottom=0)
    axes.set_title("learning curves of the best recipes", fontsize=10)
    _finish(axes, others=len(explanation.curves) > 2)


def _searches(axes: Any, explanation: Explanation) -> None:
    """Best tune score so far by trial: scratch and its best rival, the others in grey."""
    rival = _rival(explanation)
    n_trials = 1
    for study, result in sorted(explanation.studies.items(), key=lambda item: item[0] in (BASELINE, rival)):
        best, reached = None, []
        for trial in result.trials:
            score = trial.outcome.score
            if trial.outcome.state == "complete" and score is not None and (best is None or score.beats(best)):
                best = score
            reached.append(math.nan if best is None else best.value)
        n_trials = max(n_trials, len(reached))
        named = study in (BASELINE, rival)
        axes.step(
            range(1, len(reached) + 1),
            reached,
            where="post",
            marker="o" if named else None,
            markersize=4,
            color=_colour(study, rival),
            linewidth=_width(study, rival),
            label=study if named else None,
        )
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials")
    axes.set_ylabel(f"best {explanation.record.task.get('metric', 'score')} on the tune split so far")
    axes.set_title("the searches", fontsize=10)
    _finish(axes, others=len(explanation.studies) > 2)


def _finish(axes: Any, *, others: bool) -> None:
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)
    if others:
        axes.plot([], [], color=OTHER, label="the other transfers")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, framealpha=0.9, edgecolor="none")
