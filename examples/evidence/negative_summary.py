"""What the runs of negative_transfer.py say together: sums, the table of pairs and sizes, the plot. Gains in points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

Run = Mapping[str, Any]

POWER = 0.95  # of the guard, from which on a run counts as helpful
SELECTOR, SCRATCH, ORACLE = "selector", "scratch", "oracle"
# Means of five runs in 26 settings, from the result files that the authors keep in their repository.
REFINE = {
    "what": "REFINE alone, its authors' stored results in 26 settings (Xu et al., arXiv 2505.11771, ICLR 2026)",
    "mean_gain": 3.94,
    "worst": -2.18,
    "losses": 3,
}


def gains(run: Run) -> dict[str, float]:
    """Give the true gain over scratch of every fixed strategy, of what the selector shipped, and of the best."""
    fixed = {SCRATCH: 0.0} | {name: finalist["gain"] for name, finalist in run["finalists"].items()}
    return fixed | {SELECTOR: fixed[run["winner"]], ORACLE: max(fixed.values())}


def is_loss(run: Run, policy: str) -> bool:
    """Whether what a policy ships is worse than scratch beyond the noise of the test set."""
    name = run["winner"] if policy == SELECTOR else policy
    return name in run["finalists"] and bool(run["finalists"][name]["high"] < 0)


def summarise(runs: Sequence[Run], alpha: float) -> dict[str, Any]:
    """Add everything up; ``holds`` is null where nothing was there to be asked."""
    counts = {
        key: sum(run[key] for run in runs)
        for key in ("harmful_total", "harmful_accepted", "helpful_total", "helpful_accepted")
    }
    counts |= {
        "runs_with_harmful": sum(run["harmful_total"] > 0 for run in runs),
        "runs_with_harmful_accepted": sum(run["harmful_accepted"] > 0 for run in runs),
    }
    policies = {name: policy(runs, name) for name in _policies(runs)}
    regret = {name: found["mean_regret"] for name, found in policies.items()}
    fixed = [value for name, value in regret.items() if name not in (SELECTOR, ORACLE)]
    harmful = _share(counts["runs_with_harmful_accepted"], counts["runs_with_harmful"])
    helpful = _share(counts["helpful_accepted"], counts["helpful_total"])
    return {
        "alpha": alpha,
        **counts,
        "policies": policies,
        "refine_as_published": REFINE,
        "holds": {
            "harmful accepted at most at alpha": None if harmful is None else harmful <= alpha,
            "helpful accepted in at least 90%": None if helpful is None else helpful >= 0.9,
            "no significant loss for the selector": policies[SELECTOR]["losses"] == 0 if runs else None,
            "selector's regret below every fixed strategy's": regret[SELECTOR] < min(fixed) if runs else None,
        },
        "strategies": {name: wins(runs, name) for name in _policies(runs) if name not in (SELECTOR, ORACLE, SCRATCH)},
        "where": where(runs),
        "surprises": surprises(runs),
    }


def surprises(runs: Iterable[Run]) -> list[str]:
    """Tell of every harmful finalist that was accepted, and of what the guard should have found and did not."""
    told = []
    for run in runs:
        missed = run["helpful_total"] > run["helpful_accepted"]
        for name, found in run["finalists"].items():
            wrong = found["high"] < 0 and found["decision"] == "accepted"
            if wrong or (missed and found["power"] >= POWER):
                level = f"p {found['p_value']:.2g} at level {found['level']:.2g}" if found["level"] else "not competing"
                told.append(
                    f"{run['pair']}, {run['n']}, seed {run['seed']}: {name} {'accepted' if wrong else 'missed'}: truly "
                    f"{found['gain']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f}), the guard saw "
                    f"{found['seen']:+.1f}, {level}; tune {found['tune']:.3f}, scratch's {run['scratch']['tune']:.3f}"
                )
    return told


def policy(runs: Sequence[Run], name: str) -> dict[str, Any]:
    """Say how one way of always choosing fares; a strategy that a run did not have leaves scratch in place."""
    found = [(gains(run).get(name, 0.0), gains(run)[ORACLE]) for run in runs]
    return {
        "mean_gain": mean(gain for gain, _ in found),
        "worst": min(gain for gain, _ in found),
        "losses": sum(is_loss(run, name) for run in runs),
        "mean_regret": mean(best - gain for gain, best in found),
    }


def wins(runs: Iterable[Run], name: str) -> dict[str, int]:
    """Count where a strategy beats scratch, loses to it, is the best of all, and what the guard made of it."""
    seen = [(run["finalists"][name], gains(run)) for run in runs if name in run["finalists"]]
    return {
        "runs": len(seen),
        "beats_scratch": sum(finalist["low"] > 0 for finalist, _ in seen),
        "loses_to_scratch": sum(finalist["high"] < 0 for finalist, _ in seen),
        "best": sum(gain[name] == gain[ORACLE] > 0 for _, gain in seen),
        "accepted": sum(finalist["decision"] == "accepted" for finalist, _ in seen),
        "called_harmful": sum(finalist["decision"] == "harmful" for finalist, _ in seen),
    }


def where(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Make a row for each pair and size: mean gains, who beats scratch (or loses) in most runs, who is best."""
    rows = []
    for pair, n in dict.fromkeys((run["pair"], run["n"]) for run in runs):
        here = [run for run in runs if (run["pair"], run["n"]) == (pair, n)]
        means = {
            name: mean(gains(run)[name] for run in here)
            for name in _policies(runs)
            if all(name in gains(run) for run in here)
        }
        fixed = {name: value for name, value in means.items() if name not in (SELECTOR, ORACLE)}
        counted = {name: wins(here, name) for name in fixed if name != SCRATCH}
        rows.append(
            {
                "pair": pair,
                "n": n,
                "runs": len(here),
                "scratch": mean(run["scratch"]["test"] for run in here),
                "gains": means,
                "best": max(fixed, key=lambda name: fixed[name]),
                "beats_scratch": [k for k, seen in counted.items() if 2 * seen["beats_scratch"] > len(here)],
                "loses_to_scratch": [k for k, seen in counted.items() if 2 * seen["loses_to_scratch"] > len(here)],
            }
        )
    return sorted(rows, key=lambda row: (row["pair"], row["n"]))


