"""Arrow files (.arrow, .feather), and data sets as Hugging Face keeps them: ``hf:FOLDER`` or ``hf:NAME``.

A folder is one that ``save_to_disk`` has written, of a Dataset or of a DatasetDict, whose splits are the user's own
(train, validation, test), or one of .parquet files named after their splits, as the hub keeps them. NAME is a data set
of the hub, NAME:CONFIGURATION where it has several. Nothing but pyarrow is needed to read them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

from autoxfer import Dataset, DatasetReader, DataSpec, InputError, hookimpl
from autoxfer_builtins.arrow_tables import Columns, columns_of, features_of, read_ipc
from autoxfer_builtins.hub import download_data
from autoxfer_builtins.picture_columns import chain
from autoxfer_builtins.reading import PARTS, SAVED, locate, saved
from autoxfer_builtins.table_data import from_table
from autoxfer_builtins.table_files import check_columns, read_parquet_columns
from autoxfer_builtins.targets import SPLIT, may_list

SUFFIXES = (".arrow", ".feather")
PREFIX = "hf:"
SPLITS = {name: name for name in PARTS} | {"valid": "validation", "dev": "validation", "eval": "validation"}
SHARD = re.compile(r"(?:(?P<split>.+?)-)?\d+(-of-\d+)?(-[0-9a-f]+)?")  # "train-00000-of-00002", "0000"


@final
class ArrowReader(DatasetReader):
    """Reads Arrow files, and the folders that Hugging Face's ``datasets`` writes."""

    name: ClassVar[str] = "arrow"

    def reads(self, spec: DataSpec) -> bool:
        """Whether it is called ``hf:`` something, ends in ``.arrow`` or ``.feather``, or holds a saved data set."""
        location = spec.location
        if location.startswith(PREFIX) or location.lower().endswith(SUFFIXES):
            return True
        return saved(spec.directory / Path(location).expanduser())

    def read(self, spec: DataSpec) -> Dataset:
        """Read everything. Raises InputError: cut short, no train split, no data set of that name."""
        path = _find(spec)
        warnings: list[str] = []
        if path.is_file():
            columns = _columns(path, warnings)
        elif (path / SAVED[1]).is_file():
            columns = _join({name: _saved(path / name, warnings) for name in _splits(path)}, path.name, warnings)
        elif (path / SAVED[0]).is_file():
            columns = _saved(path, warnings)
        else:
            columns = _parquet(path, warnings)
        columns = _without_lists(columns, may_list(spec), warnings)
        check_columns(list(columns.values), list(columns.values.values()), path.name)
        return from_table(columns.values, spec, path, columns.classes, warnings)


def _find(spec: DataSpec) -> Path:
    """Find the file or the folder, or have it from the hub. Raises InputError."""
    name = spec.location.removeprefix(PREFIX)
    plain = replace(spec, location=name)
    if not spec.location.startswith(PREFIX) or (spec.directory / Path(name).expanduser()).exists():
        return locate(plain)
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", name):
        return locate(plain)  # no name of a hub's
    return download_data(name)


def _columns(path: Path, warnings: list[str]) -> Columns:
    """Read one file. Raises InputError."""
    if path.suffix.lower() == ".parquet":
        return _without_nested(read_parquet_columns(path), warnings)
    table = read_ipc(path)
    return _without_nested(columns_of(table, features_of(table, path.name), path.parent, path.name), warnings)


def _saved(folder: Path, warnings: list[str]) -> Columns:
    """Read a saved Dataset. Raises InputError."""
    import pyarrow as pa  # noqa: PLC0415  (heavy, and needed for this kind of file alone)

    state, info = (_json(folder / name) for name in (SAVED[0], "dataset_info.json"))
    files = [str(item.get("filename")) for item in state.get("_data_files") or () if isinstance(item, dict)]
    if state.get("_indices_data_files") or not files:
        found = "indices beside the data, as older versions wrote" if files else "no data files"
        raise InputError("a data set as datasets' save_to_disk writes it", found, str(folder / SAVED[0]))
    for name in files:
        if not (folder / name).is_file():
            raise InputError(f"the file {name}, which {SAVED[0]} names", "no such file", str(folder))
    tables = [read_ipc(folder / name) for name in files]
    if any(table.schema != tables[0].schema for table in tables):
        raise InputError("files with the same columns", "files that differ", str(folder))
    table = pa.concat_tables(tables)
    features = info.get("features") if isinstance(info.get("features"), dict) else {}
    return _without_nested(columns_of(table, features or {}, folder, folder.name), warnings)


