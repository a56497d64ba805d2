"""What a model has learned from, so that no guard is asked about examples that its source knows by heart.

A source that was trained on examples of the guard has seen their labels. It may have memorised them, and beats scratch
there even where labels are coin flips: the guard's test holds for examples that nobody has learned from. Whatever
autoxfer trains therefore carries a sketch of its examples: ``autoxfer pretrain`` writes it on the card beside the
weights, a run into its winner's ``model.json``. A run looks its own examples up in the sketches of its sources before
it begins. A source without one (another tool's) says nothing, and is not checked.

An example's hash, of it and its label together, does not depend on how a data set stores it (``hashing``). Of a
target's table the columns of the sketch alone count: it may have more by now. Of several labels or numbers each has a
sketch. Not recognised are examples that were changed, and classes under other names. Other labels for the same inputs
are another task, and are free; if they have the same names, they agree with those that were learned as often as chance
has it: as another task counts an agreement (Cohen's kappa) below .25.

A sketch holds the smallest 4,096 hashes, of k labels 4,096 / k for each, at least 256. Of a smaller set these are all.
Of a larger one they are a sample: which of the target's hashes up to the largest of them are there estimates the share
of all.

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
from autoxfer.hashing import Hashes, Kind, inputs, joined, kinds, labels
from autoxfer.records import Modality

KEPT = 4096  # hashes
LEAST = 256  # of each of many labels
ALLOWED = 0.05  # share of a split that a source may have learned from
AGREEING = 0.25  # kappa from which labels of the same names are those that were learned
ENOUGH = 50  # inputs that were learned from, with whatever label, from which that can be told
FEW = 64  # different labels up to which some agree by chance
CHECKED = ("tune", "guard", "test")
CARD, LIST = "trained_on", "sketches"  # where the sketches stand on a card

Parts = Sequence[tuple[str, NDArray[np.int64]]]  # (split, its rows); several of one name are folds


@final
@dataclass(frozen=True, eq=False)
class Sketch:
    """The examples that a model has learned from, or was chosen by."""

    kind: Kind
    columns: tuple[str, ...]  # of numbers and categories
    output: str  # which of several labels or numbers; "" = the only one
    examples: int
    whole: bool  # whether the hashes are those of all examples
    hashes: Hashes  # (k,) the smallest, ascending

    @classmethod
    def take(cls, dataset: Dataset, rows: NDArray[np.int64]) -> tuple[Sketch, ...]:
        """Sketch some rows of a data set: what they hold, and the files that pictures come from."""
        columns = tuple(column.name for column in dataset.schema.table_columns)
        answers = labels(dataset)
        most, found = max(LEAST, KEPT // len(answers)), []
        for kind in kinds(dataset):
            known = inputs(dataset, kind, columns)[rows]
            for output, answer in answers.items():
                every = np.unique(joined(known, answer[rows]))
                found.append(cls(kind, columns, output, len(rows), len(every) <= most, every[:most]))
        return tuple(found)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Sketch:
        """Read what ``as_dict`` gave. Raises ValueError, KeyError or TypeError."""
        if plain["kind"] not in (*get_args(Modality), "file"):
            raise ValueError(f"kind {plain['kind']!r}")
        found = np.frombuffer(base64.b64decode(plain["hashes"], validate=True), "<u8").astype(np.uint64)
        names, output = tuple(map(str, plain["columns"])), str(plain["output"])
        return cls(plain["kind"], names, output, int(plain["examples"]), bool(plain["whole"]), np.unique(found))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        packed = base64.b64encode(self.hashes.astype("<u8").tobytes()).decode()
        return {**vars(self), "columns": list(self.columns), "hashes": packed}

    def sample(self, others: Hashes) -> NDArray[np.bool_]:
        """Which hashes the sketch can tell of: all, or those that would be among the smallest, (n,)."""
        if self.whole:
            return np.ones(len(others), bool)
        known: NDArray[np.bool_] = others <= self.hashes[-1]
        return known


def trained_on(dataset: Dataset, rows: NDArray[np.int64], before: Iterable[Sketch] = ()) -> list[dict[str, Any]]:
    """Describe what a model has learned from: these rows, and what its sources had learned from before, once each."""
    each = [*Sketch.take(dataset, rows), *before]
    return list({(s.kind, s.columns, s.output, s.hashes.tobytes()): s.as_dict() for s in each}.values())


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
    known = cache(lambda kind, columns: inputs(dataset, kind, columns)[rows])
    answers = {name: answer[rows] for name, answer in labels(dataset).items()}
    n = {name: sum(len(rows) for part, rows in parts if part == name) for name in CHECKED}
    for source, sketches in learned.items():
        found = [
            share
            for sketch in sketches
            if _comparable(dataset, sketch.kind)
            for output, answer in answers.items()
            if not (output and sketch.output) or output == sketch.output
            for share in _shares(parts, split, known(sketch.kind, sketch.columns), answer, sketch)
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
    return (
        f"{wanted} (other data, without copies; or its rows in train, by a column 'split' or keys train_, tune_, ...)"
    )


@final
@dataclass(frozen=True)
class _Share:
    """What a source has seen of one split."""

    split: str
    seen: float
    across: float  # what has an equal in another split


def _shares(parts: Parts, split: NDArray[Any], known: Hashes, answers: Hashes, sketch: Sketch) -> Iterator[_Share]:
    own = joined(known, answers)
    told, seen = sketch.sample(own), np.isin(own, sketch.hashes)
    if not seen.any() or _is_another_task(known, answers, sketch):
        return
    across = _across(own, split)
    for name in CHECKED:
        here = told & np.isin(split, [number for number, (part, _) in enumerate(parts) if part == name])
        if here.any():
            yield _Share(name, float(seen[here].mean()), float(across[here].mean()))


def _is_another_task(known: Hashes, answers: Hashes, sketch: Sketch) -> bool:
    """Whether inputs were learned with labels of the same names that agree with these by chance alone."""
    values, code, counts = np.unique(answers, return_inverse=True, return_counts=True)
    if not 1 < len(values) <= FEW:
        return False
    learned = np.stack([np.isin(joined(known, value[None]), sketch.hashes) for value in values])  # (labels, n)
    learned &= learned.sum(axis=0) == 1  # of inputs that stood there with two labels nothing can be told
    n = int(learned.sum())
    if n < ENOUGH:
        return False
    agreeing = float(learned[code, np.arange(len(code))].sum()) / n
    chance = float(learned.sum(axis=1) @ counts) / n / len(code)
    return chance < 1 and (agreeing - chance) / (1 - chance) < AGREEING


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