def show(summary: Mapping[str, Any]) -> None:
    """Print the sums, and where which strategy helps."""
    print(
        f"\nharmful finalists accepted: {summary['harmful_accepted']} of {summary['harmful_total']}"
        f" (in {summary['runs_with_harmful_accepted']} of {summary['runs_with_harmful']} runs that had one;"
        f" alpha {summary['alpha']:g})\n"
        f"helpful runs in which a transfer was accepted: {summary['helpful_accepted']} of {summary['helpful_total']}\n"
    )
    print(f"{'always choose':18}{'mean gain':>10}{'worst':>8}{'losses':>8}{'regret':>8}   (points over scratch)")
    for name, found in sorted(summary["policies"].items(), key=lambda item: item[1]["mean_regret"]):
        numbers = f"{found['mean_gain']:+10.2f}{found['worst']:+8.2f}{found['losses']:8d}{found['mean_regret']:8.2f}"
        print(f"{name:18}{numbers}")
    refine = summary["refine_as_published"]
    print(f"{'':18}{refine['mean_gain']:+10.2f}{refine['worst']:+8.2f}{refine['losses']:8d}{'':8}   {refine['what']}")
    print(f"\n{'':18}{'beats scratch':>14}{'loses':>8}{'best':>8}{'accepted':>10}{'called harmful':>16}   of runs")
    for name, seen in summary["strategies"].items():
        numbers = f"{seen['beats_scratch']:14d}{seen['loses_to_scratch']:8d}{seen['best']:8d}{seen['accepted']:10d}"
        print(f"{name:18}{numbers}{seen['called_harmful']:16d}   {seen['runs']}")
    show_where(summary["where"])
    for line in summary["surprises"]:
        print(line)
    for rule, holds in summary["holds"].items():
        print(f"{'not asked' if holds is None else 'holds' if holds else 'DOES NOT HOLD':20} {rule}")


def show_where(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of pairs and sizes."""
    names = list(dict.fromkeys(name for row in rows for name in row["gains"] if name not in (SCRATCH, ORACLE)))
    print("\nMean gain over scratch in points; + or -: in most runs beyond the test's noise; *: the best")
    print(f"{'pair':26}{'n':>5}{'runs':>5}{'scratch':>9}" + "".join(f"{name[:11]:>12}" for name in names))
    for row in rows:
        cells = []
        for name in names:
            sign = "+" if name in row["beats_scratch"] else "-" if name in row["loses_to_scratch"] else " "
            mark = "*" if name == row["best"] else " "
            cells.append(f"{row['gains'][name]:10.1f}{sign}{mark}" if name in row["gains"] else f"{'':12}")
        print(f"{row['pair']:26}{row['n']:5d}{row['runs']:5d}{row['scratch']:9.3f}" + "".join(cells))
    print()


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the table: a line for each pair and size, a mark for each strategy."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    others = (SCRATCH, ORACLE, SELECTOR)
    names = list(dict.fromkeys(name for row in rows for name in row["gains"] if name not in others))
    places = range(len(rows), 0, -1)
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.24 * len(rows)), layout="constrained")
    axes.axvline(0, color="0.4", linewidth=1)
    for name, marker in zip(names, "ovs^Dp<>*hX", strict=False):
        points = [(row["gains"][name], y) for row, y in zip(rows, places, strict=True) if name in row["gains"]]
        axes.scatter(*zip(*points, strict=True), s=22, marker=marker, alpha=0.7, label=name.replace("_", " "))
    chosen = [row["gains"][SELECTOR] for row in rows]
    axes.scatter(chosen, places, s=95, facecolors="none", edgecolors="black", linewidths=1.5, label="the selector")
    axes.set_xscale("symlog", linthresh=10)
    ticks = [-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50]
    axes.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    axes.set_yticks(places, [f"{row['pair']}, {row['n']}" for row in rows], fontsize=8)
    axes.set_ylim(0, len(rows) + 1)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("mean gain over scratch on the test set, points (linear to 10, logarithmic beyond)")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _policies(runs: Iterable[Run]) -> list[str]:
    """Name the selector, every strategy that any run had, and the oracle."""
    fixed = dict.fromkeys(name for run in runs for name in run["finalists"])
    return [SELECTOR, SCRATCH, *fixed, ORACLE]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
