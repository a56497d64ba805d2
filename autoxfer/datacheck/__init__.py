"""What can be said of the data before any budget is spent: counts, copies, telling columns, doubtful labels.

Columns and labels are looked at on the train split alone; of the other splits only counts are taken.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from autoxfer.datacheck.columns import MODALITIES, columns_tell, leaks, near_constant, strongest
from autoxfer.datacheck.doubts import Doubts, doubts, probe
from autoxfer.dataset import Dataset
from autoxfer.mapped import pieces
from autoxfer.pool import Rows
from autoxfer.records import derive_seed
from autoxfer.splitting import Splits

Features = Mapping[str, Callable[[], torch.Tensor]]  # name -> what gives the train split's (n, p), for a probe

ENOUGH = 2000  # train examples that are probed
FEW_COLUMNS = 200  # that a run looks at; a plan looks at all
TOP = 5  # columns that are shown
SHOWN = 10  # classes that are shown
LEARNT = 0.6  # accuracy of a probe below which its doubts say nothing


@final
@dataclass(frozen=True)
class Check:
    """What ``autoxfer plan`` says of the data. Everything about labels beyond their counts is the train split's."""

    schema: Mapping[str, Any]  # modality, shape, target, number of columns by kind
    counts: Mapping[str, Mapping[str, int]]  # split -> class, or label -> examples; "all" where the target is a number
    labels: Mapping[str, float]  # train, of a target that is a number, or of each: smallest, mean, largest
    copies: Mapping[str, int]  # split, or "train and tune" -> examples that repeat another's content exactly
    unused: int  # examples in no split
    near_constant: Mapping[str, float]  # column -> share of its most frequent value
    tells: Mapping[str, float]  # column -> how much it tells of the label by itself; the strongest few
    tells_of: Mapping[str, str]  # column -> which of several targets it tells that of; empty where there is one
    suspicious: tuple[str, ...]  # columns that tell too much of a target
    blank: int  # train images of one colour throughout
    doubts: Doubts | None  # None where nothing can be said: numbers, several labels, or a probe that learns nothing
    doubts_from: str  # the features that the probe reads

    def lines(self) -> Iterator[str]:
        """Say it in words."""
        yield f"target {self.schema['target']!r}: {self._classes()}"
        copies = ", ".join(f"{n:,} in {where}" for where, n in self.copies.items() if n)
        yield f"exact copies: {copies or 'none'}" + (f"; {self.unused:,} examples in no split" if self.unused else "")
        if self.near_constant:
            told = ", ".join(f"{name} ({share:.1%} alike)" for name, share in self.near_constant.items())
            yield f"nearly constant: {told}"
        if self.tells:
            of = {name: f" of {target}" for name, target in self.tells_of.items()}
            told = ", ".join(f"{name} {score:.2f}{of.get(name, '')}" for name, score in self.tells.items())
            yield f"what tells most by itself (0 nothing, 1 {'that target' if of else 'the label'}): {told}"
        if self.blank:
            yield f"images of one colour throughout: {self.blank:,} in train"
        if self.schema.get("task") == "multilabel":
            yield "labels that may be wrong: not looked for where an example has several"
        if self.doubts is not None:
            rows = ", ".join(map(str, self.doubts.rows))
            yield (
                f"labels that may be wrong: {f'about {self.doubts.share:.1%} of train' if rows else 'none found'}"
                + (f", such as rows {rows} (counted from 0)" if rows else "")
            )
            yield (
                f"  (where a linear model of {self.doubts_from} is sure of another class; it may be the one that errs: "
                f"it is right on {self.doubts.accuracy:.1%} of the train examples that it was not fitted to)"
            )

    def _classes(self) -> str:
        if self.labels:
            words = [f"{name} {value:.4g}" for name, value in self.labels.items()]
            return ", ".join(words if len(words) <= 3 * SHOWN else [*words[: 3 * SHOWN], "and so on"])
        train = self.counts["train"]
        shown = sorted(train, key=lambda name: -train[name])
        few = shown if len(shown) <= SHOWN else [*shown[: SHOWN // 2], *shown[-SHOWN // 2 :]]
        told = ", ".join(f"{name} {'/'.join(str(split[name]) for split in self.counts.values())}" for name in few)
        more = f" (the most and the least frequent of {len(shown)})" if len(few) < len(shown) else ""
        each = " (an example may have several)" if self.schema.get("task") == "multilabel" else ""
        return f"{'/'.join(self.counts)}: {told}{more}{each}"


def check(
    dataset: Dataset,
    splits: Splits,
    features: Features,  # name -> what gives the train split's (n, p), for the probe
    seed: int = 0,
) -> Check:
    """Look at everything; reads labels beyond their counts on the train split alone."""
    schema, train = dataset.schema, splits.rows["train"]
    by_kind = Counter(column.kind for column in schema.columns)
    told = columns_tell(dataset, train, seed)
    best = {name: found for name, found in list(strongest(told).items())[:TOP] if found[0] > 0}
    found, source = _doubts(dataset, train, features, seed)
    return Check(
        schema={
            "task": schema.task,
            "modality": schema.modality,
            "shape": list(schema.shape),
            "target": schema.target,
            "columns": dict(by_kind),
        },
        counts=_counts(dataset, splits),
        labels=_numbers(dataset, train) if schema.task == "regression" else {},
        copies=copies(dataset, splits),
        unused=len(dataset.labels) - sum(map(len, splits.rows.values())),
        near_constant=near_constant(dataset, train),
        tells={name: score for name, (score, _) in best.items()},
        tells_of={name: target for name, (_, target) in best.items()} if len(told) > 1 else {},
        suspicious=tuple(leaks(told)),
        blank=_blank(dataset.examples, train) if schema.modality == "image" else 0,
        doubts=found,
        doubts_from=source,
    )


def leak_warnings(dataset: Dataset, splits: Splits, seed: int = 0) -> tuple[str, ...]:
    """Warn of columns that tell too much; well under a second, since wide data are left to ``autoxfer plan``."""
    if dataset.schema.modality not in MODALITIES or dataset.schema.shape[0] > FEW_COLUMNS:
        return ()
    found = leaks(columns_tell(dataset, splits.rows["train"], seed))
    return tuple(
        f"column {name!r} alone tells {_shares(of)}, where most columns tell little: "
        "a leak, unless it is known when predictions are made"
        for name, of in found.items()
    )


def _shares(of: Mapping[str, float]) -> str:
    """Say how much is told of each target, of very many those told most."""
    order = sorted(of, key=lambda target: -of[target])
    more = f" and of {len(of) - SHOWN} more" if len(of) > SHOWN else ""
    return ", ".join(f"{of[target]:.0%} of {target!r}" for target in order[:SHOWN]) + more


def copies(dataset: Dataset, splits: Splits) -> dict[str, int]:
    """Count the examples that repeat another of their split, and those that stand in two splits, by content alone."""
    content: dict[str, list[Any]] = {
        name: [_content(row) for piece in pieces(dataset.examples, rows) for row in piece]
        for name, rows in splits.rows.items()
    }
    if dataset.texts is not None:
        for name, rows in splits.rows.items():
            content[name] = list(zip(content[name], dataset.texts[rows].tolist(), strict=True))
    found = {name: len(keys) - len(set(keys)) for name, keys in content.items()}
    for one, other in itertools.combinations(content, 2):
        found[f"{one} and {other}"] = len(set(content[one]) & set(content[other]))
    return {name: n for name, n in found.items() if n}


def _content(row: Any) -> str | bytes:
    """Give what is equal where two examples are, of large ones a hash: as much as all of them does not fit."""
    return row if isinstance(row, str) else hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest()


def _counts(dataset: Dataset, splits: Splits) -> dict[str, dict[str, int]]:
    if dataset.schema.task == "regression":
        return {name: {"all": len(rows)} for name, rows in splits.rows.items()}
    classes = dataset.schema.classes
    if dataset.schema.task == "multilabel":
        return {
            name: dict(zip(classes, dataset.labels[rows].sum(0).astype(int).tolist(), strict=True))
            for name, rows in splits.rows.items()
        }
    return {
        name: dict(zip(classes, np.bincount(dataset.labels[rows], minlength=len(classes)).tolist(), strict=True))
        for name, rows in splits.rows.items()
    }


def _blank(images: NDArray[Any], rows: Rows) -> int:
    n_channels = images.shape[3] if images.ndim == 4 else 1
    flat = (piece.reshape(len(piece), -1, n_channels) for piece in pieces(images, rows))
    return sum(int((part.max(1) == part.min(1)).all(1).sum()) for part in flat)


def _doubts(dataset: Dataset, train: Rows, features: Features, seed: int) -> tuple[Doubts | None, str]:
    """Probe every kind of features; the best probe's doubts, as rows of the data set."""
    if dataset.schema.task != "classification":
        return None, ""
    rng = np.random.default_rng(derive_seed(seed, "doubts"))
    chosen = np.sort(rng.permutation(len(train))[:ENOUGH])
    labels, n_classes = dataset.labels[train[chosen]], len(dataset.schema.classes)
    best, best_name = None, ""
    for name, give in features.items():
        probabilities = probe(give()[chosen].cpu().float(), labels, n_classes, rng)
        found = doubts(probabilities, labels)
        if best is None or found.accuracy > best.accuracy:
            best, best_name = found, name
    if best is None or best.accuracy < max(LEARNT, float(np.bincount(labels).max() / len(labels))):
        return None, ""
    return replace(best, rows=tuple(int(train[chosen][row]) for row in best.rows)), best_name


def _numbers(dataset: Dataset, train: Rows) -> dict[str, float]:
    """Sum up a target that is a number; of several each, its name before each word."""
    values = dataset.labels[train].astype(np.float64)
    if values.ndim == 1:
        return {"smallest": float(values.min()), "mean": float(values.mean()), "largest": float(values.max())}
    names = zip(dataset.schema.targets, values.T, strict=True)
    words: dict[str, Callable[[Any], Any]] = {"smallest": np.min, "mean": np.mean, "largest": np.max}
    return {f"{name} {word}": float(of(column)) for name, column in names for word, of in words.items()}
