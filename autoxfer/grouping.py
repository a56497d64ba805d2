"""Examples that belong together, a patient's or exact copies of one another, go to one split as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

EFFORT = 20_000  # groups that are dealt in all, over the orders that are tried
MOST_ORDERS = 20


def tie(one: Rows, other: Rows) -> Rows:
    """Unite two relations, each given by a number per example (n,): who shares either stands together, and so on."""
    from scipy.sparse import coo_array  # noqa: PLC0415  (heavy, and needed where there are groups alone)
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    left, right = np.unique(one, return_inverse=True)[1], np.unique(other, return_inverse=True)[1]
    n_left = int(left.max()) + 1
    size = n_left + int(right.max()) + 1
    edges = coo_array((np.ones(len(left), np.int8), (left, n_left + right)), shape=(size, size))
    component: Rows = connected_components(edges, directed=False)[1].astype(np.int64)
    return component[left]


def deal(
    pool: Rows, wanted: Mapping[str, int], strata: NDArray[Any], group: Rows, rng: np.random.Generator
) -> dict[str, Rows]:
    """Deal whole groups to the splits, near to the sizes wanted, each class near to its share; the rest goes to none.

    ``strata`` (n,) are classes; of several labels each (n, k) 0/1, those that have a label and those that lack it.
    The groups come in random order, and each goes where it is wanted most. Of several orders the one is kept that meets
    sizes and shares best: labels and sizes alone decide, nothing that is learnt from.
    """
    _, unit = np.unique(group[pool], return_inverse=True)
    contents = _contents(unit, strata[pool])
    sizes = np.array([*wanted.values(), max(0, len(pool) - sum(wanted.values()))], np.float64)
    goal = np.maximum(sizes[:, None] / len(pool) * contents.sum(0), 1e-9)  # (splits and none, classes)
    n_orders = min(MOST_ORDERS, max(1, EFFORT // len(contents)))
    homes = [_dealt(contents, goal, rng.permutation(len(contents))) for _ in range(n_orders)]
    home = min(homes, key=lambda home: _badness(home, contents, goal))[unit]
    return {name: pool[home == place] for place, name in enumerate(wanted)}


def _contents(unit: Rows, strata: NDArray[Any]) -> Floats:
    """Count what each unit holds of each class, or of examples with and without each label: (units, kinds)."""
    if strata.ndim == 2:
        contents = np.zeros((int(unit.max()) + 1, 2 * strata.shape[1]))
        np.add.at(contents, unit, np.hstack([strata, 1 - strata]))
        return contents
    _, kind = np.unique(strata, return_inverse=True)
    contents = np.zeros((int(unit.max()) + 1, int(kind.max()) + 1))
    np.add.at(contents, (unit, kind), 1)
    return contents


def _dealt(contents: Floats, goal: Floats, order: Rows) -> Rows:
    """Deal groups with these contents (groups, classes) in this order: the place of each."""
    have = np.zeros_like(goal)
    home = np.empty(len(contents), np.int64)
    for one in order:
        content = contents[one]
        # what it adds to the sum of (have - goal)^2 / goal
        price = (content * (2 * (have - goal) + content) / goal).sum(1)
        home[one] = place = int(price.argmin())
        have[place] += content
    return home


def _badness(home: Rows, contents: Floats, goal: Floats) -> tuple[int, float]:
    """Measure how far the splits are from the goal: first by the classes that a split lacks, then by the counts."""
    have = np.zeros_like(goal)
    np.add.at(have, home, contents)
    real = goal > 1e-6
    return int(((have == 0) & real).sum()), float((np.square(have - goal) / goal)[real].sum())
