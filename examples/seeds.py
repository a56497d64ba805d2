"""Run one run file with several seeds, and print what the guard said each time.

    python examples/seeds.py examples/digits/run.yaml --seeds 5

Each seed draws other splits, other weights and another search. ``--json`` prints the same as one JSON object.

This measures how often the guard is right; it is no way to a certificate. Every seed is one more look at the same data,
so from the second on a run's verdicts are exploratory and its winner is not certified.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import autoxfer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        runs = arguments.runs or Path(temporary)
        rows = []
        for seed in range(arguments.seeds):
            result = autoxfer.run(arguments.run, overrides=[*arguments.override, f"seed={seed}"], runs=runs)
            rows.append(summarise(seed, result))
            if not arguments.json:
                show(rows[-1])
    accepted = sum(bool(row["accepted"]) for row in rows)
    harmful = sum(bool(row["accepted_and_worse_on_test"]) for row in rows)
    if arguments.json:
        print(json.dumps({"seeds": rows, "accepted": accepted, "accepted_and_worse_on_test": harmful}))
    else:
        print(f"a transfer was accepted on {accepted} of {len(rows)} seeds; accepted and worse on test: {harmful}")


def summarise(seed: int, result: autoxfer.Result) -> dict[str, Any]:
    """Gather one run's decisions; the test split, which decided nothing, says whether an acceptance was right."""
    entries = {entry.study: entry for entry in result.record.entries}
    decisions = {study: verdict.decision for study, verdict in result.verdicts.items()}
    accepted = [study for study, decision in decisions.items() if decision == "accepted"]
    worse = [study for study in accepted if (entries[study].test or 0.0) < (entries["scratch"].test or 0.0)]
    winner = result.record.winner
    return {
        "seed": seed,
        "winner": winner.strategy,
        "guard": winner.guard,
        "test": winner.test,
        "scratch_guard": entries["scratch"].guard,
        "scratch_test": entries["scratch"].test,
        "accepted": accepted,
        "harmful": [study for study, decision in decisions.items() if decision == "harmful"],
        "accepted_and_worse_on_test": worse,
    }


def show(row: dict[str, Any]) -> None:
    """Print one line."""
    print(
        f"seed {row['seed']}: winner {row['winner']} (guard {row['guard']:.3f}, scratch {row['scratch_guard']:.3f})"
        f"; accepted: {', '.join(row['accepted']) or 'none'}; harmful: {', '.join(row['harmful']) or 'none'}"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
