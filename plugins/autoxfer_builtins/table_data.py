"""Tables in .csv and .parquet files: numbers, categories, gaps and texts; a target; perhaps groups and own splits.

Columns of texts are read as one text, joined in their order by line breaks. Where other columns stand beside them that
are of use, the data set is mixed. A column of image files makes it a data set of images.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import Column, Dataset, DatasetReader, DataSpec, InputError, Schema, as_text, encode, hookimpl
from autoxfer.records import Task
from autoxfer_builtins.columns import choose_columns, is_number, text_columns
from autoxfer_builtins.picture_columns import pick, read_pictures, restrict
from autoxfer_builtins.reading import (
    LABELS,
    PARTS,
    group_codes,
    index,
    locate,
    nearest,
    numbers,
    unknown_group,
    unknown_target,
)

SUFFIXES = (".csv", ".parquet")
SPLIT = "split"
MOST_CLASSES = 10  # different whole numbers in a target up to which they are read as classes
NO_LABEL = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "<NA>")  # "None" may be a class

Table = Mapping[str, Sequence[Any]]


@final
class TableReader(DatasetReader):
    """Reads ``.csv`` (comma, semicolon or tab; UTF-8; a header) and ``.parquet``."""

    name: ClassVar[str] = "table"

    def reads(self, spec: DataSpec) -> bool:
        """Whether the name ends in ``.csv`` or ``.parquet``."""
        return spec.location.lower().endswith(SUFFIXES)

    def read(self, spec: DataSpec) -> Dataset:
        """Read the whole table. Raises InputError: ragged, empty, no such target, nothing of use, infinite numbers."""
        path = locate(spec)
        table = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
        warnings: list[str] = []
        target = _target(list(table), spec, warnings)
        _check_group(list(table), spec, target)
        table, labels = _labelled(table, target, warnings, path.name)
        y, classes = _task(labels, spec, target, warnings, f"{path.name}: column {target!r}")
        beside = (target, SPLIT, spec.group, *_ignored(list(table), spec, target))
        features = {name: values for name, values in table.items() if name not in beside}
        parts = _parts(table[SPLIT], path.name) if SPLIT in table and target != SPLIT else {}
        groups = group_codes(table[spec.group], f"{path.name}: column {spec.group!r}") if spec.group else None
        gallery = read_pictures(features, path.parent, warnings, path.name)
        if gallery is not None:
            task: Task = "classification" if classes else "regression"
            schema = Schema("image", task, gallery.pixels.shape[1:], "uint8", classes, target=target)
            whole = Dataset(path.stem, schema, gallery.pixels, y, parts, tuple(warnings), groups)
            return restrict(whole, gallery.rows)
        schema = _schema(features, "classification" if classes else "regression", classes, target, warnings)
        if not schema.columns:
            raise InputError("columns to learn from beside the target", "none that is of use", path.name)
        examples, texts = _examples(schema, features, warnings, path.name)
        return Dataset(path.stem, schema, examples, y, parts, tuple(warnings), groups, texts)


def _schema(features: Table, task: Task, classes: tuple[str, ...], target: str, warnings: list[str]) -> Schema:
    """Tell texts from what stands beside them; say what becomes of several."""
    texts = tuple(Column(name, "text") for name in text_columns(features))
    names = [column.name for column in texts]
    if len(texts) > 1:
        warnings.append(f"{', '.join(names)} are read as one text, joined in this order")
    columns = choose_columns({name: values for name, values in features.items() if name not in names}, warnings)
    if not texts:
        return Schema("table", task, (len(columns),), "float32", classes, columns, target)
    if not columns:
        return Schema("text", task, (), "str", classes, texts, target)
    return Schema("mixed", task, (len(columns),), "float32", classes, (*texts, *columns), target)


def _examples(
    schema: Schema, features: Table, warnings: list[str], where: str
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Encode the examples, the texts of a mixed data set beside them, and count the empty texts."""
    if schema.modality == "table":
        return encode(schema, features, where), None
    texts = encode(replace(schema, modality="text", columns=schema.text_columns), features, where)
    n_empty = sum(not text.strip() for text in texts.tolist())
    if n_empty:
        warnings.append(f"{n_empty:,} of {len(texts):,} texts are empty")
    if schema.modality == "text":
        return texts, None
    return encode(replace(schema, modality="table", columns=schema.table_columns), features, where), texts


