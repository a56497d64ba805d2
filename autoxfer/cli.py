"""The command line: a thin layer. Each command imports what it needs, so that ``--help`` is there at once."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autoxfer import __version__
from autoxfer.errors import InputError
from autoxfer.terminal import Answer, aligned, as_object, as_text, exit_code, print_json, stdout_to_stderr

if TYPE_CHECKING:
    from autoxfer.terminal.live import Watcher

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; all else goes to stderr.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder of the runs.")]
Mlflow = Annotated[Path | None, typer.Option("--mlflow", metavar="FILE", help="Settings in place of ./mlflow.yaml.")]
Override = Annotated[
    list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="Override, as in budget.trials=5.")
]
NoPlugin = Annotated[
    list[str] | None, typer.Option("--no-plugin", metavar="NAME", help="Switch a plugin off; may be repeated.")
]
RunFileArgument = Annotated[Path | None, typer.Argument(metavar="RUN.yaml", help="The run file.")]

OPTIONS: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False, "pretty_exceptions_enable": False}
app = typer.Typer(name="autoxfer", invoke_without_command=True, **OPTIONS)
plugins_app = typer.Typer(invoke_without_command=True, **OPTIONS)
config_app = typer.Typer(invoke_without_command=True, **OPTIONS)
app.add_typer(plugins_app, name="plugins")
app.add_typer(config_app, name="config")


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """Find the best way to reuse a pretrained model, and say when not to."""
    if version:
        print(f"autoxfer {__version__}")
        raise typer.Exit
    _help_alone(context)


@app.command()
def run(  # noqa: PLR0917 - typer makes options of arguments
    config: RunFileArgument = None,
    override: Override = None,
    data: Annotated[str | None, typer.Option("--data", metavar="PATH", help="Without a run file: the data.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="SPEC", help="Without a run file: a source; may be repeated."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="Without a run file: the label's column or key.")
    ] = None,
    resume: Annotated[str | None, typer.Option("--resume", metavar="RUN_ID", help="Go on with a stopped run.")] = None,
    runs: Runs = Path("runs"),
    mlflow: Mlflow = None,
    no_plugin: NoPlugin = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
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


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
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


@app.command()
def pretrain(  # noqa: PLR0917 - typer makes options of arguments
    model: Annotated[
        str, typer.Option("--model", metavar="SPEC", help="What to train: compact, file.py:Factory or timm:NAME.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where weights and card go.")],
    config: RunFileArgument = None,
    override: Override = None,
    data: Annotated[str | None, typer.Option("--data", metavar="PATH", help="Without a run file: the data.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="Without a run file: the label's column or key.")
    ] = None,
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


@app.command()
def explain(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A finished run.")],
    runs: Runs = Path("runs"),
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the plot there too: .png, .svg or .pdf.")
    ] = None,
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


@app.command()
def curve(  # noqa: PLR0917 - typer makes options of arguments
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    sizes: Annotated[str, typer.Option("--sizes", metavar="50,100,...", help="Examples that are learned from.")],
    override: Override = None,
    runs: Runs = Path("runs"),
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw it there: .png, .svg or .pdf.")
    ] = None,
    no_plugin: NoPlugin = None,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
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


@app.command(name="list")
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


@app.command()
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

    rows = prediction.predict_file(prediction.load(folder), file)
    if output is not None:
        _write_csv(rows, output)
    if json:
        return Answer({"run_id": folder.name, "predictions": rows})
    if output is None:
        _write_csv(rows, None)
    return None


@plugins_app.callback()
def list_plugins(context: typer.Context, json: Json = False) -> Answer | None:
    """List the plugins: what they offer, and why one is not loaded."""
    if context.invoked_subcommand is not None:
        return None
    import dataclasses  # noqa: PLC0415

    from autoxfer.plugins import load_plugins  # noqa: PLC0415

    records = load_plugins().records
    if json:
        return Answer({"plugins": [dataclasses.asdict(record) for record in records]})
    lines: list[tuple[str, ...]] = [("plugin", "state", "offers", "from", "")]
    for record in records:
        offers = ", ".join((*record.strategies, *record.sources, *record.datasets))
        lines.append((record.name, record.state, offers or "-", record.origin, record.reason))
    print(aligned(lines))
    return None


@plugins_app.command(name="check")
def check_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A strategy's name.")], json: Json = False
) -> Answer:
    """Check that a strategy keeps the promises of the contract."""
    from autoxfer.plugins import load_plugins  # noqa: PLC0415

    strategy = load_plugins().strategy(name, "autoxfer plugins check")
    from autoxfer.testing import run_checks  # noqa: PLC0415

    try:
        reports = list(run_checks(strategy))
    except AssertionError as error:  # no strategy at all
        print(f"broken  {error}")
        return Answer({"strategy": name, "passed": False, "checks": [], "reason": str(error)}, 1)
    checks = [{"check": str(item.check), "outcome": item.outcome, "reason": item.reason} for item in reports]
    broken = sum(not item.passed for item in reports)
    if not json:
        print(aligned([(item["outcome"], item["check"], item["reason"]) for item in checks]))
        print(f"\n{name} keeps {len(reports) - broken} of {len(reports)} promises")
    return Answer({"strategy": name, "passed": not broken, "checks": checks}, int(broken > 0))


@app.command()
def doctor(runs: Runs = Path("runs"), mlflow: Mlflow = None, json: Json = False) -> Answer:
    """Look at the machine and the installation."""
    import dataclasses  # noqa: PLC0415

    from autoxfer.terminal.doctor import examine  # noqa: PLC0415

    findings = examine(runs, mlflow)
    broken = any(finding.state == "broken" for finding in findings)
    if not json:
        print(aligned([(finding.state, finding.name, finding.text) for finding in findings]))
    return Answer({"ok": not broken, "findings": [dataclasses.asdict(item) for item in findings]}, int(broken))


@config_app.callback()
def _config(context: typer.Context) -> None:
    """Show the run file's schema, or write one to start from."""
    _help_alone(context)


