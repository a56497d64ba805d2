"""Files that hold tables -> columns of plain values by name, none of them twice."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoxfer import InputError
from autoxfer_builtins.arrow_tables import Columns, check_names, columns_of, features_of
from autoxfer_builtins.picture_columns import Embedded

Table = Mapping[str, Sequence[Any]]


def read_csv(path: Path) -> Table:
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
    columns = [list(cells) for cells in zip(*(row for _, row in rows[1:]), strict=True)]
    check_columns(header, columns, path.name)
    return dict(zip(header, columns, strict=True))


def read_parquet(path: Path, labels: Sequence[str] = ()) -> Columns:
    """Read plain values and images, and lists where they are ``labels``.

    Raises InputError on what is no Parquet file, and on columns of anything else.
    """
    columns = read_parquet_columns(path)
    if strange := [*columns.nested, *(name for name in columns.lists if name not in labels)]:
        found = f"a list in column {strange[0]!r}"
        raise InputError("numbers, strings, booleans, dates and images", found, path.name)
    check_columns(list(columns.values), list(columns.values.values()), path.name)
    return columns


def read_parquet_columns(path: Path) -> Columns:
    """Read plain values and images. Raises InputError on what is no Parquet file."""
    import pyarrow as pa  # noqa: PLC0415  (heavy, and needed for this kind of file alone)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.ParquetFile(path).read()
        return columns_of(table, features_of(table, path.name), path.parent, path.name)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError("a Parquet file", str(error).splitlines()[0], path.name) from None


def check_columns(header: list[str], columns: Sequence[Sequence[Any]], where: str) -> None:
    """Check that columns are named once and hold plain values, or lists of them. Raises InputError."""
    if len(header) < 2:
        raise InputError("a header with at least two columns", f"{header}", where)
    if not columns or not columns[0]:
        raise InputError("at least one row", "a header only", where)
    check_names(header, where)
    if len(columns[0]) < 2:
        raise InputError("rows to learn from and rows to judge by", "one row", where)
    for name, values in zip(header, columns, strict=False):
        if isinstance(values, Embedded):
            continue
        strange = next((value for value in values if isinstance(value, (dict, tuple, bytes))), None)
        if strange is not None:
            kind = type(strange).__name__
            raise InputError("numbers, strings, booleans and dates", f"a {kind} in column {name!r}", where)
