"""What a plugin's reader or loader answers is checked where it comes back; what is wrong names the plugin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from autoxfer.dataset import Column, Dataset, DatasetReader, DataSpec, Schema
from autoxfer.errors import InputError, PluginError
from autoxfer.plugins.answers import dataset_fault, load_source, network_factory, read_data
from autoxfer.records import SourceSpec
from autoxfer.source import Source, SourceLoader

N = 6
IMAGES = Dataset(
    "images",
    Schema("image", "classification", (4, 4), "uint8", classes=("cat", "dog")),
    np.zeros((N, 4, 4), np.uint8),
    np.arange(N) % 2,
)
TABLE = Dataset(
    "table",
    Schema(
        "table",
        "regression",
        (2,),
        "float32",
        columns=(Column("age", "numeric"), Column("town", "categorical", ("Ulm",))),
    ),
    np.array([[30, 0]] * (N - 1) + [[np.nan, np.nan]], np.float32),
    np.zeros(N, np.float32),
)
TEXTS = Dataset(
    "texts", replace(IMAGES.schema, modality="text", shape=(), dtype="str"), np.array(["a"] * N), np.arange(N) % 2
)
LABELS = replace(IMAGES, schema=replace(IMAGES.schema, task="multilabel"), labels=np.zeros((N, 2), np.float32))


class Reader(DatasetReader):
    """Answers what it is told to."""

    name: ClassVar[str] = "foo"

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def reads(self, spec: DataSpec) -> bool:
        return True

    def read(self, spec: DataSpec) -> Dataset:
        answer: Dataset = self.answer()
        return answer


class Loader(SourceLoader):
    """Answers what it is told to, a source or a factory."""

    name: ClassVar[str] = "zoo"

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def loads(self, spec: SourceSpec) -> bool:
        return True

    def load(self, spec: SourceSpec) -> Source:
        answer: Source = self.answer()
        return answer

    def factory(self, spec: SourceSpec, shape: Any, n_outputs: int) -> Any:
        return self.answer()


def raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize("data", [IMAGES, TABLE, TEXTS, LABELS], ids=lambda data: data.name)
def test_a_sound_answer_passes(data: Dataset) -> None:
    assert read_data(Reader(lambda: data), DataSpec("x")) is data


def but(value: Any, **changes: Any) -> Any:
    """Give the same, changed in a way that types would not let pass."""
    return replace(value, **changes)


FAULTS: dict[str, tuple[Any, str]] = {
    "no data set": (5, r"expected a Dataset with a Schema; got 5 \(int\)"),
    "lists": (but(IMAGES, labels=[0] * N), "expected labels as an array"),
    "modality": (but(IMAGES, schema=but(IMAGES.schema, modality="sound")), "schema.modality .* got 'sound'"),
    "empty": (but(IMAGES, examples=IMAGES.examples[:0]), "at least one example"),
    "shape": (but(IMAGES, examples=np.zeros((N, 5, 4), np.uint8)), r"shape \(n, 4, 4\).*got \(6, 5, 4\)"),
    "pixels": (but(IMAGES, examples=IMAGES.examples.astype(float)), "dtype uint8; got float64"),
    "length": (but(IMAGES, labels=IMAGES.labels[:-1]), "expected 6 labels, one for each example; got 5"),
    "range": (but(IMAGES, labels=IMAGES.labels + 5), r"labels 0..1, the indices of 2 classes; got 5..6"),
    "below": (but(IMAGES, labels=IMAGES.labels - 1), r"got -1..0"),
    "no classes": (but(IMAGES, schema=but(IMAGES.schema, classes=())), "the indices of 0 classes"),
    "label type": (but(IMAGES, labels=IMAGES.labels.astype(float)), "int64 for classification; got .* float64"),
    "label shape": (but(IMAGES, labels=np.zeros((N, 2), np.int64)), r"shape \(n,\)"),
    "multilabel": (but(LABELS, labels=LABELS.labels + 0.5), "labels that are 0 or 1; got 0.5"),
    "infinite": (but(TABLE, labels=np.full(N, np.inf, np.float32)), "labels that are finite; got inf"),
    "columns": (but(TABLE, schema=but(TABLE.schema, columns=TABLE.schema.columns[:1])), "each of 1 columns"),
    "codes": (but(TABLE, examples=TABLE.examples + 1), r"codes 0..0 or NaN in column 'town'; got 1"),
    "texts": (but(TEXTS, examples=np.zeros(N)), "examples of strings; got float64"),
    "groups": (but(IMAGES, groups=np.zeros(N - 1, np.int64)), "expected 6 groups"),
    "weights": (but(IMAGES, weights=np.zeros(N)), r"weights of shape \(n,\) and float32"),
    "parts": (but(IMAGES, parts={"test": np.array([N])}), "rows 0..5 .* part 'test'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_breaks_the_contract_names_plugin_and_reason(fault: str) -> None:
    answer, reason = FAULTS[fault]
    with pytest.raises(PluginError, match=f"^data set reader 'foo': .*{reason}"):
        read_data(Reader(lambda: answer), DataSpec("x"))


@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit("boom"), KeyError("boom")])
def test_what_a_plugin_raises_names_it(error: BaseException) -> None:
    with pytest.raises(PluginError, match=r"^data set reader 'foo': read of 'x' raised \w+: '?boom.*test_answers\.py"):
        read_data(Reader(raising(error)), DataSpec("x"))
    spec = SourceSpec("a", "zoo:net")
    with pytest.raises(PluginError, match=r"^source loader 'zoo': load of 'zoo:net' raised"):
        load_source(Loader(raising(error)), spec)
    with pytest.raises(PluginError, match=r"^source loader 'zoo': factory of 'zoo:net' raised"):
        network_factory(Loader(raising(error)), spec, (3,), 2)


def test_a_loader_that_answers_anything_else_is_named() -> None:
    spec = SourceSpec("a", "zoo:net")
    with pytest.raises(PluginError, match=r"source loader 'zoo': expected a Source; got 5 \(int\)"):
        load_source(Loader(lambda: 5), spec)
    with pytest.raises(PluginError, match=r"source loader 'zoo': expected a factory of networks; got None"):
        network_factory(Loader(lambda: None), spec, (3,), 2)


@pytest.mark.parametrize(
    "error", [InputError("a file", "none", "x"), MemoryError(), OSError(28, "disk"), KeyboardInterrupt()]
)
def test_the_users_mistakes_and_the_machines_limits_are_no_plugins(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        read_data(Reader(raising(error)), DataSpec("x"))
    assert raised.value is error


def test_texts_beside_columns_are_checked_too() -> None:
    columns = (Column("review", "text"), *TABLE.schema.columns)
    mixed = replace(TABLE, schema=replace(TABLE.schema, modality="mixed", columns=columns), texts=TEXTS.examples)
    assert not dataset_fault(mixed)
    assert "expected 6 texts" in dataset_fault(replace(mixed, texts=TEXTS.examples[:2]))


def test_a_run_says_which_reader_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import autoxfer  # noqa: PLC0415
    from autoxfer.plugins.offers import Plugins  # noqa: PLC0415

    reader = Reader(lambda: replace(IMAGES, labels=IMAGES.labels + 5))
    monkeypatch.setattr(Plugins, "reader_for", lambda self, spec: reader)
    with pytest.raises(PluginError, match=r"data set reader 'foo': expected labels 0\.\.1"):
        autoxfer.run({"task": {"data": "foo:x"}}, runs=tmp_path)
