"""Splits by time: train is the oldest part, then tune, then guard, and test the newest; equal times stay together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from autoxfer.records import SPLITS

TIME = "task.time"
CAUTION = (
    f"{TIME}: examples near in time may depend on one another; the guard's test takes them as independent, so that its "
    "level is no promise here"
)
Rows = NDArray[np.int64]


def cut(pool: Rows, wanted: Mapping[str, int], times: NDArray[np.float64]) -> dict[str, Rows]:
    """Cut rows into splits of about the sizes wanted, by their times (n,) of the whole data set.

    What no split takes is the oldest. A cut between equal times moves to the nearest place between different ones.
    """
    order = pool[np.argsort(times[pool], kind="stable")]
    n = len(order)
    between = np.flatnonzero(np.diff(times[order])) + 1
    places = np.concatenate([[0], between, [n]])
    found: dict[str, Rows] = {}
    end, aim = n, n
    for name in [name for name in reversed(SPLITS) if name in wanted]:
        aim -= wanted[name]
        start = min(int(places[np.abs(places - aim).argmin()]), end)
        found[name] = np.sort(order[start:end])
        end = start
    return {name: found[name] for name in wanted}


def without_early_copies(rows: Mapping[str, Rows], units: Rows, warnings: list[str]) -> dict[str, Rows]:
    """Leave out of a split what has an exact copy, the same of ``units`` (n,), in a later one."""
    names = [name for name in SPLITS if name in rows]
    kept = dict(rows)
    for index, name in enumerate(names[:-1]):
        again = np.isin(units[rows[name]], units[np.concatenate([rows[later] for later in names[index + 1 :]])])
        if again.any():
            warnings.append(f"{TIME}: {again.sum():,} examples are left out of {name}, as a later split holds copies")
            kept[name] = rows[name][~again]
    return kept


def disorder(rows: Mapping[str, Rows], times: NDArray[np.float64]) -> list[str]:
    """Say which split begins before an earlier one ends: parts of their own that the data set brings."""
    names = [name for name in SPLITS if name in rows and len(rows[name])]
    return [
        f"{TIME}: {later} begins before {earlier} ends; the data set's own parts stay as they are"
        for earlier, later in itertools.pairwise(names)
        if times[rows[later]].min() < times[rows[earlier]].max()
    ]
