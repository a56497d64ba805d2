"""Many images -> one array of pixels, in memory or, where that is too small, decoded once into a file.

The file lies in the folder ``pixels`` of the user's cache (see ``activations``) under a name made of what the images
hold, so that the next run finds it. It is written whatever its size where the disk has room; older ones make way.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from autoxfer.activations import Store, open_store
from autoxfer.errors import InputError
from autoxfer.mapped import most_bytes
from autoxfer.pictures import ALPHA, DEEP, Content, Header, UnreadableError, decode, quietly, read_header

LARGEST = 224  # pixels of a side; larger images are reduced
BROKEN = 0.1  # share of images that may be unreadable before the whole set is refused
AT_ONCE = 64  # images that are decoded before their pixels are put away
VERSION = 1  # of how images are decoded; another one is decoded again

T = TypeVar("T")
Found = TypeVar("Found")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Gallery:
    """What was decoded."""

    pixels: Pixels  # (n, height, width) or (n, height, width, 3); mapped from a file where it is large
    rows: NDArray[np.int64]  # (n,) which of the images they are: all but the unreadable ones
    warnings: tuple[str, ...]
    origins: NDArray[np.uint64]  # (n,) 64 bits of each file, which do not depend on the size of the pixels


def read_images(contents: Sequence[Content], names: Sequence[str]) -> Gallery:
    """Decode images, called ``names``, to one size, grey where all are, else in colour.

    Raises InputError where more than a tenth of them cannot be read.
    """
    with quietly():
        headers = list(_each(_header, contents))
        broken = {row: header for row, header in enumerate(headers) if isinstance(header, str)}
        _check(broken, names)
        sound = [header for header in headers if isinstance(header, Header)]
        grey = all(header.grey for header in sound)
        size, told = _common_size(sound)
        shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
        rows = np.array([row for row in range(len(headers)) if row not in broken], dtype=np.int64)
        digests = list(_each(_digest, contents))

        def attempt(row: int) -> Pixels | str:
            try:
                return decode(contents[row], size, grey=grey)
            except UnreadableError as error:
                return str(error)

        if len(rows) * math.prod(shape) > most_bytes():
            key = _key([digests[row] for row in rows.tolist()], shape)
            pixels, decoded, more = _from_disk(key, rows, shape, attempt)
        else:
            pixels, decoded, more = _into_memory(rows, shape, attempt)
    broken |= decoded
    _check(broken, names)
    kept = np.array([row for row in rows.tolist() if row not in broken], dtype=np.int64)
    origins = np.frombuffer(b"".join(digests[row][:8] for row in kept.tolist()), "<u8").astype(np.uint64)
    return Gallery(pixels[: len(kept)], kept, (*_told(headers, broken, names), *told, *more), origins)


def _each(work: Callable[[T], Found], items: Sequence[T]) -> Iterator[Found]:
    """Do the work for each item, in order, on all cores; a few results wait at a time."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(n_cores, 16)) as pool:
        for start in range(0, len(items), AT_ONCE):
            yield from pool.map(work, [items[row] for row in range(start, min(start + AT_ONCE, len(items)))])


def _header(content: Content) -> Header | str:
    try:
        return read_header(content)
    except UnreadableError as error:
        return str(error)


def _check(broken: dict[int, str], names: Sequence[str]) -> None:
    """Refuse a set of which too much is broken. Raises InputError."""
    if len(broken) > BROKEN * len(names):
        first = min(broken)
        found = f"{len(broken):,} of {len(names):,} that cannot, the first: {broken[first]}"
        raise InputError("images that can be read", found, names[first])


def _told(headers: Sequence[Header | str], broken: dict[int, str], names: Sequence[str]) -> Iterator[str]:
    """Count what was left out, and what was changed."""
    if broken:
        first = min(broken)
        told = f"{len(broken):,} of {len(names):,} images cannot be read and are left out"
        yield f"{told}, the first {names[first]}: {broken[first]}"
    modes = Counter(
        header.mode for row, header in enumerate(headers) if isinstance(header, Header) and row not in broken
    )
    if deep := sum(modes[mode] for mode in DEEP):
        yield f"{deep:,} images have 16 bits for a pixel, of which the upper 8 are kept"
    if alpha := sum(modes[mode] for mode in ALPHA):
        yield f"{alpha:,} images have an alpha channel, which is dropped"


