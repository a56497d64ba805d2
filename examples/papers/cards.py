"""What the cards share: the command line, a table of what was seen, and the answer as JSON or a plot.

A card is a small experiment after a paper. What is expected was measured once, by another implementation of the same
card, before this one was written; it is no figure of the paper's own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SAID = {True: "holds", False: "FAILS", None: "not asked"}


def options(doc: str | None, seeds: int = 5) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help=f"by default {seeds}")
    parser.add_argument("--smoke", action="store_true", help="seconds, to see that it works; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or (1 if arguments.smoke else seeds)
    return arguments


def beside(seen: float, told: float, form: str = "+.1f") -> str:
    """Write what was seen, and what is expected in brackets."""
    return f"{seen:{form}} ({told:{form}})"


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """Print rows of cells under their columns."""
    width = max(map(len, [*columns, *(cell for cells in rows.values() for cell in cells)])) + 2
    label = max(map(len, [title, *rows])) + 1
    print("".join([title.ljust(label), *(name.rjust(width) for name in columns)]))
    for name, cells in rows.items():
        print("".join([name.ljust(label), *(cell.rjust(width) for cell in cells)]))


def finish(arguments: argparse.Namespace, value: dict[str, Any], draw: Callable[[Any], None]) -> None:
    """Print everything as JSON, or what must hold and whether it did; write the plot: ``draw`` gets the figure."""
    if arguments.smoke:  # too small to be asked
        value = {**value, "holds": dict.fromkeys(value["holds"])}
    if arguments.json:
        print(json.dumps(value))
    else:
        print("smoke: figures mean nothing\n" if arguments.smoke else "", end="")
        for rule, holds in value["holds"].items():
            print(f"{SAID[holds]}: {rule}")
    if arguments.plot:
        import matplotlib  # noqa: PLC0415

        matplotlib.use("Agg")
        from matplotlib import pyplot  # noqa: PLC0415

        figure = pyplot.figure(layout="constrained")
        draw(figure)
        figure.savefig(arguments.plot, dpi=120)
