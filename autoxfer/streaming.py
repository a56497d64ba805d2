"""Examples on disk, for what does not fit into memory: rows are read where they are asked for, and given back."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoxfer.errors import InputError

SHARE = 0.25  # of the memory that examples may take
HELD_BYTES = 64 << 20  # of a file that are read before its pages are given back
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def most_bytes() -> float:
    """Say how many bytes of decoded images are held in memory: AUTOXFER_MEMORY_GB, or a quarter of all there is.

    Raises InputError where the variable is no number.
    """
    text = os.environ.get("AUTOXFER_MEMORY_GB", "")
    try:
        bound = float(text) * 1e9 if text else SHARE * _memory()
        if not 0 < bound <= math.inf:
            raise ValueError
    except ValueError:
        raise InputError("gigabytes, as a number above 0", repr(text), "AUTOXFER_MEMORY_GB") from None
    return bound


def _memory() -> float:
    """Bytes of memory that this process may take at most: the machine's, or its container's."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for path in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max"
            found.append(float(Path(path).read_text(encoding="ascii")))
    return min(found)


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
        self._held += found.nbytes
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
    return OnDisk(array, rows) if _mapping(array) is not None else torch.from_numpy(array[rows])


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


def pieces(array: NDArray[Any], rows: NDArray[np.int64] | None = None) -> Iterator[NDArray[Any]]:
    """Give an array (n, ...), or some rows of it, in pieces in order; all at once where it is in memory."""
    if _mapping(array) is None:
        yield array if rows is None else array[rows]
        return
    part = OnDisk(array, rows)
    size = max(1, HELD_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(part), size):
        yield part.read(slice(start, start + size))
    give_back(array)


def give_back(array: NDArray[Any]) -> None:
    """Let the operating system have the pages of a mapped file that were read; they can be read again."""
    mapping = _mapping(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: Any) -> mmap.mmap | None:
    """Find the mapped file that an array looks into; None where it is in memory."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
