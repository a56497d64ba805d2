"""Deal examples of one class each to the splits, every class in proportion; refuse a class that cannot be shown.

What ``stratifying`` does for several labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoxfer.dataset import Dataset
from autoxfer.errors import InputError

Rows = NDArray[np.int64]


def draw(
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


def check_room(wanted: Mapping[str, int], own: Mapping[str, Rows], n_classes: int, *, where: str) -> None:
    """Refuse splits that are too small to show every class once. Raises InputError."""
    if wanted["train"] < n_classes:
        raise InputError(f"an example of each of {n_classes} classes in train", f"train {wanted['train']}", where)
    judged = sum(wanted.get(name, len(own.get(name, ()))) for name in ("tune", "guard"))
    if judged < n_classes:
        raise InputError(f"an example of each of {n_classes} classes in tune or guard", f"{judged} in both", where)


def check_classes(dataset: Dataset, rows: Mapping[str, Rows], warnings: list[str], *, thin: int, where: str) -> None:
    """Refuse a class that does not stand in train and in tune or guard; warn of thin and absent ones."""
    names = dataset.schema.classes
    count = {name: np.bincount(dataset.labels[rows[name]], minlength=len(names)) for name in rows}
    judged = count["tune"] + count["guard"]
    few = []
    for index, total in enumerate(np.bincount(dataset.labels, minlength=len(names))):
        told = ", ".join(f"{name} {count[name][index]}" for name in rows)
        if total == 0:
            warnings.append(f"class {names[index]!r} has no examples")
        elif count["train"][index] == 0 or judged[index] == 0:
            least = "2 different examples" if dataset.groups is None else "2 groups"
            expected = f"every class in train, and in tune or guard (at least {least})"
            raise InputError(expected, f"class {names[index]!r} with {total} in all ({told})", where)
        elif min(count["train"][index], judged[index]) < thin:
            few.append(f"{names[index]!r} ({told})")
    if few:
        more = f" and {len(few) - 3} more" if len(few) > 3 else ""
        warnings.append(f"fewer than {thin} examples to learn or to judge by: class {', '.join(few[:3])}{more}")
