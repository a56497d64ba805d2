"""The options that several commands share, and how every group of commands is set up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; all else goes to stderr.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder of the runs.")]
Mlflow = Annotated[Path | None, typer.Option("--mlflow", metavar="FILE", help="Settings in place of ./mlflow.yaml.")]
Override = Annotated[
    list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="Override, as in budget.trials=5.")
]
NoPlugin = Annotated[
    list[str] | None, typer.Option("--no-plugin", metavar="NAME", help="Switch a plugin off; may be repeated.")
]
RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")]
RunFileIfAny = Annotated[Path | None, typer.Argument(metavar="RUN.yaml", help="The run file.")]
Data = Annotated[str | None, typer.Option("--data", metavar="PATH", help="Without a run file: the data.")]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="COLUMN", help="Without a run file: the label's column or key; may be repeated."),
]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the plot there: .png, .svg or .pdf.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")]

GROUP: dict[str, Any] = {
    "rich_markup_mode": None,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "invoke_without_command": True,
}


def help_alone(context: typer.Context) -> None:
    """Show the help where no command is named."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
