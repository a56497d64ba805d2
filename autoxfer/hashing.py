"""64 bits of an example and its label together, however a data set stores them: equal in every one that holds it.

Pictures and vectors count by their bytes (grey in three channels as grey), a picture also by the file that it was read
from, since all of a set are brought to one size, which may be another when the set has grown. Texts count by
themselves, in any order where several were joined; a row of a table by names of columns and what stands there, in any
order: categories by their text, numbers as float32, a gap as nothing. A label counts by the class's name, or as a
number; of several labels or numbers each counts by itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoxfer.dataset import Dataset
from autoxfer.mapped import pieces
from autoxfer.records import Modality

Hashes = NDArray[np.uint64]
Kind = Modality | Literal["file"]  # what of an example is hashed; the file that it was read from


def kinds(dataset: Dataset) -> tuple[Kind, ...]:
    """Say what of the examples can be hashed."""
    return (dataset.schema.modality,) if dataset.origins is None else (dataset.schema.modality, "file")


def joined(inputs: Hashes, labels: Hashes) -> Hashes:
    """Hash examples with their labels, (n,); one label may stand for all."""
    return _mixed(inputs + _mixed(labels))


def inputs(dataset: Dataset, kind: Kind, columns: Sequence[str]) -> Hashes:
    """Hash every example without its label, (n,), as one of this kind with these columns."""
    texts = dataset.examples if dataset.schema.modality == "text" else dataset.texts
    if kind in ("image", "vector"):
        return _digests(_contents(dataset.examples))
    if kind == "file" and dataset.origins is not None:
        return _mixed(dataset.origins)
    found = np.zeros(len(dataset.labels), np.uint64)
    if kind in ("table", "mixed"):
        found += _table(dataset, columns)
    if kind in ("text", "mixed") and texts is not None:
        found += _digests("\n".join(sorted(text.split("\n"))).encode(errors="replace") for text in texts.tolist())
    return found


def labels(dataset: Dataset) -> dict[str, Hashes]:
    """Hash the labels, (n,) for each of several labels or numbers by its name; a single one has the name ""."""
    schema, answers = dataset.schema, dataset.labels
    if schema.task == "classification":
        return {"": _words(schema.classes)[answers]}
    if answers.ndim == 1:
        return {"": _numbers(answers)}
    names = schema.classes or schema.targets
    return {name: _numbers(column) for name, column in zip(names, answers.T, strict=True)}


def _contents(examples: NDArray[Any]) -> Iterator[bytes]:
    """Give each picture's or vector's bytes; of a grey picture one channel's."""
    for piece in pieces(examples):
        for row in piece:
            if row.ndim == 3 and _grey(row[:1]) and _grey(row):
                yield row[..., 0].tobytes()
            else:
                yield (row + np.float32(0) if row.dtype == np.float32 else row).tobytes()  # -0.0 is 0.0


def _grey(pixels: NDArray[Any]) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def _table(dataset: Dataset, columns: Sequence[str]) -> Hashes:
    """Sum the hashes of what stands in each column, (n,): a sum knows no order."""
    found = np.zeros(len(dataset.labels), np.uint64)
    wanted, names = set(columns), _digests(column.name.encode() for column in dataset.schema.table_columns)
    for index, column in enumerate(dataset.schema.table_columns):
        if column.name not in wanted:
            continue
        codes = dataset.examples[:, index]
        there = ~np.isnan(codes)
        if column.kind == "categorical":
            values = _words(column.categories)[codes[there].astype(np.int64)]
        else:
            values = _numbers(codes[there])
        found[there] += _mixed(values ^ _mixed(names[index : index + 1]))
    return found


def _words(texts: Sequence[str]) -> Hashes:
    """Hash categories or classes by their text, (n,); a number is the number that it would be in another column."""
    found = _digests(text.encode(errors="replace") for text in texts)
    for index, text in enumerate(texts):
        number = _number(text)
        if number is not None:
            found[index] = _numbers(np.array([number]))[0]
    return found


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < np.finfo(np.float32).max else None


def _numbers(values: NDArray[Any]) -> Hashes:
    """Hash numbers by their bits as float32; -0.0 is 0.0."""
    bits: NDArray[np.uint32] = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
    return _mixed(bits.astype(np.uint64))


def _digests(contents: Iterable[bytes]) -> Hashes:
    """Hash bytes, (n,)."""
    whole = b"".join(hashlib.blake2b(content, digest_size=8).digest() for content in contents)
    return np.frombuffer(whole, "<u8").astype(np.uint64)


def _mixed(values: Hashes) -> Hashes:
    """Spread 64 bits evenly (the finaliser of splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: Hashes = z ^ (z >> np.uint64(31))
    return spread
