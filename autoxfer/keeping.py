"""Examples that are read block by block -> one array, in memory or, where that is too small, in a file of the cache.

The file lies with the decoded images (see ``gallery``), is found again by its key, and makes way as they do.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoxfer.activations import Store, open_store
from autoxfer.errors import InputError
from autoxfer.mapped import all_bytes, most_bytes

Blocks = Callable[[], Iterator[NDArray[Any]]]


def keep(
    key: Callable[[], str], shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Blocks, where: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Put blocks of rows one after the other: an array of ``shape`` and ``dtype``, and warnings.

    Raises InputError where neither the disk nor the memory has room.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes <= most_bytes():
        return _into_memory(shape, dtype, blocks), ()
    found = _on_disk(key(), shape, dtype, blocks)
    if found is not None:
        return found, ()
    gigabytes = f"{n_bytes / 1e9:.3g} GB"
    if n_bytes > all_bytes() / 2:
        found_room = "a disk without it, and a memory that is too small"
        raise InputError(f"room for {gigabytes} of examples in the cache (AUTOXFER_CACHE)", found_room, where)
    told = f"the examples take {gigabytes} of memory: the disk has no room for them"
    return _into_memory(shape, dtype, blocks), (told,)


def _into_memory(shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Blocks) -> NDArray[Any]:
    whole = np.empty(shape, dtype)
    start = 0
    for block in blocks():
        whole[start : start + len(block)] = block
        start += len(block)
    return whole


def _on_disk(key: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Blocks) -> NDArray[Any] | None:
    """Map the array from its file, which is written first where it is not there; None where there is no room."""

    def write(store: Store) -> NDArray[Any] | None:
        tensors = (torch.from_numpy(np.require(block, dtype, ["C", "W"])) for block in blocks())
        written = store.write(key, tensors, shape, torch.from_numpy(np.empty(0, dtype)).dtype)
        return None if written is None else store.map(key)

    store = open_store()
    if store is not None:
        store = Store(store.folder / "pixels", max(store.limit, 2.1 * math.prod(shape) * dtype.itemsize))
        found = store.map(key)
        if found is not None and (found.shape, found.dtype) == (shape, dtype):
            return found
        if (found := write(store)) is not None:
            return found
    with tempfile.TemporaryDirectory(prefix="autoxfer-") as place:  # what is mapped stays until it is let go
        return write(Store(Path(place), math.inf))
