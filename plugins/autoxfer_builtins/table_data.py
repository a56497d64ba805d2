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
from autoxfer_builtins.columns import choose_columns, text_columns
from autoxfer_builtins.picture_columns import read_pictures, restrict
from autoxfer_builtins.reading import PARTS, group_codes, locate, moments, unknown_key, weigh
from autoxfer_builtins.table_files import Table, read_csv, read_parquet
from autoxfer_builtins.targets import SPLIT, choose_targets, may_list, read_answers

SUFFIXES = (".csv", ".parquet")
TOLD = {"split": "the column of the user's own splits", "ignore": "left out"}
TOLD |= {name: f"the {name}" for name in ("target", "group", "time", "weight")}
READ: dict[str, tuple[str, Callable[[Sequence[Any], str], Any]]] = {  # meaning -> field of Dataset, how it is read
    "group": ("groups", group_codes),
    "time": ("times", moments),
    "weight": ("weights", weigh),
}
NOTHING: Mapping[str, tuple[str, ...]] = {}


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
        columns = read_parquet(path, may_list(spec))
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
    targets = choose_targets(list(table), spec, warnings)
    if len(targets) == 1 and targets[0] in known:
        spec = replace(spec, task=spec.task or "classification")
    meanings = _meanings(list(table), spec, targets)
    table, answers = read_answers(table, targets, spec, warnings, path.name)
    answers = answers.in_order(known.get(targets[0], ()))
    features = {name: values for name, values in table.items() if name not in meanings}
    schema = answers.describe(Schema("table", answers.task, (), "float32"))
    data = Dataset(path.stem, schema, answers.y, answers.y, **_beside(table, meanings, path.name))
    gallery = read_pictures(features, path.parent, warnings, path.name)
    if gallery is not None:
        schema = replace(schema, modality="image", shape=gallery.pixels.shape[1:], dtype="uint8")
        data = replace(data, schema=schema, examples=gallery.pixels, origins=gallery.origins, warnings=tuple(warnings))
        return restrict(data, gallery.rows)
    schema = _schema(features, schema, warnings, path.name)
    if not schema.columns:
        raise InputError("columns to learn from beside the target", "none that is of use", path.name)
    examples, texts = _examples(schema, features, warnings, path.name)
    return replace(data, schema=schema, examples=examples, texts=texts, warnings=tuple(warnings))


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


def _schema(features: Table, schema: Schema, warnings: list[str], where: str) -> Schema:
    """Tell texts from what stands beside them; say what becomes of several."""
    texts = tuple(Column(name, "text") for name in text_columns(features))
    names = [column.name for column in texts]
    if len(texts) > 1:
        warnings.append(f"{', '.join(names)} are read as one text, joined in this order")
    columns = choose_columns({name: values for name, values in features.items() if name not in names}, warnings, where)
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


def _meanings(names: list[str], spec: DataSpec, targets: tuple[str, ...]) -> dict[str, str]:
    """Say of each column that is not learned from what it is instead. Raises InputError for one that is none."""
    meanings = dict.fromkeys(targets, "target")
    meanings |= {SPLIT: "split"} if SPLIT in names and SPLIT not in targets else {}
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
