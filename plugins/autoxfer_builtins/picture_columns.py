"""A column of images in a table: paths that start at the table's folder, or the files' bytes themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import Dataset, InputError
from autoxfer.gallery import BROKEN, Gallery, read_images
from autoxfer.pictures import Content, path_columns


@final
class Embedded(Sequence[Any]):
    """A column of images, each read where it is asked for: bytes, a path, or None where there is none."""

    def __init__(self, give: Callable[[int], Content | None], rows: Sequence[int]) -> None:
        self._give, self._rows = give, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return Embedded(self._give, self._rows[place]) if isinstance(place, slice) else self._give(self._rows[place])

    def pick(self, places: Sequence[int]) -> Embedded:
        """Name some of the images, without reading them."""
        return Embedded(self._give, [self._rows[place] for place in places])


def chain(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Put columns one below the other."""
    if not all(isinstance(part, Embedded) for part in parts):
        return [value for part in parts for value in part]
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def give(row: int) -> Content | None:
        place = int(np.searchsorted(starts, row, side="right")) - 1
        found: Content | None = parts[place][row - int(starts[place])]
        return found

    return Embedded(give, range(int(starts[-1])))


def pick(values: Sequence[Any], rows: Sequence[int]) -> Sequence[Any]:
    """Take some rows of a column."""
    return values.pick(rows) if isinstance(values, Embedded) else [values[row] for row in rows]


def read_pictures(
    features: Mapping[str, Sequence[Any]], folder: Path, warnings: list[str], where: str
) -> Gallery | None:
    """Decode the column of images; None where there is none. Raises InputError for two, and where many are missing."""
    columns = [name for name, values in features.items() if isinstance(values, Embedded)] or path_columns(features)
    if not columns:
        return None
    if len(columns) > 1:
        found = f"{len(columns)}: {', '.join(columns)} (task.ignore leaves columns out)"
        raise InputError("one column of images", found, where)
    others = [name for name in features if name != columns[0]]
    if others:
        warnings.append(
            f"only the images in {columns[0]!r} are learned from, not what stands beside: {', '.join(others)}"
        )
    column, names = _contents(features[columns[0]], folder)
    there = _there(column, names, warnings, f"{where}: column {columns[0]!r}")
    gallery = read_images(column.pick(there), [names[row] for row in there])
    warnings += gallery.warnings
    return replace(gallery, rows=np.array(there, dtype=np.int64)[gallery.rows])


def restrict(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """Keep of all but the examples, which are those of ``rows`` already, what belongs to ``rows``."""
    if len(rows) == len(dataset.labels):
        return dataset
    place = {int(row): index for index, row in enumerate(rows)}
    parts = {
        name: np.array([place[row] for row in part.tolist() if row in place], dtype=np.int64)
        for name, part in dataset.parts.items()
    }
    beside = {name: getattr(dataset, name) for name in ("groups", "times", "weights")}
    some: dict[str, Any] = {name: values[rows] for name, values in beside.items() if values is not None}
    return replace(dataset, labels=dataset.labels[rows], parts=parts, **some)


def _contents(values: Sequence[Any], folder: Path) -> tuple[Embedded, list[str]]:
    """Give the images, and what to call each."""
    if isinstance(values, Embedded):
        return values, [f"the image of row {row}" for row in range(len(values))]
    paths = [folder / value.strip() if isinstance(value, str) and value.strip() else None for value in values]
    return Embedded(paths.__getitem__, range(len(paths))), [str(path) for path in paths]


def _there(column: Embedded, names: Sequence[str], warnings: list[str], where: str) -> list[int]:
    """Find the rows that have an image; count the others. Raises InputError where there are too many of them."""
    contents = (column[row] for row in range(len(column)))
    missing = [
        row
        for row, content in enumerate(contents)
        if content is None or (isinstance(content, Path) and not content.is_file())
    ]
    if not missing:
        return list(range(len(column)))
    first = f"the first in row {missing[0]} (from 0): {names[missing[0]]}"
    if len(missing) > BROKEN * len(column):
        found = f"no such file for {len(missing):,} of {len(column):,}, {first}"
        raise InputError("image files that exist, at paths that start at the table's folder", found, where)
    warnings.append(f"{len(missing):,} of {len(column):,} images are missing and their rows are left out, {first}")
    gone = set(missing)
    return [row for row in range(len(column)) if row not in gone]
