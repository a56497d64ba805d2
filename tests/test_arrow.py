"""What reading Arrow promises: files and the folders of Hugging Face's ``datasets``, by pyarrow alone.

The folders are written here as datasets 5.2 writes them: streams of batches, with ``state.json`` and
``dataset_info.json`` beside them, and a ``dataset_dict.json`` above.
"""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from autoxfer_builtins import hub
from autoxfer_builtins.arrow_data import ArrowReader
from autoxfer_builtins.folder_data import FolderReader
from autoxfer_builtins.table_data import TableReader
from PIL import Image

from autoxfer import DataSpec, InputError
from autoxfer.mapped import mapping

NAMES = ("zebra", "ant", "unused")
IMAGE = {
    "image": {"_type": "Image"},
    "label": {"names": list(NAMES), "_type": "ClassLabel"},
    "age": {"dtype": "float32", "_type": "Value"},
}


def pixels(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 8), dtype=np.uint8)


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "png")
    return out.getvalue()


def pictures(n, seed=0, folder=None):
    """A table of images as ``datasets`` encodes them; as files in a folder where there is one."""
    cells = []
    for row, array in enumerate(pixels(n, seed)):
        if folder is not None:
            (folder / f"{row}.png").write_bytes(png(array))
        path = None if folder is None else f"{row}.png"
        cells.append({"bytes": png(array) if path is None else None, "path": path})
    columns = {"image": cells, "label": [row % 2 for row in range(n)], "age": [row / 2 for row in range(n)]}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.table(columns, schema=pa.schema({"image": kind, "label": pa.int64(), "age": pa.float32()}))


def sentences(n=40, labels=None):
    texts = [f"this is sentence number {row} of many" for row in range(n)]
    return pa.table({"text": texts, "label": labels or [row % 2 for row in range(n)]})


SENTENCES = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}


