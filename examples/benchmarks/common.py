"""What the benchmark commands share: the command line, times in alternating order, the opponents' pruner, a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from autoxfer.records import Outcome, Trial
from autoxfer.tuning.pruning import floors

DATA = Path(os.environ.get("AUTOXFER_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
NETWORKS = Path(__file__).resolve().parents[1] / "networks.py"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the command line that all of them have; a command adds its own sizes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = made.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="at most ten minutes on two cores")
    length.add_argument("--smoke", action="store_true", help="seconds, to see that it works; its figures mean nothing")
    made.add_argument("--data", type=Path, default=DATA, help="folder of real data sets and weights")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return made


def by_length(arguments: argparse.Namespace, smoke: Any, short: Any, full: Any) -> Any:
    """Pick a size by the length that was asked for."""
    return smoke if arguments.smoke else short if arguments.short else full


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Give the wall-clock time of ``work``, what it left running on a GPU included."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def wait(device: str) -> None:
    """Wait until the device has done everything."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def alternate(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Time every contender once a round, each round in the reverse order of the last: a machine's moods fall on all."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(seconds(contenders[name], device))
            print(f"  round {number + 1}: {name} {found[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return found


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Give one number for each contender."""
    return {name: statistics.median(values) for name, values in times.items()}


class Rungs(BasePruner):
    """autoxfer's own pruner (``autoxfer.tuning.pruning.floors``) in a plain Optuna loop that reports ``n`` times."""

    def __init__(self, n: int) -> None:
        self.n = n

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Stop what is behind the finished trials at a rung."""
        share = (trial.last_step or 0) / self.n
        closed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        best = max(trial.intermediate_values.values())
        return any(share >= rung and best < floor for rung, floor in floors(self._plain(each) for each in closed))

    def _plain(self, trial: FrozenTrial) -> Trial:
        curve = tuple((step / self.n, rank) for step, rank in sorted(trial.intermediate_values.items()))
        state = "complete" if trial.state == TrialState.COMPLETE else "pruned"
        return Trial(trial.number, trial.params, Outcome(state, None, curve))


def machine(device: str) -> dict[str, Any]:
    """Say what was measured on, and how busy it was: other people's work makes every second longer."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def peak_megabytes() -> float:
    """Give the most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out columns, the first to the left and the others to the right."""
    lines = [list(head), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 10 else f"{cell:.1f}"
    return "" if cell is None else str(cell)


def finish(arguments: argparse.Namespace, value: Mapping[str, Any], text: str) -> None:
    """Print the table, or one JSON object."""
    print(json.dumps(value) if arguments.json else text)
