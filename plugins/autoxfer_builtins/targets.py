"""What a table is to predict: classes or numbers in one column, several labels in one, labels or numbers in several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer import DataSpec, InputError, as_text
from autoxfer_builtins.columns import is_number
from autoxfer_builtins.picture_columns import pick
from autoxfer_builtins.reading import LABELS, Answers, called, index, matrix_warnings, numbers, unknown_target

SPLIT = "split"
MOST_CLASSES = 10  # different whole numbers in a target up to which they are read as classes
NO_LABEL = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "<NA>")  # "None" may be a class
TRUE, FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
BETWEEN = re.compile(r"[;|]")  # what separates the labels of one example in a cell

Table = Mapping[str, Sequence[Any]]


def choose_targets(names: list[str], spec: DataSpec, warnings: list[str]) -> tuple[str, ...]:
    """Find the columns to predict: the user's, or one of the usual names, or the last."""
    if spec.target is not None:
        wanted = (spec.target,) if isinstance(spec.target, str) else spec.target
        if unknown := [name for name in wanted if name not in names]:
            raise unknown_target(unknown[0], names)
        if len(set(wanted)) < len(wanted) or not wanted:
            raise InputError("different columns", ", ".join(wanted) or "none", "task.target")
        return wanted
    usual = [name for word in LABELS for name in names if name.lower() == word]
    if usual:
        return (usual[0],)
    last = [name for name in names if name != SPLIT][-1]
    warnings.append(f"no target is named: the last column, {last!r}, is taken")
    return (last,)


def may_list(spec: DataSpec) -> tuple[str, ...]:
    """Name the columns whose cells may be lists, of labels."""
    return (spec.target,) if isinstance(spec.target, str) else spec.target or LABELS


def read_answers(
    table: Table, targets: tuple[str, ...], spec: DataSpec, warnings: list[str], where: str
) -> tuple[Table, Answers]:
    """Read the labels; rows without one, or without one of several, are left out of the table and counted."""
    if len(targets) > 1:
        return _several(table, targets, spec, warnings, where)
    target, place = targets[0], f"{where}: column {targets[0]!r}"
    if spec.task == "multilabel" or _listed(table[target]) is not None:
        return _sets(table, target, spec, warnings, place)
    table, labels = _labelled(table, target, warnings, where)
    y, classes = _one(labels, spec, target, warnings, place)
    return table, Answers(y, "classification" if classes else "regression", classes, target)


def _left(table: Table, kept: list[int]) -> Table:
    return {name: pick(values, kept) for name, values in table.items()}


def _labelled(table: Table, target: str, warnings: list[str], where: str) -> tuple[Table, list[str]]:
    """Drop the rows without a label: the table that is left, and the labels as text."""
    labels = _texts(table[target])
    kept = [row for row, label in enumerate(labels) if label is not None]
    if not kept:
        raise InputError(f"labels in column {target!r}", "none", where)
    if len(kept) < len(labels):
        warnings.append(f"{len(labels) - len(kept):,} rows without a value in {target!r} are left out")
        table = _left(table, kept)
    return table, [label for label in labels if label is not None]


def _texts(values: Sequence[Any]) -> list[str | None]:
    """Name labels as categories are named, but that "None" and the like are names too."""
    plain = [None if isinstance(value, str) and value.strip() in NO_LABEL else value for value in values]
    return [
        value.strip() if name is None and isinstance(value, str) else name
        for name, value in zip(as_text(plain), plain, strict=True)
    ]


