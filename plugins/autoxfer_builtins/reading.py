"""What the readers of data sets share: finding the file, naming the nearest, telling classes from numbers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer import DataSpec, InputError, Schema, as_text
from autoxfer.records import Task

PARTS = ("train", "tune", "validation", "val", "guard", "test")
SAVED = ("state.json", "dataset_dict.json")  # in a folder that datasets' save_to_disk wrote
LABELS = ("label", "labels", "target", "class", "y")


@dataclass(frozen=True)
class Answers:
    """The labels of all examples, and what they mean."""

    y: NDArray[Any]  # (n,) int64 or float32; (n, k) float32
    task: Task
    classes: tuple[str, ...]
    target: str  # what to call it
    targets: tuple[str, ...] = ()

    def describe(self, schema: Schema) -> Schema:
        """Say in a schema what is to be predicted."""
        return replace(schema, classes=self.classes, target=self.target, targets=self.targets)

    def in_order(self, names: tuple[str, ...]) -> Answers:
        """Bring the classes into the order that the data set gives them."""
        if self.task != "classification" or not set(self.classes) <= set(names):
            return self
        ordered = tuple(name for name in names if name in self.classes)
        place = np.array([ordered.index(name) for name in self.classes], dtype=np.int64)
        return replace(self, y=place[self.y], classes=ordered)


def locate(spec: DataSpec) -> Path:
    """Where the data is. Raises InputError where nothing is."""
    path = spec.directory / Path(spec.location).expanduser()
    if not path.exists():
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError("a file or folder that exists", f"no {spec.location}{nearest(path.name, beside)}", "task.data")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError("a file with data", f"an empty file, {spec.location}", "task.data")
    return path


def saved(path: Path) -> bool:
    """Whether a folder holds a data set as ``save_to_disk`` of Hugging Face's ``datasets`` writes it."""
    return any((path / name).is_file() for name in SAVED)


def nearest(word: str, words: Iterable[str]) -> str:
    """Say which of ``words`` is the likeliest to be meant: ", nearest 'label'", or nothing."""
    plain = {one.lower(): one for one in words}
    close = difflib.get_close_matches(word.lower(), list(plain), n=1, cutoff=0.4)
    return f"; nearest: {plain[close[0]]!r}" if close else ""


def unknown_target(target: str, names: list[str]) -> InputError:
    """Make the error for a target that the data does not have."""
    return InputError(f"one of {', '.join(names)}", f"{target!r}{nearest(target, names)}", "task.target")


def one_target(spec: DataSpec, hint: str = "") -> str | None:
    """Take the one target's name, None where the user names none. Raises InputError for several."""
    if isinstance(spec.target, tuple):
        if len(spec.target) != 1:
            raise InputError(f"one name as target{hint}", f"{len(spec.target)}", "task.target")
        return spec.target[0]
    return spec.target


def not_several(spec: DataSpec, what: str) -> None:
    """Refuse several labels where the data have one for each example. Raises InputError."""
    if spec.task == "multilabel":
        expected = f"classification or regression: {what} have one label for each example"
        raise InputError(expected, spec.task, "task.kind")