def _splits(folder: Path) -> list[str]:
    """Name the splits of a saved DatasetDict. Raises InputError where one of them is not there."""
    names = _json(folder / SAVED[1]).get("splits")
    if not isinstance(names, list) or not names:
        raise InputError("the names of splits", repr(names), str(folder / SAVED[1]))
    for name in names:
        if not (folder / str(name) / SAVED[0]).is_file():
            raise InputError(f"a folder for the split {name!r}, which {SAVED[1]} names", "none", str(folder))
    return [str(name) for name in names]


def _parquet(folder: Path, warnings: list[str]) -> Columns:
    """Read .parquet files that are named after their splits, or lie in folders that are. Raises InputError."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        expected = f"a folder with {SAVED[0]} or {SAVED[1]} (datasets' save_to_disk), or with .parquet files"
        raise InputError(expected, "none of them", str(folder))
    found: dict[str, list[Columns]] = {}
    for path in files:
        shard = SHARD.fullmatch(path.stem)
        split = path.stem if shard is None else shard["split"] or path.parent.name
        found.setdefault(split.removeprefix("partial-"), []).append(_columns(path, warnings))
    if len(found) == 1 and next(iter(found)) not in SPLITS:
        return _beneath(next(iter(found.values())), folder.name)
    return _join({name: _beneath(parts, folder.name) for name, parts in found.items()}, folder.name, warnings)


def _join(splits: Mapping[str, Columns], where: str, warnings: list[str]) -> Columns:
    """Put splits one below the other; a column says which was which. Raises InputError where there is no train."""
    known = {name: meaning for name, meaning in SPLITS.items() if name in splits}
    if "train" not in known:
        raise InputError("a split called train", ", ".join(splits), where)
    if strangers := [name for name in splits if name not in known]:
        warnings.append(f"splits called otherwise than {', '.join(SPLITS)} are left out: {', '.join(strangers)}")
    whole = _beneath([splits[name] for name in known], where)
    if SPLIT in whole.values:
        warnings.append(f"the column {SPLIT!r} is left out, as the data set has splits of its own")
    part = [known[name] for name in known for _ in range(_length(splits[name]))]
    return replace(whole, values={**whole.values, SPLIT: part})


def _beneath(parts: Sequence[Columns], where: str) -> Columns:
    """Put tables one below the other. Raises InputError where their columns are not the same."""
    first = parts[0]
    for part in parts:
        if set(part.values) != set(first.values) or part.classes != first.classes:
            found = f"{', '.join(first.values)} and {', '.join(part.values)}"
            raise InputError("the same columns and classes in every split", found, where)
    return replace(first, values={name: chain([part.values[name] for part in parts]) for name in first.values})


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values.values()), ()))


def _without_nested(columns: Columns, warnings: list[str]) -> Columns:
    """Say which columns are left out, once."""
    told = f"left out, structures and the like: {', '.join(columns.nested)}"
    if columns.nested and told not in warnings:
        warnings.append(told)
    return columns


def _without_lists(columns: Columns, labels: tuple[str, ...], warnings: list[str]) -> Columns:
    """Leave lists out that are not labels, and say so."""
    others = [name for name in columns.lists if name not in labels]
    if others:
        warnings.append(f"left out, lists and the like: {', '.join(others)}")
    return replace(columns, values={name: values for name, values in columns.values.items() if name not in others})


def _json(path: Path) -> dict[str, Any]:
    """Read a file of JSON; nothing where there is none. Raises InputError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError("JSON as datasets writes it", str(error).splitlines()[0], str(path)) from None
    if not isinstance(content, dict):
        raise InputError("JSON as datasets writes it", f"a {type(content).__name__}", str(path))
    return content


@hookimpl
def autoxfer_datasets() -> list[type[DatasetReader]]:
    """Offer Arrow files and what Hugging Face's ``datasets`` saves."""
    return [ArrowReader]
