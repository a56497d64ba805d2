"""Arrow tables -> columns of plain values, images read where they are asked for, labels by their names.

What Hugging Face's ``datasets`` says of columns, in the metadata of a file or in a ``dataset_info.json``: a ClassLabel
is a whole number with names (-1 = none), an Image a struct of bytes and path, of which one is enough.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoxfer import InputError
from autoxfer.pictures import UnreadableError, read_header
from autoxfer_builtins.picture_columns import Embedded

Features = Mapping[str, Any]  # column -> what ``datasets`` says of it


@dataclass(frozen=True)
class Columns:
    """A table's columns, and what is known of them."""

    values: Mapping[str, Sequence[Any]]
    classes: Mapping[str, tuple[str, ...]]  # column -> the names of its classes, in their order
    nested: tuple[str, ...] = ()  # columns of structures and the like, which are left out
    lists: tuple[str, ...] = ()  # columns of lists of plain values, which may be labels and nothing else


def read_ipc(path: Path) -> Any:
    """Map a file of Arrow batches, a stream or with an index (.feather). Raises InputError where it is neither."""
    import pyarrow as pa  # noqa: PLC0415  (heavy, and needed for this kind of file alone)

    try:
        with pa.memory_map(str(path)) as mapped:
            is_file = mapped.read(6) == b"ARROW1"
        source = pa.memory_map(str(path))
        return (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("a whole Arrow file (.arrow, .feather)", reason, path.name) from None


def features_of(table: Any, where: str) -> Features:
    """Read what the table's own metadata say of its columns; nothing where they do not. Raises InputError."""
    raw = (table.schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return {}
    try:
        return dict(json.loads(raw)["info"]["features"])
    except (ValueError, LookupError, TypeError):
        raise InputError("metadata as datasets writes them, in JSON", repr(raw[:80]), where) from None


def columns_of(table: Any, features: Features, folder: Path, where: str) -> Columns:
    """Take a table's columns; paths of images start at ``folder``. Raises InputError for labels without a name."""
    import pyarrow as pa  # noqa: PLC0415

    check_names(table.column_names, where)
    values: dict[str, Sequence[Any]] = {}
    classes: dict[str, tuple[str, ...]] = {}
    nested, lists = [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        feature = features.get(name) if isinstance(features.get(name), dict) else None
        if _holds_images(column, feature or {}, pa):
            values[name] = Embedded(_Images(column, folder), range(len(column)))
        elif feature and feature.get("_type") == "ClassLabel" and feature.get("names"):
            classes[name] = tuple(map(str, feature["names"]))
            values[name] = _named(column.to_pylist(), classes[name], f"{where}: column {name!r}")
        elif _holds_lists(column.type, pa):
            lists.append(name)
            values[name] = _named_lists(column.to_pylist(), feature or {}, f"{where}: column {name!r}")
        elif pa.types.is_nested(column.type):
            nested.append(name)
        else:
            values[name] = column.to_pylist()
    return Columns(values, classes, tuple(nested), tuple(lists))


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse names that stand for several columns, or for none. Raises InputError."""
    twice = sorted({name for name in names if names.count(name) > 1 or not name})
    if twice:
        raise InputError("columns of different names", f"{twice[0]!r}, {names.count(twice[0])} times", where)


class _Images:
    """Gives the image of a row, as bytes or a path."""

    def __init__(self, column: Any, folder: Path) -> None:
        self._column, self._folder = column, folder

    def __call__(self, row: int) -> bytes | Path | None:
        value = self._column[row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        return self._folder / value if isinstance(value, str) and value else value or None


def _holds_images(column: Any, feature: Features, pa: Any) -> bool:
    """Whether these are images: said to be, or bytes of which the first are one."""
    kind = column.type
    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(place).name for place in range(kind.num_fields)} and (
            feature.get("_type", "Image") == "Image"
        )
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return feature.get("_type") == "Image" and pa.types.is_string(kind)
    first = next((value.as_py() for value in column if value.is_valid), b"")
    try:
        read_header(first)
    except UnreadableError:
        return feature.get("_type") == "Image"
    return True


def _holds_lists(kind: Any, pa: Any) -> bool:
    """Whether the cells are lists of plain values."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and not pa.types.is_nested(kind.value_type) and not pa.types.is_binary(kind.value_type))


def _named_lists(cells: list[Any], feature: Features, where: str) -> list[Any]:
    """Replace codes by names in lists of labels that have names; others stay as they are."""
    of = feature.get("feature")
    names = of.get("names") if isinstance(of, dict) and of.get("_type") == "ClassLabel" else None
    if not names:
        return cells
    return [None if cell is None else _named(cell, tuple(map(str, names)), where) for cell in cells]


def _named(codes: Sequence[int | None], names: tuple[str, ...], where: str) -> list[str | None]:
    """Replace codes by names; -1 is no label. Raises InputError for a code without a name."""
    for row, code in enumerate(codes):
        if code is not None and not -1 <= code < len(names):
            expected = f"labels 0..{len(names) - 1}, one for each of {len(names)} class names"
            raise InputError(expected, f"{code} in example {row} (from 0)", where)
    return [None if code is None or code < 0 else names[code] for code in codes]
