"""A file of examples to predict, read as the data set readers read them: arrays, tables, images.

Among several images one that cannot be read is passed over, as it is in training; all else has to be whole.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from autoxfer.arrayfiles import Archive, slices
from autoxfer.dataset import Schema
from autoxfer.errors import InputError
from autoxfer.pictures import SUFFIXES, UnreadableError, decode, path_columns, quietly

TABLES = (".csv", ".parquet")
AT_ONCE = 256  # examples that are predicted at a time: the last bits depend on it
ARRAY_KEYS = ("images", "features", "test_images", "test_features")


@final
@dataclass(frozen=True)
class Asked:
    """What is to be predicted."""

    names: list[dict[str, Any]]  # how to name each example
    pieces: Iterator[Any]  # the examples as ``encode`` takes them, but for those that cannot be read
    unreadable: dict[int, str] = field(default_factory=dict)  # row -> why; known once all pieces are read


def read_examples(schema: Schema, path: Path) -> Asked:
    """Read what is to be predicted, in pieces.

    Images and arrays are read where they are asked for, ``AT_ONCE`` or a multiple of it in each piece but the last.
    Raises InputError: no such file, a kind of file that does not hold such examples, one that cannot be read; while
    the pieces are read, no image that can be.
    """
    if not path.exists():
        raise InputError("a file to predict", "no such file", str(path))
    suffix = path.suffix.lower()
    if schema.modality == "image" and (path.is_dir() or suffix in (*SUFFIXES, *TABLES)):
        files = sorted(_images(path)) if path.is_dir() else _listed(path, suffix) if suffix in TABLES else [path]
        if not files:
            raise InputError(f"images ({', '.join(SUFFIXES)})", "none", str(path))
        unreadable: dict[int, str] = {}
        return Asked([{"file": str(file)} for file in files], _read_images(schema, files, unreadable), unreadable)
    if schema.table_columns or len(schema.text_columns) > 1:
        if suffix not in TABLES:
            raise InputError("a .csv or .parquet file", _kind(path), str(path))
        table = _read_csv(path) if suffix == ".csv" else _read_parquet(path)
        return Asked(_rows(len(next(iter(table.values()), ()))), iter([table]))
    if schema.modality == "text" and suffix in (*TABLES, ".txt"):
        texts = _read_lines(path) if suffix == ".txt" else _column(schema, path, suffix)
        return Asked(_rows(len(texts)), iter([texts]))
    if schema.modality in ("image", "vector") and suffix in (".npz", ".npy"):
        shape, blocks = _array_in(path)
        return Asked(_rows(shape[0] if shape else 0), blocks)
    kinds = {"image": "a .npz or .npy file, an image, a folder of images or a table of their paths"}
    kinds["text"] = "a .csv or .parquet file, or a .txt file with a text in every line"
    raise InputError(kinds.get(schema.modality, "a .npz or .npy file"), _kind(path), str(path))


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "a folder" if path.is_dir() else f"a {suffix} file" if suffix else "a file without an ending"


def _column(schema: Schema, path: Path, suffix: str) -> list[Any]:
    """Take the column that holds the texts."""
    table = _read_csv(path) if suffix == ".csv" else _read_parquet(path)
    name = schema.columns[0].name
    if name not in table:
        raise InputError(f"the column {name!r}", f"columns {', '.join(table) or 'none'}", str(path))
    return list(table[name])


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError("text in UTF-8", f"byte {error.start} that is not", str(path)) from error


def _rows(n: int) -> list[dict[str, Any]]:
    return [{"row": row} for row in range(n)]


def _images(folder: Path) -> Iterator[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return (path for path in files if path.suffix.lower() in SUFFIXES)


def _listed(path: Path, suffix: str) -> list[Path]:
    """Take the images that a table lists, whose paths start at its folder. Raises InputError."""
    table = _read_csv(path) if suffix == ".csv" else _read_parquet(path)
    columns = path_columns(table)
    if len(columns) != 1:
        found = f"{len(columns) or 'none'} among {', '.join(table) or 'none'}"
        raise InputError(f"one column of image files ({', '.join(SUFFIXES)})", found, str(path))
    return [path.parent / str(value).strip() for value in table[columns[0]]]


def _read_images(schema: Schema, files: Sequence[Path], unreadable: dict[int, str]) -> Iterator[NDArray[np.uint8]]:
    """Decode the images that can be, and note why the others cannot. Raises InputError where none can."""
    images: list[NDArray[np.uint8]] = []
    for row, file in enumerate(files):
        try:
            images.append(_read_image(schema, file))
        except UnreadableError as error:
            unreadable[row] = str(error)
        if len(images) == AT_ONCE:
            yield np.stack(images)
            images = []
    if images:
        yield np.stack(images)
    if len(unreadable) == len(files):
        all_of = f"{len(files):,} of {len(files):,} that cannot, the first: " if len(files) > 1 else ""
        raise InputError("an image that can be read", f"{all_of}{unreadable[0]}", str(files[0]))


def _read_image(schema: Schema, path: Path) -> NDArray[np.uint8]:
    """Decode one image upright, grey or in colour as the schema's images are, cut to their size.

    Raises UnreadableError.
    """
    height, width, *channels = schema.shape
    with quietly():
        return decode(path, (width, height), grey=channels != [3]).reshape(schema.shape)


def _array_in(path: Path) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
    """Find the array that holds examples: its shape, and its blocks. Raises InputError."""
    if path.suffix.lower() == ".npy":
        try:
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError("a numpy file without Python objects", str(error), str(path)) from error
        if isinstance(array, np.ndarray):
            return array.shape, slices(array, AT_ONCE)
        array.close()  # a .npz by another name
    archive = Archive(path, str(path))
    key = next((key for key in ARRAY_KEYS if key in archive.members), None)
    if key is None:
        found = ", ".join(archive.members) or "nothing"
        raise InputError(f"one of the keys {', '.join(ARRAY_KEYS)}", found, str(path))
    return archive.members[key].shape, _closing(archive, key)


def _closing(archive: Archive, key: str) -> Iterator[NDArray[Any]]:
    with archive:
        yield from archive.blocks(key, AT_ONCE)


def _read_csv(path: Path) -> Mapping[str, Any]:
    """Read text cells: what they mean is the schema's affair."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            header, *rows = [row for row in csv.reader(file, delimiter=max(",;\t", key=first.count)) if row] or [[]]
        if not rows:
            raise InputError("a table of at least one row", "a header only" if header else "an empty file", str(path))
        return dict(zip((name.strip() for name in header), zip(*rows, strict=True), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("a table in UTF-8", str(error), str(path)) from error
    except ValueError as error:
        raise InputError(
            "as many values in every row as in the header", "rows that differ in length", str(path)
        ) from error


def _read_parquet(path: Path) -> Mapping[str, Any]:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only for this kind of file
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return dict(pq.read_table(path).to_pydict())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError("a Parquet file", str(error).splitlines()[0], str(path)) from error
