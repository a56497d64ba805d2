"""Arrays in a .npz file: images or vectors, their labels, and the user's own parts.

Keys: ``images`` or ``features``, with ``labels``; or each with a prefix, ``train_``, ``val_``, ``test_`` and so on.
``class_names`` names the classes of ``labels``. A target X reads the key X instead, and ``X_names`` beside it. A group
X reads the key X, with the same prefixes: which examples belong together; so do a time and a weight.

Labels (n, k) are several for each example: whole numbers or booleans, all 0 or 1, whether each of k labels is true;
fractions k numbers. ``class_names`` names the labels, ``target_names`` the numbers.

Examples are read block by block; those that memory cannot hold go into a file of the cache, and are read from there.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import Dataset, DatasetReader, DataSpec, InputError, Schema, encode, hookimpl
from autoxfer.arrayfiles import Archive, Member
from autoxfer.keeping import keep
from autoxfer_builtins.reading import (
    PARTS,
    Answers,
    group_codes,
    index,
    locate,
    matrix_warnings,
    moments,
    numbers,
    one_target,
    unknown_key,
    unknown_target,
    weigh,
)

EXAMPLES = ("images", "features")


@final
class NpzReader(DatasetReader):
    """Reads a ``.npz`` file, never with pickle."""

    name: ClassVar[str] = "npz"

    def reads(self, spec: DataSpec) -> bool:
        """Whether the name ends in ``.npz``."""
        return spec.location.lower().endswith(".npz")

    def read(self, spec: DataSpec) -> Dataset:
        """Read all that is asked for. Raises InputError on what is missing, ragged, not numeric or not finite."""
        path = locate(spec)
        if spec.ignore:
            raise InputError("no columns to ignore: arrays have none by name", ", ".join(spec.ignore), "task.ignore")
        with Archive(path) as archive:
            return _read(_Arrays(archive), spec, path)


@final
class _Arrays(Mapping[str, NDArray[Any]]):
    """The arrays of a file, each read where it is asked for."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def __getitem__(self, key: str) -> NDArray[Any]:
        if key not in self.archive.members:
            raise KeyError(key)
        return self.archive.read(key)

    def __contains__(self, key: object) -> bool:
        return key in self.archive.members  # a Mapping's own would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.archive.members)

    def __len__(self) -> int:
        return len(self.archive.members)


def _read(arrays: _Arrays, spec: DataSpec, path: Path) -> Dataset:
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
    _check_alike(labels, [prefix + target for prefix in prefixes], path.name, what="labels of one shape")
    answers = _labelled(np.concatenate(labels), names, spec, f"{path.name}: {target}")
    dataset = _dataset(arrays.archive, examples, answers, parts)
    return replace(
        dataset,
        warnings=(*matrix_warnings(answers, spec), *dataset.warnings),
        groups=group_codes(*beside["group"]) if "group" in beside else None,
        times=moments(*beside["time"]) if "time" in beside else None,
        weights=weigh(*beside["weight"]) if "weight" in beside else None,
    )


def _keys(arrays: _Arrays, spec: DataSpec, where: str) -> tuple[str, str]:
    """Find which key holds examples and which labels, both without prefix."""
    bare = {_bare(key) for key in arrays}
    kind = next((name for name in EXAMPLES if name in bare), None)
    if kind is None:
        found = f"the keys {', '.join(arrays) or '(none)'}"
        raise InputError("the key images or features (or train_images, ...)", found, where)
    asked = one_target(spec, ": an array (n, k) holds several labels or numbers")
    target = "labels" if asked in (None, "label") else str(asked)
    if target not in bare:
        names = sorted(name for name in bare if name not in EXAMPLES and not name.endswith("_names"))
        if asked is None or not names:
            raise InputError(f"the key labels beside {kind}", f"the keys {', '.join(arrays)}", where)
        raise unknown_target(asked, names)
    return kind, target


def _bare(key: str) -> str:
    """Take the part's name off a key: train_images -> images."""
    part = next((part for part in PARTS if key.startswith(f"{part}_")), None)
    return key if part is None else key.removeprefix(f"{part}_")


def _pair(arrays: _Arrays, kind: str, target: str, where: str) -> tuple[Member, NDArray[Any]]:
    """Take one part's examples and labels. Raises InputError where they do not go together."""
    if target not in arrays:
        raise InputError(f"the key {target} beside {kind}", f"the keys {', '.join(arrays)}", where)
    x, y = arrays.archive.members[kind], arrays[target]
    shape = y.shape
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or 0 in y.shape[1:]:
        expected = f"{target} of shape (n,), or (n, k) with several labels or numbers for each example"
        raise InputError(expected, f"shape {shape}", where)
    if not x.shape or len(x) != len(y):
        raise InputError(f"as many {target} as {kind}", f"{x.shape} and {y.shape}", where)
    if len(x) == 0:
        raise InputError(f"at least one example in {kind}", "none", where)
    return x, y


