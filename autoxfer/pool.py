"""What is to be dealt to the splits: everything but the data set's own parts, copies and groups tied together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer import classwise, stratifying
from autoxfer.chronology import cut
from autoxfer.dataset import Dataset
from autoxfer.errors import InputError
from autoxfer.grouping import deal, tie
from autoxfer.mapped import pieces
from autoxfer.records import SPLITS

PART_NAMES = {"train": "train", "tune": "tune", "validation": "tune", "val": "tune", "guard": "guard", "test": "test"}
GROUP = "task.group"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """What is to be dealt, and how: stratified by class, copies and groups together."""

    rows: Rows  # ascending
    own: Mapping[str, Rows]  # the data set's own parts, which stay as they are
    units: Rows  # (n,) of the whole data set: who shares a number goes to one split
    draw: Callable[[Rows, Mapping[str, int], np.random.Generator], dict[str, Rows]]  # rows, sizes wanted, rng
    warnings: list[str]


def open_pool(dataset: Dataset, keep: Collection[str] = SPLITS) -> Pool:
    """Find what is to be dealt: everything but the own parts to be kept. Raises InputError for what cannot be split."""
    strata = np.zeros(len(dataset.labels), np.int64) if dataset.schema.task == "regression" else dataset.labels
    if dataset.labels.ndim == 2:
        stratifying.check_varied(dataset)
    elif len(np.unique(dataset.labels)) < 2:
        expected = "at least two classes" if dataset.schema.task == "classification" else "labels that differ"
        raise InputError(expected, _one_label(dataset), "task.data")
    units, warnings = _copies(dataset)
    draw = stratifying.draw if dataset.schema.task == "multilabel" else classwise.draw
    if dataset.groups is not None:
        units, draw = _tied(units, dataset.groups, warnings), deal
    times = dataset.times
    if times is not None:
        draw = lambda part, wanted, strata, units, rng: cut(part, wanted, times)  # noqa: E731
    own = {name: rows for name, rows in _own(dataset).items() if name in keep}
    taken = [own[name] for name in own]
    rows = np.setdiff1d(np.arange(len(dataset.labels)), np.concatenate(taken) if taken else np.array([], np.int64))
    rows, own = _without_leaks(rows, own, units, warnings, grouped=dataset.groups is not None)
    return Pool(rows, own, units, lambda part, wanted, rng: draw(part, wanted, strata, units, rng), warnings)


def _one_label(dataset: Dataset) -> str:
    """Say what stands there instead of labels that differ."""
    if len(dataset.labels) == 0:
        return "no examples"
    label = dataset.labels[0]
    shown = f"{label:g}" if dataset.schema.task == "regression" else repr(dataset.schema.classes[int(label)])
    return f"only {shown} in {len(dataset.labels):,} examples"


def _copies(dataset: Dataset) -> tuple[Rows, list[str]]:
    """Give exact copies one number, (n,), and say what is to be said of them."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row, digest_size=16).digest() for row in _contents(dataset))
    group = np.array([seen.setdefault(digest, len(seen)) for digest in digests], dtype=np.int64)
    n, distinct = len(group), len(seen)
    if dataset.schema.modality == "table" and 2 * distinct < n:
        text = f"only {distinct:,} of {n:,} rows differ: equal rows are taken as different examples"
        return np.arange(n), [f"{text}, and may stand in several splits"]
    warnings = []
    if distinct < n:
        warnings.append(f"{n - distinct:,} of {n:,} examples are exact copies of another; copies stay in one split")
    pairs = np.unique(np.column_stack([group.astype(np.float64), dataset.labels.astype(np.float64)]), axis=0)
    at_odds = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    if at_odds:
        warnings.append(f"{at_odds:,} examples have copies with a different label")
    return group, warnings


def _contents(dataset: Dataset) -> Iterator[bytes | memoryview]:
    """Give what is equal where two examples are."""
    if dataset.schema.dtype == "str":
        yield from (text.encode() for text in dataset.examples.tolist())
        return
    rows = (row for piece in pieces(dataset.examples) for row in _one_zero(piece))
    if dataset.texts is None:
        yield from (np.ascontiguousarray(row).data for row in rows)
    else:
        yield from (row.tobytes() + text.encode() for row, text in zip(rows, dataset.texts.tolist(), strict=True))


def _one_zero(piece: NDArray[Any]) -> NDArray[Any]:
    return piece + np.float32(0) if piece.dtype == np.float32 else piece  # -0.0 is 0.0


def _tied(copies: Rows, groups: Rows, warnings: list[str]) -> Rows:
    """Unite copies and groups, (n,), and say what is to be said of the groups."""
    n, n_groups = len(groups), len(np.unique(groups))
    if n_groups == n:
        warnings.append(f"{GROUP}: every one of {n:,} examples is a group of its own")
    tied = tie(copies, groups)
    if lost := n_groups - len(np.unique(tied)):
        warnings.append(
            f"{GROUP}: exact copies stand in several groups; such groups stay in one split, which leaves "
            f"{n_groups - lost:,} of {n_groups:,} to be dealt"
        )
    return tied


def _own(dataset: Dataset) -> dict[str, Rows]:
    """Take the data set's own tune, guard and test; its train part is what the others leave."""
    own: dict[str, Rows] = {}
    for part, rows in dataset.parts.items():
        name = PART_NAMES.get(part)
        if name is None:
            raise InputError(f"parts called {', '.join(PART_NAMES)}", repr(part), "task.data")
        if name in own:
            raise InputError(f"one part for {name}", f"two, one of them {part!r}", "task.data")
        if len(rows):
            own[name] = np.sort(np.asarray(rows, dtype=np.int64))
    own.pop("train", None)
    everything = np.concatenate(list(own.values())) if own else np.array([], np.int64)
    if len(np.unique(everything)) < len(everything):
        raise InputError("parts that share no row", "a row in two of them", "task.data")
    return own


def _without_leaks(
    pool: Rows, own: Mapping[str, Rows], group: Rows, warnings: list[str], *, grouped: bool
) -> tuple[Rows, dict[str, Rows]]:
    """Drop from the pool what has a copy or kin in an own part, from an own part what has one in a later own part.

    Raises InputError where that leaves nothing of a part, because the user's parts cut through the groups.
    """
    kept = {"train": pool, **{name: own[name] for name in SPLITS if name in own}}
    names = list(kept)
    for index, name in enumerate(names):
        for later in names[index + 1 :]:
            leaks = np.isin(group[kept[name]], group[kept[later]])
            if leaks.any():
                source = "the rest" if name == "train" else f"the data set's own {name} part"
                kin = ", or whose group stands there" if grouped else ""
                warnings.append(
                    f"dropped from {source}: {leaks.sum():,} examples that also stand in the own {later} part{kin}"
                )
                if grouped and leaks.all():
                    found = f"every group of {source} in the own {later} part too"
                    raise InputError("own parts that do not cut through the groups", found, GROUP)
                kept[name] = kept[name][~leaks]
    return kept.pop("train"), kept
