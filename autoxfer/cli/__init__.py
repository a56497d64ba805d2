"""The command line: runs one command, and turns its errors and signals into one message and an exit code.

The commands stand in ``experiments``, ``results`` and ``installation``. They are thin, and each imports what it needs
when it is called, so that ``--help`` is there at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn

import typer

from autoxfer import __version__
from autoxfer.cli import experiments, installation, results
from autoxfer.cli.options import GROUP, help_alone
from autoxfer.errors import InputError
from autoxfer.terminal import Answer, as_object, as_text, exit_code, print_json, stdout_to_stderr

app = typer.Typer(name="autoxfer", **GROUP)
app.command()(experiments.run)
app.command()(experiments.plan)
app.command()(experiments.pretrain)
app.command()(results.explain)
app.command()(experiments.curve)
app.command(name="list")(results.list_runs)
app.command()(results.predict)
app.command()(installation.doctor)
app.add_typer(installation.plugins_app, name="plugins")
app.add_typer(installation.config_app, name="config")


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
    help_alone(context)


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
