"""Files that hold tables -> columns of plain values by name, none of them twice."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoxfer import InputError

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
    return _checked(header, [list(cells) for cells in zip(*(row for _, row in rows[1:]), strict=True)], path.name)


def read_parquet(path: Path) -> Table:
    """Read plain values. Raises InputError on what is no Parquet file, and on columns of anything else."""
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
