"""A run's folder: what lies where, and writing that a crash cannot tear."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from autoxfer.errors import InputError, StorageError

LONGEST = 120  # letters of a study's name that its folder carries


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal (disk full, read-only, quota, permission) into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{path} cannot be written: {why}; what is finished is kept") from error


def plain(value: Any) -> Any:
    """Make ``value`` fit for JSON: numpy's scalars become Python's, what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step."""
    text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@final
@dataclass(frozen=True)
class RunFolder:
    """``runs/<run_id>/``."""

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved run file."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, device, threads, fingerprints of data and sources."""
        return self.path / "environment.json"

    @property
    def journal(self) -> Path:
        """Optuna's journal of all studies."""
        return self.path / "journal.log"

    @property
    def trials(self) -> Path:
        """All trials as one table."""
        return self.path / "trials.parquet"

    @property
    def losses(self) -> Path:
        """Example, finalist, loss on the guard split."""
        return self.path / "losses.parquet"

    @property
    def result(self) -> Path:
        """The record of the run."""
        return self.path / "result.json"

    @property
    def winner(self) -> Path:
        """The winner's files."""
        return self.path / "winner"

    @property
    def refit(self) -> Path:
        """The files of the winner's recipe, trained again."""
        return self.path / "winner_refit"

    @property
    def earlier(self) -> Path:
        """What the run took over of an earlier one, where it began warm."""
        return self.path / "warm_start.json"

    @property
    def looks(self) -> Path:
        """The ledger of looks at the guard; it lies beside the run folders, for all of them."""
        return self.path.parent / "looks.jsonl"

    @property
    def diagnostics(self) -> Path:
        """What was measured of the sources before the search."""
        return self.path / "diagnostics.json"

    @property
    def forecast(self) -> Path:
        """What the run was expected to take, when it began."""
        return self.path / "forecast.json"

    @property
    def curves(self) -> Path:
        """Losses of each study's recipe on parts of the train split, once a run has been explained."""
        return self.path / "curves.json"

    @property
    def explanation(self) -> Path:
        """The plot of gains and scores."""
        return self.path / "explanation.png"

    @property
    def predictions(self) -> Path:
        """What a fold's finalists say of it; where it lies, the fold is finished."""
        return self.path / "predictions.npz"

    def fold(self, number: int) -> RunFolder:
        """Find the folder of a fold's search, counted from 1."""
        return RunFolder(self.path / "folds" / str(number))

    def best(self, study: str) -> Path:
        """Find the best weights of a study; the names of many sources in one would be too long for a folder's."""
        if len(study) > LONGEST:
            study = f"{study[:LONGEST]}~{hashlib.sha256(study.encode()).hexdigest()[:12]}"
        return self.path / "studies" / study / "best.safetensors"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder for this process, and clear away what a killed one had half written.

        Raises InputError where another process holds it, StorageError where it cannot be written to.
        """
        import fcntl  # noqa: PLC0415 - not on Windows, where a second owner goes unnoticed

        lock = self.path / ".lock"
        with writing(lock):
            handle = lock.open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = "one that another process is working on"
                raise InputError("a run that nobody works on", found, f"run {self.run_id}") from None
            except OSError:  # a file system without locks
                pass
            for left in self.path.rglob(".*"):
                if re.fullmatch(r"\..+\.\d+", left.name):
                    left.unlink(missing_ok=True)
            yield


def check(runs: Path) -> None:
    """Make sure, before anything expensive, that runs can be kept in ``runs``; makes nothing. Raises InputError."""
    place = next(folder for folder in (runs.absolute(), *runs.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError("a folder that can be written to", error.strerror or str(error), f"--runs {runs}") from None


def create(runs: Path, run_id: str) -> RunFolder:
    """Make a new run's folder. Raises InputError where ``runs`` cannot be written to."""
    folder = RunFolder(runs / run_id)
    try:
        folder.path.mkdir(parents=True)
    except OSError as error:
        raise InputError("a folder that can be written to", error.strerror or str(error), f"--runs {runs}") from None
    return folder


def find(runs: Path, run_id: str) -> RunFolder:
    """Find an existing run's folder. Raises InputError where there is none."""
    folder = RunFolder(runs / run_id)
    if not folder.config.is_file():
        known = sorted(path.parent.name for path in runs.glob("*/config.yaml"))[-5:]
        found = f"none of that name; the latest are {', '.join(known)}" if known else "no run at all"
        if run_id and folder.path.is_dir():
            found = "a folder without config.yaml"
            if not folder.journal.exists():
                found += ": it was stopped before anything was done, so start the run again"
        raise InputError(f"a run {run_id!r}", found, f"--runs {runs}")
    return folder
