"""Examples on disk, for what does not fit into memory: rows are read where they are asked for, and given back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoxfer.mapped import AROUND, HELD_BYTES, give_back, mapping


@final
class OnDisk:
    """Rows of an array that is mapped from a file, in the manner of a tensor (n, ...)."""

    def __init__(
        self, array: NDArray[Any], rows: NDArray[np.int64] | None = None, device: torch.device | None = None
    ) -> None:
        self._array = array
        self._rows = np.arange(len(array)) if rows is None else rows
        self.device = device or torch.device("cpu")
        self._held = 0  # bytes read since pages were given back

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (len(self), *self._array.shape[1:])

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return self._array.ndim

    @property
    def dtype(self) -> torch.dtype:
        """What kind of numbers these are."""
        return torch.from_numpy(np.empty(0, self._array.dtype)).dtype

    def read(self, index: slice | Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Read some rows into memory."""
        found = np.array(self._array[self._rows[index]])
        self._held += max(found.nbytes, len(found) * AROUND)
        if self._held > HELD_BYTES:
            give_back(self._array)
            self._held = 0
        return found

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Tensor:
        """Read some rows onto the device."""
        plain = index.cpu().numpy() if isinstance(index, Tensor) else index
        return torch.from_numpy(self.read(plain)).to(self.device)

    def pick(self, index: NDArray[np.int64]) -> OnDisk:
        """Name some of the rows, without reading them."""
        return OnDisk(self._array, self._rows[index], self.device)

    def to(self, device: torch.device) -> OnDisk:
        """Name the same rows, to be read onto ``device``."""
        return OnDisk(self._array, self._rows, device)

    def cpu(self) -> OnDisk:
        """Name the same rows, to be read into memory."""
        return self.to(torch.device("cpu"))

    def beside(self, others: Sequence[OnDisk]) -> OnDisk:
        """Name these rows and then the others', all of one file."""
        return OnDisk(self._array, np.concatenate([self._rows, *(other._rows for other in others)]), self.device)


Stored = Tensor | OnDisk  # examples of a split, (n, *stored shape)


def take(array: NDArray[Any], rows: NDArray[np.int64]) -> Stored:
    """Take rows of an array as a tensor; of one that is mapped from a file without reading them."""
    return OnDisk(array, rows) if mapping(array) is not None else torch.from_numpy(array[rows])


def plain(stored: Stored) -> NDArray[Any] | OnDisk:
    """Give stored examples as an array of numbers, where they are in memory."""
    return stored if isinstance(stored, OnDisk) else stored.cpu().numpy()


def pick(stored: Stored, rows: NDArray[np.int64]) -> Stored:
    """Take some of the stored examples."""
    return stored.pick(rows) if isinstance(stored, OnDisk) else stored[torch.from_numpy(rows).to(stored.device)]


def join(parts: Sequence[Stored]) -> Stored:
    """Put stored examples of one data set one after the other."""
    first, *others = parts
    if isinstance(first, OnDisk):
        return first.beside([other for other in others if isinstance(other, OnDisk)])
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def batches(stored: Stored, size: int) -> Iterator[Tensor]:
    """Give all stored examples in order, ``size`` at a time."""
    if isinstance(stored, Tensor):
        yield from torch.split(stored, size)
        return
    for start in range(0, len(stored), size):
        yield stored[start : start + size]
