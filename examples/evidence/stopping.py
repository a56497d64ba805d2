"""What the bars against scratch would have saved in finished runs, and what they would have cost.

    python examples/evidence/stopping.py RUNS... [--allowance 2] [--study-allowance 3]

Every folder of runs is searched for run folders. Each transfer trial's recorded curve is held against the best scratch
trial's as the search would have done (``autoxfer.tuning.bars`` and ``beaten``); nothing is trained. A trial that was
pruned counts with the time it took. The error of scratch's tune score is estimated from the guard split's losses, which
a run keeps. What follows a trial that would have been stopped is taken as it was, though the search would have gone
elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from autoxfer.records import StudyResult, Trial
from autoxfer.tuning import Baseline, Journal, bars, beaten, pruning


def main() -> None:
    """Replay every run and print the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--allowance", type=float, default=pruning.ALLOWANCE)
    parser.add_argument("--study-allowance", type=float, default=pruning.STUDY_ALLOWANCE)
    arguments = parser.parse_args()
    pruning.ALLOWANCE, pruning.STUDY_ALLOWANCE = arguments.allowance, arguments.study_allowance
    rows = [
        row for folder in arguments.runs for path in sorted(folder.rglob("losses.parquet")) for row in run(path.parent)
    ]
    if not rows:
        raise SystemExit("no finished run with a baseline of five completed trials there")
    table = pd.DataFrame(rows).drop_duplicates()
    total = table.groupby("task").sum(numeric_only=True)
    total.loc["all"] = total.sum()
    total["saved"] = (total["saved_s"] / total["seconds"]).map("{:.1%}".format)
    print(total.drop(columns=["saved_s"]).round(0).to_string())
    worst = table.loc[table["finalist_lost"] > 0, "behind"]
    print(f"a finalist that is lost is replaced by one at most {worst.max() if len(worst) else 0:.1f} errors behind")


def run(folder: Path) -> Iterator[dict[str, Any]]:
    """Replay one run: a row for each transfer study."""
    if not (folder / "journal.log").is_file() or not (folder / "result.json").is_file():
        return
    result = json.loads((folder / "result.json").read_text())
    with TemporaryDirectory() as temporary:  # opening a journal mends it
        journal = Journal(Path(shutil.copy(folder / "journal.log", temporary)))
        studies = {
            name: StudyResult(name, line["strategy"], line["source"], journal.closed(journal.open_study(name)), 0.0)
            for line in result["entries"]
            for name in [line["strategy"] if line["source"] is None else f"{line['strategy']}@{line['source']}"]
        }
    best = studies["scratch"].best
    if best is None or best.outcome.score is None or studies["scratch"].count("complete") < pruning.MIN_COMPLETED:
        return
    baseline = Baseline(best.outcome.score, best.outcome.curve, error(folder, result, best))
    accepted = {entry["strategy"] for entry in result["entries"] if (entry["verdict"] or {}).get("accepted")}
    for name, study in studies.items():
        if name != "scratch" and study.best is not None:
            yield {"task": result["task"]["name"]} | replay(study, baseline, study.strategy in accepted)


def error(folder: Path, result: dict[str, Any], best: Trial) -> float:
    """Estimate the standard error of scratch's tune score."""
    n, metric = result["task"]["sizes"]["tune"], result["task"]["metric"]
    assert best.outcome.score is not None
    value = best.outcome.score.value
    if metric == "accuracy":
        share = (n * value + 2) / (n + 4)
        return math.sqrt(share * (1 - share) / n)
    losses = pd.read_parquet(folder / "losses.parquet").query("finalist == 'scratch'")["loss"]
    return float(losses.std() / math.sqrt(n) / (2 * value if metric == "rmse" else 1.0))


def replay(study: StudyResult, baseline: Baseline, was_accepted: bool) -> dict[str, Any]:
    """Hold a study's trials, one after the other, against the bars that they would have had."""
    assert study.best is not None
    told: list[Trial] = []
    found = dict.fromkeys(("studies", "trials", "stopped", "not_begun", "competitors_lost", "finalist_lost"), 0)
    seconds = saved = behind = 0.0
    for trial in study.trials:
        seconds += trial.outcome.seconds
        cut = None if beaten(told, baseline) else _cut(trial, told, baseline)
        if cut is trial:
            told.append(trial)
            continue
        done = 0.0 if cut is None else cut.outcome.curve[-1][0] / trial.outcome.curve[-1][0]
        saved += (1 - done) * trial.outcome.seconds
        found["not_begun" if cut is None else "stopped"] += 1
        score = trial.outcome.score if trial.outcome.state == "complete" else None
        found["competitors_lost"] += score is not None and score.beats(baseline.score)
        told += [] if cut is None else [cut]
    kept = StudyResult("", "", None, tuple(told), 0.0).best
    if kept is None or kept.number != study.best.number:
        found["finalist_lost"] = 1
        behind = (
            math.inf if kept is None else (study.best.outcome.score.rank - kept.outcome.score.rank) / baseline.error
        )  # type: ignore[union-attr]
    lost = int(was_accepted and bool(found["finalist_lost"]))
    return {
        **found,
        "studies": 1,
        "trials": len(study.trials),
        "accepted_lost": lost,
        "behind": behind,
        "seconds": seconds,
        "saved_s": saved,
    }


def _cut(trial: Trial, told: list[Trial], baseline: Baseline) -> Trial:
    """End a trial where a bar would have; the same trial where none would."""
    curve = trial.outcome.curve
    if not told or trial.outcome.state == "failed" or not curve:
        return trial
    for share, bar, _ in bars(told, baseline):
        before = [rank for at, rank in curve if at <= share]
        if before and share <= curve[-1][0] and share < 1 and max(before) < bar:
            points = tuple(point for point in curve if point[0] <= share)
            return replace(trial, outcome=replace(trial.outcome, state="pruned", curve=points))
    return trial


if __name__ == "__main__":
    main()