def called(names: Sequence[str]) -> str:
    """Name several targets in a few words."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def matrix_warnings(answers: Answers, spec: DataSpec) -> list[str]:
    """Warn of labels, or numbers, (n, k) that may be meant otherwise."""
    k = answers.y.shape[1] if answers.y.ndim == 2 else 0
    if answers.task == "multilabel" and (answers.y.sum(axis=1) == 1).all():
        return [
            f"every example has exactly one of {k} labels: if they exclude each other they are classes, and one target "
            "that names the class is better"
        ]
    if answers.targets and spec.task is None and ((answers.y == 0) | (answers.y == 1)).all():
        return [f"{k} numbers that are all 0 or 1 are read as numbers; kind: multilabel reads them as labels"]
    return []


def unknown_key(name: str, names: Iterable[str], what: str) -> InputError:
    """Make the error for a group, a time or a weight that the data does not have."""
    names = list(names)
    return InputError(
        f"one of {', '.join(names)}" if names else f"no {what}", f"{name!r}{nearest(name, names)}", f"task.{what}"
    )


def no_groups(spec: DataSpec, what: str) -> None:
    """Refuse what only columns can say, where the data have no such columns. Raises InputError."""
    if spec.ignore:
        raise InputError(f"no columns to ignore: {what} have none to leave out", ", ".join(spec.ignore), "task.ignore")
    if spec.group is not None:
        raise InputError(f"no group: {what} do not say which examples belong together", repr(spec.group), "task.group")

    if spec.time is not None:
        raise InputError(f"no time: {what} do not say when an example was taken", repr(spec.time), "task.time")
    if spec.weight is not None:
        raise InputError(f"no weight: {what} have none for an example", repr(spec.weight), "task.weight")


def group_codes(values: Sequence[Any], where: str) -> NDArray[np.int64]:
    """Give each group, a name or a number, a code: (n,). Raises InputError where one is missing."""
    texts = as_text(values)
    n_missing = sum(text is None for text in texts)
    if n_missing:
        found = f"none in {n_missing:,} of {len(texts):,}, the first of them example {texts.index(None)} (from 0)"
        raise InputError("a group for every example", found, where)
    return np.unique(np.array(texts, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def moments(values: Sequence[Any], where: str) -> NDArray[np.float64]:
    """Read when each example was taken: (n,) numbers, of dates seconds. Raises InputError where one does not say."""
    told = [None if value is None else str(value) for value in values]
    as_numbers, as_dates = ([read(text or "") for text in told] for read in (_number, _seconds))
    # "20241231" is both: what most of them are, all have to be
    found = min(as_numbers, as_dates, key=lambda moments: moments.count(None))
    if None in found:
        row = found.index(None)
        expected = "a number, or a date as 2024-12-31 or 2024-12-31T23:59:59, in every row"
        raise InputError(expected, f"{told[row] or ''!r} in example {row} (from 0)", where)
    return np.array(found, dtype=np.float64)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _seconds(text: str) -> float | None:
    """Read a date in seconds; a day begins at midnight, and what names no time zone is in UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def weigh(values: Sequence[Any], where: str) -> NDArray[np.float32]:
    """Read how much each example counts: (n,). Raises InputError: no number, below zero, or nothing counts."""
    found = [_number(value) for value in values]
    bad = next((row for row, weight in enumerate(found) if weight is None or weight < 0), None)
    if bad is not None:
        raise InputError(
            "a number of at least 0 for every example", f"{str(values[bad])!r} in example {bad} (from 0)", where
        )
    weights = np.array(found, dtype=np.float32)
    if not (np.isfinite(weights).all() and weights.any()):
        raise InputError("weights of which some are above 0, and none is beyond all bounds", "none such", where)
    return weights


def numbers(labels: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Labels for regression: (n,) or (n, k) float32. Raises InputError where they are no finite numbers."""
    if labels.dtype.kind not in "buif":
        raise InputError("numbers as labels for regression", f"labels of type {labels.dtype}", where)
    with np.errstate(over="ignore"):
        values = labels.astype(np.float32)
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise InputError("finite labels", f"{labels[int(bad.argmax())]} in example {int(bad.argmax())}", where)
    return values


def index(labels: NDArray[Any], names: tuple[str, ...], where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels for classification: (n,) int64 into the names, which are the values themselves where none are given."""
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels % 1 != 0).any():
            raise InputError("whole numbers or names as classes", "fractions or NaN among the labels", where)
        labels = labels.astype(np.int64)
    if names and labels.dtype.kind in "iu":
        if labels.min() < 0 or labels.max() >= len(names):
            found = f"labels {labels.min()}..{labels.max()}"
            raise InputError(f"labels 0..{len(names) - 1}, one for each of {len(names)} class names", found, where)
        return labels.astype(np.int64), names
    values, codes = np.unique(labels, return_inverse=True)
    return codes.astype(np.int64).reshape(-1), tuple(str(value) for value in values)
