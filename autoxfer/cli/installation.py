"""Commands about what is installed and how to begin: doctor, plugins, config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoxfer.cli.options import GROUP, Json, Mlflow, Runs, help_alone
from autoxfer.errors import InputError
from autoxfer.terminal import Answer, aligned, print_json

plugins_app = typer.Typer(**GROUP)
config_app = typer.Typer(**GROUP)


def doctor(runs: Runs = Path("runs"), mlflow: Mlflow = None, json: Json = False) -> Answer:
    """Look at the machine and the installation."""
    import dataclasses  # noqa: PLC0415

    from autoxfer.terminal.doctor import examine  # noqa: PLC0415

    findings = examine(runs, mlflow)
    broken = any(finding.state == "broken" for finding in findings)
    if not json:
        print(aligned([(finding.state, finding.name, finding.text) for finding in findings]))
    return Answer({"ok": not broken, "findings": [dataclasses.asdict(item) for item in findings]}, int(broken))


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
    name: Annotated[str, typer.Argument(metavar="NAME", help="A strategy's name.")],
    json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List the promises that are kept too.")] = False,
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
        shown = [(item.outcome, str(item.check), item.reason) for item in reports if verbose or not item.passed]
        print(f"{aligned(shown)}\n\n" if shown else "", end="")
        for scene in dict.fromkeys(str(item.check.scene) for item in reports):
            kept = [item.passed for item in reports if str(item.check.scene) == scene]
            print(f"{scene}: {name} keeps {sum(kept)} of {len(kept)} promises")
        print(f"{name} keeps {len(reports) - broken} of {len(reports)} promises")
    return Answer({"strategy": name, "passed": not broken, "checks": checks}, int(broken > 0))


@config_app.callback()
def _config(context: typer.Context) -> None:
    """Show the run file's schema, or write one to start from."""
    help_alone(context)


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
