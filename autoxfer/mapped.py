"""What lies on disk because memory cannot hold it: how much that is, and reading an array piece by piece."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.errors import InputError

SHARE = 0.25  # of the memory that examples may take
HELD_BYTES = 16 << 20  # of a file that are read before its pages are given back
AROUND = 1 << 16  # bytes of a file that reading a single row maps, however short it is
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def most_bytes() -> float:
    """Say how many bytes of examples are held in memory: AUTOXFER_MEMORY_GB, or a quarter of all there is.

    Raises InputError where the variable is no number.
    """
    text = os.environ.get("AUTOXFER_MEMORY_GB", "")
    try:
        bound = float(text) * 1e9 if text else SHARE * all_bytes()
        if not 0 < bound <= math.inf:
            raise ValueError
    except ValueError:
        raise InputError("gigabytes, as a number above 0", repr(text), "AUTOXFER_MEMORY_GB") from None
    return bound


def all_bytes() -> float:
    """Bytes of memory that this process may take at most: the machine's, or its container's."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for path in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max"
            found.append(float(Path(path).read_text(encoding="ascii")))
    return min(found)


def pieces(array: NDArray[Any], rows: NDArray[np.int64] | None = None) -> Iterator[NDArray[Any]]:
    """Give an array (n, ...), or some rows of it, in pieces in order; all at once where it is in memory."""
    if mapping(array) is None:
        yield array if rows is None else array[rows]
        return
    n = len(array) if rows is None else len(rows)
    size = max(1, HELD_BYTES // max(1 if rows is None else AROUND, array[:1].nbytes))
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield np.array(array[part] if rows is None else array[rows[part]])
        give_back(array)


def give_back(array: NDArray[Any]) -> None:
    """Let the operating system have the pages of a mapped file that were read; they can be read again."""
    found = mapping(array)
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def mapping(array: Any) -> mmap.mmap | None:
    """Find the mapped file that an array looks into; None where it is in memory."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
