"""What stands in the cells of a table: texts, categories and numbers, and what counts as missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.dataset import Column
from autoxfer.errors import InputError

BETWEEN = "\n"  # what joins an example's texts: to every tokenizer a space
# What pandas reads as missing by default, so that a file read by either road encodes alike.
_WORDS = "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,NaT,None,n/a,nan,null"
MISSING = frozenset(("", *_WORDS.split(",")))
MISSING_NUMBER = MISSING | {"?", "-", "."}


def as_text(values: Iterable[Any]) -> list[str | None]:
    """Name the category of each value: stripped text; whole numbers without a point; None where missing."""
    return [_text(value) for value in values]


def _text(value: Any) -> str | None:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))  # a whole number next to a gap arrives as a float
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.capitalize()
    return None if text in MISSING else text


def joined(columns: Sequence[Column], cells: Sequence[Iterable[Any]], where: str) -> list[str]:
    """Join the texts of each example in their columns' order; an empty one leaves no trace."""
    parts = [
        [one_text(value, row, f"texts in column {column.name!r}", where) for row, value in enumerate(values)]
        for column, values in zip(columns, cells, strict=True)
    ]
    return [BETWEEN.join(filter(None, texts)) for texts in zip(*parts, strict=True)]


def one_text(value: Any, row: int, expected: str, where: str) -> str:
    """Take a text as it is, and nothing for a missing one. Raises InputError for anything else."""
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    if value is None or (isinstance(value, float) and np.isnan(value)) or type(value).__name__ == "NAType":
        return ""
    raise InputError(expected, f"{value!r} in example {row}", where)


def codes(columns: Sequence[Column], cells: Sequence[NDArray[Any]], where: str) -> NDArray[np.float32]:
    """Encode a table column by column: (n, columns) float32, categories as codes, NaN where missing."""
    encoded = [_column(column, values, where) for column, values in zip(columns, cells, strict=True)]
    return np.ascontiguousarray(np.stack(encoded, axis=1))


def read_cells(columns: Sequence[Column], raw: Any, where: str) -> list[NDArray[Any]]:
    """Take each column's values, in the schema's order, as arrays of objects or numbers of one length.

    Raises InputError: a column that is missing, rows of another length, no row at all.
    """
    cells = _cells(columns, raw, where)
    lengths = {len(values) for values in cells}
    if len(lengths) != 1 or lengths == {0}:
        found = "none" if lengths <= {0} else f"columns of {', '.join(map(str, sorted(lengths)))} rows"
        raise InputError("at least one row, and columns of one length", found, where)
    return cells


def _cells(columns: Sequence[Column], raw: Any, where: str) -> list[NDArray[Any]]:
    names = [column.name for column in columns]
    if isinstance(raw, Sequence) and raw and all(isinstance(row, Mapping) for row in raw):
        present: set[Any] = set().union(*raw)
        raw = {name: [row.get(name) for row in raw] for name in names if name in present}
    if isinstance(raw, Mapping) or hasattr(raw, "columns"):
        known = raw.keys() if isinstance(raw, Mapping) else raw.columns
        absent = [name for name in names if name not in known]
        if absent:
            raise InputError(f"the columns {', '.join(names)}", f"none called {', '.join(absent)}", where)
        return [_objects(raw[name]) for name in names]
    rows = raw if isinstance(raw, np.ndarray) else _objects(raw)
    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise InputError(f"rows of {len(names)} values ({', '.join(names)})", f"shape {rows.shape}", where)
    if rows.dtype.kind in "buif" and any(column.kind == "categorical" for column in columns):
        raise InputError("names of categories (a DataFrame, or rows with strings)", "an array of numbers", where)
    return list(rows.T)


def _objects(values: Any) -> NDArray[Any]:
    """Keep numbers as numbers; everything else becomes objects, so that 1 and "1" stay what they are."""
    if getattr(getattr(values, "dtype", None), "kind", "O") in "uif":
        numbers: NDArray[Any] = np.asarray(values)
        if numbers.dtype.kind in "uif":
            return numbers
    if isinstance(values, (str, int, float)) or values is None:
        values = [values]
    return np.array(list(values), dtype=object)


def _column(column: Column, values: NDArray[Any], where: str) -> NDArray[np.float32]:
    nested = next((value for value in values if isinstance(value, (list, dict, tuple, set, np.ndarray))), None)
    if nested is not None:
        raise InputError(f"numbers or text in column {column.name!r}", f"a {type(nested).__name__}", where)
    if column.kind == "categorical":
        code = {name: float(index) for index, name in enumerate(column.categories)}
        return np.array([code.get(text, np.nan) if text else np.nan for text in as_text(values)], dtype=np.float32)
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.array([_number(value, column.name, where) for value in values])
    with np.errstate(over="ignore"):
        single: NDArray[np.float32] = numbers.astype(np.float32)
    infinite = np.isinf(single)
    if infinite.any():
        found = f"{str(values[int(infinite.argmax())])!r} in column {column.name!r}, row {int(infinite.argmax()) + 1}"
        raise InputError("finite numbers that 32 bits can hold, below 3.4e38", found, where)
    return single


def _number(value: Any, name: str, where: str) -> float:
    if _text(value) is None or (isinstance(value, str) and value.strip() in MISSING_NUMBER):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"numbers in column {name!r}", repr(value), where) from None
