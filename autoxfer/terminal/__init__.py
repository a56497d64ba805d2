"""What goes to stdout and what to stderr: one JSON object, aligned text, and errors in three parts."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autoxfer.errors import AutoxferError, InputError
from autoxfer.runfolder import plain


@dataclass(frozen=True)
class Answer:
    """What a command has to say with --json, and how it exits."""

    value: Any = None
    code: int = 0


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything that is printed inside to stderr, by libraries in C and child processes too."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        saved = -1
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if saved >= 0:
            os.dup2(saved, 1)
            os.close(saved)


def print_json(value: Any) -> None:
    """Write one JSON object to stdout; what is not finite is null."""
    print(json.dumps(plain(value), indent=2, allow_nan=False, default=str), flush=True)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lay rows of text out in columns; nothing is cut off."""
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))] if lines else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def exit_code(error: BaseException) -> int:
    """Choose the exit code: 2 the user's input is wrong, 130 interrupted, 1 anything else."""
    if isinstance(error, InputError):
        return 2
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def as_object(error: BaseException) -> dict[str, Any]:
    """Describe an error for --json."""
    if isinstance(error, InputError):
        return {"error": {"expected": error.expected, "found": error.found, "where": error.where}}
    return {"error": {"message": headline(error), "notes": _notes(error)}}


def as_text(error: BaseException) -> str:
    """Describe an error for people."""
    if isinstance(error, InputError):
        lines = [f"error: {error.where}", f"  expected  {error.expected}", f"  found     {error.found}"]
    else:
        lines = [headline(error)]
    return "\n".join([*lines, *(f"  {note}" for note in _notes(error))])


def headline(error: BaseException) -> str:
    """Say in one line what happened."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = " ".join(str(error).split())
    return f"error: {text}" if isinstance(error, AutoxferError) else f"error: {type(error).__name__}: {text}"


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))
