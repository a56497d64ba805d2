"""What the benchmarks share: the command line, fair timing, and the answer as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

DATA = Path(os.environ.get("AUTOXFER_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Start a benchmark's command line; sizes are for the benchmark to add."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = made.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="at most 10 minutes on 2 cores")
    length.add_argument("--smoke", action="store_true", help="seconds, without data or weights from elsewhere")
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument("--data", type=Path, default=DATA, help="folder of real data sets and weights")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return made


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Time one call."""
    device = device or torch.device("cpu")
    wait_for(device)
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def alternate(
    works: Mapping[str, Callable[[], object]], n_rounds: int, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Time several works in turn, every round beginning with another one: a slow minute hits them all alike."""
    names, times = list(works), {name: list[float]() for name in works}
    for turn in range(n_rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(seconds(works[name], device))
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Take the median of each work's times."""
    return {name: statistics.median(values) for name, values in times.items()}


def machine(device: str = "cpu") -> dict[str, Any]:
    """Say where the figures come from, and how busy it was."""
    is_cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # processes that want to run, over the last minute
        "torch": torch.__version__,
    }


def finish(arguments: argparse.Namespace, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Print the rows as a table with what else there is to say below, or everything as JSON."""
    asked = not arguments.smoke
    if not asked and "holds" in more:  # too small to be asked
        more["holds"] = dict.fromkeys(more["holds"])
    if arguments.json:
        print(json.dumps({"rows": list(rows), "machine": machine(arguments.device), **more}))
        return
    print(table(rows))
    if not asked:
        more = {name: "not asked: a smoke run" if name == "holds" else value for name, value in more.items()}
        print("smoke: figures mean nothing")
    for name, value in {**more, "machine": ", ".join(f"{k} {v}" for k, v in machine(arguments.device).items())}.items():
        print(f"{name}: {value}")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out rows of the same keys, numbers to the right."""
    names = list(rows[0])
    cells = [[_text(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[k]) for line in cells)) for k, name in enumerate(names)]
    numeric = [not isinstance(rows[0][name], str) for name in names]
    lines = [
        "  ".join(
            cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, numeric, strict=True)
        )
        for line in [names, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "-" if value is None else str(value)
