"""Commands that carry out what a run file asks for, or say what that would take: run, plan, pretrain, curve."""

from __future__ import annotations

import contextlib
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoxfer.cli.options import (
    Data,
    Json,
    Mlflow,
    NoPlugin,
    Override,
    Plot,
    Quiet,
    RunFile,
    RunFileIfAny,
    Runs,
    Target,
)
from autoxfer.errors import InputError
from autoxfer.terminal import Answer

if TYPE_CHECKING:
    from autoxfer.terminal.live import Watcher


def run(  # noqa: PLR0917 - typer makes options of arguments
    config: RunFileIfAny = None,
    override: Override = None,
    data: Data = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="SPEC", help="Without a run file: a source; may be repeated."),
    ] = None,
    target: Target = None,
    resume: Annotated[str | None, typer.Option("--resume", metavar="RUN_ID", help="Go on with a stopped run.")] = None,
    runs: Runs = Path("runs"),
    mlflow: Mlflow = None,
    no_plugin: NoPlugin = None,
    json: Json = False,
    quiet: Quiet = False,
) -> Answer | None:
    """Tune every strategy, let the guard judge, ship the winner."""
    from autoxfer.config import load_config  # noqa: PLC0415
    from autoxfer.terminal import leaderboard, live  # noqa: PLC0415

    if resume is not None:
        given = [str(value) for value in (config, override, data, source, target, no_plugin) if value]
        if given:
            raise InputError("--resume RUN_ID alone: a run goes on as it began", given[0], "autoxfer run --resume")
    else:
        checked = load_config(
            config, override or (), data=data, sources=source or (), target=target, disable=no_plugin or ()
        )
    with live.watcher(quiet=quiet) as watch, _resumable(watch):
        from autoxfer import selection  # noqa: PLC0415 - torch, once the configuration is known to be right

        if resume is not None:
            result = selection.resume(resume, runs=runs, mlflow=mlflow, observers=[watch])
        else:
            result = selection.run(checked, runs=runs, mlflow=mlflow, observers=[watch])
    if not (json and quiet):
        from rich.console import Console  # noqa: PLC0415

        leaderboard.show(result.record, result.folder, watch.progress.warnings, Console(file=sys.stdout))
    return Answer(result.record.as_dict()) if json else None


@contextlib.contextmanager
def _resumable(watch: Watcher) -> Iterator[None]:
    """Let an error that stops a run say how to go on, and leave its traceback in the run's folder."""
    from autoxfer.terminal.live import resume_command  # noqa: PLC0415

    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        started = watch.progress.run
        if started is None or isinstance(error, InputError):
            raise
        error.add_note(f"go on with: {resume_command(started)}")
        if isinstance(error, Exception):
            log = started.folder / "error.log"
            with contextlib.suppress(OSError):
                log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
                error.add_note(f"traceback: {log}")
        raise


def plan(
    config: RunFile,
    override: Override = None,
    runs: Runs = Path("runs"),
    no_plugin: NoPlugin = None,
    json: Json = False,
) -> Answer | None:
    """Say what a run would do, find and take; search nothing."""
    from autoxfer.config import load_config  # noqa: PLC0415

    checked = load_config(config, override or (), disable=no_plugin or ())
    from autoxfer import planning, tracking  # noqa: PLC0415

    settings = tracking.read_settings(None, runs)
    planned = planning.plan(checked, lambda text: print(text, file=sys.stderr), settings=settings)
    if json:
        return Answer(planned.as_dict())
    print("\n".join(planned.lines()))
    return None


def pretrain(  # noqa: PLR0917 - typer makes options of arguments
    model: Annotated[
        str, typer.Option("--model", metavar="SPEC", help="What to train: compact, file.py:Factory or timm:NAME.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where weights and card go.")],
    config: RunFileIfAny = None,
    override: Override = None,
    data: Data = None,
    target: Target = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call the source; by default as the data.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", help="Recipes to try; 5 without a run file.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="As in the run file.")] = None,
    no_plugin: NoPlugin = None,
    json: Json = False,
) -> Answer | None:
    """Train a source from a data set."""
    from autoxfer.terminal import pretrained  # noqa: PLC0415

    checked = pretrained.read(
        config, override or (), model, data=data, target=target, disable=no_plugin or (), trials=trials, seed=seed
    )
    from autoxfer import pretraining  # noqa: PLC0415

    command = shlex.join(["autoxfer", *sys.argv[1:]])
    made = pretraining.pretrain(checked, out, name or checked.task.name, command=command, tell=pretrained.tell)
    if json:
        return Answer(pretrained.as_object(made))
    print("\n".join(pretrained.lines(made)))
    return None


def curve(  # noqa: PLR0917 - typer makes options of arguments
    config: RunFile,
    sizes: Annotated[str, typer.Option("--sizes", metavar="50,100,...", help="Examples that are learned from.")],
    override: Override = None,
    runs: Runs = Path("runs"),
    plot: Plot = None,
    no_plugin: NoPlugin = None,
    json: Json = False,
    quiet: Quiet = False,
) -> Answer | None:
    """Compare at several sizes of the target set: see where transfer stops helping."""
    from autoxfer.config import load_config  # noqa: PLC0415
    from autoxfer.terminal import curved  # noqa: PLC0415

    checked, numbers = load_config(config, override or (), disable=no_plugin or ()), curved.numbers(sizes)
    from autoxfer import curve as curves  # noqa: PLC0415 - torch, once the configuration is known to be right
    from autoxfer.explaining import figure  # noqa: PLC0415

    if plot is not None:
        figure.check(plot)
    observers = [] if quiet else [curved.Teller()]
    found = curves.trace(checked, numbers, runs, observers, lambda text: print(text, file=sys.stderr))
    if plot is not None:
        curved.draw(found, plot)
    if json:
        return Answer(found.as_dict())
    print("\n".join(curved.lines(found)))
    return None
