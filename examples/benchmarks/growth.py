"""How time and memory grow with the number of examples, trials, sources and classes.

    python examples/benchmarks/growth.py [--short | --smoke] [--device cuda] [--json]

Every point is a whole run of scratch, linear_probe and fine_tune in a process of its own, on made-up pictures of 8 x 8
with small networks as sources; 30 steps a trial however many examples there are, so that what is seen is what an
example costs beside its steps: reading, splitting, features, scores, the guard. One number grows, the others stay. A
small run comes first in each process: what it imported and allocated is not counted. Nothing is logged to MLflow.

An exponent is the slope of the logarithms by least squares: 1 = twice as much of one makes twice as much of the other.
Memory is the most the process held beyond what it held after the small run. What a trial leaves behind is the median of
the slopes between all points, in megabytes per trial; the command fails where that is more than ``MOST_PER_TRIAL``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import finish, parser

EXAMPLES = Path(__file__).resolve().parents[1]
BASE = {"examples": 1000, "trials": 5, "sources": 1, "classes": 10}
POINTS = {
    "full": {
        "examples": (1000, 2000, 4000, 8000, 16000, 32000),
        "trials": (5, 10, 20, 40, 80, 160),
        "sources": (1, 2, 4, 8),
        "classes": (2, 5, 10, 20, 50),
    },
    "short": {"examples": (1000, 4000, 16000), "trials": (5, 20, 80), "sources": (1, 2, 4), "classes": (2, 10, 50)},
    "smoke": {"trials": (2, 4)},
}
MOST_PER_TRIAL = 0.1  # MB: a thousand trials may leave a hundred behind
SIDE, STEPS = 8, 30


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--point", help=argparse.SUPPRESS)  # one run, in this process
    arguments = made.parse_args()
    if arguments.point:
        print(json.dumps(measure(json.loads(arguments.point), arguments.device, arguments.seed)))
        return 0
    sizes = POINTS["smoke" if arguments.smoke else "short" if arguments.short else "full"]
    rows = []
    known: dict[str, dict[str, Any]] = {}  # what the base measured serves every line that goes through it
    for what, value in ((what, value) for what, values in sizes.items() for value in values):
        numbers = json.dumps(BASE | {what: value})
        known[numbers] = known.get(numbers) or point(numbers, arguments)
        rows.append({"grows": what, "number": value} | known[numbers])
        print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    exponents = {what: exponents_of([row for row in rows if row["grows"] == what]) for what in sizes}
    left = per_trial([row for row in rows if row["grows"] == "trials"])
    holds = {"memory_does_not_grow_with_trials": left <= MOST_PER_TRIAL}
    finish(arguments, rows, exponents=exponents, megabytes_per_trial=round(left, 3), holds=holds)
    return int(not arguments.smoke and not all(holds.values()))


def point(numbers: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--point", numbers, "--device", arguments.device]
    done = subprocess.run(
        [*command, "--seed", str(arguments.seed)], stdout=subprocess.PIPE, text=True, check=True, env=environment()
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def environment() -> dict[str, str]:
    """Switch the cache on disk off: the next point would find what this one computed."""
    return {**os.environ, "AUTOXFER_CACHE": "off"}


def measure(numbers: dict[str, int], device: str, seed: int) -> dict[str, Any]:
    """Run a small task, then the one that is measured."""
    import autoxfer  # noqa: PLC0415

    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "mlflow.yaml").write_text("enabled: false\n")

        def run(name: str, numbers: dict[str, int]) -> autoxfer.Result:
            config = task(place / name, numbers, device, seed)
            return autoxfer.run(config, runs=place / name / "runs", mlflow=place / "mlflow.yaml")

        run("small", {"examples": 400, "trials": 2, "sources": 1, "classes": 2})
        before, started, computed = held(), time.perf_counter(), time.process_time()
        result = run("measured", numbers)
        n_trials = min(entry.n_trials for entry in result.record.entries if entry.strategy != "linear_probe")
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - computed
        return {
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "megabytes": round(held() - before, 1),
            "of": round(held(), 1),
            "trials_done": n_trials,
        }


def held() -> float:
    """Give the most memory that this process has held so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def task(place: Path, numbers: dict[str, int], device: str, seed: int) -> dict[str, Any]:
    """Write a task's files and its configuration."""
    from safetensors.torch import save_file  # noqa: PLC0415

    sys.path.insert(0, str(EXAMPLES / "digits"))
    from nets import SmallCNN  # noqa: PLC0415

    place.mkdir()
    rng = np.random.default_rng(seed)
    shapes = rng.integers(0, 160, (numbers["classes"], SIDE, SIDE))
    labels = np.arange(numbers["examples"]) % numbers["classes"]
    images = shapes[labels] + rng.integers(0, 96, (numbers["examples"], SIDE, SIDE))
    np.savez(place / "data.npz", images=images.astype(np.uint8), labels=labels)
    sources = []
    for number in range(numbers["sources"]):
        torch.manual_seed(number)
        weights = place / f"source_{number}.safetensors"
        save_file(SmallCNN().state_dict(), weights)
        given = {"shape": [1, SIDE, SIDE], "mean": [0.5], "std": [0.25]}
        model = f"{EXAMPLES / 'digits' / 'nets.py'}:SmallCNN"
        sources.append({"name": f"source_{number}", "model": model, "weights": str(weights), "input": given})
    return {
        "task": {"data": str(place / "data.npz")},
        "sources": sources,
        "strategies": [
            {"scratch": {"steps": STEPS, "architecture": "compact"}},
            "linear_probe",
            {"fine_tune": {"steps": STEPS}},
        ],
        "budget": {"trials": numbers["trials"]},
        "device": device,
        "seed": seed,
    }


def exponents_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Fit the growth of time and memory by least squares on logarithms; below a megabyte all is one."""
    number = np.log([row["number"] for row in rows])
    return {
        name: round(float(np.polyfit(number, np.log([max(row[name], 1.0) for row in rows]), 1)[0]), 2)
        for name in ("seconds", "cpu_seconds", "megabytes")
    }


def per_trial(rows: list[dict[str, Any]]) -> float:
    """Give the median slope between any two points, which one odd point does not move: megabytes per trial."""
    slopes = [
        (b["megabytes"] - a["megabytes"]) / (b["number"] - a["number"]) for a, b in itertools.combinations(rows, 2)
    ]
    return statistics.median(slopes)


if __name__ == "__main__":
    sys.exit(main())
