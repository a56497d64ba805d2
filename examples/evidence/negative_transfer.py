"""Train with sources good and bad: does the selector keep harm out, and does it let help in.

    python examples/evidence/negative_transfer.py --short --plot gains.png

Each run is an ordinary one (``autoxfer.run``, tracking off): as many trials for every strategy as for scratch, whose
search is the product's own; 50 to 1,000 examples to train on, beside them 150 to choose by and 300 to judge by. Then
every finalist answers a large test set, which decided nothing: its gain over scratch there is the truth.

harmful   a finalist whose true gain has a 95% interval below zero
helpful   a run in which some finalist's true gain and discordance let this guard, at the first finalist's level of the
          fallback (alpha / 2), accept it with probability .95 or more
gain      in points: of accuracy, or of R2 for numbers
regret    the gain of the best strategy, known afterwards, minus that of the one chosen

Pairs that need data or weights of the shared folder (--data, or $AUTOXFER_SHARED/data) are left out where it is not
there. ``--runs DIR`` keeps each finished run as one JSON file, and takes up an experiment that was stopped. ``--json``
prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from corrupted import PAIRS, Pair, write_whole
from negative_run import ALPHA, Plan, perform
from negative_summary import plot, show, summarise

SHARED = Path(os.environ.get("AUTOXFER_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
SIZES = (50, 100, 300, 1000)


def main() -> int:
    arguments = parse()
    started = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come: each has one core
    plans, missing = planned(arguments)
    with TemporaryDirectory() as temporary:
        place = (arguments.runs or Path(temporary)).resolve()
        (place / "material").mkdir(parents=True, exist_ok=True)
        deadline = math.inf if arguments.minutes is None else started + 60 * arguments.minutes
        found, failed = carry_out(plans, place, arguments.data.resolve(), arguments.jobs, deadline)
    summary = {
        "planned": len(plans),
        "done": len(found),
        "failed": failed,
        "missing": missing,
        "seconds": round(time.monotonic() - started),
        **(summarise(found, ALPHA) if found else {}),
        "runs": found,
    }
    if arguments.smoke and found:  # too small to be asked
        summary["holds"] = dict.fromkeys(summary["holds"])
    if arguments.json:
        print(json.dumps(summary))
    else:
        print("smoke: figures mean nothing\n" if arguments.smoke else "", end="")
        print(f"{len(found)} of {len(plans)} planned runs done in {summary['seconds']} s")
        for name, files in missing.items():
            print(f"left out: {name}, which needs {', '.join(files)} in {arguments.data}")
        if found:
            show(summary)
    if arguments.plot and found:
        plot(summary["where"], arguments.plot)
    return int(failed > 0 or not found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="at most ten minutes on two cores")
    length.add_argument("--smoke", action="store_true", help="one run of seconds, to see that it works")
    parser.add_argument("--pair", action="append", choices=PAIRS, help="these alone")
    parser.add_argument("--n", action="append", type=int, help=f"examples to train on; by default {SIZES}")
    parser.add_argument("--seeds", type=int, help="by default 3")
    parser.add_argument("--trials", type=int, help="of every strategy; by default 10")
    parser.add_argument("--minutes", type=float, help="start no run after so many; 0: sum up what is there")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep results here, and reuse those that are there")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or (1 if arguments.smoke else 3)
    arguments.trials = arguments.trials or (5 if arguments.smoke else 6 if arguments.short else 10)
    arguments.minutes = 8.5 if arguments.short and arguments.minutes is None else arguments.minutes
    return arguments


def planned(arguments: argparse.Namespace) -> tuple[list[Plan], dict[str, list[str]]]:
    """List the runs, and the pairs that lack files."""
    if arguments.smoke:
        return [Plan("digits-random", 50, seed, arguments.trials, quick=True) for seed in range(arguments.seeds)], {}
    pairs = [PAIRS[name] for name in arguments.pair or PAIRS]
    lacking = {pair.name: [file for file in pair.needs if not (arguments.data / file).exists()] for pair in pairs}
    pairs = [pair for pair in pairs if not lacking[pair.name]]
    if arguments.short and not arguments.pair:  # without the shared folder the digits are all there is
        pairs = [pair for pair in pairs if pair.cost == "cheap"] or pairs
    sizes = arguments.n or (SIZES[:2] if arguments.short else SIZES)
    missing = {name: files for name, files in lacking.items() if files}
    return list(in_turn(pairs, sizes, arguments.seeds, arguments.trials)), missing


def in_turn(pairs: Sequence[Pair], sizes: Sequence[int], seeds: int, trials: int) -> Iterator[Plan]:
    """Give every pair in each pass, the sizes going round, so that what is stopped is balanced; the slow come last."""
    for slow in (False, True):
        kept = [pair for pair in pairs if (pair.cost == "slow") == slow]
        for seed in range(seeds):
            for shift in range(len(sizes)):
                for place, pair in enumerate(kept):
                    n = sizes[(place + shift) % len(sizes)]
                    if pair.splits(n) is not None:
                        yield Plan(pair.name, n, seed, trials)


def carry_out(
    plans: Sequence[Plan], place: Path, shared: Path, jobs: int, deadline: float
) -> tuple[list[dict[str, Any]], int]:
    """Do the runs, so many at a time, until the deadline; take those that are there already."""
    write_whole(place / "material" / "mlflow.yaml", lambda path: path.write_text("enabled: false\n"))
    done = {plan: kept for plan in plans if (kept := read(place / plan.file, plan))}
    waiting = [plan for plan in plans if plan not in done]
    running: dict[Future[dict[str, Any]], Plan] = {}
    failed = 0
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        if time.monotonic() < deadline:
            needed = dict.fromkeys(plan.pair for plan in waiting)
            list(pool.map(partial(furnish, place, shared), needed))  # before two runs ask for the same files
        while running or waiting:
            while waiting and len(running) < jobs and time.monotonic() < deadline:
                plan = waiting.pop(0)
                running[pool.submit(perform, plan, place, shared)] = plan
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                plan = running.pop(future)
                try:
                    done[plan] = future.result()
                except Exception:
                    failed += 1
                    print(f"{plan.file}: failed\n{traceback.format_exc()}", file=sys.stderr)
                    continue
                say(done[plan], len(done), len(plans))
    return [done[plan] for plan in plans if plan in done], failed


def furnish(place: Path, shared: Path, pair: str) -> None:
    """Train a pair's source and store its target, unless they are there."""
    PAIRS[pair].make(place / "material", shared)


def read(path: Path, plan: Plan) -> dict[str, Any] | None:
    """Read a finished run, if it is the one that was planned."""
    if not path.is_file():
        return None
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept if kept["plan"] == asdict(plan) else None


def say(run: dict[str, Any], n_done: int, n_planned: int) -> None:
    finalists = run["finalists"].items()
    gains = " ".join(f"{name} {found['gain']:+.1f}{mark(found)}" for name, found in finalists)
    what = f"{run['pair']} {run['n']} seed {run['seed']}: {run['winner']}"
    print(f"[{n_done}/{n_planned}] {what} | {gains} | {run['seconds']:.0f} s", file=sys.stderr, flush=True)


def mark(finalist: dict[str, Any]) -> str:
    return {"accepted": "A", "harmful": "H"}.get(finalist["decision"], "")


if __name__ == "__main__":
    sys.exit(main())
