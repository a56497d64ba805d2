"""What readers make of several labels, or several numbers, for each example."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

import numpy as np
import pandas as pd
import pytest

from autoxfer import DataSpec, InputError
from autoxfer.prediction import Predictor
from autoxfer.winnerfiles import read_schema

N = 60
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 2)).round(3)
A, B = (X[:, 0] > 0).astype(int), (X[:, 1] > 0.5).astype(int)


def read(path, **spec):
    """Read with the built-in reader for a file."""
    kind = "npz_data" if str(path).endswith(".npz") else "table_data"
    kind = "arrow_data" if str(path).endswith(".arrow") else kind
    kind = "sklearn_data" if str(path).startswith("sklearn:") else kind
    (entry,) = (entry for entry in entry_points(group="autoxfer") if entry.name == kind)
    (reader,) = entry.load().autoxfer_datasets()
    return reader().read(DataSpec(str(path), **spec))


@pytest.fixture
def table(tmp_path):
    """Write a table with some columns more, or in other values."""

    def write(name="table.csv", **columns):
        frame = pd.DataFrame({"x": X[:, 0], "y": X[:, 1], "a": A, "b": B, **columns})
        path = tmp_path / name
        frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
        return path

    return write


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
@pytest.mark.parametrize("words", [(0, 1), (False, True), ("no", "yes"), ("False", "True"), (0.0, 1.0)], ids=str)
def test_columns_of_two_words_are_labels_of_which_an_example_may_have_several(table, name, words):
    data = read(table(name, a=np.array(words)[A], b=np.array(words)[B]), target=("a", "b"))
    assert (data.schema.task, data.schema.classes, data.schema.target) == ("multilabel", ("a", "b"), "a, b")
    assert data.schema.n_outputs == 2
    assert data.labels.dtype == np.float32
    assert data.labels.tolist() == np.stack([A, B], 1).tolist()
    assert [column.name for column in data.schema.columns] == ["x", "y"]
    assert any("are read as labels" in text for text in data.warnings)


def test_columns_of_numbers_are_several_targets(table):
    data = read(table(), target=("y", "a"))
    assert (data.schema.task, data.schema.classes, data.schema.targets) == ("regression", (), ("y", "a"))
    np.testing.assert_allclose(data.labels, np.stack([X[:, 1], A], 1), atol=1e-6)
    assert [column.name for column in data.schema.columns] == ["x", "b"]


def test_the_kind_overrules_what_the_columns_look_like(table):
    data = read(table(), target=("a", "b"), task="regression")
    assert data.schema.targets == ("a", "b")
    with pytest.raises(InputError, match=r"0 and 1 .* as labels, found '-?\d\.\d+' in column 'x'"):
        read(table(), target=("a", "x"), task="multilabel")
    with pytest.raises(InputError, match="one column as the target of a classification, found 2 columns"):
        read(table(), target=("a", "b"), task="classification")


def test_a_list_of_one_column_is_that_column(table):
    one, same = (read(table(), target=target) for target in ("a", ("a",)))
    assert one.fingerprint() == same.fingerprint()
    assert same.schema.task == "classification"


def test_rows_that_lack_one_of_several_labels_are_left_out_and_counted(table):
    gaps = np.where(np.arange(N) < 4, None, A)
    data = read(table(a=gaps, b=np.where(np.arange(N) == 9, None, B)), target=("a", "b"))
    assert data.labels.shape == (N - 5, 2)
    assert any("5 rows without a value in one of the targets are left out (4 in 'a', 1 in 'b')" in text
               for text in data.warnings)  # fmt: skip


@pytest.mark.parametrize("between", [";", "|", " ; "])
def test_labels_may_stand_in_one_cell(table, between):
    cells = [between.join(name for name, own in (("red", a), ("big", b)) if own) for a, b in zip(A, B, strict=True)]
    data = read(table(tags=cells), target="tags", task="multilabel")
    assert data.schema.classes == ("big", "red")
    assert data.labels.tolist() == np.stack([B, A], 1).tolist()
    n_bare = int(((A == 0) & (B == 0)).sum())
    assert any(f"{n_bare} of {N} rows have none of the labels in 'tags'" in text for text in data.warnings)


def test_lists_in_a_parquet_file_are_several_labels_whatever_is_said(table):
    lists = [[name for name, own in (("red", a), ("big", b)) if own] for a, b in zip(A, B, strict=True)]
    lists[3] = None
    data = read(table("table.parquet", tags=pd.Series(lists, dtype=object)), target="tags")
    assert (data.schema.task, data.schema.classes, len(data.labels)) == ("multilabel", ("big", "red"), N - 1)
    assert any("1 rows without a value in 'tags' are left out" in text for text in data.warnings)
    with pytest.raises(InputError, match="a list in column 'tags'"):
        read(table("table.parquet", tags=pd.Series(lists, dtype=object)), target="a")
    with pytest.raises(InputError, match="one value in every row for classification, found lists"):
        read(table("table.parquet", tags=pd.Series(lists, dtype=object)), target="tags", task="classification")


@pytest.mark.parametrize("codes", [False, True], ids=["names", "codes with names"])
def test_lists_in_an_arrow_file_are_labels_and_other_lists_are_left_out(tmp_path, codes):
    import pyarrow as pa  # noqa: PLC0415

    names = ("red", "big")
    lists = [[k if codes else names[k] for k, own in enumerate(pair) if own] for pair in zip(A, B, strict=True)]
    table = pa.table({"x": X[:, 0], "tags": lists, "steps": [[1, 2]] * N})
    if codes:
        feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"tags": feature}}})})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    data = read(tmp_path / "a.arrow", target="tags")
    assert (data.schema.task, data.schema.classes) == ("multilabel", ("big", "red"))
    assert data.labels.tolist() == np.stack([B, A], 1).tolist()
    assert "left out, lists and the like: steps" in data.warnings


def test_labels_that_exclude_each_other_are_called_classes(table):
    data = read(table(b=1 - A), target=("a", "b"))
    assert any("every example has exactly one of 2 labels" in text for text in data.warnings)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_arrays_of_whole_numbers_are_labels_and_of_fractions_numbers(tmp_path, dtype):
    labels = np.stack([A, B, A & B], 1)
    np.savez(tmp_path / "a.npz", features=X, labels=labels.astype(dtype), class_names=["a", "b", "both"])
    data = read(tmp_path / "a.npz")
    assert (data.schema.task, data.schema.classes) == ("multilabel", ("a", "b", "both"))
    assert data.labels.tolist() == labels.tolist()
    np.savez(tmp_path / "b.npz", features=X, labels=X * 3, target_names=["u", "v"])
    data = read(tmp_path / "b.npz")
    assert (data.schema.task, data.schema.targets, data.labels.shape) == ("regression", ("u", "v"), (N, 2))
    np.savez(tmp_path / "c.npz", images=np.zeros((N, 4, 4), np.uint8), labels=labels.astype(dtype))
    assert read(tmp_path / "c.npz").schema.classes == ("label_0", "label_1", "label_2")
    asked = read(tmp_path / "c.npz", task="regression")
    assert (asked.schema.targets, asked.warnings) == (("output_0", "output_1", "output_2"), ())
    np.savez(tmp_path / "d.npz", features=X, labels=labels.astype(float))
    assert "kind: multilabel reads them as labels" in read(tmp_path / "d.npz").warnings[0]


def test_linnerud_has_three_targets():
    data = read("sklearn:linnerud")
    assert data.schema.targets == ("Weight", "Waist", "Pulse")
    assert (data.schema.task, data.labels.shape, data.schema.n_outputs) == ("regression", (20, 3), 3)


def test_the_names_of_the_outputs_count_in_the_fingerprint(table):
    assert read(table(), target=("x", "y")).fingerprint() != read(table(), target=("y", "x")).fingerprint()


def test_a_description_without_targets_is_read_as_one_output():
    plain = {"modality": "vector", "task": "regression", "shape": [2], "dtype": "float32", "classes": [], "columns": []}
    assert Predictor(read_schema(plain), None, {}).targets == ()  # type: ignore[arg-type]