def save(folder, table, features, n_shards=1):
    """Write a Dataset as ``save_to_disk`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"data-{shard:05}-of-{n_shards:05}.arrow" for shard in range(n_shards)]
    size = -(-len(table) // n_shards)
    for shard, name in enumerate(files):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table.slice(shard * size, size), max_chunksize=7)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in files]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def save_dict(folder, tables, features):
    """Write a DatasetDict as ``save_to_disk`` does."""
    for name, table in tables.items():
        save(folder / name, table, features)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(tables)}))
    return folder


def read(location, **spec):
    return ArrowReader().read(DataSpec(str(location), **spec))


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_saved_dataset_of_images_is_read(tmp_path, prefix):
    folder = save(tmp_path / "set", pictures(20), IMAGE, n_shards=3)
    spec = DataSpec(f"{prefix}{folder}")
    assert [reader.name for reader in (ArrowReader(), FolderReader(), TableReader()) if reader.reads(spec)] == ["arrow"]
    data = ArrowReader().read(spec)
    assert (data.name, data.schema.modality, data.schema.shape) == ("set", "image", (6, 8))
    assert data.schema.classes == ("zebra", "ant")  # in the data set's own order
    assert data.labels.tolist() == [0, 1] * 10
    assert np.array_equal(data.examples, pixels(20))
    assert data.warnings == ("only the images in 'image' are learned from, not what stands beside: age",)


def test_the_splits_of_a_saved_dict_are_the_users_own(tmp_path):
    tables = {"train": pictures(12), "validation": pictures(5, 1), "test": pictures(6, 2), "extra": pictures(3, 3)}
    data = read(save_dict(tmp_path / "set", tables, IMAGE))
    assert {name: rows.tolist() for name, rows in data.parts.items()} == {
        "train": list(range(12)),
        "validation": list(range(12, 17)),
        "test": list(range(17, 23)),
    }
    assert np.array_equal(data.examples, np.concatenate([pixels(12), pixels(5, 1), pixels(6, 2)]))
    assert "are left out: extra" in data.warnings[0]


def test_images_that_lie_beside_the_table_are_found(tmp_path):
    save(tmp_path / "set", pictures(4), IMAGE)
    folder = save(tmp_path / "set", pictures(20, folder=tmp_path / "set"), IMAGE)
    assert np.array_equal(read(folder).examples, pixels(20))


def test_sentences_and_labels_of_minus_one(tmp_path):
    labels = [row % 2 for row in range(39)] + [-1]
    data = read(save(tmp_path / "set", sentences(40, labels), SENTENCES))
    assert (data.schema.modality, data.schema.classes, len(data.labels)) == ("text", ("neg", "pos"), 39)
    assert data.warnings == ("1 rows without a value in 'label' are left out",)


def test_a_hidden_test_split_is_no_split(tmp_path):
    tables = {"train": sentences(), "test": sentences(10, [-1] * 10)}
    data = read(save_dict(tmp_path / "set", tables, SENTENCES))
    assert {name: len(rows) for name, rows in data.parts.items()} == {"train": 40}


def test_class_names_that_are_numbers_stay_classes(tmp_path):
    features = {**SENTENCES, "label": {"names": [str(10 - name) for name in range(11)], "_type": "ClassLabel"}}
    data = read(save(tmp_path / "set", sentences(44, [row % 11 for row in range(44)]), features))
    assert (data.schema.task, data.schema.classes) == ("classification", tuple(str(10 - name) for name in range(11)))
    assert data.labels.tolist() == [row % 11 for row in range(44)]


def test_columns_of_lists_are_left_out_aloud(tmp_path):
    table = sentences().append_column("ids", pa.array([[1, 2]] * 40))
    data = read(save_dict(tmp_path / "set", {"train": table, "test": table}, SENTENCES))
    assert data.warnings == ("left out, lists and the like: ids",)


@pytest.mark.parametrize("kind", ["stream", "file", "feather"])
def test_single_files_are_read_whatever_their_kind(tmp_path, kind):
    table = sentences()
    path = tmp_path / ("data.feather" if kind == "feather" else "data.arrow")
    if kind == "feather":
        pyarrow.feather.write_feather(table, path)  # compressed
    else:
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table)
    data = read(path)
    assert (data.schema.modality, data.schema.classes) == ("text", ("0", "1"))
    assert len(data.labels) == 40


def test_metadata_inside_a_file_name_the_classes(tmp_path):
    table = pictures(20).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": IMAGE}})})
    with pa.ipc.new_stream(tmp_path / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    arrow = read(tmp_path / "data.arrow")
    parquet = TableReader().read(DataSpec(str(tmp_path / "data.parquet")))
    assert arrow.schema == parquet.schema
    assert arrow.schema.classes == ("zebra", "ant")
    assert np.array_equal(arrow.examples, parquet.examples)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"),
        ("train/0000", "train/0001", "test/0000"),
        ("data/train-00000-of-00002-0a1b2c", "data/train-00001-of-00002-0a1b2c", "data/test"),
    ],
)
def test_parquet_files_of_a_hub_are_splits(tmp_path, names):
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pictures(10, seed), tmp_path / f"{name}.parquet")
    data = read(f"hf:{tmp_path}", target="label", task="classification")
    assert {name: len(rows) for name, rows in data.parts.items()} == {"train": 20, "test": 10}
    assert np.array_equal(data.examples, np.concatenate([pixels(10, seed) for seed in range(3)]))


def test_images_of_a_table_stream_like_any_others(tmp_path, monkeypatch):
    folder = save(tmp_path / "set", pictures(20), IMAGE, n_shards=2)
    monkeypatch.setenv("AUTOXFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "1e-7")
    data = read(folder)
    assert mapping(data.examples) is not None
    assert np.array_equal(data.examples, pixels(20))


def test_missing_and_broken_images_are_counted(tmp_path):
    table = pictures(40)
    cells = table["image"].to_pylist()
    cells[3], cells[5] = {"bytes": None, "path": "gone.png"}, {"bytes": b"prose", "path": None}
    cells[7] = None
    image = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    data = read(save(tmp_path / "set", table.set_column(0, "image", image), IMAGE))
    kept = [row for row in range(40) if row not in (3, 5, 7)]
    assert np.array_equal(data.examples, pixels(40)[kept])
    assert data.labels.tolist() == [row % 2 for row in kept]
    assert "2 of 40 images are missing" in data.warnings[1]
    assert "1 of 38 images cannot be read" in data.warnings[2]


def spoilt(make):
    """A saved dict of sentences in which ``make`` has spoilt something."""

    def arrange(folder):
        save_dict(folder, {"train": sentences(), "test": sentences()}, SENTENCES)
        make(folder)
        return folder

    return arrange


SHARD = "data-00000-of-00001.arrow"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda f: (f / "train" / SHARD).write_bytes((f / "train" / SHARD).read_bytes()[:700]), "whole Arrow file"),
        (lambda f: (f / "train" / SHARD).write_bytes(b""), "whole Arrow file"),
        (lambda f: (f / "train" / SHARD).write_bytes(b"ARROW1 and no more"), "whole Arrow file"),
        (lambda f: (f / "train" / SHARD).unlink(), "which state.json names"),
        (lambda f: (f / "train" / "state.json").unlink(), "a folder for the split 'train'"),
        (lambda f: (f / "train" / "state.json").write_text("{"), "JSON as datasets writes it"),
        (lambda f: (f / "train" / "state.json").write_text("[1]"), "found a list"),
        (lambda f: (f / "train" / "state.json").write_text("{}"), "no data files"),
        (lambda f: (f / "dataset_dict.json").write_text('{"splits": []}'), "the names of splits"),
        (lambda f: (f / "dataset_dict.json").write_text('{"splits": ["test"]}'), "a split called train, found test"),
        (lambda f: save(f / "test", pictures(4), IMAGE), "the same columns and classes in every split"),
        (lambda f: save(f / "train", sentences(40, [7] * 40), SENTENCES), r"labels 0\.\.1.*found 7 in example 0"),
        (lambda f: save(f / "train", sentences(0), SENTENCES) and save(f / "test", sentences(0), SENTENCES), "one row"),
    ],
    ids=[str(number) for number in range(13)],
)
def test_what_is_damaged_is_refused(tmp_path, make, told):
    with pytest.raises(InputError, match=told):
        read(spoilt(make)(tmp_path / "set"))


def test_a_folder_without_data_and_a_name_that_is_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="found none of them"):
        read(f"hf:{tmp_path}")
    for name in (f"hf:{tmp_path}/none", "hf:./none", "hf:no name", "hf:"):
        with pytest.raises(InputError):
            read(name)


def test_a_hub_that_is_out_of_reach_is_told_in_seconds(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no file nobody/nothing; the hub does not answer") as caught:
        read("hf:nobody/nothing")
    assert caught.value.where == "task.data"


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """A hub that answers, with two configurations."""
    for name in ("plain/train/0000", "plain/test/0000", "other/train/0000"):
        (tmp_path / name).parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pictures(10), tmp_path / f"{name}.parquet")
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")]
    asked = []
    api = SimpleNamespace(list_repo_files=lambda *words, **more: [*files, "README.md"])
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *words, **more: asked.append((words, more)) or str(tmp_path)
    )
    monkeypatch.setattr("huggingface_hub.get_session", lambda: SimpleNamespace(head=lambda *words, **more: None))
    return asked


def test_a_hubs_data_set_is_had_as_tables(answering):
    data = read("hf:someone/pets:plain")
    assert {name: len(rows) for name, rows in data.parts.items()} == {"train": 10, "test": 10}
    ((name,), more) = answering[0]
    assert (name, more["allow_patterns"]) == ("someone/pets", ["plain/*/*.parquet"])
    assert (more["repo_type"], more["revision"]) == ("dataset", hub.TABLES)


def test_of_several_configurations_one_has_to_be_named(answering):
    with pytest.raises(InputError, match="hf:someone/pets:CONFIGURATION, one of those there are, found other, plain"):
        read("hf:someone/pets")
    assert answering == []
