"""Train, tune, guard, test: drawn by seed, stratified by class or by labels, no example, and no group, in two of them.

Splits that the data set brings itself are kept; the others are drawn from the rest. Where the user says nothing:
train 50%, tune 20%, guard 20%, test 10%; below 1,000 examples 40/20/40 and no test. A fraction is a share of what is
drawn from; train, where it is not named, takes the rest; where it is, no test split is drawn unasked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer import stratifying
from autoxfer.chronology import CAUTION, cut, disorder, without_early_copies
from autoxfer.dataset import Dataset
from autoxfer.errors import InputError
from autoxfer.grouping import deal, tie
from autoxfer.mapped import pieces
from autoxfer.records import SPLITS, derive_seed

SHARES = {"tune": 0.2, "guard": 0.2, "test": 0.1}
SHARES_OF_FEW = {"tune": 0.2, "guard": 0.4}
FEW = 1000  # examples below which no test split is drawn unasked
THIN = 5  # examples of a class below which a split is worth a warning
PART_NAMES = {"train": "train", "tune": "tune", "validation": "tune", "val": "tune", "guard": "guard", "test": "test"}
WHERE = "task.splits"
GROUP = "task.group"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Which rows of the data set serve what; no row, no exact copy of one and no group serves twice."""

    rows: Mapping[str, Rows]  # split -> ascending rows; without "test" where there is none
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """What is to be dealt, and how: stratified by class, copies and groups together."""

    rows: Rows  # ascending
    own: Mapping[str, Rows]  # the data set's own parts, which stay as they are
    units: Rows  # (n,) of the whole data set: who shares a number goes to one split
    draw: Callable[[Rows, Mapping[str, int], np.random.Generator], dict[str, Rows]]  # rows, sizes wanted, rng
    warnings: list[str]


def split(dataset: Dataset, sizes: Mapping[str, float | int] | None, seed: int) -> Splits:
    """Draw the splits that the data set does not bring, or cut them by time.

    Raises InputError where sizes or classes do not allow it.
    """
    sizes = checked(sizes or {})
    rng = np.random.default_rng(derive_seed(seed, "split"))
    pool = open_pool(dataset)
    own, warnings = pool.own, pool.warnings
    wanted = _counts(len(pool.rows), own, sizes, warnings)
    if dataset.groups is not None:
        _check_groups(wanted, len(np.unique(pool.units[pool.rows])))
    if dataset.schema.task == "classification":
        _check_room(wanted, own, len(np.unique(dataset.labels)))
    rows = dict(pool.draw(pool.rows, wanted, rng))
    for name, part in own.items():
        count = count_of_own(name, len(part), sizes, warnings)
        rows[name] = part if count == len(part) else pool.draw(part, {name: count}, rng)[name]
    rows = {name: rows[name] for name in SPLITS if name in rows}
    if dataset.times is not None:
        rows = without_early_copies(rows, pool.units, warnings)
        warnings += [*disorder(rows, dataset.times), CAUTION]
    empty = [name for name in rows if len(rows[name]) == 0]
    if empty:
        together = "equal times" if dataset.times is not None else "copies"
        together = together if dataset.groups is None else "groups and copies"
        raise InputError(
            f"examples in every split, {together} kept together; {len(pool.rows):,} rows", f"none for {empty[0]}", WHERE
        )
    if dataset.schema.task == "classification":
        _check_classes(dataset, rows, warnings)
    elif dataset.schema.task == "multilabel":
        stratifying.check_labels(dataset, rows, warnings, thin=THIN, where=WHERE)
    return Splits(rows, tuple(warnings))


def open_pool(dataset: Dataset, keep: Collection[str] = SPLITS) -> Pool:
    """Find what is to be dealt: everything but the own parts to be kept. Raises InputError for what cannot be split."""
    strata = np.zeros(len(dataset.labels), np.int64) if dataset.schema.task == "regression" else dataset.labels
    if dataset.labels.ndim == 2:
        stratifying.check_varied(dataset)
    elif len(np.unique(dataset.labels)) < 2:
        expected = "at least two classes" if dataset.schema.task == "classification" else "labels that differ"
        raise InputError(expected, _one_label(dataset), "task.data")
    units, warnings = _copies(dataset)
    draw = stratifying.draw if dataset.schema.task == "multilabel" else _draw
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


def checked(sizes: Mapping[str, Any]) -> dict[str, float | int]:
    """Check the sizes by themselves: names, kinds, ranges, the sum of the fractions."""
    for name, size in sizes.items():
        where = f"{WHERE}.{name}"
        if name not in SPLITS:
            raise InputError(f"one of {', '.join(SPLITS)}", repr(name), WHERE)
        if isinstance(size, bool) or not isinstance(size, (int, float)) or not math.isfinite(size):
            raise InputError("a fraction between 0 and 1 or a whole number of examples", repr(size), where)
        if size <= 0 or (isinstance(size, float) and size >= 1):
            raise InputError("a fraction between 0 and 1 or a whole number of at least 1", repr(size), where)
    total = sum(size for size in sizes.values() if isinstance(size, float))
    if total > 1 + 1e-9:
        raise InputError("fractions that sum to at most 1", f"{total:g}", WHERE)
    return dict(sizes)


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


def _check_groups(wanted: Mapping[str, int], n: int) -> None:
    """Refuse fewer groups than splits. Raises InputError."""
    if n < len(wanted):
        places = f"{len(wanted)} groups, one for each of {', '.join(wanted)}"
        raise InputError(f"at least {places} (a group stays whole)", f"{n}", GROUP)


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


