"""Arrays in a .npz or .npy file, read block by block: of a large one no more than a block is in memory at a time."""

from __future__ import annotations

import hashlib
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from autoxfer.errors import InputError
from autoxfer.mapped import HELD_BYTES, give_back, most_bytes

SUFFIX = ".npy"
EXPECTED = "a .npz file as numpy.savez writes it"
DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, AttributeError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """One array of a file, as its header describes it."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False  # whether the first axis runs fastest in the file

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_bytes(self) -> int:
        """What it takes in memory, as it is."""
        return math.prod(self.shape) * self.dtype.itemsize


@final
class Archive:
    """The arrays of a .npz file, by key; nothing is unpickled. Close it after use."""

    def __init__(self, path: Path, where: str = "") -> None:
        """Read the headers; ``where`` is for an error. Raises InputError: no .npz, cut short, Python objects."""
        self.path, self._where = path, where or path.name
        with self._said():
            if not zipfile.is_zipfile(path):
                raise zipfile.BadZipFile(_why_none(path))
            self._file = zipfile.ZipFile(path)
        self._places = {name.removesuffix(SUFFIX): name for name in self._file.namelist() if name.endswith(SUFFIX)}
        self.members = {key: self._member(key) for key in self._places}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, key: str) -> NDArray[Any]:
        """Read a whole array. Raises InputError where it is damaged or memory is too small."""
        with self._said(), self._file.open(self._places[key]) as handle:
            return np.asarray(npy.read_array(handle, allow_pickle=False))

    def blocks(self, key: str, multiple: int = 1) -> Iterator[NDArray[Any]]:
        """Read an array in blocks of rows, a ``multiple`` of which all but the last hold. Raises InputError."""
        member = self.members[key]
        if not member.shape or not member.n_bytes or (member.fortran and member.n_bytes <= most_bytes()):
            yield from slices(self.read(key), multiple)
            return
        with self._said(), self._file.open(self._places[key]) as handle:
            _header(key, handle)
            row = member.n_bytes // len(member)
            if member.fortran:
                yield from _turned(handle, member, multiple)
                return
            for rows in _spans(len(member), row, multiple):
                content = _read(handle, row * (rows.stop - rows.start))
                yield np.frombuffer(content, member.dtype).reshape(-1, *member.shape[1:])
            handle.read(1)  # at the end the checksum is compared

    def fingerprint(self) -> str:
        """Hash the file."""
        with self._said(), self.path.open("rb") as handle:
            return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=20)).hexdigest()

    def _member(self, key: str) -> Member:
        with self._said():
            with self._file.open(self._places[key]) as handle:
                member = _header(key, handle)
                there = self._file.getinfo(self._places[key]).file_size - handle.tell()
            if not member.dtype.hasobject and member.n_bytes > there:
                raise EOFError(f"{key} ends before its {member.n_bytes:,} bytes")
        if member.dtype.hasobject:
            raise InputError("arrays of numbers or strings (no pickle)", "arrays of Python objects", self._where)
        return member

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Say in one message what is wrong with the file."""
        try:
            yield
        except DAMAGE as error:
            found = f"a file that cannot be read as one ({str(error).splitlines()[0] if str(error) else 'cut short'})"
            raise InputError(EXPECTED, found, self._where) from None
        except MemoryError:
            found = "arrays for which there is no memory"
            raise InputError("arrays that memory holds", found, self._where) from None


def slices(array: NDArray[Any], multiple: int = 1) -> Iterator[NDArray[Any]]:
    """Give an array, in memory or mapped from a file, in blocks of rows; one without rows at once."""
    if not array.shape or not array.nbytes:
        yield array
        return
    for rows in _spans(len(array), array.nbytes // len(array), multiple):
        yield array[rows]
        give_back(array)


def _spans(n: int, row_bytes: int, multiple: int) -> Iterator[slice]:
    size = max(1, HELD_BYTES // row_bytes // multiple) * multiple
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _header(key: str, handle: IO[bytes]) -> Member:
    """Read an array's header; what follows are its numbers."""
    version = npy.read_magic(handle)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(handle)
    return Member(key, shape, dtype, fortran and len(shape) > 1)


def _read(handle: IO[bytes], n_bytes: int) -> bytearray:
    content = bytearray()
    while len(content) < n_bytes:
        part = handle.read(min(n_bytes - len(content), HELD_BYTES))
        if not part:
            raise EOFError(f"{n_bytes - len(content):,} bytes are missing")
        content += part
    return content


def _turned(handle: IO[bytes], member: Member, multiple: int) -> Iterator[NDArray[Any]]:
    """Give the rows of an array whose columns stand one after the other, by way of a file that nobody sees."""
    with tempfile.TemporaryFile(prefix="autoxfer-") as file:
        left = member.n_bytes
        while left:
            left -= _put(file, _read(handle, min(left, HELD_BYTES)), member)
        file.flush()
        handle.read(1)
        whole = np.memmap(file, member.dtype, "r", 0, member.shape, "F")
        for rows in _spans(len(member), member.n_bytes // len(member), multiple):
            yield np.ascontiguousarray(whole[rows])
            give_back(whole)


def _put(file: IO[bytes], content: bytearray, member: Member) -> int:
    try:
        return file.write(content)
    except OSError as error:
        expected = f"room for {member.n_bytes / 1e9:.3g} GB in {tempfile.gettempdir()}"
        raise InputError(expected, error.strerror or str(error), member.key) from None


def _why_none(path: Path) -> str:
    """Say why a file is no zip: one that was cut short begins like one."""
    with path.open("rb") as handle:
        return "it is cut short" if handle.read(4) == b"PK\x03\x04" else "it is no zip file"
