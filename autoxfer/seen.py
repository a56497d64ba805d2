"""What a model has learned from, so that no guard is asked about examples that its source knows by heart.

A source that was trained on examples of the guard has seen their labels. It may have memorised them, and beats scratch
there even where labels are coin flips: the guard's test holds for examples that nobody has learned from. Whatever
autoxfer trains therefore carries a sketch of its examples: ``autoxfer pretrain`` writes it on the card beside the
weights, a run into its winner's ``model.json``. A run looks its own examples up in the sketches of its sources before
it begins. A source without one (another tool's) says nothing, and is not checked.

An example's hash, of it and its label together, does not depend on how a data set stores it (``hashing``). Of a
target's table the columns of the sketch alone count: it may have more by now. Other labels for the same inputs are
another task. Not recognised are examples that were changed, and classes under other names.

A sketch holds the smallest 4,096 hashes. Of a smaller set these are all. Of a larger one they are a sample: which of
the target's hashes up to the largest of them are there estimates the share of all.

In a table with few values rows are equal by chance. Up to a twentieth of a split is a warning, beyond that is refused;
not counted are as many as have an equal in another split of the same data, which scratch has learned from too. (Equal
examples are kept in one split wherever they are few, see ``pool``.)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, final, get_args

import numpy as np
from numpy.typing import NDArray

from autoxfer.dataset import Dataset
from autoxfer.errors import InputError
from autoxfer.hashing import Hashes, Kind, hashes
from autoxfer.records import Modality

KEPT = 4096  # hashes
ALLOWED = 0.05  # share of a split that a source may have learned from
CHECKED = ("tune", "guard", "test")
CARD, LIST = "trained_on", "sketches"  # where the sketches stand on a card

Parts = Sequence[tuple[str, NDArray[np.int64]]]  # (split, its rows); several of one name are folds


@final
@dataclass(frozen=True, eq=False)
class Sketch:
    """The examples that a model has learned from, or was chosen by."""

    kind: Kind
    columns: tuple[str, ...]  # of numbers and categories
    examples: int
    hashes: Hashes  # (k,) the smallest, ascending; k < KEPT: all of them

    @classmethod
    def take(cls, dataset: Dataset, rows: NDArray[np.int64], kind: Kind | None = None) -> Sketch:
        """Sketch some rows of a data set."""
        kind = kind or dataset.schema.modality
        columns = tuple(column.name for column in dataset.schema.table_columns)
        return cls(kind, columns, len(rows), np.unique(hashes(dataset, kind, columns)[rows])[:KEPT])

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Sketch:
        """Read what ``as_dict`` gave. Raises ValueError, KeyError or TypeError."""
        if plain["kind"] not in (*get_args(Modality), "file"):
            raise ValueError(f"kind {plain['kind']!r}")
        found = np.frombuffer(base64.b64decode(plain["hashes"], validate=True), "<u8").astype(np.uint64)
        return cls(plain["kind"], tuple(map(str, plain["columns"])), int(plain["examples"]), np.unique(found))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        packed = base64.b64encode(self.hashes.astype("<u8").tobytes()).decode()
        return {"kind": self.kind, "columns": list(self.columns), "examples": self.examples, "hashes": packed}

    def sample(self, others: Hashes) -> NDArray[np.bool_]:
        """Which hashes the sketch can tell of: all, or those that would be among the smallest, (n,)."""
        if len(self.hashes) < KEPT:
            return np.ones(len(others), bool)
        known: NDArray[np.bool_] = others <= self.hashes[-1]
        return known


def trained_on(dataset: Dataset, rows: NDArray[np.int64], before: Iterable[Sketch] = ()) -> list[dict[str, Any]]:
    """Describe what a model has learned from: these rows, and what its sources had learned from before, once each."""
    files = [] if dataset.origins is None else [Sketch.take(dataset, rows, "file")]
    each = [Sketch.take(dataset, rows), *files, *before]
    return list({(sketch.columns, sketch.hashes.tobytes()): sketch.as_dict() for sketch in each}.values())


def read(card: Mapping[str, Any], where: str) -> tuple[Sketch, ...]:
    """Read the sketches on a card; none where it says nothing. Raises InputError where they are damaged."""
    known = card.get(CARD)
    listed = known.get(LIST, ()) if isinstance(known, Mapping) else ()
    try:
        return tuple(map(Sketch.read, listed))
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise InputError(
            f"{CARD}.{LIST}, as autoxfer writes them", f"{type(error).__name__}: {error}", where
        ) from error


def bare(card: Mapping[str, Any]) -> dict[str, Any]:
    """Give a card without its sketches, which nobody can read."""
    known = card.get(CARD)
    if not isinstance(known, Mapping) or LIST not in known:
        return dict(card)
    rest = {key: value for key, value in known.items() if key != LIST}
    return {key: value for key, value in {**card, CARD: rest}.items() if key != CARD or rest}


def check(dataset: Dataset, parts: Parts, learned: Mapping[str, Sequence[Sketch]]) -> list[str]:
    """Look the examples that choose and judge up in what each source has learned from; warn of a few.

    Raises InputError where a source has learned from more than a twentieth of a split.
    """
    warnings = []
    split = np.concatenate([np.full(len(rows), number) for number, (_, rows) in enumerate(parts)])
    rows = np.concatenate([rows for _, rows in parts])
    own = cache(lambda kind, columns: hashes(dataset, kind, columns)[rows])
    n = {name: sum(len(rows) for part, rows in parts if part == name) for name in CHECKED}
    for source, sketches in learned.items():
        found = [
            share
            for sketch in sketches
            if _comparable(dataset, sketch.kind)
            for share in _shares(parts, split, own(sketch.kind, sketch.columns), sketch)
        ]
        most = {name: max((share.seen for share in found if share.split == name), default=0.0) for name in CHECKED}
        if any(share.seen - share.across > ALLOWED for share in found):
            told = " and ".join(f"{most[name]:.0%} of {name}" for name in CHECKED if most[name])
            raise InputError(_wanted(parts), f"{source}, which learned from about {told}", f"sources.{source}")
        counts = [f"{max(1, round(most[name] * n[name])):,} of {n[name]:,} in {name}" for name in CHECKED if most[name]]
        if counts:
            warnings.append(f"source {source} has learned from examples that equal about {' and '.join(counts)}")
    return warnings


def _wanted(parts: Parts) -> str:
    """Say what is wanted, and how to get there."""
    wanted = "examples in tune, guard and test that the source has not learned from"
    if sum(name == "guard" for name, _ in parts) > 1:
        return f"{wanted} (other data: with folds every example but test is in the guard)"
    return f"{wanted} (other data; or its rows in train, by a column 'split' or by keys train_, tune_, guard_, test_)"


@final
@dataclass(frozen=True)
class _Share:
    """What a source has seen of one split."""

    split: str
    seen: float
    across: float  # what has an equal in another split


def _shares(parts: Parts, split: NDArray[Any], own: Hashes, sketch: Sketch) -> Iterator[_Share]:
    known, seen, across = sketch.sample(own), np.isin(own, sketch.hashes), _across(own, split)
    for name in CHECKED:
        told = known & np.isin(split, [number for number, (part, _) in enumerate(parts) if part == name])
        if told.any():
            yield _Share(name, float(seen[told].mean()), float(across[told].mean()))


def _comparable(dataset: Dataset, kind: Kind) -> bool:
    """Whether examples can be found in a sketch of this kind: text and columns stand in mixed ones too."""
    target = dataset.schema.modality
    known = target == kind or (target == "mixed" and kind in ("table", "text"))
    return known or (kind == "file" and dataset.origins is not None)


def _across(own: Hashes, split: NDArray[Any]) -> NDArray[np.bool_]:
    """Which examples have an equal in another split, (n,)."""
    _, group = np.unique(own, return_inverse=True)
    n_splits = int(split.max()) + 1
    pairs = np.unique(group * n_splits + split)
    across: NDArray[np.bool_] = np.bincount(pairs // n_splits)[group] > 1
    return across