def _counts(n: int, own: Mapping[str, Rows], sizes: Mapping[str, float | int], warnings: list[str]) -> dict[str, int]:
    """How many of the pool's ``n`` examples each split gets that the data set does not bring; train first."""
    shares = SHARES_OF_FEW if n < FEW else SHARES
    asked = {name: sizes[name] for name in SPLITS if name in sizes and name not in own}
    for name, share in shares.items():
        if name not in own and name not in asked and not (name == "test" and "train" in sizes):
            asked[name] = share
    wanted = {name: size if isinstance(size, int) else max(1, round(size * n)) for name, size in asked.items()}
    everything = all(isinstance(size, float) for size in asked.values()) and math.isclose(sum(asked.values()), 1)
    if "train" not in wanted or everything:
        wanted["train"] = n - sum(size for name, size in wanted.items() if name != "train")
    total = sum(wanted.values())
    if wanted["train"] < 1 or total > n:
        told = ", ".join(f"{name} {wanted[name]:,}" for name in SPLITS if name in wanted and wanted[name] > 0)
        raise InputError(f"splits that fit into {n:,} examples and leave some for train", told, WHERE)
    if total < n:
        warnings.append(f"{n - total:,} of {n:,} examples are in no split, as the sizes say")
    return {name: wanted[name] for name in SPLITS if name in wanted}


def _check_room(wanted: Mapping[str, int], own: Mapping[str, Rows], n_classes: int) -> None:
    """Refuse splits that are too small to show every class once. Raises InputError."""
    if wanted["train"] < n_classes:
        raise InputError(f"an example of each of {n_classes} classes in train", f"train {wanted['train']}", WHERE)
    judged = sum(wanted.get(name, len(own.get(name, ()))) for name in ("tune", "guard"))
    if judged < n_classes:
        raise InputError(f"an example of each of {n_classes} classes in tune or guard", f"{judged} in both", WHERE)


def count_of_own(name: str, n: int, sizes: Mapping[str, float | int], warnings: list[str]) -> int:
    """How many of an own part's ``n`` examples the user asks for; all where nothing is said."""
    size = sizes.get(name, n)
    count = size if isinstance(size, int) else max(1, round(size * n))
    if count > n:
        raise InputError(f"at most the {n:,} examples of the data set's own part", f"{count:,}", f"{WHERE}.{name}")
    if count < n:
        warnings.append(f"{name}: {count:,} of the {n:,} examples of the data set's own part are used")
    return count


def _draw(
    pool: Rows, wanted: Mapping[str, int], strata: NDArray[Any], group: Rows, rng: np.random.Generator
) -> dict[str, Rows]:
    """Deal the pool's rows to the splits, each class in proportion, copies together; the rest goes to none.

    The examples are put in an order in which every class is spread evenly, and the order is cut into the splits: each
    gets its exact size (but for copies at a cut) and each class its share to within a few examples.
    """
    _, first, unit, weight = np.unique(group[pool], return_index=True, return_inverse=True, return_counts=True)
    kind = strata[pool][first]
    left = dict(wanted)
    home = np.full(len(first), "", dtype=object)
    for value in np.unique(kind):
        for name in _promised(int((kind == value).sum()), wanted, left, len(first)):
            members = np.flatnonzero((kind == value) & (home == ""))
            if len(members):
                chosen = rng.choice(members)
                home[chosen] = name
                left[name] -= int(weight[chosen])
    free = np.flatnonzero(home == "")
    order = free[interleaved(kind[free], rng)]
    start = np.cumsum(weight[order]) - weight[order]
    ends = np.cumsum([max(0, size) for size in left.values()])
    home[order] = np.array([*left, ""], dtype=object)[np.searchsorted(ends, start, side="right")]
    return {name: pool[home[unit] == name] for name in wanted}


def _promised(n: int, wanted: Mapping[str, int], left: Mapping[str, int], total: int) -> list[str]:
    """Name the splits that a class of ``n`` is so unsure to reach by its share that one example is set aside."""
    judges = [name for name in ("tune", "guard") if name in wanted]
    promised = ["train"] if "train" in wanted and n * wanted["train"] < 3 * total else []
    if judges and "train" in wanted and n * sum(wanted[name] for name in judges) < 3 * total:
        promised.append(max(judges, key=lambda name: left[name]))
    return promised


def interleaved(kind: NDArray[Any], rng: np.random.Generator) -> Rows:
    """Order examples at random so that any stretch of the order holds each class in proportion."""
    key = np.empty(len(kind))
    for value in np.unique(kind):
        members = rng.permutation(np.flatnonzero(kind == value))
        key[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(key, kind="stable")


def _check_classes(dataset: Dataset, rows: Mapping[str, Rows], warnings: list[str]) -> None:
    """Refuse a class that does not stand in train and in tune or guard; warn of thin and absent ones."""
    names = dataset.schema.classes
    count = {name: np.bincount(dataset.labels[rows[name]], minlength=len(names)) for name in rows}
    judged = count["tune"] + count["guard"]
    thin = []
    for index, total in enumerate(np.bincount(dataset.labels, minlength=len(names))):
        told = ", ".join(f"{name} {count[name][index]}" for name in rows)
        if total == 0:
            warnings.append(f"class {names[index]!r} has no examples")
        elif count["train"][index] == 0 or judged[index] == 0:
            least = "2 different examples" if dataset.groups is None else "2 groups"
            expected = f"every class in train, and in tune or guard (at least {least})"
            raise InputError(expected, f"class {names[index]!r} with {total} in all ({told})", WHERE)
        elif min(count["train"][index], judged[index]) < THIN:
            thin.append(f"{names[index]!r} ({told})")
    if thin:
        more = f" and {len(thin) - 3} more" if len(thin) > 3 else ""
        warnings.append(f"fewer than {THIN} examples to learn or to judge by: class {', '.join(thin[:3])}{more}")
