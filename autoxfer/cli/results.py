"""Commands about runs of the past: list, explain, predict."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from autoxfer.cli.options import Json, Plot, Runs
from autoxfer.errors import InputError
from autoxfer.terminal import Answer, aligned


def list_runs(runs: Runs = Path("runs"), json: Json = False) -> Answer | None:
    """List the runs, their winners, and what is left to do."""
    from autoxfer.terminal import history  # noqa: PLC0415

    past = history.past_runs(runs)
    if json:
        return Answer({"runs": past})
    print(aligned(history.rows(past)) if past else f"no runs in {runs}")
    if any(item["state"] in ("unfinished", "not logged") for item in past):
        print("\nautoxfer run --resume RUN finishes a run, or logs it")
    return None


def explain(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A finished run.")],
    runs: Runs = Path("runs"),
    plot: Plot = None,
    no_curves: Annotated[
        bool, typer.Option("--no-curves", help="Measure no learning curves: nothing is trained.")
    ] = False,
    json: Json = False,
) -> Answer | None:
    """Say why each strategy was accepted or not, with learning curves."""
    from autoxfer import explaining  # noqa: PLC0415
    from autoxfer.explaining import figure  # noqa: PLC0415
    from autoxfer.terminal import explanation  # noqa: PLC0415

    if plot is not None:
        figure.check(plot)
    found = explaining.explain(run_id, runs, curves=not no_curves, say=lambda text: print(text, file=sys.stderr))
    found, drawn = explaining.draw(found, plot)
    if json:
        return Answer({**explanation.as_object(found), "plots": [str(path) for path in drawn]})
    width = min(shutil.get_terminal_size().columns, 110) if sys.stdout.isatty() else 110
    print("\n".join(explanation.lines(found, width)))
    for path in drawn:
        print(f"plot: {path}")
    return None


def predict(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A run, or the path of its folder.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Examples: .npz, .csv, .parquet, an image or a folder.")],
    runs: Runs = Path("runs"),
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write CSV there instead of to stdout.")
    ] = None,
    json: Json = False,
) -> Answer | None:
    """Predict examples with a run's winner, without MLflow."""
    from autoxfer import runfolder  # noqa: PLC0415

    folder = Path(run_id) if os.sep in run_id and Path(run_id).is_dir() else runfolder.find(runs, run_id).path
    from autoxfer import prediction  # noqa: PLC0415

    rows = prediction.predict_file(
        prediction.load(folder), file, lambda text: print(f"warning: {text}", file=sys.stderr)
    )
    if output is not None:
        _write_csv(rows, output)
    if json:
        return Answer({"run_id": folder.name, "predictions": rows})
    if output is None:
        _write_csv(rows, None)
    return None


def _write_csv(rows: Sequence[dict[str, Any]], path: Path | None) -> None:
    import csv  # noqa: PLC0415

    columns = list(dict.fromkeys(key for row in rows for key in row))
    try:
        with path.open("w", newline="", encoding="utf-8") if path else contextlib.nullcontext(sys.stdout) as handle:
            writer = csv.DictWriter(handle, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        if path is None:
            raise
        raise InputError("a file that can be written", error.strerror or str(error), f"--output {path}") from None