def _beside(
    arrays: _Arrays, wanted: tuple[str, str], used: tuple[str, str], prefixes: list[str], where: str
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
        n, found = len(arrays.archive.members[beside]), arrays[key]
        if found.shape not in ((n,), (n, 1)):
            raise InputError(f"{key} of shape ({n},), one for each example", f"shape {found.shape}", where)
        values += list(map(str, found.ravel())) if found.dtype.kind == "M" else found.ravel().tolist()
    return values, f"{where}: {name}"


def _check_alike(arrays: Sequence[Member | NDArray[Any]], keys: list[str], where: str, what: str = "") -> None:
    """Refuse parts whose examples differ in shape or type, or whose labels differ in shape. Raises InputError."""
    for key, array in zip(keys, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:] or (not what and array.dtype != arrays[0].dtype):
            found = f"{arrays[0].dtype} {arrays[0].shape[1:]} and {array.dtype} {array.shape[1:]}"
            raise InputError(f"{what or 'examples of one shape and type'} in {keys[0]} and {key}", found, where)


def _names(arrays: _Arrays, target: str) -> tuple[str, ...]:
    """Find the names of the target's classes, labels or numbers; none where the file does not say."""
    keys = ("class_names", "target_names") if target == "labels" else (f"{target}_names",)
    found = next((arrays[key] for key in keys if key in arrays), None)
    return () if found is None else tuple(str(name) for name in found.ravel())


def _labelled(labels: NDArray[Any], names: tuple[str, ...], spec: DataSpec, where: str) -> Answers:
    """Tell the task from the labels' type and shape, unless the user says it: fractions are regression."""
    target = one_target(spec) or "label"
    if labels.ndim == 2:
        return _several(labels, names, spec, target, where)
    if spec.task == "multilabel":
        raise InputError("labels of shape (n, k) for multilabel", f"shape {labels.shape}", where)
    if spec.task == "regression" or (spec.task is None and labels.dtype.kind == "f"):
        return Answers(numbers(labels, where), "regression", (), target)
    y, classes = index(labels, names, where)
    return Answers(y, "classification", classes, target)


def _several(labels: NDArray[Any], names: tuple[str, ...], spec: DataSpec, target: str, where: str) -> Answers:
    """Tell several labels from several numbers."""
    k = labels.shape[1]
    if names and len(names) != k:
        raise InputError(f"a name for each of {k} columns of labels", f"{len(names)} names", where)
    if spec.task == "classification":
        raise InputError("labels of shape (n,) for classification", f"shape {labels.shape}", where)
    if spec.task == "regression" or (spec.task is None and labels.dtype.kind == "f"):
        names = names or tuple(f"output_{i}" for i in range(k))
        return Answers(numbers(labels, where), "regression", (), target, names)
    strange = labels[(labels != 0) & (labels != 1)] if labels.dtype.kind in "buif" else labels.ravel()
    if len(strange):
        raise InputError("0 and 1 as labels (n, k), or kind: regression for numbers", f"{strange[0]!s}", where)
    names = names or tuple(f"label_{i}" for i in range(k))
    return Answers(labels.astype(np.float32), "multilabel", names, target)


def _dataset(archive: Archive, members: Sequence[Member], answers: Answers, parts: Mapping[str, Any]) -> Dataset:
    """Tell images from vectors by their axes, and check what they hold, a block at a time."""
    path, shape = archive.path, (sum(map(len, members)), *members[0].shape[1:])
    if len(shape) == 2:
        schema = answers.describe(Schema("vector", answers.task, shape[1:], "float32"))
    elif len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)):
        schema = answers.describe(Schema("image", answers.task, shape[1:], "uint8"))
    else:
        expected = "images (n, height, width), or with 1 or 3 channels last; or vectors (n, width)"
        raise InputError(expected, f"shape {shape}", path.name)
    if 0 in shape:
        raise InputError("examples with something in them", f"shape {shape}", path.name)

    def blocks() -> Iterator[NDArray[Any]]:
        first = 0
        for block in itertools.chain.from_iterable(archive.blocks(member.key) for member in members):
            yield encode(schema, block, path.name, first)
            first += len(block)

    def key() -> str:
        return hashlib.sha256(f"{archive.fingerprint()} {[each.key for each in members]}".encode()).hexdigest()[:40]

    examples, warnings = keep(key, shape, np.dtype(schema.dtype), blocks, path.name)
    return Dataset(path.stem, schema, examples, answers.y, dict(parts), warnings)


@hookimpl
def autoxfer_datasets() -> list[type[DatasetReader]]:
    """Offer .npz files."""
    return [NpzReader]
