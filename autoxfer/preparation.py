"""Stored batch -> natural units -> standardised: modules that travel inside every exported network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoxfer.dataset import Schema
from autoxfer.encoding import encode
from autoxfer.errors import InputError
from autoxfer.streaming import OnDisk
from autoxfer.tokens import Tokenizer, Vocabulary, span

if TYPE_CHECKING:
    from autoxfer.source import Source

__all__ = ["Preparation", "Standardise", "Unpack", "encode", "prepare"]

CHUNK = 1 << 20  # pixels counted at a time, so that statistics need no second copy of the images


@final
class Unpack(nn.Module):
    """Stored batch (B, *schema.shape) -> natural batch, float32.

    Images: (B, C, H, W) in [0, 1]. Vectors: as they are. Tables: (B, D), a number as it is or the column's median
    where it is missing, a category one-hot or all zeros where it is missing or unknown; columns keep their order.
    Text: the ids of all tokenizers, as they are (int32). Mixed: these ids (float32), then the columns as of a table.
    """

    column: Tensor  # (D,) the stored column that a natural one comes from
    code: Tensor  # (D,) the category that it stands for; NaN for a number
    median: Tensor  # (D,) what stands for a missing number

    def __init__(self, schema: Schema, medians: NDArray[np.float32] | None = None) -> None:
        super().__init__()
        self.modality = schema.modality
        self.grey = len(schema.shape) == 2
        self.n_ids = schema.n_ids
        if not schema.table_columns:
            return
        medians = np.zeros(len(schema.table_columns), dtype=np.float32) if medians is None else medians
        layout = [
            (schema.n_ids + index, code, medians[index])
            for index, column in enumerate(schema.table_columns)
            for code in (range(len(column.categories)) if column.kind == "categorical" else (float("nan"),))
        ]
        columns, codes, values = zip(*layout, strict=True)
        self.register_buffer("column", torch.tensor(columns, dtype=torch.int64))
        self.register_buffer("code", torch.tensor(codes, dtype=torch.float32))
        self.register_buffer("median", torch.tensor(np.array(values), dtype=torch.float32))

    def forward(self, stored: Tensor) -> Tensor:
        """Turn a stored batch (B, *schema.shape) into natural units (B, *natural_shape)."""
        if self.modality in ("vector", "text"):
            return stored
        if self.modality == "image":
            channels_first = stored.unsqueeze(1) if self.grey else stored.permute(0, 3, 1, 2)
            return channels_first.to(torch.float32) / 255.0
        cell = stored.index_select(1, self.column)
        number = torch.where(cell.isnan(), self.median, cell)
        table = torch.where(self.code.isnan(), number, (cell == self.code).to(torch.float32))
        return torch.cat([stored[:, : self.n_ids], table], 1) if self.n_ids else table


@final
class Standardise(nn.Module):
    """Natural batch -> zero mean, unit deviation on the train split; what does not vary becomes zero."""

    mean: Tensor  # (C, 1, 1) for images, (D,) otherwise
    deviation: Tensor  # as mean

    def __init__(self, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        super().__init__()
        # float32 cannot resolve a deviation below 1e-7 of the mean: dividing by it would blow up rounding errors.
        varies = deviation > 1e-6 * np.abs(mean)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(np.where(varies, deviation, 1.0), dtype=torch.float32))

    def forward(self, natural: Tensor) -> Tensor:
        """Scale a natural batch (B, *natural_shape); the shape stays."""
        return (natural - self.mean) / self.deviation


@final
class Columns(nn.Module):
    """A span of what stands side by side: the ids of one tokenizer, as whole numbers, or a table's values."""

    def __init__(self, start: int, end: int, *, ids: bool = True) -> None:
        super().__init__()
        self.start, self.end, self.ids = start, end, ids

    def forward(self, natural: Tensor) -> Tensor:
        """(B, everything) -> (B, end - start)."""
        part = natural[:, self.start : self.end]
        return part.to(torch.int32) if self.ids and part.is_floating_point() else part


@final
class Beside(nn.Module):
    """Natural mixed batch -> the ids of the target's own words, then its columns standardised; float32."""

    def __init__(self, n_words: int, n_ids: int, standardise: Standardise) -> None:
        super().__init__()
        self.n_words, self.n_ids = n_words, n_ids
        self.standardise = standardise

    def forward(self, natural: Tensor) -> Tensor:
        """(B, ids + columns) -> (B, own words + columns)."""
        return torch.cat([natural[:, : self.n_words], self.standardise(natural[:, self.n_ids :])], 1)


