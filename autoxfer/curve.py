"""Where does transfer stop helping? The guarded comparison at several sizes of the target set: ``autoxfer curve``.

After Tahir, Ganguli and Rotskoff, "Features are fate" (ICML 2025): whether a transfer beats training from scratch
depends on how many target examples there are, and may change its sign more than once; their phase diagram, on your own
task. What is learned from grows, each part in the next; guard and test are the same examples at every size. The level
is shared by the sizes (Bonferroni), so that all acceptances of a curve together are wrong with probability at most
``guard.alpha``; and the guard counts one look.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from autoxfer import looks, runfolder
from autoxfer.classwise import interleaved
from autoxfer.errors import InputError
from autoxfer.events import Observer, StageStarted
from autoxfer.records import derive_seed
from autoxfer.report import RunRecord
from autoxfer.runfolder import RunFolder
from autoxfer.selection import compare
from autoxfer.setting import assemble, prepare
from autoxfer.splitting import Splits

if TYPE_CHECKING:
    from autoxfer.config import RunConfig
    from autoxfer.dataset import Dataset
    from autoxfer.setting import Setting

WHERE = "--sizes"
Rows = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Point:
    """The comparison at one size."""

    size: int  # examples that are learned from: train and tune together
    n_train: int
    record: RunRecord

    @property
    def accepted(self) -> tuple[str, ...]:
        """Transfers that are shown to beat scratch with so many examples."""
        return tuple(e.study for e in self.record.entries if e.verdict is not None and e.verdict.accepted)

    @property
    def harmful(self) -> tuple[str, ...]:
        """Transfers that are shown to lose against it."""
        return tuple(e.study for e in self.record.entries if e.verdict and e.verdict.decision == "harmful")


@final
@dataclass(frozen=True)
class Curve:
    """All sizes, the smallest first."""

    folder: Path
    points: tuple[Point, ...]

    @property
    def last_helped(self) -> int | None:
        """The largest size at which a transfer was accepted; None where none was at any."""
        return max((point.size for point in self.points if point.accepted), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: a line for each size and study."""
        return {
            "folder": str(self.folder),
            "last_helped": self.last_helped,
            "sizes": [
                {
                    "size": point.size,
                    "n_train": point.n_train,
                    "winner": dataclasses.asdict(point.record.winner),
                    "accepted": list(point.accepted),
                    "harmful": list(point.harmful),
                    "entries": point.record.as_dict()["entries"],
                }
                for point in self.points
            ],
        }


def trace(
    config: RunConfig,
    sizes: Sequence[int],
    runs: Path,
    observers: Sequence[Observer] = (),
    say: Callable[[str], object] = lambda text: None,
) -> Curve:
    """Compare at every size; sizes that an earlier call has finished are read. Raises InputError before any search."""
    runfolder.check(runs)
    if config.guard.folds is not None:
        raise InputError("one guard split, the same at every size", "guard.folds", "guard.folds")
    checked = _sizes(sizes)
    guard = config.guard.model_copy(update={"alpha": config.guard.alpha / len(checked)})
    config = config.model_copy(update={"guard": guard})
    whole = prepare(config)
    for warning in whole.warnings:
        say(f"warning: {warning}")
    parts = {size: _part(whole, size) for size in checked}
    folder = runs / f"curve-{_name(whole, checked)}"
    own = dataclasses.replace(looks.own_look(whole, folder.name), config=folder.name)
    with runfolder.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    seen = looks.Ledger(runs / "looks.jsonl").take(own)
    if seen.note:
        say(f"warning: {seen.note}")
    points = []
    for size, splits in parts.items():
        for observer in observers:
            observer.notify(StageStarted(f"{size} examples"))
        setting = assemble(config, whole.material, splits, rehearsed=whole.studies)
        place = RunFolder(folder / str(size))
        place.path.mkdir(exist_ok=True)
        points.append(Point(size, len(splits.rows["train"]), compare(setting, place, seen, observers)))
    curve = Curve(folder, tuple(points))
    runfolder.write_json(folder / "curve.json", curve.as_dict())
    return curve


def _sizes(sizes: Sequence[int]) -> list[int]:
    """Sort the sizes. Raises InputError for fewer than two, or a size that cannot be."""
    found = sorted(set(sizes))
    if len(found) < 2 or found[0] < 2:
        raise InputError("at least two sizes, such as 50,100,200", ",".join(map(str, sizes)) or "none", WHERE)
    return found


def _part(setting: Setting, size: int) -> Splits:
    """Take the first ``size`` examples of train and tune, in their proportion and in one fixed order.

    Raises InputError where there are not so many, or a class is missing among so few.
    """
    rows, dataset = setting.splits.rows, setting.dataset
    n_train, n_tune = len(rows["train"]), len(rows["tune"])
    if size > n_train + n_tune:
        raise InputError(f"at most {n_train + n_tune:,}: the examples of train and tune together", f"{size:,}", WHERE)
    n = {"train": max(1, round(size * n_train / (n_train + n_tune)))}
    n["tune"] = max(1, size - n["train"])
    seed = setting.config.seed
    part = {name: np.sort(_ordered(dataset, rows[name], derive_seed(seed, "curve", name))[: n[name]]) for name in n}
    if dataset.schema.task == "classification":
        missing = [
            dataset.schema.classes[code]
            for code in np.unique(dataset.labels)
            if any(code not in dataset.labels[chosen] for chosen in part.values())
        ]
        if missing:
            expected = "so many examples that train and tune hold every class"
            raise InputError(expected, f"{size}: none of {missing[0]!r} in one of them", WHERE)
    return Splits({**rows, **part}, setting.splits.warnings)


def _ordered(dataset: Dataset, rows: Rows, seed: int) -> Rows:
    """Put rows in an order whose every beginning has the classes' shares; groups stay together, in random order."""
    rng = np.random.default_rng(seed)
    if dataset.groups is not None:
        _, group = np.unique(dataset.groups[rows], return_inverse=True)
        place = rng.permutation(int(group.max()) + 1)[group]
        return rows[np.argsort(place, kind="stable")]
    if dataset.schema.task == "classification":
        return rows[interleaved(dataset.labels[rows], rng)]
    return rng.permutation(rows)


def _name(setting: Setting, sizes: Sequence[int]) -> str:
    """Name a curve by all that decides it: the same command goes on with the same curve."""
    told = {"data": setting.fingerprint, "sizes": list(sizes), **looks.configuration(setting)}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:10]
