"""Everything but test, dealt into folds: each is the guard once, while the others are train and tune.

Classes are spread evenly; copies and groups stay together, as in ``splitting``. A part of its own that the data set
brings for test is kept; those for tune and guard are dealt with the rest. Train and tune keep the proportion that they
have without folds (2 to 1 below 1,000 examples, 5 to 2 from there on, or as the sizes say), and use all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoxfer import stratifying
from autoxfer.chronology import TIME
from autoxfer.dataset import Dataset
from autoxfer.errors import InputError
from autoxfer.pool import Pool, Rows, open_pool
from autoxfer.records import SPLITS, derive_seed
from autoxfer.splitting import FEW, SHARES, SHARES_OF_FEW, THIN, WHERE, Splits, checked, count_of_own

FOLDS = "guard.folds"


@dataclass(frozen=True)
class Partition:
    """The splits of every fold, and those of the last search, which has no guard."""

    last: Splits  # train, tune and, if there is one, test
    folds: tuple[Splits, ...]  # train, tune, guard; every row of the last's train and tune is guard in one of them


def partition(dataset: Dataset, sizes: Mapping[str, float | int] | None, seed: int, n_folds: int) -> Partition:
    """Deal everything but test. Raises InputError where sizes, classes or groups do not allow so many folds."""
    sizes = checked(sizes or {})
    if "guard" in sizes:
        raise InputError(f"no size of guard beside {FOLDS}: every fold is the guard once", "one", f"{WHERE}.guard")
    if dataset.times is not None:
        raise InputError(f"no {FOLDS} beside {TIME}: a fold would be judged by what came after it", "both", FOLDS)
    pool = open_pool(dataset, keep=("test",))
    dealt = [part for part in dataset.parts if part not in ("train", "test") and len(dataset.parts[part])]
    if dealt:
        pool.warnings.append(f"the data set's own {' and '.join(dealt)} part is dealt into the folds with the rest")
    if any(isinstance(sizes.get(name), int) for name in ("train", "tune")):
        pool.warnings.append(f"{WHERE}: train and tune are a proportion here, as folds use every example but test")
    rng = np.random.default_rng(derive_seed(seed, "folds"))
    rows, test = _without_test(pool, sizes, rng)
    n_units = len(np.unique(pool.units[rows]))
    if n_units < 3 * n_folds:
        what = "different examples" if dataset.groups is None else "groups"
        raise InputError(f"at least {3 * n_folds} {what}, three for each of {n_folds} folds", f"{n_units}", FOLDS)
    share = _tune_share(len(pool.rows), sizes)
    even = {str(k): (k + 1) * len(rows) // n_folds - k * len(rows) // n_folds for k in range(n_folds)}
    guards = [np.sort(part) for part in pool.draw(rows, even, rng).values()]
    drawn = []
    for number, guard in enumerate(guards, start=1):
        inner = _train_and_tune(pool, np.setdiff1d(rows, guard), share, derive_seed(seed, "fold", number))
        drawn.append({**inner, "guard": guard})
    last = {**_train_and_tune(pool, rows, share, derive_seed(seed, "last")), **test}
    _check(dataset, [*drawn, last], pool.warnings)
    return Partition(Splits(last, tuple(pool.warnings)), tuple(Splits(fold, ()) for fold in drawn))


def _without_test(
    pool: Pool, sizes: Mapping[str, float | int], rng: np.random.Generator
) -> tuple[Rows, dict[str, Rows]]:
    """Set the test split aside, if there is to be one; all else is dealt."""
    n = len(pool.rows)
    if "test" in pool.own:
        part = pool.own["test"]
        count = count_of_own("test", len(part), sizes, pool.warnings)
        return pool.rows, {"test": part if count == len(part) else pool.draw(part, {"test": count}, rng)["test"]}
    size = sizes.get("test", 0 if n < FEW or "train" in sizes else SHARES["test"])
    count = size if isinstance(size, int) else max(1, round(size * n))
    if not count:
        return pool.rows, {}
    if count >= n:
        raise InputError(f"a test split that leaves some of {n:,} examples", f"{count:,}", f"{WHERE}.test")
    drawn = pool.draw(pool.rows, {"train": n - count, "test": count}, rng)
    return np.sort(drawn["train"]), {"test": np.sort(drawn["test"])}


def _tune_share(n: int, sizes: Mapping[str, float | int]) -> float:
    """Say which share of train and tune together is tune's, as it would be without folds."""
    shares = SHARES_OF_FEW if n < FEW else SHARES
    wanted = {"tune": shares["tune"], "guard": shares["guard"], "test": 0 if n < FEW else SHARES["test"], **sizes}
    counts = {name: size if isinstance(size, int) else size * n for name, size in wanted.items()}
    tune = counts["tune"]
    train = counts.get("train", n - tune - counts["guard"] - counts["test"])
    if train <= 0:
        told = ", ".join(f"{name} {max(1, round(counts[name])):,}" for name in SPLITS if counts.get(name))
        raise InputError(f"splits that fit into {n:,} examples and leave some for train", told, WHERE)
    return tune / (train + tune)


def _train_and_tune(pool: Pool, rows: Rows, share: float, seed: int) -> dict[str, Rows]:
    n_tune = min(max(1, round(share * len(rows))), len(rows) - 1)
    drawn = pool.draw(rows, {"train": len(rows) - n_tune, "tune": n_tune}, np.random.default_rng(seed))
    return {name: np.sort(drawn[name]) for name in ("train", "tune")}


def _check(dataset: Dataset, drawn: list[dict[str, Rows]], warnings: list[str]) -> None:
    """Refuse an empty split, and a class that some search could not learn. Raises InputError."""
    for number, splits in enumerate(drawn, start=1):
        place = f"fold {number}" if "guard" in splits else "the last search"
        if empty := next((name for name, rows in splits.items() if not len(rows)), None):
            together = "copies" if dataset.groups is None else "groups and copies"
            expected = f"examples in every split of every fold, {together} kept together"
            raise InputError(expected, f"none in {empty} of {place}", FOLDS)
    if dataset.schema.task == "multilabel":
        stratifying.check_folds(dataset, drawn, warnings, thin=THIN, where=FOLDS)
    if dataset.schema.task != "classification":
        return
    names = dataset.schema.classes
    total = np.bincount(dataset.labels, minlength=len(names))
    trained = np.stack([np.bincount(dataset.labels[splits["train"]], minlength=len(names)) for splits in drawn])
    for index in np.flatnonzero(total):
        if not trained[:, index].all():
            least = "3 different examples" if dataset.groups is None else "3 groups"
            found = f"class {names[index]!r} with {total[index]} in all, and in one fold none to learn from"
            raise InputError(f"every class in train of every fold (at least {least})", found, FOLDS)
    warnings.extend(f"class {names[index]!r} has no examples" for index in np.flatnonzero(total == 0))
    fewest = dict(zip(names, trained.min(axis=0).tolist(), strict=True))
    thin = [f"{name!r} ({fewest[name]})" for name, n in zip(names, total, strict=True) if n and fewest[name] < THIN]
    if thin:
        more = f" and {len(thin) - 3} more" if len(thin) > 3 else ""
        warnings.append(f"fewer than {THIN} examples to learn by in a fold: class {', '.join(thin[:3])}{more}")
