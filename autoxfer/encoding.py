"""From what users have (arrays, lists, tables with strings and gaps) to stored examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.cells import codes, joined, one_text, read_cells
from autoxfer.dataset import Schema
from autoxfer.errors import InputError


def encode(schema: Schema, raw: Any, where: str = "input", first: int = 0) -> NDArray[Any]:
    """Turn examples into stored form: (n, *schema.shape) of schema.dtype.

    Images are whole numbers 0..255, of any type; a table, or texts beside one, is a DataFrame, a mapping of columns, a
    list of mappings or of rows. A category that the schema does not know is missing, NaN. Texts are a list, an array,
    or a table with their columns; several are joined in their order. Raises InputError on anything that does not fit;
    of arrays that come in pieces an error counts from ``first``, the piece's first example.
    """
    if schema.modality == "text":
        return _ids(schema, _texts(schema, raw, where))
    if schema.modality == "table":
        return codes(schema.columns, read_cells(schema.columns, raw, where), where)
    if schema.modality == "mixed":
        cells, n_texts = read_cells(schema.columns, raw, where), len(schema.text_columns)  # which come first
        table = codes(schema.table_columns, cells[n_texts:], where)
        return beside(schema, joined(schema.text_columns, cells[:n_texts], where), table)
    array = _array(raw, where)
    if schema.modality == "image" and array.ndim == len(schema.shape):
        array = _grey_axis(array, schema.shape)
    elif schema.modality == "image" and array.ndim == len(schema.shape) + 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != len(schema.shape) + 1 or array.shape[1:] != schema.shape:
        raise InputError(f"a batch of shape (n, {', '.join(map(str, schema.shape))})", f"shape {array.shape}", where)
    if array.shape[0] == 0:
        raise InputError("at least one example", "none", where)
    return _pixels(array, where) if schema.modality == "image" else _finite(array, where, first)


def beside(schema: Schema, texts: Sequence[str], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Store mixed examples: the ids of all tokenizers, which float32 holds exactly, before the table's codes."""
    if not schema.tokenizers:
        raise ValueError("texts beside a table are stored as ids; got no tokenizer")
    return np.concatenate([_ids(schema, texts).astype(np.float32), table], axis=1)


def decode(schema: Schema, stored: NDArray[Any]) -> Any:
    """Turn stored examples (n, *schema.shape) back into what ``encode`` takes: arrays, columns by name.

    Of texts what their words tell: in lower case, a space between; where several were joined, in the first's place.
    """
    if schema.modality not in ("table", "text", "mixed"):
        return stored
    columns: dict[str, list[Any]] = {}
    if schema.text_columns:
        first, *others = schema.text_columns
        columns[first.name] = list(schema.tokenizers[0].decode(stored[:, : schema.n_ids].astype(np.int32)))
        columns |= {column.name: [""] * len(stored) for column in others}
    for column, values in zip(schema.table_columns, stored.T[schema.n_ids :], strict=True):
        present = [None if np.isnan(value) else float(value) for value in values]
        if column.kind == "categorical":
            columns[column.name] = [None if value is None else column.categories[int(value)] for value in present]
        else:
            columns[column.name] = present
    return columns


def _ids(schema: Schema, texts: Sequence[str]) -> NDArray[Any]:
    """Give the ids of all tokenizers side by side, or the texts themselves where there is none yet."""
    if not schema.tokenizers:
        return np.array(texts, dtype=np.dtypes.StringDType())
    return np.concatenate([tokenizer.encode(texts) for tokenizer in schema.tokenizers], axis=1)


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
        fractions = array[~(np.isfinite(array) & (np.trunc(array) == array))]
        if len(fractions):
            found = f"{fractions[0]:g} among them ({array.dtype})"
            raise InputError("images of whole numbers 0..255 (uint8)", found, where)
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise InputError("images of whole numbers 0..255 (uint8)", f"values {array.min()}..{array.max()}", where)
    return np.ascontiguousarray(array, dtype=np.uint8)


def _finite(array: NDArray[Any], where: str, first: int = 0) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(single).reshape(len(single), -1).all(axis=1)
    if bad.any():
        raise InputError("finite numbers", f"NaN or infinity in example {first + int(bad.argmax())}", where)
    return single


def _texts(schema: Schema, raw: Any, where: str) -> list[str]:
    """Take the texts of a list or array, or those of the columns that hold them; a missing one is empty."""
    if len(schema.columns) > 1 and not _is_plain(raw):
        return joined(schema.columns, read_cells(schema.columns, raw, where), where)
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
    return [one_text(value, row, "texts", where) for row, value in enumerate(values)]


def _is_plain(raw: Any) -> bool:
    """Whether these are texts alone: a list, a series or an array of one dimension."""
    return not (isinstance(raw, Mapping) or hasattr(raw, "columns")) and all(
        isinstance(each, str) or each is None for each in (raw if isinstance(raw, Iterable) else ())
    )
