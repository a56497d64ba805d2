"""Deal examples of several labels each to the splits, so that every label gets near to its share of each.

Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011: the label with the fewest
examples left is dealt first, each of its examples to the split that lacks most of that label, then of examples at all.
A label that most examples have is dealt by those that lack it. Differs from the paper: a full split takes no more, so
that each gets its exact size (but for copies); and where a label misses a split that has to show it, other orders are
tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.dataset import Dataset
from autoxfer.errors import InputError

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

SHOWN = 3  # labels that a message names
EFFORT, MOST_ORDERS = 20_000, 10  # units that are dealt in all, over the orders that are tried


def draw(
    pool: Rows, wanted: Mapping[str, int], labels: NDArray[Any], group: Rows, rng: np.random.Generator
) -> dict[str, Rows]:
    """Deal the pool's rows to the splits by their labels, 0/1 (n of all, k), copies together; the rest goes to none."""
    _, unit, weight = np.unique(group[pool], return_inverse=True, return_counts=True)
    of_pool = labels[pool]
    marks = np.zeros((len(weight), labels.shape[1]))
    np.add.at(marks, unit, np.where(of_pool.mean(0) > 0.5, 1 - of_pool, of_pool))
    sizes = np.array([*wanted.values(), len(pool) - sum(wanted.values())], np.float64)
    best, fewest = np.zeros(len(weight), np.int64), np.inf
    for _ in range(min(MOST_ORDERS, max(1, EFFORT // len(weight)))):
        home = _dealt(marks, weight, sizes, rng)
        missing = _missing(home, marks, list(wanted))
        if missing < fewest:
            best, fewest = home, missing
        if not missing:
            break
    return {name: pool[best[unit] == place] for place, name in enumerate(wanted)}


def _dealt(marks: Floats, weight: Rows, sizes: Floats, rng: np.random.Generator) -> Rows:
    """Give each unit its place: marks (units, k) are what is counted, sizes (splits and none,) examples."""
    left, room = marks.sum(0), sizes.copy()
    lacking = sizes[:, None] / sizes.sum() * left  # (splits, k)
    home = np.full(len(marks), -1)
    while left.any():
        label = int(np.where(left > 0, left, np.inf).argmin())
        for one in rng.permutation(np.flatnonzero((marks[:, label] > 0) & (home < 0))):
            order = np.lexsort((rng.random(len(sizes)), room, lacking[:, label], room > 0))
            home[one] = place = order[-1]
            lacking[place] -= marks[one]
            room[place] -= weight[one]
            left -= marks[one]
    order = rng.permutation(np.flatnonzero(home < 0))
    start = np.cumsum(weight[order]) - weight[order]
    ends = np.cumsum(np.maximum(room, 0))
    home[order] = np.minimum(np.searchsorted(ends, start, side="right"), len(sizes) - 1)
    return home


def _missing(home: Rows, marks: Floats, names: list[str]) -> int:
    """Count labels that train does not show, or neither tune nor guard; of other splits those that any does not."""
    have = np.stack([marks[home == place].sum(0) > 0 for place in range(len(names))])
    judges = [place for place, name in enumerate(names) if name in ("tune", "guard")]
    needed = [have[place] for place in range(len(names)) if names[place] not in ("tune", "guard", "test")]
    needed += [have[judges].any(0)] if judges else []
    there = marks.any(0)
    return int(sum((~shown & there).sum() for shown in needed))


def check_varied(dataset: Dataset) -> None:
    """Refuse a label that is always or never true, and a number that is always the same. Raises InputError."""
    names, labels = dataset.schema.classes or dataset.schema.targets, dataset.labels
    if not len(labels):
        raise InputError("examples", "none", "task.data")
    same = np.flatnonzero((labels == labels[0]).all(0))
    if not len(same):
        return
    n, few = len(labels), same[:SHOWN]
    if dataset.schema.task == "multilabel":
        told = [f"{names[index]!r} {'always' if labels[0, index] else 'never'} true" for index in few]
        expected = "labels that are true of some examples and not of others"
    else:
        told = [f"{names[index]!r} always {labels[0, index]:g}" for index in few]
        expected = "targets that differ"
    more = f" and {len(same) - SHOWN} more like it" if len(same) > SHOWN else ""
    raise InputError(expected, f"{', '.join(told)}{more} in {n:,} examples", "task.target")


def check_labels(dataset: Dataset, rows: Mapping[str, Rows], warnings: list[str], *, thin: int, where: str) -> None:
    """Refuse a label that is not both true and false in train, and in tune or guard; warn where it hardly is."""
    true = {name: dataset.labels[rows[name]].sum(0).astype(np.int64) for name in rows}
    rare = {name: np.minimum(true[name], len(rows[name]) - true[name]) for name in rows}  # the rarer of the two
    sides = {name: np.stack([true[name], len(rows[name]) - true[name]]) for name in rows}
    judged = (sides["tune"] + sides["guard"]).min(0)
    few = []
    for index, label in enumerate(dataset.schema.classes):
        told = f"{label!r}, true of {', '.join(f'{true[name][index]} of {len(rows[name])} in {name}' for name in rows)}"
        if not rare["train"][index] or not judged[index]:
            least = "2 different examples" if dataset.groups is None else "2 groups"
            expected = f"every label true and false in train, and in tune or guard (at least {least} each)"
            raise InputError(expected, told, where)
        if min(rare["train"][index], judged[index]) < thin:
            few.append(told)
    if few:
        more = f", and {len(few) - SHOWN} more like it" if len(few) > SHOWN else ""
        warnings.append(
            f"fewer than {thin} examples with or without a label to learn or to judge by: "
            f"{'; '.join(few[:SHOWN])}{more}"
        )


def check_folds(dataset: Dataset, drawn: list[dict[str, Rows]], warnings: list[str], *, thin: int, where: str) -> None:
    """Refuse a label that is not both true and false in train of every fold; warn where it hardly is."""
    sums = np.stack([dataset.labels[splits["train"]].sum(0) for splits in drawn])
    sizes = np.array([len(splits["train"]) for splits in drawn])[:, None]
    fewest = np.minimum(sums, sizes - sums).min(0).astype(np.int64)
    names = dataset.schema.classes
    if not fewest.all():
        index = int(fewest.argmin())
        least = "3 different examples" if dataset.groups is None else "3 groups"
        total = int(dataset.labels[:, index].sum())
        found = f"{names[index]!r}, true of {total} of {len(dataset.labels)}, and in one fold of none or all"
        raise InputError(f"every label true and false in train of every fold (at least {least} each)", found, where)
    if few := [f"{names[index]!r} ({fewest[index]})" for index in np.flatnonzero(fewest < thin)]:
        more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
        warnings.append(
            f"fewer than {thin} examples with or without a label to learn by in a fold: {', '.join(few[:SHOWN])}{more}"
        )
