"""What a table of image files promises: its images, and with them everything else that a table has."""

from __future__ import annotations

import numpy as np
import pytest
from autoxfer_builtins.table_data import TableReader
from PIL import Image

from autoxfer import DataSpec, InputError
from autoxfer.inputfile import read_examples

HEADER = "file,label,patient,split,age"
PARTS = ("train", "train", "tune", "guard")


def pixels(n):
    return np.random.default_rng(0).integers(0, 256, (n, 6, 8), dtype=np.uint8)


def listing(folder, n=24, name="list.csv"):
    """Images in a folder beside the table that lists them."""
    (folder / "shots").mkdir(exist_ok=True)
    rows = []
    for row, each in enumerate(pixels(n)):
        Image.fromarray(each).save(folder / "shots" / f"{row}.png")
        rows.append(f"shots/{row}.png,{('cat', 'dog')[row % 2]},p{row % 5},{PARTS[row % 4]},{row}")
    (folder / name).write_text("\n".join([HEADER, *rows]))
    return folder / name


def read(path, **spec):
    spec = {"target": "label", **spec}
    return TableReader().read(DataSpec(str(path), **spec))


def test_images_come_with_labels_groups_and_the_users_splits(tmp_path):
    data = read(listing(tmp_path), group="patient")
    assert (data.schema.modality, data.schema.shape, data.schema.classes) == ("image", (6, 8), ("cat", "dog"))
    assert np.array_equal(data.examples, pixels(24))
    assert data.labels.tolist() == [0, 1] * 12
    assert data.groups.tolist() == [row % 5 for row in range(24)]
    assert data.parts["guard"].tolist() == [3, 7, 11, 15, 19, 23]
    assert data.warnings == ("only the images in 'file' are learned from, not what stands beside: age",)


def test_numbers_can_be_the_target(tmp_path):
    data = read(listing(tmp_path), target="age", task="regression", ignore=("label", "patient"))
    assert (data.schema.modality, data.schema.task, data.warnings) == ("image", "regression", ())
    assert data.labels.tolist() == list(range(24))


def test_what_is_missing_or_broken_takes_its_row_along(tmp_path):
    path = listing(tmp_path, 40)
    (tmp_path / "shots" / "5.png").unlink()
    (tmp_path / "shots" / "6.png").write_bytes(b"prose")
    path.write_text(path.read_text().replace("shots/8.png", ""))
    data = read(path, group="patient")
    kept = [row for row in range(40) if row not in (5, 6, 8)]
    assert np.array_equal(data.examples, pixels(40)[kept])
    assert data.labels.tolist() == [row % 2 for row in kept]
    assert data.groups.tolist() == [row % 5 for row in kept]
    assert sorted(np.concatenate(list(data.parts.values())).tolist()) == list(range(37))
    assert data.parts["tune"].tolist() == [kept.index(row) for row in kept if row % 4 == 2]
    told = "\n".join(data.warnings)
    assert "2 of 40 images are missing and their rows are left out, the first in row 5 (from 0)" in told
    assert "1 of 38 images cannot be read and are left out" in told


def test_many_missing_files_are_one_message_with_the_first(tmp_path):
    path = listing(tmp_path)
    for row in (7, 8, 9):
        (tmp_path / "shots" / f"{row}.png").unlink()
    with pytest.raises(InputError, match=r"no such file for 3 of 24, the first in row 7 .*7\.png"):
        read(path)


def test_two_columns_of_images_are_refused_unless_one_is_ignored(tmp_path):
    path = listing(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{lines[0]},back", *(f"{line},{line.partition(',')[0]}" for line in lines[1:])]))
    with pytest.raises(InputError, match="found 2: file, back"):
        read(path)
    assert len(read(path, ignore=("back",)).examples) == 24


def test_absolute_paths_and_parquet_do_as_well(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(listing(tmp_path))
    frame["file"] = [str(tmp_path / name) for name in frame["file"]]
    (tmp_path / "elsewhere").mkdir()
    frame.to_parquet(tmp_path / "elsewhere" / "list.parquet")
    assert np.array_equal(read(tmp_path / "elsewhere" / "list.parquet").examples, pixels(24))


def test_a_list_of_images_is_predicted(tmp_path):
    data = read(listing(tmp_path))
    asked = read_examples(data.schema, tmp_path / "list.csv")
    assert np.array_equal(np.concatenate(list(asked.pieces)), pixels(24))
    assert asked.names[3] == {"file": str(tmp_path / "shots" / "3.png")}
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="one column of image files"):
        read_examples(data.schema, tmp_path / "two.csv")
