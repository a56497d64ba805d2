"""Tables in .csv and .parquet files: numbers, categories, gaps and texts; a target; perhaps groups and own splits.

Columns of texts are read as one text, joined in their order by line breaks. Where other columns stand beside them that
are of use, the data set is mixed. A column of image files makes it a data set of images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import Column, Dataset, DatasetReader, DataSpec, InputError, Schema, as_text, encode, hookimpl
from autoxfer_builtins.columns import choose_columns, is_number, text_columns
from autoxfer_builtins.picture_columns import pick, read_pictures, restrict
from autoxfer_builtins.reading import (
    LABELS,
    PARTS,
    group_codes,
    index,
    locate,
    moments,
    numbers,
    unknown_key,
    unknown_target,
    weigh,
)
from autoxfer_builtins.table_files import Table, read_csv, read_parquet

SUFFIXES = (".csv", ".parquet")
SPLIT = "split"
MOST_CLASSES = 10  # different whole numbers in a target up to which they are read as classes
TOLD = {"split": "the column of the user's own splits", "ignore": "left out"}
TOLD |= {name: f"the {name}" for name in ("target", "group", "time", "weight")}
READ: dict[str, tuple[str, Callable[[Sequence[Any], str], Any]]] = {  # meaning -> field of Dataset, how it is read
    "group": ("groups", group_codes),
    "time": ("times", moments),
    "weight": ("weights", weigh),
}
NOTHING: Mapping[str, tuple[str, ...]] = {}
NO_LABEL = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "<NA>")  # "None" may be a class


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
        if path.suffix.lower() == ".csv":
            return from_table(read_csv(path), spec, path)
        columns = read_parquet(path)
        return from_table(columns.values, spec, path, columns.classes)


def from_table(
    table: Table,
    spec: DataSpec,
    path: Path,
    known: Mapping[str, tuple[str, ...]] = NOTHING,  # column -> names of its classes, in their order
    told: Sequence[str] = (),
) -> Dataset:
    """Tell what the columns of a table, read from ``path``, are. Raises InputError."""
    warnings = list(told)
    target = _target(list(table), spec, warnings)
    if target in known:
        spec = replace(spec, task=spec.task or "classification")
    meanings = _meanings(list(table), spec, target)
    table, labels = _labelled(table, target, warnings, path.name)
    y, classes = _task(labels, spec, target, warnings, f"{path.name}: column {target!r}")
    y, classes = _in_order(y, classes, known.get(target, ()))
    features = {name: values for name, values in table.items() if name not in meanings}
    schema = Schema("table", "classification" if classes else "regression", (), "float32", classes, target=target)
    data = Dataset(path.stem, schema, y, y, **_beside(table, meanings, path.name))
    gallery = read_pictures(features, path.parent, warnings, path.name)
    if gallery is not None:
        schema = replace(schema, modality="image", shape=gallery.pixels.shape[1:], dtype="uint8")
        return restrict(replace(data, schema=schema, examples=gallery.pixels, warnings=tuple(warnings)), gallery.rows)
    schema = _schema(features, schema, warnings)
    if not schema.columns:
        raise InputError("columns to learn from beside the target", "none that is of use", path.name)
    examples, texts = _examples(schema, features, warnings, path.name)
    return replace(data, schema=schema, examples=examples, texts=texts, warnings=tuple(warnings))


def _in_order(
    y: NDArray[Any], classes: tuple[str, ...], names: tuple[str, ...]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Bring the classes into the order that the data set gives them."""
    if not classes or not set(classes) <= set(names):
        return y, classes
    ordered = tuple(name for name in names if name in classes)
    return np.array([ordered.index(name) for name in classes], dtype=np.int64)[y], ordered


def _beside(table: Table, meanings: Mapping[str, str], where: str) -> dict[str, Any]:
    """Read what stands beside labels and features: own splits, groups, times, weights."""
    found: dict[str, Any] = {}
    for name, meaning in meanings.items():
        if meaning == "split" and name in table:
            found["parts"] = _parts(table[name], where)
        elif meaning in READ:
            field, read = READ[meaning]
            found[field] = read(table[name], f"{where}: column {name!r}")
    return found


def _schema(features: Table, schema: Schema, warnings: list[str]) -> Schema:
    """Tell texts from what stands beside them; say what becomes of several."""
    texts = tuple(Column(name, "text") for name in text_columns(features))
    names = [column.name for column in texts]
    if len(texts) > 1:
        warnings.append(f"{', '.join(names)} are read as one text, joined in this order")
    columns = choose_columns({name: values for name, values in features.items() if name not in names}, warnings)
    if texts and not columns:
        return replace(schema, modality="text", dtype="str", columns=texts)
    modality: Literal["table", "mixed"] = "mixed" if texts else "table"
    return replace(schema, modality=modality, shape=(len(columns),), columns=(*texts, *columns))


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


def _meanings(names: list[str], spec: DataSpec, target: str) -> dict[str, str]:
    """Say of each column that is not learned from what it is instead. Raises InputError for one that is none."""
    meanings = {target: "target"} | ({SPLIT: "split"} if SPLIT in names and target != SPLIT else {})
    wanted = [("group", spec.group), ("time", spec.time), ("weight", spec.weight)]
    for meaning, name in [*wanted, *(("ignore", name) for name in spec.ignore)]:
        if name is None or (meaning == "ignore" and meanings.get(name) == "ignore"):
            continue
        others = [other for other in names if other not in meanings]
        if name in meanings:
            found = f"{name!r}, {'which is no feature anyway' if meaning == 'ignore' else TOLD[meanings[name]]}"
            raise InputError(f"one of {', '.join(others)}", found, f"task.{meaning}")
        if name not in names:
            raise unknown_key(name, others, meaning)
        meanings[name] = meaning
    return meanings


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