def _one(
    labels: list[str], spec: DataSpec, target: str, warnings: list[str], where: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Tell classes from numbers: (n,) indices with names, or (n,) float32 with none."""
    distinct = set(labels)
    numeric = all(is_number(label) for label in distinct)
    values = np.array([float(label) for label in labels]) if numeric else np.array(labels)
    whole = numeric and bool(np.isfinite(values).all() and (values % 1 == 0).all())
    task = spec.task or ("classification" if not numeric or (whole and len(distinct) <= MOST_CLASSES) else "regression")
    if spec.task is None and whole and len(distinct) > 2:
        told = f"{target!r} holds {len(distinct)} different whole numbers and is read as {task}"
        warnings.append(f"{told}; set task.kind if it is not")
    if task == "regression":
        return numbers(values, where), ()
    if 2 * len(distinct) > len(labels) and len(distinct) > MOST_CLASSES:
        raise InputError("classes that repeat", f"{len(distinct):,} different values in {len(labels):,} rows", where)
    return index(values.astype(np.int64) if whole else np.array(labels), (), where)


def _several(
    table: Table, targets: tuple[str, ...], spec: DataSpec, warnings: list[str], where: str
) -> tuple[Table, Answers]:
    """Read a label (0 or 1, true or false, yes or no) or a number from each of several columns."""
    if spec.task == "classification":
        raise InputError("one column as the target of a classification", f"{len(targets)} columns", "task.target")
    columns = {name: _texts(table[name]) for name in targets}
    rows = range(len(columns[targets[0]]))
    kept = [row for row in rows if all(column[row] is not None for column in columns.values())]
    if not kept:
        raise InputError(f"rows with a value in each of {called(targets)}", "none", where)
    if len(kept) < len(rows):
        gaps = ", ".join(f"{n:,} in {name!r}" for name, cells in columns.items() if (n := cells.count(None)))
        warnings.append(f"{len(rows) - len(kept):,} rows without a value in one of the targets are left out ({gaps})")
        table = _left(table, kept)
    texts = {name: [str(cells[row]) for row in kept] for name, cells in columns.items()}
    strange = {name: _strange(cells, (*TRUE, *FALSE)) for name, cells in texts.items()}
    if spec.task == "multilabel" or (spec.task is None and not any(strange.values())):
        return table, _labels(texts, strange, spec, warnings, where)
    for name, cells in texts.items():
        wrong = next((cell for cell in cells if not is_number(cell)), None)
        if wrong is not None:
            kinds = "numbers" if spec.task else "0 and 1 (or true and false, yes and no) in every column, or numbers"
            raise InputError(f"{kinds} as several targets", f"{wrong!r} in column {name!r}", where)
    values = [numbers(np.array(cells, np.float64), f"{where}: column {name!r}") for name, cells in texts.items()]
    return table, Answers(np.stack(values, axis=1), "regression", (), called(targets), targets)


def _labels(
    texts: Mapping[str, list[str]], strange: Mapping[str, str], spec: DataSpec, warnings: list[str], where: str
) -> Answers:
    names = tuple(texts)
    for name, cell in strange.items():
        if cell:
            expected = "0 and 1 (or true and false, yes and no) as labels"
            raise InputError(expected, f"{cell!r} in column {name!r}", where)
    y = np.array([[cell.lower() in TRUE for cell in cells] for cells in texts.values()], np.float32).T
    if spec.task is None:
        told = f"{called(names)} hold nothing but 0 and 1 (true, false, yes, no) and are read as labels"
        warnings.append(f"{told} of which an example may have several; set task.kind if they are not")
    answers = Answers(np.ascontiguousarray(y), "multilabel", names, called(names))
    warnings += matrix_warnings(answers, spec)
    return answers


def _strange(cells: list[str], known: Sequence[str]) -> str:
    return next((cell for cell in cells if cell.lower() not in known), "")


def _listed(values: Sequence[Any]) -> Sequence[Any] | None:
    """Give the first list of labels in a column; None where there is none."""
    return next((value for value in values if isinstance(value, list | tuple)), None)


def _sets(table: Table, target: str, spec: DataSpec, warnings: list[str], where: str) -> tuple[Table, Answers]:
    """Read one column whose cells hold several labels each: lists, or text between ; or |."""
    if spec.task not in (None, "multilabel"):
        raise InputError(f"one value in every row for {spec.task}", "lists", where)
    cells = list(table[target])
    kept = [row for row, cell in enumerate(cells) if not _missing(cell)]
    if not kept:
        raise InputError(f"labels in column {target!r}", "none", where)
    if len(kept) < len(cells):
        warnings.append(f"{len(cells) - len(kept):,} rows without a value in {target!r} are left out")
        table = _left(table, kept)
    sets = [_named(cells[row], row, where) for row in kept]
    if all(len(names) < 2 for names in sets):
        found = "one label, or none, in every row"
        raise InputError("several labels in some rows, as lists or with ; or | between, for multilabel", found, where)
    names = tuple(sorted(set().union(*sets)))
    place = {name: number for number, name in enumerate(names)}
    y = np.zeros((len(sets), len(names)), np.float32)
    for row, own in enumerate(sets):
        y[row, [place[name] for name in own]] = 1.0
    if n_bare := sum(not own for own in sets):
        warnings.append(f"{n_bare:,} of {len(sets):,} rows have none of the labels in {target!r}")
    return table, Answers(y, "multilabel", names, target)


def _missing(cell: Any) -> bool:
    """Whether nothing is known of a row; an empty text, or an empty list, says that it has no label."""
    if isinstance(cell, str):
        return bool(cell.strip()) and cell.strip() in NO_LABEL
    return cell is None or (isinstance(cell, float) and np.isnan(cell))


def _named(cell: Any, row: int, where: str) -> set[str]:
    """Name the labels of one cell."""
    if not isinstance(cell, list | tuple):
        text = cell if isinstance(cell, str) else str(as_text([cell])[0])
        return {name.strip() for name in BETWEEN.split(text) if name.strip()}
    names = [each.strip() if isinstance(each, str) else _texts([each])[0] for each in cell]
    if None in names or any(isinstance(each, list | tuple | dict) for each in cell):
        raise InputError("lists of names or numbers as labels", f"{cell!r} in row {row} (from 0)", where)
    return {name for name in names if name}
