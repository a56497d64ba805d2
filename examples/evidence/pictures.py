"""The plots of false_acceptance.py and power.py, drawn on a figure of matplotlib's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from procedure import ALPHA

from autoxfer.guard import paired

if TYPE_CHECKING:
    from false_acceptance import Row
    from power import Run, Single

TICKS = (40, 100, 300, 1000, 5000)
PANELS = {
    "0/1 losses, made up": lambda row: row.name.startswith("0/1, made up"),
    "0/1 losses, real": lambda row: row.name.startswith("accuracy"),
    "squared errors, made up": lambda row: row.name.startswith("squared") and not row.limit,
    "real-valued losses, real": lambda row: row.name.startswith(("log_loss", "rmse", "mae")) and not row.limit,
    "AUROC, F1, balanced accuracy, groups, folds": lambda row: row.approximate or row.name.startswith("one split"),
    "limits: rare losses, groups untold": lambda row: row.limit,
}


def false_acceptance(figure: Any, rows: list[Row]) -> None:
    """Draw the share accepted against the size of the guard, a panel for each kind of loss."""
    figure.set_size_inches(15, 9)
    axes = figure.subplots(2, 3, sharex=True)
    left = list(rows)
    for axis, (title, belongs) in zip(axes.flat, PANELS.items(), strict=True):
        chosen = [row for row in left if belongs(row) and (row.limit or "limits" not in title)]
        chosen = [row for row in chosen if row.limit == title.startswith("limits")]
        left = [row for row in left if row not in chosen]
        for place, (k, colour) in enumerate(((1, "tab:blue"), (6, "tab:orange"), (20, "tab:green"))):
            for harm, marker in ((False, "o"), (True, "v")):
                points = [(r.guard, r.accepted) for r in chosen if r.finalists == k and bool(r.margin) == harm]
                x, y = np.array(points).reshape(-1, 2).T
                label = f"{k} finalist{'s' * (k > 1)}, {'harm at the margin' if harm else 'zero gain'}"
                axis.scatter(x * 1.1 ** (place - 1), y, s=16, c=colour, marker=marker, label=label, alpha=0.7)
        axis.axhline(ALPHA, color="black", lw=1)
        for allowed in sorted({row.allowed for row in chosen if not row.limit}):
            axis.axhline(allowed, color="black", lw=1, ls=":")
        axis.set(
            title=title, xscale="log", xlim=(30, 7000), ylim=(0, max([0.1, *(1.1 * row.accepted for row in chosen)]))
        )
        axis.set_xticks(TICKS, [str(n) for n in TICKS])
        axis.minorticks_off()
    for axis in axes[-1]:
        axis.set_xlabel("guard examples")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of draws that accept what is not better")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.suptitle("What is not better, accepted: alpha (line) and what chance allows, exact and approximate (dotted)")
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)


def power(figure: Any, singles: list[Single], families: list[Run]) -> None:
    """Draw power beside theory, and the ways to decide beside one another."""
    figure.set_size_inches(16, 6)
    curves, theory, ways = figure.subplots(1, 3, width_ratios=[1.2, 0.9, 1.1])
    colours = {0.01: "tab:purple", 0.02: "tab:blue", 0.05: "tab:green", 0.10: "tab:orange", 0.20: "tab:red"}
    styles = {0.05: "-", 0.12: "--", 0.3: ":"}
    made_up = [one for one in singles if one.name == "made up"]
    for gain, rho in sorted({(one.gain, one.discordance) for one in made_up}):
        points = [(one.guard, one.accepted) for one in made_up if (one.gain, one.discordance) == (gain, rho)]
        curves.scatter(*zip(*points, strict=True), s=18, c=colours[gain])
        x = np.unique(np.geomspace(30, 5000, 60).astype(int))
        y = [paired.zero_one_power(int(n), rho, gain, 0.0, ALPHA) for n in x]
        label = f"gain {100 * gain:.0f} points, differ on {rho:.0%}"
        curves.plot(x, y, ls=styles[rho], c=colours[gain], lw=1, label=label)
    curves.set(title="one finalist: simulated (dots), theory (lines)", xscale="log", xlabel="guard examples")
    curves.set(ylabel="share accepted", xticks=TICKS, xticklabels=[str(n) for n in TICKS])
    curves.minorticks_off()
    curves.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    theory.plot([0, 1], [0, 1], c="black", lw=1)
    for real, label in ((False, "made up"), (True, "real losses")):
        shown = [one for one in singles if one.name.startswith("made up") != real]
        theory.scatter([one.theory for one in shown], [one.accepted for one in shown], s=9, label=label)
    theory.set(title="one finalist, all settings", xlabel="theoretical power", ylabel="share accepted")
    theory.legend()
    _bars(ways, [run for run in families if run.guard == 300])


def _bars(axis: Any, families: list[Run]) -> None:
    for place, way in enumerate(families[0].ways):
        y = np.arange(len(families)) + 0.16 * (place - 2)
        axis.barh(y, [run.ways[way]["better"] for run in families], 0.15, color=f"C{place}", label=way)
        axis.barh(y, [-run.ways[way]["worse"] for run in families], 0.15, color=f"C{place}")
    axis.axvline(0, color="black", lw=1)
    axis.axvline(-ALPHA, color="black", lw=1, ls=":")
    axis.set_yticks(range(len(families)), [run.name for run in families])
    axis.invert_yaxis()
    axis.set(title="six finalists, guard of 300 (dotted: alpha)", xlabel="ships what is not better | what is better")
    axis.legend(fontsize=8, loc="center right")
