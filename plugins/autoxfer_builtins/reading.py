"""What the readers of data sets share: finding the file, naming the nearest, telling classes from numbers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer import DataSpec, InputError, as_text

PARTS = ("train", "tune", "validation", "val", "guard", "test")
LABELS = ("label", "labels", "target", "class", "y")


def locate(spec: DataSpec) -> Path:
    """Where the data is. Raises InputError where nothing is."""
    path = spec.directory / Path(spec.location).expanduser()
    if not path.exists():
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError("a file or folder that exists", f"no {spec.location}{nearest(path.name, beside)}", "task.data")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError("a file with data", f"an empty file, {spec.location}", "task.data")
    return path


def nearest(word: str, words: Iterable[str]) -> str:
    """Say which of ``words`` is the likeliest to be meant: ", nearest 'label'", or nothing."""
    plain = {one.lower(): one for one in words}
    close = difflib.get_close_matches(word.lower(), list(plain), n=1, cutoff=0.4)
    return f"; nearest: {plain[close[0]]!r}" if close else ""


def unknown_target(spec: DataSpec, names: list[str]) -> InputError:
    """Make the error for a target that the data does not have."""
    found = f"{spec.target!r}{nearest(spec.target or '', names)}"
    return InputError(f"one of {', '.join(names)}", found, "task.target")


def unknown_group(spec: DataSpec, names: Iterable[str]) -> InputError:
    """Make the error for a group that the data does not have."""
    names = list(names)
    found = f"{spec.group!r}{nearest(spec.group or '', names)}"
    return InputError(f"one of {', '.join(names)}" if names else "no group", found, "task.group")


def no_groups(spec: DataSpec, what: str) -> None:
    """Refuse a group, or columns to ignore, where the data have no such columns. Raises InputError."""
    if spec.ignore:
        raise InputError(f"no columns to ignore: {what} have none to leave out", ", ".join(spec.ignore), "task.ignore")
    if spec.group is not None:
        raise InputError(f"no group: {what} do not say which examples belong together", repr(spec.group), "task.group")


def group_codes(values: Sequence[Any], where: str) -> NDArray[np.int64]:
    """Give each group, a name or a number, a code: (n,). Raises InputError where one is missing."""
    texts = as_text(values)
    n_missing = sum(text is None for text in texts)
    if n_missing:
        found = f"none in {n_missing:,} of {len(texts):,}, the first of them example {texts.index(None)} (from 0)"
        raise InputError("a group for every example", found, where)
    return np.unique(np.array(texts, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def numbers(labels: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Labels for regression: (n,) float32. Raises InputError where they are no finite numbers."""
    if labels.dtype.kind not in "buif":
        raise InputError("numbers as labels for regression", f"labels of type {labels.dtype}", where)
    with np.errstate(over="ignore"):
        values = labels.astype(np.float32)
    bad = ~np.isfinite(values)
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
