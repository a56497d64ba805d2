"""Arrays in a .npz file: images or vectors, their labels, and the user's own parts.

Keys: ``images`` or ``features``, with ``labels``; or each with a prefix, ``train_``, ``val_``, ``test_`` and so on.
``class_names`` names the classes of ``labels``. A target X reads the key X instead, and ``X_names`` beside it. A group
X reads the key X, with the same prefixes: which examples belong together; so do a time and a weight.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import Dataset, DatasetReader, DataSpec, InputError, Schema, encode, hookimpl
from autoxfer_builtins.reading import (
    PARTS,
    group_codes,
    index,
    locate,
    moments,
    numbers,
    unknown_key,
    unknown_target,
    weigh,
)

EXAMPLES = ("images", "features")
Arrays = Mapping[str, NDArray[Any]]


@final
class NpzReader(DatasetReader):
    """Reads a ``.npz`` file, never with pickle."""

    name: ClassVar[str] = "npz"

    def reads(self, spec: DataSpec) -> bool:
        """Whether the name ends in ``.npz``."""
        return spec.location.lower().endswith(".npz")

    def read(self, spec: DataSpec) -> Dataset:
        """Read all arrays. Raises InputError on what is missing, ragged, not numeric or not finite."""
        path = locate(spec)
        if spec.ignore:
            raise InputError("no columns to ignore: arrays have none by name", ", ".join(spec.ignore), "task.ignore")
        arrays = _load(path)
        kind, target = _keys(arrays, spec, path.name)
        prefixes = [prefix for prefix in ("", *(f"{part}_" for part in PARTS)) if prefix + kind in arrays]
        examples, labels, parts, start = [], [], {}, 0
        for prefix in prefixes:
            x, y = _pair(arrays, prefix + kind, prefix + target, path.name)
            examples.append(x)
            labels.append(y)
            if prefix:
                parts[prefix[:-1]] = np.arange(start, start + len(x))
            start += len(x)
        _check_alike(examples, [prefix + kind for prefix in prefixes], path.name)
        beside = {
            what: _beside(arrays, (what, key), (kind, target), prefixes, path.name)
            for what, key in (("group", spec.group), ("time", spec.time), ("weight", spec.weight))
            if key is not None
        }
        names = _names(arrays, target)
        schema, y = _labelled(np.concatenate(labels), names, spec, f"{path.name}: {target}")
        dataset = _dataset(path, np.concatenate(examples), y, schema, parts)
        return replace(
            dataset,
            groups=group_codes(*beside["group"]) if "group" in beside else None,
            times=moments(*beside["time"]) if "time" in beside else None,
            weights=weigh(*beside["weight"]) if "weight" in beside else None,
        )


def _load(path: Path) -> Arrays:
    """Read every array. Raises InputError: no npz, cut short, or arrays of Python objects."""
    try:
        if not zipfile.is_zipfile(path):  # numpy takes anything else for a pickle
            raise zipfile.BadZipFile
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, AttributeError, TypeError, RuntimeError, MemoryError):
        raise InputError(
            "a .npz file as numpy.savez writes it", "a file that cannot be read as one", path.name
        ) from None
    except ValueError as error:
        kind = "arrays of Python objects" if "allow_pickle" in str(error) or "bject" in str(error) else str(error)
        raise InputError("arrays of numbers or strings (no pickle)", kind, path.name) from None


def _keys(arrays: Arrays, spec: DataSpec, where: str) -> tuple[str, str]:
    """Find which key holds examples and which labels, both without prefix."""
    bare = {_bare(key) for key in arrays}
    kind = next((name for name in EXAMPLES if name in bare), None)
    if kind is None:
        found = f"the keys {', '.join(arrays) or '(none)'}"
        raise InputError("the key images or features (or train_images, ...)", found, where)
    target = "labels" if spec.target in (None, "label") else spec.target
    if target not in bare:
        names = sorted(name for name in bare if name not in EXAMPLES and not name.endswith("_names"))
        if spec.target is None or not names:
            raise InputError(f"the key labels beside {kind}", f"the keys {', '.join(arrays)}", where)
        raise unknown_target(spec, names)
    return kind, target


def _bare(key: str) -> str:
    """Take the part's name off a key: train_images -> images."""
    part = next((part for part in PARTS if key.startswith(f"{part}_")), None)
    return key if part is None else key.removeprefix(f"{part}_")


