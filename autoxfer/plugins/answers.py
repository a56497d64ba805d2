"""What readers and loaders answer, checked once where it comes back: what breaks the contract names its plugin.

Their InputErrors are the user's and pass; whatever else is raised, or is no such answer, is a PluginError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoxfer.dataset import Dataset, DatasetReader, DataSpec, Schema
from autoxfer.errors import AutoxferError, PluginError, describe, is_fatal
from autoxfer.limits import is_out_of_memory
from autoxfer.records import Modality, SourceSpec, Task
from autoxfer.source import Source, SourceLoader

STRINGS = "TUO"  # the kinds of numpy's types that hold texts
BESIDE = {"groups": np.int64, "times": np.float64, "weights": np.float32}  # (n,) each, where they are given


def read_data(reader: DatasetReader, spec: DataSpec) -> Dataset:
    """Read a data set. Raises InputError as the reader does, PluginError where it fails or answers anything else."""
    who = f"data set reader {reader.name!r}"
    with _blamed(f"{who}: read of {spec.location!r}"):
        answer: Any = reader.read(spec)
    if fault := dataset_fault(answer):
        raise PluginError(f"{who}: {fault}")
    assert isinstance(answer, Dataset)  # for mypy; dataset_fault has seen to it
    return answer


def load_source(loader: SourceLoader, spec: SourceSpec) -> Source:
    """Load a source. Raises InputError as the loader does, PluginError where it fails or answers anything else."""
    who = f"source loader {loader.name!r}"
    with _blamed(f"{who}: load of {spec.model!r}"):
        answer: Any = loader.load(spec)
    if not isinstance(answer, Source):
        raise PluginError(f"{who}: expected a Source; got {_kind(answer)}")
    return answer


def network_factory(
    loader: SourceLoader, spec: SourceSpec, shape: Sequence[int], n_outputs: int
) -> Callable[[], nn.Module]:
    """Get what makes the network that is to be pretrained. Raises InputError as the loader does, and PluginError."""
    who = f"source loader {loader.name!r}"
    with _blamed(f"{who}: factory of {spec.model!r}"):
        answer: Any = loader.factory(spec, shape, n_outputs)
    if not callable(answer):
        raise PluginError(f"{who}: expected a factory of networks; got {_kind(answer)}")
    return answer  # type: ignore[no-any-return]


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Name the plugin for what it raises, unless it is the user's, the disk's or the memory's."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, AutoxferError) or is_fatal(error) or is_out_of_memory(error):
            raise
        raise PluginError(f"{what} raised {describe(error)}") from error


def dataset_fault(answer: object) -> str:
    """Say why ``answer`` is no data set that can be used; empty where it is one."""
    if not isinstance(answer, Dataset) or not isinstance(answer.schema, Schema):
        return f"expected a Dataset with a Schema; got {_kind(answer)}"
    schema = answer.schema
    for what, value, known in (("modality", schema.modality, Modality), ("task", schema.task, Task)):
        if value not in get_args(known):
            return f"expected schema.{what} to be one of {', '.join(get_args(known))}; got {value!r}"
    for what in ("examples", "labels", *BESIDE, "texts"):
        value = getattr(answer, what)
        if not isinstance(value, np.ndarray) and (value is not None or what in ("examples", "labels")):
            return f"expected {what} as an array; got {_kind(value)}"
    return _examples_fault(answer) or _labels_fault(schema, answer.labels) or _beside_fault(answer)


def _examples_fault(data: Dataset) -> str:
    schema, examples = data.schema, data.examples
    if not examples.ndim or not len(examples):
        return f"expected at least one example; got examples of shape {examples.shape}"
    if examples.shape[1:] != schema.shape:
        return (
            f"expected examples of shape (n, {', '.join(map(str, schema.shape))}) by the schema; got {examples.shape}"
        )
    if schema.modality == "text":
        return "" if examples.dtype.kind in STRINGS else f"expected examples of strings; got {examples.dtype}"
    if examples.dtype != schema.dtype:
        return f"expected examples of the schema's dtype {schema.dtype}; got {examples.dtype}"
    if schema.modality == "image":
        return "" if examples.dtype == np.uint8 else f"expected images of uint8; got {examples.dtype}"
    return _columns_fault(schema, examples) if schema.modality in ("table", "mixed") else ""


def _columns_fault(schema: Schema, examples: NDArray[Any]) -> str:
    columns = schema.table_columns
    if examples.ndim != 2 or examples.shape[1] != len(columns):
        return f"expected a column of examples for each of {len(columns)} columns; got shape {examples.shape}"
    for column, values in zip(columns, examples.T, strict=True):
        codes = values[~np.isnan(values)] if column.kind == "categorical" else values[:0]
        wrong = codes[(codes < 0) | (codes >= len(column.categories)) | (codes != np.trunc(codes))]
        if len(wrong):
            return f"expected codes 0..{len(column.categories) - 1} or NaN in column {column.name!r}; got {wrong[0]:g}"
    return ""


def _labels_fault(schema: Schema, labels: NDArray[Any]) -> str:
    one = schema.task == "classification" or (schema.task == "regression" and not schema.targets)
    wanted, dtype = (1,) if one else (2, schema.n_outputs), "int64" if schema.task == "classification" else "float32"
    if (labels.ndim, *labels.shape[1:]) != wanted or labels.dtype != dtype:
        shape = "(n,)" if one else f"(n, {schema.n_outputs})"
        return f"expected labels of shape {shape} and {dtype} for {schema.task}; got {labels.shape} of {labels.dtype}"
    if schema.task == "classification":
        least, most = (int(labels.min()), int(labels.max())) if len(labels) else (0, -1)
        if least < 0 or most >= len(schema.classes):
            expected = f"0..{len(schema.classes) - 1}, the indices of {len(schema.classes)} classes"
            return f"expected labels {expected}; got {least}..{most}"
        return ""
    allowed = np.isin(labels, (0, 1)) if schema.task == "multilabel" else np.isfinite(labels)
    known = "0 or 1" if schema.task == "multilabel" else "finite"
    return "" if allowed.all() else f"expected labels that are {known}; got {labels[~allowed][0]:g}"


def _beside_fault(data: Dataset) -> str:
    n = len(data.examples)
    for what in ("labels", *BESIDE, "texts"):
        value = getattr(data, what)
        if value is not None and len(value) != n:
            return f"expected {n:,} {what}, one for each example; got {len(value):,}"
    for what, dtype in BESIDE.items():
        value = getattr(data, what)
        if value is not None and (value.ndim != 1 or value.dtype != dtype):
            return f"expected {what} of shape (n,) and {np.dtype(dtype)}; got {value.shape} of {value.dtype}"
    for name, rows in data.parts.items():
        if np.asarray(rows).dtype.kind not in "iu" or (len(rows) and not 0 <= np.min(rows) <= np.max(rows) < n):
            return f"expected rows 0..{n - 1} as whole numbers in part {name!r}; got something else"
    return ""


def _kind(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