def _csv(path: Path) -> Table:
    """Read text cells. Raises InputError on rows of another length than the header, or a header alone."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            lines = csv.reader(file, delimiter=max(",;\t", key=first.count))
            rows = [(lines.line_num, row) for row in lines if row]
    except UnicodeDecodeError as error:
        raise InputError("text in UTF-8", f"byte {error.start} that is not", path.name) from None
    except csv.Error as error:
        raise InputError("a table of comma-separated values", str(error), path.name) from None
    header = [name.strip() for name in rows[0][1]] if rows else []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(
                f"{len(header)} values in every row, as in the header", f"{len(row)} in line {line}", path.name
            )
    return _checked(header, [list(cells) for cells in zip(*(row for _, row in rows[1:]), strict=True)], path.name)


def _parquet(path: Path) -> Table:
    import pyarrow as pa  # noqa: PLC0415  (heavy, and needed for this kind of file alone)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.read_table(path)
        columns = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError("a Parquet file", str(error).splitlines()[0], path.name) from None
    return _checked(list(table.column_names), columns, path.name)


def _checked(header: list[str], columns: list[list[Any]], where: str) -> Table:
    """Check that columns are named once and hold plain values."""
    if len(header) < 2:
        raise InputError("a header with at least two columns", f"{header}", where)
    if not columns or not columns[0]:
        raise InputError("at least one row", "a header only", where)
    twice = sorted({name for name in header if header.count(name) > 1 or not name})
    if twice:
        raise InputError("columns of different names", f"{twice[0]!r}, {header.count(twice[0])} times", where)
    if len(columns[0]) < 2:
        raise InputError("rows to learn from and rows to judge by", "one row", where)
    for name, values in zip(header, columns, strict=True):
        strange = next((value for value in values if isinstance(value, (list, dict, tuple, bytes))), None)
        if strange is not None:
            kind = type(strange).__name__
            raise InputError("numbers, strings, booleans and dates", f"a {kind} in column {name!r}", where)
    return dict(zip(header, columns, strict=True))


def _target(names: list[str], spec: DataSpec, warnings: list[str]) -> str:
    """Find the column to predict: the user's, one of the usual names, or the last."""
    if spec.target is not None:
        if spec.target not in names:
            raise unknown_target(spec, names)
        return spec.target
    usual = [name for word in LABELS for name in names if name.lower() == word]
    if usual:
        return usual[0]
    last = [name for name in names if name != SPLIT][-1]
    warnings.append(f"no target is named: the last column, {last!r}, is taken")
    return last


def _check_group(names: list[str], spec: DataSpec, target: str) -> None:
    """Refuse a group that is no column, or one that means something else. Raises InputError."""
    others = [name for name in names if name not in (target, SPLIT)]
    if spec.group is not None and spec.group not in others:
        if spec.group in names:
            what = "the target" if spec.group == target else "the column of the user's own splits"
            raise InputError(f"one of {', '.join(others)}", f"{spec.group!r}, {what}", "task.group")
        raise unknown_group(spec, others)


def _ignored(names: list[str], spec: DataSpec, target: str) -> tuple[str, ...]:
    """Take the columns that are not to be learned from. Raises InputError for one that is none, or means more."""
    others = [name for name in names if name not in (target, SPLIT, spec.group)]
    for name in spec.ignore:
        if name not in others:
            why = ", which is no feature anyway" if name in names else nearest(name, others)
            raise InputError(f"columns among {', '.join(others)}", f"{name!r}{why}", "task.ignore")
    return spec.ignore


def _labelled(table: Table, target: str, warnings: list[str], where: str) -> tuple[Table, list[str]]:
    """Drop the rows without a label: the table that is left, and the labels as text."""
    labels = _texts(table[target])
    kept = [row for row, label in enumerate(labels) if label is not None]
    if not kept:
        raise InputError(f"labels in column {target!r}", "none", where)
    if len(kept) < len(labels):
        warnings.append(f"{len(labels) - len(kept):,} rows without a value in {target!r} are left out")
        table = {name: pick(values, kept) for name, values in table.items()}
    return table, [label for label in labels if label is not None]


def _texts(values: Sequence[Any]) -> list[str | None]:
    """Name labels as categories are named, but that "None" and the like are names too."""
    plain = [None if isinstance(value, str) and value.strip() in NO_LABEL else value for value in values]
    return [
        value.strip() if name is None and isinstance(value, str) else name
        for name, value in zip(as_text(plain), plain, strict=True)
    ]


def _task(
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


def _parts(values: Sequence[Any], where: str) -> dict[str, NDArray[np.int64]]:
    """Read the user's own splits from their column."""
    texts = as_text(values)
    unknown = [text for text in texts if text is None or text.lower() not in PARTS]
    if unknown:
        raise InputError(f"{', '.join(PARTS)} in column {SPLIT!r}", repr(unknown[0] or ""), where)
    return {
        part: np.flatnonzero([text is not None and text.lower() == part for text in texts])
        for part in PARTS
        if any(text is not None and text.lower() == part for text in texts)
    }


@hookimpl
def autoxfer_datasets() -> list[type[DatasetReader]]:
    """Offer tables."""
    return [TableReader]