def _pair(arrays: Arrays, kind: str, target: str, where: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Take one part's examples and labels. Raises InputError where they do not go together."""
    if target not in arrays:
        raise InputError(f"the key {target} beside {kind}", f"the keys {', '.join(arrays)}", where)
    x, y = arrays[kind], arrays[target]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"{target} of shape (n,)", f"shape {arrays[target].shape}", where)
    if x.ndim == 0 or len(x) != len(y):
        raise InputError(f"as many {target} as {kind}", f"{x.shape} and {y.shape}", where)
    if len(x) == 0:
        raise InputError(f"at least one example in {kind}", "none", where)
    return x, y


def _beside(
    arrays: Arrays, wanted: tuple[str, str], used: tuple[str, str], prefixes: list[str], where: str
) -> tuple[list[Any], str]:
    """Read a group, time or weight of every example, over all parts, and where it stood. Raises InputError."""
    what, name = wanted
    others = {_bare(key) for key in arrays} - {*used, *EXAMPLES}
    if name not in others:
        raise unknown_key(name, sorted(other for other in others if not other.endswith("_names")), what)
    values: list[Any] = []
    for prefix in prefixes:
        key, beside = prefix + name, prefix + used[0]
        if key not in arrays:
            raise InputError(f"the key {key} beside {beside}", f"the keys {', '.join(arrays)}", f"task.{what}")
        n = len(arrays[beside])
        if arrays[key].shape not in ((n,), (n, 1)):
            raise InputError(f"{key} of shape ({n},), one for each example", f"shape {arrays[key].shape}", where)
        values += list(map(str, arrays[key].ravel())) if arrays[key].dtype.kind == "M" else arrays[key].ravel().tolist()
    return values, f"{where}: {name}"


def _check_alike(examples: list[NDArray[Any]], keys: list[str], where: str) -> None:
    for key, array in zip(keys, examples, strict=True):
        if array.shape[1:] != examples[0].shape[1:] or array.dtype != examples[0].dtype:
            found = f"{examples[0].dtype} {examples[0].shape[1:]} and {array.dtype} {array.shape[1:]}"
            raise InputError(f"examples of one shape and type in {keys[0]} and {key}", found, where)


def _names(arrays: Arrays, target: str) -> tuple[str, ...]:
    """Find the class names that belong to the target; none where the file does not say."""
    key = "class_names" if target == "labels" else f"{target}_names"
    return tuple(str(name) for name in arrays[key].ravel()) if key in arrays else ()


def _labelled(
    labels: NDArray[Any], names: tuple[str, ...], spec: DataSpec, where: str
) -> tuple[tuple[Literal["classification", "regression"], tuple[str, ...], str], NDArray[Any]]:
    """Tell the task from the labels' type, unless the user says it: fractions are regression."""
    task: Literal["classification", "regression"] = "classification"
    if spec.task == "regression" or (spec.task is None and labels.dtype.kind == "f"):
        task = "regression"
    if task == "regression":
        return (task, (), spec.target or "label"), numbers(labels, where)
    y, classes = index(labels, names, where)
    return (task, classes, spec.target or "label"), y


def _dataset(path: Path, x: NDArray[Any], y: NDArray[Any], meaning: Any, parts: Mapping[str, Any]) -> Dataset:
    """Tell images from vectors by their axes, and check what they hold."""
    task, classes, target = meaning
    if x.ndim == 2:
        schema = Schema("vector", task, x.shape[1:], "float32", classes, target=target)
    elif x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3)):
        schema = Schema("image", task, x.shape[1:], "uint8", classes, target=target)
    else:
        expected = "images (n, height, width), or with 1 or 3 channels last; or vectors (n, width)"
        raise InputError(expected, f"shape {x.shape}", path.name)
    if 0 in x.shape:
        raise InputError("examples with something in them", f"shape {x.shape}", path.name)
    return Dataset(path.stem, schema, encode(schema, x, path.name), y, dict(parts))


@hookimpl
def autoxfer_datasets() -> list[type[DatasetReader]]:
    """Offer .npz files."""
    return [NpzReader]