@dataclass(frozen=True)
class Preparation:
    """How a target's examples become numbers; its statistics come from the train split alone."""

    unpack: Unpack
    standardise: Standardise | Columns | Beside  # of text: the target's own words; mixed: these beside the columns
    natural_shape: tuple[int, ...]  # of one example: (channels, height, width) or (width,)
    tokenizers: tuple[Tokenizer, ...] = ()  # whose ids a natural text holds, side by side
    columns: tuple[str, ...] = ()  # of a table: what its natural values are called

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of one example after ``standardise``."""
        return (self.n_words + len(self.columns),) if self.tokenizers else tuple(self.natural_shape)

    @property
    def n_words(self) -> int:
        """How many ids of the target's own words Raw() begins with."""
        return self.tokenizers[0].length if self.tokenizers else 0

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What the train split's texts are made of."""
        return Vocabulary.read(self.tokenizers[0].content) if self.tokenizers else None

    def adapt(self, source: Source) -> nn.Module:
        """Make what turns a natural batch into the source's input. Raises InputError where they do not fit."""
        if not self.tokenizers:
            return source.preprocess(self.natural_shape, self.columns)
        if source.tokenizer is None:
            return self._adapt_to_columns(source)
        start, end = span(self.tokenizers, source.name)
        return nn.Sequential(Columns(start, end), source.preprocess((end - start,)))

    def _adapt_to_columns(self, source: Source) -> nn.Module:
        """Leave the texts out for a source that reads a table."""
        if not self.columns or len(source.input_shape) != 1:
            shape = "x".join(map(str, source.input_shape))
            table = " or a table (input: {columns: [...]})" if self.columns else ""
            expected = f"a source that reads text (hf:FOLDER){table}"
            raise InputError(expected, f"one that reads {shape} numbers", f"source {source.name!r}")
        end = self.natural_shape[0]
        own = Columns(end - len(self.columns), end, ids=False)
        return nn.Sequential(own, source.preprocess((len(self.columns),), self.columns))


def prepare(schema: Schema, train_examples: NDArray[Any] | OnDisk) -> Preparation:
    """Take medians, means and deviations from the train split's stored examples (n, *schema.shape)."""
    if len(train_examples) == 0:
        raise ValueError("statistics need at least one train example; got 0")
    if schema.modality == "text":
        own = Columns(*span(schema.tokenizers))
        return Preparation(Unpack(schema), own, tuple(train_examples.shape[1:]), schema.tokenizers)
    if schema.modality == "image":
        unpack = Unpack(schema)
        mean, deviation = _pixel_statistics(train_examples)
        height, width = schema.shape[:2]
        return Preparation(unpack, Standardise(mean, deviation), (len(mean), height, width))
    if schema.modality == "vector":
        return Preparation(Unpack(schema), Standardise(*_column_statistics(train_examples)), train_examples.shape[1:])
    if isinstance(train_examples, OnDisk):
        train_examples = train_examples.read(slice(None))
    n_ids, names = schema.n_ids, schema.natural_columns
    unpack = Unpack(schema, _medians(train_examples[:, n_ids:]) if names else None)
    stored = unpack(torch.from_numpy(np.ascontiguousarray(train_examples)))
    natural = stored[:, n_ids:].numpy().astype(np.float64)
    standardise = Standardise(natural.mean(axis=0), natural.std(axis=0))
    if not n_ids:
        return Preparation(unpack, standardise, natural.shape[1:], columns=names)
    raw = Beside(schema.tokenizers[0].length, n_ids, standardise)
    return Preparation(unpack, raw, tuple(stored.shape[1:]), schema.tokenizers, names)


def _column_statistics(stored: NDArray[Any] | OnDisk) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each column, (D,) each, in pieces that are the same in memory and on disk."""
    at_once = max(1, CHUNK // stored.shape[1])

    def natural() -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(stored), at_once):
            rows = slice(start, start + at_once)
            part = stored.read(rows) if isinstance(stored, OnDisk) else stored[rows]
            yield part.astype(np.float64)

    mean = sum(part.sum(axis=0) for part in natural()) / len(stored)
    variance = sum(np.square(part - mean).sum(axis=0) for part in natural()) / len(stored)
    return mean, np.sqrt(variance)


def _medians(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take each column's median over what is there; 0 where nothing is."""
    present = [column[~np.isnan(column)] for column in stored.T]
    return np.array([np.median(column) if len(column) else 0.0 for column in present], dtype=np.float32)


def _pixel_statistics(stored: NDArray[np.uint8] | OnDisk) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of pixel / 255 per channel, (C, 1, 1) each, exactly: from the 256 counts."""
    channels = stored.shape[3] if stored.ndim == 4 else 1
    counts = np.zeros((channels, 256), dtype=np.int64)
    at_once = max(1, CHUNK // math.prod(stored.shape[1:]))
    for start in range(0, len(stored), at_once):
        pixels = np.asarray(stored[start : start + at_once]).reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    level = np.arange(256) / 255.0
    mean = share @ level
    variance = (share * (level - mean[:, None]) ** 2).sum(axis=1)
    return mean[:, None, None], np.sqrt(variance)[:, None, None]
