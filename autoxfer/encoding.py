"""From what users have (arrays, lists, tables with strings and gaps) to stored examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.dataset import Column, Schema
from autoxfer.errors import InputError

# What pandas reads as missing by default, so that a file read by either road encodes alike.
_WORDS = "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,NaT,None,n/a,nan,null"
MISSING = frozenset(("", *_WORDS.split(",")))
MISSING_NUMBER = MISSING | {"?", "-", "."}


def encode(schema: Schema, raw: Any, where: str = "input") -> NDArray[Any]:
    """Turn examples into stored form: (n, *schema.shape) of schema.dtype.

    Images are whole numbers 0..255; a table is a DataFrame, a mapping of columns, a list of mappings or of rows.
    A category that the schema does not know is missing, NaN. Texts are a list, an array, or a table with their column.
    Raises InputError on anything that does not fit.
    """
    if schema.modality == "text":
        texts = _texts(schema, raw, where)
        if not schema.tokenizers:
            return np.array(texts, dtype=np.dtypes.StringDType())
        return np.concatenate([tokenizer.encode(texts) for tokenizer in schema.tokenizers], axis=1)
    if schema.modality == "table":
        return _table(schema, raw, where)
    array = _array(raw, where)
    if schema.modality == "image" and array.ndim == len(schema.shape):
        array = _grey_axis(array, schema.shape)
    elif schema.modality == "image" and array.ndim == len(schema.shape) + 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != len(schema.shape) + 1 or array.shape[1:] != schema.shape:
        raise InputError(f"a batch of shape (n, {', '.join(map(str, schema.shape))})", f"shape {array.shape}", where)
    if array.shape[0] == 0:
        raise InputError("at least one example", "none", where)
    return _pixels(array, where) if schema.modality == "image" else _finite(array, where)


def decode(schema: Schema, stored: NDArray[Any]) -> Any:
    """Turn stored examples (n, *schema.shape) back into what ``encode`` takes: arrays, columns by name.

    Of texts what their words tell: in lower case, a space between.
    """
    if schema.modality == "text":
        return {schema.columns[0].name: schema.tokenizers[0].decode(stored)}
    if schema.modality != "table":
        return stored
    columns: dict[str, list[Any]] = {}
    for column, values in zip(schema.columns, stored.T, strict=True):
        present = [None if np.isnan(value) else float(value) for value in values]
        if column.kind == "categorical":
            columns[column.name] = [None if value is None else column.categories[int(value)] for value in present]
        else:
            columns[column.name] = present
    return columns


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


def _array(raw: Any, where: str) -> NDArray[Any]:
    """Make an array of numbers. Raises InputError where rows differ in length or hold anything else."""
    try:
        array = np.asarray(raw)
    except (TypeError, ValueError):
        raise InputError("examples of one shape", "examples whose shapes differ", where) from None
    if array.dtype.kind not in "buif":
        raise InputError("numbers", f"an array of type {array.dtype}", where)
    return array


def _grey_axis(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Add the channel axis that grey images (n, height, width) lack where (height, width, 1) is stored."""
    return array[..., None] if shape[-1] == 1 and array.shape[1:] == shape[:-1] else array


def _pixels(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if array.dtype.kind == "f":
        raise InputError("images of whole numbers 0..255 (uint8)", f"fractions ({array.dtype})", where)
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise InputError("images of whole numbers 0..255 (uint8)", f"values {array.min()}..{array.max()}", where)
    return np.ascontiguousarray(array, dtype=np.uint8)


def _finite(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(single).reshape(len(single), -1).all(axis=1)
    if bad.any():
        raise InputError("finite numbers", f"NaN or infinity in example {int(bad.argmax())}", where)
    return single


def _texts(schema: Schema, raw: Any, where: str) -> list[str]:
    """Take the texts of a list or array, or those of the column that holds them; a missing one is empty."""
    name = schema.columns[0].name
    if isinstance(raw, Sequence) and raw and all(isinstance(row, Mapping) for row in raw):
        raw = {name: [row.get(name) for row in raw]} if any(name in row for row in raw) else dict.fromkeys(raw[0])
    if isinstance(raw, Mapping) or hasattr(raw, "columns"):
        known = list(raw.keys() if isinstance(raw, Mapping) else raw.columns)
        if name not in known:
            raise InputError(f"the column {name!r}", f"columns {', '.join(map(str, known)) or 'none'}", where)
        raw = raw[name]
    if isinstance(raw, str) or not isinstance(raw, Iterable):
        raise InputError("a list of texts", f"one {type(raw).__name__}", where)
    values = list(raw.ravel() if isinstance(raw, np.ndarray) and raw.shape[1:] == (1,) else raw)
    if not values:
        raise InputError("at least one example", "none", where)
    return [_one_text(value, row, where) for row, value in enumerate(values)]


def _one_text(value: Any, row: int, where: str) -> str:
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    if value is None or (isinstance(value, float) and np.isnan(value)) or type(value).__name__ == "NAType":
        return ""
    raise InputError("texts", f"{value!r} in example {row}", where)


def _table(schema: Schema, raw: Any, where: str) -> NDArray[np.float32]:
    """Encode a table column by column: (n, columns) float32, categories as codes, NaN where missing."""
    cells = _cells(schema.columns, raw, where)
    lengths = {len(values) for values in cells}
    if len(lengths) != 1 or lengths == {0}:
        found = "none" if lengths <= {0} else f"columns of {', '.join(map(str, sorted(lengths)))} rows"
        raise InputError("at least one row, and columns of one length", found, where)
    encoded = [_column(column, values, where) for column, values in zip(schema.columns, cells, strict=True)]
    return np.ascontiguousarray(np.stack(encoded, axis=1))


def _cells(columns: Sequence[Column], raw: Any, where: str) -> list[NDArray[Any]]:
    """Take each column's values, in the schema's order, as arrays of objects or numbers."""
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
        found = f"{values[int(infinite.argmax())]!r} in column {column.name!r}, row {int(infinite.argmax()) + 1}"
        raise InputError("finite numbers", found, where)
    return single


def _number(value: Any, name: str, where: str) -> float:
    if _text(value) is None or (isinstance(value, str) and value.strip() in MISSING_NUMBER):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"numbers in column {name!r}", repr(value), where) from None