@config_app.command(name="schema")
def config_schema() -> None:
    """Print the JSON schema of the run file, for editors."""
    from autoxfer.config import schema  # noqa: PLC0415

    print_json(schema())


@config_app.command(name="init")
def config_init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - is stdout.")] = Path("run.yaml"),
) -> None:
    """Write a run file to start from, with comments."""
    from autoxfer.config import template  # noqa: PLC0415

    if str(path) == "-":
        print(template(), end="")
        return
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(template())
    except FileExistsError:
        raise InputError("the name of a new file", "a file that is there already", str(path)) from None
    except OSError as error:
        raise InputError("a file that can be written", error.strerror or str(error), str(path)) from None
    print(f"wrote {path}: adapt it, then  autoxfer plan {path}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; every error becomes one message here."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that wait for one another by spinning made two runs side by side take 68 s instead of 42, while one alone
    # gained nothing (the digits example, two trials a study, two cores). OpenMP reads this once torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    with _interruptible():
        if "--json" not in arguments:
            sys.exit(_invoke(arguments).code)
        with stdout_to_stderr():
            answer = _invoke(arguments)
    if answer.value is not None:
        print_json(answer.value)
    sys.exit(answer.code)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, which clusters and containers send, end a command as Ctrl-C does; ignored signals stay ignored."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _invoke(arguments: Sequence[str]) -> Answer:
    """Carry a command out. Typer's own ``main`` would swallow what this has to report."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("autoxfer", list(arguments)) as context:
            answer = command.invoke(context)
        sys.stdout.flush()
        return answer if isinstance(answer, Answer) else Answer()
    except typer.Exit as stop:
        return Answer(code=stop.exit_code)
    except BrokenPipeError:  # `autoxfer list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Answer(code=0)
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error, debug="--debug" in arguments)


def _failed(error: BaseException, *, debug: bool) -> Answer:
    if isinstance(error, _USAGE_ERROR):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "autoxfer"
        error = InputError(f"arguments as {path} --help lists them", error.format_message(), path)
    elif isinstance(error, typer.Abort):
        error = KeyboardInterrupt()
    if debug:
        traceback.print_exception(error)
    code = exit_code(error)
    if code == 1 and not debug and not getattr(error, "__notes__", ()):
        error.add_note("autoxfer --debug ... shows where it happened")
    with contextlib.suppress(OSError):
        print(as_text(error), file=sys.stderr)
    return Answer(as_object(error), code)


_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's, or the copy of click that newer versions of typer carry


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


def _help_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


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
