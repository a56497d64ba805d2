"""Frozen activations on disk: computed once, read by every trial, study, run and process that needs the same ones.

An entry is a safetensors file named after the hash of all that determines its numbers. It is written beside its place
and renamed, so that it is there whole or not at all, however many write it and whenever one is killed. Reading maps it
into memory: what does not fit is paged in by the operating system. Beyond the limit the entries that were read longest
ago go; a process that still reads one keeps it until it is done.

The folder is ``autoxfer`` in the user's cache folder. AUTOXFER_CACHE names another one, or is "off";
AUTOXFER_CACHE_GB bounds it (10 by default).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoxfer.errors import InputError
from autoxfer.streaming import OnDisk, batches

LIMIT = 10e9  # bytes
LEFT = 2e9  # bytes of the disk that an entry leaves free
HASHED = 256  # examples on disk that are read at a time
STALE = 3600.0  # seconds after which what nobody finished writing is swept away

_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.int64: "I64"}
_TYPES[torch.uint8] = "U8"
_MAPPED = {"U8": np.uint8, "F32": np.float32}  # what examples are stored as


@final
class Store:
    """A folder of activations, bounded; every failure to write is a miss, never an error."""

    def __init__(self, folder: Path, limit: float = LIMIT) -> None:
        self.folder = folder
        self.limit = limit

    def read(self, key: str) -> Tensor | None:
        """Map an entry, (n, ...) on the CPU; None where there is none. What cannot be read is removed."""
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415

        path = self._path(key)
        try:
            with safe_open(os.fspath(path), framework="pt") as handle:
                tensor: Tensor = handle.get_tensor("activation")
            os.utime(path)  # read now: it is the last to go
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
            return None
        return tensor

    def map(self, key: str) -> NDArray[Any] | None:
        """Map an entry of examples, (n, ...), so that its pages can be given back; None where there is none."""
        path = self._path(key)
        try:
            with path.open("rb") as handle:
                (length,) = struct.unpack("<Q", handle.read(8))
                length = min(length, path.stat().st_size)  # of a damaged file anything
                entry = json.loads(handle.read(length))["activation"]
            # A private copy of each page that is written to: none is, and torch takes no array that could not be.
            found = np.memmap(path, _MAPPED[entry["dtype"]], "c", 8 + length, tuple(entry["shape"]))
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, struct.error):
            path.unlink(missing_ok=True)
            return None
        return np.asarray(found)

    def write(self, key: str, parts: Iterable[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """Write the parts of an entry of ``shape`` one after the other and map it; None where there is no room."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if dtype not in _TYPES or not self._makes_room(n_bytes):
            return None
        header = json.dumps(
            {"activation": {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [0, n_bytes]}}
        ).encode()
        header += b" " * (-len(header) % 8)
        temporary = self.folder / f"{key}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            with temporary.open("wb") as handle:
                handle.write(struct.pack("<Q", len(header)) + header)
                for part in parts:
                    handle.write(_bytes(part))
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(self._path(key))
        except OSError:
            return None
        finally:
            temporary.unlink(missing_ok=True)
        return self.read(key)

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._entries())

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """When each was last read, its size, its place."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):  # another process was faster
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def _makes_room(self, n_bytes: int) -> bool:
        """Remove what was read longest ago until an entry fits; False where it cannot, or nothing can be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("*.tmp"):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink(missing_ok=True)
            if n_bytes > self.limit / 2 or shutil.disk_usage(self.folder).free < n_bytes + LEFT:
                return False
            entries = self._entries()
            total = sum(size for _, size, _ in entries)
            for _, size, path in entries:
                if total + n_bytes <= self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= size
        except OSError:
            return False
        return True


def open_store() -> Store | None:
    """Open the user's store; None where it is switched off. Raises InputError where its limit is no number."""
    place = os.environ.get("AUTOXFER_CACHE", "")
    if place.lower() in ("off", "0", "none"):
        return None
    text = os.environ.get("AUTOXFER_CACHE_GB", "")
    try:
        limit = float(text) * 1e9 if text else LIMIT
        if not 0 < limit < math.inf:
            raise ValueError
    except ValueError:
        raise InputError("gigabytes, as a number above 0", repr(text), "AUTOXFER_CACHE_GB") from None
    if place:
        return Store(Path(place).expanduser(), limit)
    above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Store(Path(above).expanduser() / "autoxfer", limit)


def key(*parts: object) -> str:
    """Hash what determines an activation; torch and its threads are part of that, down to the last bit."""
    everything = (*parts, torch.__version__, torch.get_num_threads())
    return hashlib.sha256("\x1f".join(map(str, everything)).encode()).hexdigest()[:40]


def content(*tensors: Tensor | OnDisk) -> str:
    """Hash tensors: their numbers, shapes and types."""
    digest = hashlib.blake2b(digest_size=20)
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        for part in batches(tensor, HASHED) if isinstance(tensor, OnDisk) else (tensor,):
            digest.update(_bytes(part))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def module_content(module: nn.Module) -> str:
    """Hash a module: what it prints as, and its tensors."""
    state = module.state_dict()
    return hashlib.blake2b(f"{module!r}{sorted(state)}".encode(), digest_size=20).hexdigest() + content(
        *(state[name] for name in sorted(state))
    )
