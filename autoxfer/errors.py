"""Every error that autoxfer raises on purpose."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterable
from difflib import get_close_matches


class AutoxferError(Exception):
    """The base of what autoxfer raises on purpose; the command line exits with 1."""


class InputError(AutoxferError):
    """The user's input is wrong; the command line exits with 2 and prints one message.

    ``expected`` says what was needed, ``found`` what stood there, ``where`` the file, key or argument.
    """

    def __init__(self, expected: str, found: str, where: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.expected = expected
        self.found = found
        self.where = where

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.expected, self.found, self.where)


class PluginError(AutoxferError):
    """A plugin breaks the contract; the message names the plugin and the reason."""


class Unsupported(AutoxferError):  # noqa: N818 - read where it is raised, it is a statement
    """A strategy cannot serve this problem; raised by ``Strategy.space`` with the reason, before anything is run."""


class TrackingError(AutoxferError):
    """MLflow could not be reached or refused what was sent."""


class StorageError(AutoxferError):
    """The run's folder cannot be written to; what is finished is kept, and the run can go on once it can."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest for a message the known name that ``name`` was probably meant to be; empty where none is like it."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def is_fatal(error: BaseException) -> bool:
    """Tell what would fail every trial, and is mended by the user before going on, from a strategy's own failure."""
    disk = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
    return isinstance(error, InputError | StorageError) or (isinstance(error, OSError) and error.errno in disk)


def describe(error: BaseException) -> str:
    """Say in one line what happened and where: type, message, last frame."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0][:300]}".removesuffix(": ")
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return text
    file = re.split(r"[\\/]", frames[-1].filename)[-1]
    return f"{text} ({file}:{frames[-1].lineno} in {frames[-1].name})"
