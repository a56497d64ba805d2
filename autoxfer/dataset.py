"""The contract of a data set: stored examples, labels, a schema; and of what reads one. Provisional in 0.1."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from autoxfer.mapped import pieces
from autoxfer.records import Modality, Task
from autoxfer.tokens import Tokenizer


@dataclass(frozen=True)
class Column:
    """One column of a table, or a column of texts."""

    name: str
    kind: Literal["numeric", "categorical", "text"]
    categories: tuple[str, ...] = ()  # in the order of their codes; of a categorical column alone

    @property
    def natural_names(self) -> list[str]:
        """Name its one-hot columns, "workclass=Private"; a number stays one column under its own name."""
        if self.kind == "text":
            return []
        return [f"{self.name}={each}" for each in self.categories] if self.kind == "categorical" else [self.name]


@dataclass(frozen=True)
class Schema:
    """What one stored example looks like, and what its label means."""

    modality: Modality
    task: Task
    shape: tuple[int, ...]  # of one stored example: (height, width), (height, width, channels), (width,); () = a string
    dtype: Literal["uint8", "float32", "int32", "str"]
    classes: tuple[str, ...] = ()  # names in the order of the label's index, or of several labels; none for regression
    columns: tuple[Column, ...] = ()  # of a table; of text those that hold it; mixed: these, then those
    target: str = "label"
    tokenizers: tuple[Tokenizer, ...] = field(default=(), repr=False)  # of text stored as ids, side by side
    targets: tuple[str, ...] = field(default=(), repr=False)  # names of a regression's outputs; none = one output

    @property
    def n_outputs(self) -> int:
        """How many numbers answer an example: classes, labels, or the outputs of a regression."""
        return len(self.classes) or max(1, len(self.targets))

    @property
    def text_columns(self) -> tuple[Column, ...]:
        """The columns that hold texts, which are read as one."""
        return tuple(column for column in self.columns if column.kind == "text")

    @property
    def table_columns(self) -> tuple[Column, ...]:
        """The columns of numbers and categories."""
        return tuple(column for column in self.columns if column.kind != "text")

    @property
    def n_ids(self) -> int:
        """How many ids, those of all tokenizers, a stored example begins with."""
        return sum(each.length for each in self.tokenizers)

    @property
    def natural_columns(self) -> tuple[str, ...]:
        """Name the columns that a table has once its categories stand one-hot: "age", "workclass=Private"."""
        return tuple(name for column in self.columns for name in column.natural_names)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory; of images that it cannot hold, the examples are an array mapped from a file.

    A table is stored as float32 codes (rows, columns): a category's index, a number, NaN where a value is missing.
    Texts are strings (numpy's StringDType) until the sources' tokenizers are known; a mixed data set keeps them beside
    its examples, which are those of a table until then.
    """

    name: str
    schema: Schema
    examples: NDArray[Any]  # (n, *schema.shape) of schema.dtype
    labels: NDArray[Any]  # (n,) int64 class index, or (n,) float32; (n, k) float32 where labels, 0/1, or outputs are k
    parts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # the user's own splits: name -> rows
    warnings: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None  # (n,) which examples belong together (a patient's); None = each alone
    texts: NDArray[Any] | None = None  # (n,) strings beside the examples of a mixed data set
    times: NDArray[np.float64] | None = None  # (n,) when each was taken, in any unit; None = nobody says
    weights: NDArray[np.float32] | None = None  # (n,) how much each counts in training; None = all alike
    origins: NDArray[np.uint64] | None = None  # (n,) 64 bits of the file of each image; None = of no files

    def fingerprint(self, rows: NDArray[np.int64] | None = None) -> str:
        """Hash what was read: examples, labels, schema and the user's own splits; or some rows, without the splits."""
        of = slice(None) if rows is None else rows
        digest = hashlib.sha256((repr(self.schema) + "".join(map(repr, self.schema.targets))).encode())
        for examples in (self.examples, self.texts):
            if examples is None:
                continue
            if examples.dtype.kind in "TUO":
                _digest_texts(digest, examples[of])
            else:
                for piece in pieces(examples, rows):
                    digest.update(np.ascontiguousarray(piece).view(np.uint8).data)
        digest.update(np.ascontiguousarray(self.labels[of]).view(np.uint8).data)
        if self.groups is not None:
            digest.update(b"groups" + np.ascontiguousarray(self.groups[of]).tobytes())
        for name, beside in (("times", self.times), ("weights", self.weights)):
            if beside is not None:
                digest.update(name.encode() + np.ascontiguousarray(beside[of]).tobytes())
        for name in sorted(self.parts) if rows is None else ():
            digest.update(name.encode() + self.parts[name].tobytes())
        return digest.hexdigest()


def _digest_texts(digest: Any, texts: NDArray[Any]) -> None:
    for text in texts.tolist():
        encoded = text.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)


@dataclass(frozen=True)
class DataSpec:
    """A data set as the user named it."""

    location: str  # a path, or "scheme:NAME"
    target: str | tuple[str, ...] | None = None  # the label's column or key, or columns; None = the reader's default
    task: Task | None = None  # None = from the labels
    group: str | None = None  # the column or key that says which examples belong together; it is no feature
    ignore: tuple[str, ...] = ()  # columns that are not to be learned from
    directory: Path = Path()  # where relative paths start
    time: str | None = None  # the column or key by which the splits are cut, the oldest first; it is no feature
    weight: str | None = None  # the column or key that says how much an example counts in training; it is no feature


class DatasetReader(ABC):
    """Reads data sets of one kind; offered by the hook ``autoxfer_datasets``."""

    name: ClassVar[str]

    @abstractmethod
    def reads(self, spec: DataSpec) -> bool:
        """Whether this reader is the one for ``spec``; looks at the name and at most the file's kind, not inside."""

    @abstractmethod
    def read(self, spec: DataSpec) -> Dataset:
        """Read everything. Raises InputError: missing, empty, corrupt, ragged, no such target, not finite."""