def _common_size(headers: Sequence[Header]) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Choose the (width, height) of all: their own where they are alike and small, a common square otherwise."""
    sizes = [header.size for header in headers]
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST:
        return sizes[0], ()
    side = min(LARGEST, int(np.median([min(size) for size in sizes])))
    told = f"{len(set(sizes))} sizes" if len(set(sizes)) > 1 else f"{sizes[0][0]}x{sizes[0][1]} pixels"
    return (side, side), (f"images of {told} are resized and cut to {side}x{side}",)


Attempt = Callable[[int], Pixels | str]
Decoded = tuple[Pixels, dict[int, str], tuple[str, ...]]  # the broken ones' rows are at the end, zero; why; warnings


def _into_memory(rows: NDArray[np.int64], shape: tuple[int, ...], attempt: Attempt) -> Decoded:
    pixels = np.zeros((len(rows), *shape), dtype=np.uint8)
    broken: dict[int, str] = {}
    place = 0
    for row, image in zip(rows.tolist(), _each(attempt, rows.tolist()), strict=True):
        if isinstance(image, str):
            broken[row] = image
        else:
            pixels[place] = image
            place += 1
    return pixels, broken, ()


def _from_disk(key: str, rows: NDArray[np.int64], shape: tuple[int, ...], attempt: Attempt) -> Decoded:
    """Map the pixels from their file, which is written first where it is not there."""
    whole = (len(rows), *shape)
    store = open_store()
    if store is not None:
        store = Store(store.folder / "pixels", max(store.limit, 2.1 * math.prod(whole)))
        if (found := _find(store, key, rows, attempt)) is not None:
            return found
        if (found := _write(store, key, rows, whole, attempt)) is not None:
            return found
    with tempfile.TemporaryDirectory(prefix="autoxfer-") as place:  # what is mapped stays until it is let go
        if (found := _write(Store(Path(place), math.inf), key, rows, whole, attempt)) is not None:
            return found
    pixels, broken, _ = _into_memory(rows, shape, attempt)
    gigabytes = math.prod(whole) / 1e9
    return pixels, broken, (f"the decoded images take {gigabytes:.1f} GB of memory: the disk has no room for them",)


def _find(store: Store, key: str, rows: NDArray[np.int64], attempt: Attempt) -> Decoded | None:
    pixels, sound = store.map(key), store.read(f"{key}-sound")
    if pixels is None or sound is None or len(sound) != len(rows):
        return None
    lost = rows[~sound.numpy().astype(bool)].tolist()
    return pixels, {row: str(attempt(row)) for row in lost}, ()  # why, once more


def _write(store: Store, key: str, rows: NDArray[np.int64], whole: tuple[int, ...], attempt: Attempt) -> Decoded | None:
    broken: dict[int, str] = {}
    parts = _parts(rows, whole[1:], attempt, broken)
    written = store.write(key, parts, whole, torch.uint8)
    pixels = None if written is None else store.map(key)
    if pixels is None:
        return None
    sound = torch.tensor([row not in broken for row in rows.tolist()], dtype=torch.int32)
    store.write(f"{key}-sound", [sound], (len(rows),), torch.int32)
    return pixels, broken, ()


def _parts(
    rows: NDArray[np.int64], shape: tuple[int, ...], attempt: Attempt, broken: dict[int, str]
) -> Iterator[torch.Tensor]:
    """Give the pixels one image at a time, then as many empty ones as were broken."""
    for row, image in zip(rows.tolist(), _each(attempt, rows.tolist()), strict=True):
        if isinstance(image, str):
            broken[row] = image
        else:
            yield torch.from_numpy(np.array(image))
    for _ in broken:
        yield torch.zeros(shape, dtype=torch.uint8)


def _digest(content: Content) -> bytes:
    found = b""
    with contextlib.suppress(OSError):  # gone since its header was read
        found = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.blake2b(found, digest_size=20).digest()


def _key(digests: Sequence[bytes], shape: tuple[int, ...]) -> str:
    """Hash all that decides the pixels: what the images hold, their size, who decodes them."""
    import PIL  # noqa: PLC0415

    digest = hashlib.blake2b(f"{VERSION} {PIL.__version__} {shape}".encode(), digest_size=20)
    for each in digests:
        digest.update(each)
    return digest.hexdigest()
