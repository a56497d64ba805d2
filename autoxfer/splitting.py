"""Train, tune, guard, test: drawn by seed, stratified by class or by labels, no example, and no group, in two of them.

Splits that the data set brings itself are kept; the others are drawn from the rest. Where the user says nothing:
train 50%, tune 20%, guard 20%, test 10%; below 1,000 examples 40/20/40 and no test. A fraction is a share of what is
drawn from; train, where it is not named, takes the rest; where it is, no test split is drawn unasked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoxfer import classwise, stratifying
from autoxfer.chronology import CAUTION, disorder, without_early_copies
from autoxfer.dataset import Dataset
from autoxfer.errors import InputError
from autoxfer.pool import GROUP, Rows, open_pool
from autoxfer.records import SPLITS, derive_seed

SHARES = {"tune": 0.2, "guard": 0.2, "test": 0.1}
SHARES_OF_FEW = {"tune": 0.2, "guard": 0.4}
FEW = 1000  # examples below which no test split is drawn unasked
THIN = 5  # examples of a class below which a split is worth a warning
WHERE = "task.splits"


@dataclass(frozen=True)
class Splits:
    """Which rows of the data set serve what; no row, no exact copy of one and no group serves twice."""

    rows: Mapping[str, Rows]  # split -> ascending rows; without "test" where there is none
    warnings: tuple[str, ...]


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
        classwise.check_room(wanted, own, len(np.unique(dataset.labels)), where=WHERE)
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
        classwise.check_classes(dataset, rows, warnings, thin=THIN, where=WHERE)
    elif dataset.schema.task == "multilabel":
        stratifying.check_labels(dataset, rows, warnings, thin=THIN, where=WHERE)
    return Splits(rows, tuple(warnings))


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


def _check_groups(wanted: Mapping[str, int], n: int) -> None:
    """Refuse fewer groups than splits. Raises InputError."""
    if n < len(wanted):
        places = f"{len(wanted)} groups, one for each of {', '.join(wanted)}"
        raise InputError(f"at least {places} (a group stays whole)", f"{n}", GROUP)


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


def count_of_own(name: str, n: int, sizes: Mapping[str, float | int], warnings: list[str]) -> int:
    """How many of an own part's ``n`` examples the user asks for; all where nothing is said."""
    size = sizes.get(name, n)
    count = size if isinstance(size, int) else max(1, round(size * n))
    if count > n:
        raise InputError(f"at most the {n:,} examples of the data set's own part", f"{count:,}", f"{WHERE}.{name}")
    if count < n:
        warnings.append(f"{name}: {count:,} of the {n:,} examples of the data set's own part are used")
    return count
