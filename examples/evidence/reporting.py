"""What the evidence commands share at their two ends: the command line, and the answer as a sum, a file or a plot."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("AUTOXFER_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def options(doc: str | None, draws: int = 20_000, short: int = 2_000, smoke: int = 300) -> argparse.Namespace:
    """Read the command line; ``data`` is None where only what scikit-learn brings along may be used."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help=f"{short:,} draws per setting instead of {draws:,}")
    length.add_argument("--smoke", action="store_true", help="few settings, made-up losses and scikit-learn's digits")
    parser.add_argument("--draws", type=int, help="draws per setting")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of real data sets and weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.data = None
    elif not arguments.data.is_dir():
        parser.error(f"no folder of data at {arguments.data}; give --data FOLDER, or --smoke to do without")
    arguments.draws = arguments.draws or (short if arguments.short else smoke if arguments.smoke else draws)
    return arguments


def show(arguments: argparse.Namespace, line: str) -> None:
    """Print a line of the table, unless JSON is asked for."""
    if not arguments.json:
        print(line, flush=True)


def finish(arguments: argparse.Namespace, value: dict[str, Any], sentences: str, draw: Callable[[Any], None]) -> None:
    """Print the sum or everything as JSON, and write the plot; ``draw`` gets matplotlib's figure."""
    print(json.dumps(value) if arguments.json else f"\n{sentences}")
    if arguments.plot:
        import matplotlib  # noqa: PLC0415

        matplotlib.use("Agg")
        from matplotlib import pyplot  # noqa: PLC0415

        figure = pyplot.figure(layout="constrained")
        draw(figure)
        figure.savefig(arguments.plot, dpi=120)
