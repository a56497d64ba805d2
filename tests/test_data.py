"""What the built-in readers promise: what they read, what they leave out and say so, what they refuse."""

from __future__ import annotations

from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from PIL import Image

from autoxfer import Column, DataSpec, InputError, encode
from autoxfer.preparation import prepare
from autoxfer.splitting import split

TABLES = {
    "abalone.csv": (None, "regression", 8),
    "adult.parquet": ("income", "classification", 14),
    "bank_additional_10pct.csv": (None, "classification", 20),
    "student_mat.csv": ("G3", "regression", 32),
    "student_por.csv": ("G3", "regression", 32),
    "wine_quality_red.csv": (None, "classification", 11),
    "wine_quality_white.csv": (None, "classification", 11),
}
VISION = {
    "cifar10_jpeg.npz": ((32, 32, 3), 10, 5000, 1000),
    "cifar10_lossless.npz": ((32, 32, 3), 10, 1700, 200),
    "fashion_mnist_900.npz": ((28, 28), 10, 900, 300),
    "mnist.npz": ((28, 28), 10, 16000, 4000),
    "omniglot_small.npz": ((28, 28), 136, 2720, 816),
    "photo5_folder": ((96, 96, 3), 5, 504, 150),
    "pneumoniamnist.npz": ((28, 28), 2, 5030, 624),
    "sign_digits.npz": ((32, 32, 3), 10, 2000, 600),
    "sign_digits_folder": ((64, 64, 3), 10, 500, 100),
}


def readers():
    doors = [entry for entry in entry_points(group="autoxfer") if entry.name.endswith("_data")]
    return [reader() for entry in doors for reader in entry.load().autoxfer_datasets()]


def read(location, **spec):
    spec = DataSpec(str(location), **spec)
    fitting = [reader for reader in readers() if reader.reads(spec)]
    assert len(fitting) == 1
    return fitting[0].read(spec)


def test_every_reader_comes_through_an_entry_point():
    assert {reader.name for reader in readers()} == {"sklearn", "npz", "folder", "table", "arrow"}


# scikit-learn


def test_the_digits_are_images_of_0_to_255():
    data = read("sklearn:digits", target="label")
    assert data.schema.shape == (8, 8)
    assert data.schema.classes == tuple("0123456789")
    assert data.examples.dtype == np.uint8
    assert (data.examples.min(), data.examples.max()) == (0, 255)
    assert len(np.unique(data.examples)) == 17


@pytest.mark.parametrize(("name", "width", "n_classes"), [("iris", 4, 3), ("wine", 13, 3), ("breast_cancer", 30, 2)])
def test_scikit_learns_tables_keep_their_names(name, width, n_classes):
    data = read(f"sklearn:{name}")
    assert data.schema.modality == "table"
    assert len(data.schema.columns) == width
    assert len(data.schema.classes) == n_classes


def test_diabetes_is_regression():
    data = read("sklearn:diabetes")
    assert (data.schema.task, data.labels.dtype, data.schema.classes) == ("regression", np.float32, ())


@pytest.mark.parametrize(("name", "told"), [("digit", "'digits'"), ("linerud", "'linnerud'"), ("", "iris")])
def test_an_unknown_name_gets_the_nearest(name, told):
    with pytest.raises(InputError, match=told):
        read(f"sklearn:{name}")


def test_a_target_that_scikit_learn_does_not_have_is_refused():
    with pytest.raises(InputError, match="colour"):
        read("sklearn:iris", target="colour")


# npz

IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 0, 1, 0, 1])


def npz(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_images_and_labels_are_read(tmp_path):
    data = read(npz(tmp_path, images=IMAGES, labels=LABELS, class_names=np.array(["cat", "dog"])))
    assert np.array_equal(data.examples, IMAGES)
    assert np.array_equal(data.labels, LABELS)
    assert data.schema.classes == ("cat", "dog")
    assert (data.schema.modality, data.schema.shape, data.parts) == ("image", (4, 4), {})


def test_prefixes_become_parts(tmp_path):
    path = npz(
        tmp_path,
        train_images=IMAGES[:3], train_labels=LABELS[:3],
        test_images=IMAGES[4:], test_labels=LABELS[4:, None],
        val_images=IMAGES[3:4], val_labels=LABELS[3:4],
    )  # fmt: skip
    data = read(path)
    for part, first in {"train": 0, "val": 3, "test": 4}.items():
        assert np.array_equal(data.examples[data.parts[part][0]], IMAGES[first])


def test_features_are_vectors_and_fractions_as_labels_are_regression(tmp_path):
    path = npz(tmp_path, features=np.eye(6), labels=LABELS / 2)
    data = read(path)
    assert (data.schema.modality, data.schema.task, data.schema.shape) == ("vector", "regression", (6,))
    assert data.examples.dtype == data.labels.dtype == np.float32
    with pytest.raises(InputError, match="fractions"):
        read(path, task="classification")
    assert read(npz(tmp_path, features=np.eye(6), labels=LABELS), task="regression").schema.task == "regression"


def test_another_key_can_be_the_target(tmp_path):
    path = npz(
        tmp_path,
        train_images=IMAGES,
        train_labels=LABELS,
        train_alphabet=1 - LABELS,
        alphabet_names=np.array(["a", "b"]),
    )
    data = read(path, target="alphabet")
    assert np.array_equal(data.labels, 1 - LABELS)
    assert data.schema.classes == ("a", "b")
    with pytest.raises(InputError, match="nearest: 'alphabet'") as caught:
        read(path, target="alphabets")
    assert caught.value.where == "task.target"


def test_labels_without_names_are_named_by_their_values(tmp_path):
    data = read(npz(tmp_path, images=IMAGES, labels=LABELS * 7 - 2))
    assert data.schema.classes == ("-2", "5")
    assert read(npz(tmp_path, images=IMAGES, labels=np.array(list("xyxyxy")))).schema.classes == ("x", "y")


def test_the_stored_pixels_of_whole_numbers_of_any_width_are_the_same(tmp_path):
    assert np.array_equal(read(npz(tmp_path, images=IMAGES.astype(np.int64), labels=LABELS)).examples, IMAGES)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": IMAGES},
        {"labels": LABELS},
        {},
        {"images": IMAGES, "labels": LABELS[:5]},
        {"images": IMAGES[:0], "labels": LABELS[:0]},
        {"images": IMAGES / 255, "labels": LABELS},
        {"images": IMAGES.astype(np.int64) * 9, "labels": LABELS},
        {"images": np.zeros((6, 4, 4, 4), np.uint8), "labels": LABELS},
        {"images": np.zeros((6, 3, 4, 4), np.uint8), "labels": LABELS},
        {"images": np.zeros(6, np.uint8), "labels": LABELS},
        {"images": IMAGES.astype(str), "labels": LABELS},
        {"images": np.array([IMAGES[0], None], dtype=object), "labels": LABELS[:2]},
        {"images": IMAGES, "labels": np.array([0, 1, None, 1, 0, 1], dtype=object)},
        {"images": IMAGES, "labels": np.zeros((6, 2, 2))},
        {"images": IMAGES, "labels": np.array([0, 1, np.nan, 1, 0, 1])},
        {"features": np.full((6, 2), np.nan), "labels": LABELS},
        {"features": np.full((6, 2), np.inf), "labels": LABELS},
        {"features": np.zeros((6, 0)), "labels": LABELS},
        {"images": IMAGES, "labels": LABELS, "class_names": np.array(["one"])},
        {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:, :3], "test_labels": LABELS},
        {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES},
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays):
    with pytest.raises(InputError):
        read(npz(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InputError):
        read(tmp_path / "data.npz")


def test_a_cut_npz_and_a_bare_array_are_refused(tmp_path):
    path = npz(tmp_path, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError):
        read(path)
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(InputError):
        read(path)


# folders


def picture(path, *, mode="RGB", size=(10, 8), colour=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour or (200, 100, 50)).convert(mode)
    image.save(path, **options)


def test_a_folder_per_class(tmp_path):
    picture(tmp_path / "cat" / "1.png", colour=(1, 2, 3))
    picture(tmp_path / "cat" / "deeper" / "2.webp", lossless=True)
    picture(tmp_path / "dog" / "1.bmp")
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "bird").mkdir()
    data = read(tmp_path)
    assert data.schema.classes == ("cat", "dog")
    assert data.schema.shape == (8, 10, 3)
    assert data.labels.tolist() == [0, 0, 1]
    assert data.examples[0, 0, 0].tolist() == [1, 2, 3]
    assert data.warnings[0] == "folder bird holds no images"
    assert data.warnings[1].startswith("1 files are no images")


def test_train_and_test_above_the_classes_are_parts(tmp_path):
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            picture(tmp_path / part / label / "1.png")
    data = read(tmp_path)
    assert {name: len(rows) for name, rows in data.parts.items()} == {"train": 2, "test": 2}
    assert data.schema.classes == ("cat", "dog")


def test_a_class_may_be_called_train(tmp_path):
    picture(tmp_path / "train" / "1.png")
    picture(tmp_path / "plane" / "1.png")
    data = read(tmp_path)
    assert data.schema.classes == ("plane", "train")
    assert not data.parts


def test_grey_images_stay_grey_and_mixed_ones_become_colour(tmp_path):
    picture(tmp_path / "a" / "1.png", mode="L")
    picture(tmp_path / "b" / "1.png", mode="1")
    assert read(tmp_path).schema.shape == (8, 10)
    picture(tmp_path / "b" / "2.png", mode="P")
    picture(tmp_path / "b" / "3.png", mode="RGBA")
    picture(tmp_path / "b" / "4.jpg", mode="CMYK")
    data = read(tmp_path)
    assert data.schema.shape == (8, 10, 3)
    assert any("1 images have an alpha channel" in warning for warning in data.warnings)


def test_a_turned_photograph_is_held_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise: the left edge becomes the top
    stored = np.zeros((10, 8, 3), dtype=np.uint8)
    stored[:, 0] = 255
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.fromarray(stored).save(tmp_path / label / "1.png", exif=exif)
    picture(tmp_path / "b" / "2.png", size=(10, 8))
    data = read(tmp_path)
    assert data.schema.shape == (8, 10, 3)
    assert np.array_equal(data.examples[0] == 255, np.rot90(stored, -1) == 255)
    assert data.warnings == ()


def test_images_of_many_sizes_get_the_median_of_their_shorter_sides(tmp_path):
    for index, size in enumerate([(30, 20), (50, 24), (40, 90)]):
        picture(tmp_path / "ab"[index % 2] / f"{index}.png", size=size)
    data = read(tmp_path)
    assert data.schema.shape == (24, 24, 3)
    assert data.warnings == ("images of 3 sizes are resized and cut to 24x24",)


def test_large_images_are_reduced(tmp_path):
    for label in "ab":
        picture(tmp_path / label / "1.png", size=(640, 480))
    data = read(tmp_path)
    assert data.schema.shape == (224, 224, 3)
    assert data.warnings == ("images of 640x480 pixels are resized and cut to 224x224",)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, damage):
    picture(tmp_path / "a" / "1.png")
    bad = tmp_path / "b" / "bad.png"
    picture(bad, size=(100, 100))
    bad.write_bytes({"cut": bad.read_bytes()[:60], "text": b"not an image", "empty": b""}[damage])
    with pytest.raises(InputError, match="1 of 2 that cannot") as caught:
        read(tmp_path)
    assert caught.value.where.endswith("bad.png")


def test_a_few_broken_images_are_left_out_with_their_labels(tmp_path):
    for index in range(20):
        picture(tmp_path / "ab"[index % 2] / f"{index:02}.png", colour=(index, 0, 0))
    (tmp_path / "a" / "04.png").write_bytes(b"not an image")
    data = read(tmp_path)
    assert data.labels.tolist() == [0] * 9 + [1] * 10
    assert data.examples[:, 0, 0, 0].tolist() == [0, 2, *range(6, 20, 2), *range(1, 20, 2)]
    assert "1 of 20 images cannot be read and are left out, the first" in data.warnings[0]
    assert "04.png" in data.warnings[0]


def test_a_jpeg_that_ends_early_is_named(tmp_path):
    picture(tmp_path / "a" / "1.jpg", size=(200, 200))
    content = (tmp_path / "a" / "1.jpg").read_bytes()
    (tmp_path / "a" / "1.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"1\.jpg"):
        read(tmp_path)


def test_folders_without_classes_or_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folders"):
        read(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="expected images"):
        read(tmp_path)
    with pytest.raises(InputError, match="exists"):
        read(tmp_path / "nowhere")


def test_a_folder_has_no_other_target(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    for spec in ({"target": "age"}, {"task": "regression"}):
        with pytest.raises(InputError):
            read(tmp_path, **spec)


# tables


def table(folder, text, name="data.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_numbers_categories_and_gaps_are_read(tmp_path):
    data = read(table(tmp_path, 'age,job,member,label\n31,smith,true,yes\n,"cook, chief",False,no\n 42.5 ,,TRUE,yes\n'))
    kinds = {column.name: (column.kind, column.categories) for column in data.schema.columns}
    assert kinds == {
        "age": ("numeric", ()),
        "job": ("categorical", ("cook, chief", "smith")),
        "member": ("categorical", ("False", "True")),
    }
    expected = np.array([[31, 1, 1], [np.nan, 0, 0], [42.5, np.nan, 1]], dtype=np.float32)
    np.testing.assert_array_equal(data.examples, expected)
    assert data.labels.tolist() == [1, 0, 1]
    assert data.schema.classes == ("no", "yes")
    assert data.warnings == ()


def test_csv_parquet_and_a_frame_read_by_pandas_encode_alike(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [("31", "smith", "true", "3", "a"), ("", "cook", "false", "?", "b"), ("4.5", "NA", "true", "-1", "a")]
    path = table(tmp_path, "age,job,member,old,label\n" + "\n".join(map(",".join, rows)) + "\n")
    data = read(path)
    assert [column.kind for column in data.schema.columns] == ["numeric", "categorical", "categorical", "numeric"]
    frame = pandas.read_csv(path)
    np.testing.assert_array_equal(encode(data.schema, frame), data.examples)
    frame.to_parquet(tmp_path / "data.parquet")
    again = read(tmp_path / "data.parquet")
    np.testing.assert_array_equal(again.examples, data.examples)
    assert again.schema == data.schema


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_semicolons_and_tabs_separate_too(tmp_path, delimiter):
    text = "a,b,label\n1,2,x\n3,4,y\n".replace(",", delimiter)
    assert read(table(tmp_path, text)).examples.tolist() == [[1, 2], [3, 4]]


def test_the_users_splits_are_respected_and_never_a_feature(tmp_path):
    data = read(table(tmp_path, "a,split,label\n1,train,x\n2,test,y\n3,validation,x\n4,Train,y\n"))
    assert {name: rows.tolist() for name, rows in data.parts.items()} == {
        "train": [0, 3],
        "validation": [2],
        "test": [1],
    }
    assert [column.name for column in data.schema.columns] == ["a"]


def labelled(folder, labels, **spec):
    rows = "\n".join(f"{index % 7}.5,{label}" for index, label in enumerate(labels))
    return read(table(folder, f"a,label\n{rows}\n"), **spec)


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (["x", "y"] * 10, "classification", ("x", "y")),
        (["true", "false"] * 10, "classification", ("False", "True")),
        ([0, 1] * 10, "classification", ("0", "1")),
        (["1.0", "0.0"] * 10, "classification", ("0", "1")),
        ([10, 9, 2] * 10, "classification", ("2", "9", "10")),
        (range(20), "regression", ()),
        ([0.5, 1.5] * 10, "regression", ()),
    ],
)
def test_the_task_is_told_from_the_target(tmp_path, labels, task, classes):
    data = labelled(tmp_path, labels)
    assert (data.schema.task, data.schema.classes) == (task, classes)
    assert data.labels.dtype == (np.int64 if classes else np.float32)


def test_an_ambiguous_target_is_decided_aloud(tmp_path):
    assert "3 different whole numbers and is read as classification" in labelled(tmp_path, [1, 2, 3] * 5).warnings[0]
    assert labelled(tmp_path, [1, 2, 3] * 5, task="classification").warnings == ()
    assert labelled(tmp_path, [1, 2, 3] * 5, task="regression").schema.task == "regression"


@pytest.mark.parametrize(
    ("labels", "spec"),
    [
        (["x", "y"] * 10, {"task": "regression"}),
        (["inf", "0.5"] * 10, {}),
        ([f"name {index}" for index in range(30)], {}),
        ([""] * 5, {}),
    ],
)
def test_targets_of_no_use_are_refused(tmp_path, labels, spec):
    with pytest.raises(InputError):
        labelled(tmp_path, labels, **spec)


def test_none_is_a_class_and_a_gap_is_not(tmp_path):
    data = labelled(tmp_path, ["None", "some", "", "None", "some"])
    assert data.schema.classes == ("None", "some")
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.warnings[0] == "1 rows without a value in 'label' are left out"


def test_without_a_usual_name_the_last_column_is_taken_aloud(tmp_path):
    data = read(table(tmp_path, "a,b,split\n1,x,train\n2,y,train\n"))
    assert data.schema.target == "b"
    assert "the last column, 'b'" in data.warnings[0]


def test_columns_of_no_use_are_left_out_aloud(tmp_path):
    header = "id,empty,same,when,serial,name,a,label"
    rows = [f"{(7 * n) % 31 * 3},,1,2024-01-{n % 28 + 1:02},{n},person{n},{n % 5},{'xy'[n % 2]}" for n in range(30)]
    data = read(table(tmp_path, "\n".join([header, *rows])))
    assert [column.name for column in data.schema.columns] == ["a"]
    assert set(data.warnings) == {
        "left out, nothing in them: empty",
        "left out, the same everywhere: same",
        "left out, dates, which are not read yet: when",
        "left out, a different number in every row: id, serial",
        "left out, a different name in nearly every row: name",
    }


def test_of_many_categories_the_frequent_ones_stay(tmp_path):
    rows = [f"c{n % 60 if n < 150 else n % 50},{'xy'[n % 2]}" for n in range(400)]
    data = read(table(tmp_path, "a,label\n" + "\n".join(rows)))
    assert len(data.schema.columns[0].categories) == 50
    assert data.warnings == ("of 60 categories in 'a' the 50 most frequent are kept",)
    assert np.isnan(data.examples).any()


def sentences(*others):
    return "\n".join(",".join([f"this is sentence number {n} of many", *others, "xy"[n % 2]]) for n in range(30))


def test_a_column_of_sentences_is_text(tmp_path):
    data = read(table(tmp_path, "words,label\n" + sentences()))
    assert (data.schema.modality, data.schema.shape, data.schema.dtype) == ("text", (), "str")
    assert data.examples[3] == "this is sentence number 3 of many"
    assert data.warnings == ()


def test_short_texts_are_known_by_their_columns_name(tmp_path):
    rows = "\n".join(f"item {n},{'xy'[n % 2]}" for n in range(30))
    assert read(table(tmp_path, "Question,label\n" + rows)).schema.modality == "text"
    with pytest.raises(InputError, match="none that is of use"):
        read(table(tmp_path, "name,label\n" + rows))


@pytest.mark.parametrize(
    ("name", "n", "modality"), [("text", 60, "text"), ("text", 40, "table"), ("told", 60, "table")]
)
def test_texts_that_repeat_are_known_by_their_columns_name_if_they_are_too_many_for_categories(
    tmp_path, name, n, modality
):
    rows = "\n".join(f"there are sentences like number {k % n} of these,{'xy'[k % 2]}" for k in range(200))
    assert read(table(tmp_path, f"{name},label\n{rows}")).schema.modality == modality


def test_what_is_of_no_use_beside_a_text_is_left_out_with_a_warning(tmp_path):
    data = read(table(tmp_path, "words,kind,label\n" + sentences("z")))
    assert (data.schema.modality, data.schema.columns) == ("text", (Column("words", "text"),))
    assert data.warnings == ("left out, the same everywhere: kind",)


def test_several_columns_of_texts_are_read_as_one(tmp_path):
    rows = "\n".join(f"this is sentence number {n},{f'and one more {n}' * (n != 3)},{'xy'[n % 2]}" for n in range(30))
    data = read(table(tmp_path, "b,review,label\n" + rows))
    assert (data.schema.modality, data.schema.shape) == ("text", ())
    assert data.schema.columns == (Column("b", "text"), Column("review", "text"))
    assert data.examples[:4].tolist()[2:] == ["this is sentence number 2\nand one more 2", "this is sentence number 3"]
    assert data.warnings == ("b, review are read as one text, joined in this order",)
    again = encode(data.schema, {"review": ["red", ""], "b": [None, "blue"]})
    assert again.tolist() == encode(data.schema, ["red", "blue"]).tolist() == ["red", "blue"]
    with pytest.raises(InputError, match="texts in column 'review', found 7 in example 0"):
        encode(data.schema, {"b": ["x"], "review": [7]})
    with pytest.raises(InputError, match="the columns b, review, found none called review"):
        encode(data.schema, {"b": ["x"]})


def test_empty_texts_are_counted(tmp_path):
    data = read(table(tmp_path, "words,label\n" + sentences() + "\n,x\n  ,y"))
    assert data.warnings == ("2 of 32 texts are empty",)


MIXED = "id,told,age,told too,job,same,label\n"


def mixed(n=40):
    texts = [(f"a tale of {k} men and a dog", f"which {k} others had told before") for k in range(n)]
    rows = [
        (k, a, "" if k == 3 else 20 + k % 9, b, ("cook", "smith")[k % 2], 1, "xy"[k % 2])
        for k, (a, b) in enumerate(texts)
    ]
    return MIXED + "\n".join(",".join(map(str, row)) for row in rows)


def test_texts_beside_columns_make_a_mixed_data_set(tmp_path):
    data = read(table(tmp_path, mixed()))
    assert (data.schema.modality, data.schema.shape, data.schema.dtype) == ("mixed", (2,), "float32")
    told = [Column("told", "text"), Column("told too", "text")]
    assert data.schema.columns == (*told, Column("age", "numeric"), Column("job", "categorical", ("cook", "smith")))
    assert data.schema.natural_columns == ("age", "job=cook", "job=smith")
    np.testing.assert_array_equal(data.examples[2:4], np.array([[22, 0], [np.nan, 1]], dtype=np.float32))
    assert data.texts[2] == "a tale of 2 men and a dog\nwhich 2 others had told before"
    assert data.warnings == (
        "told, told too are read as one text, joined in this order",
        "left out, a different number in every row: id",
        "left out, the same everywhere: same",
    )


def test_a_mixed_data_sets_texts_and_columns_both_count_for_what_it_is(tmp_path):
    prints = {read(table(tmp_path, text)).fingerprint() for text in (mixed(), mixed().replace("7 men", "x men"))}
    assert len(prints | {read(table(tmp_path, mixed().replace("27", "28"))).fingerprint()}) == 3
    last = mixed().splitlines()[-1]
    for again, n in ((last, 1), (last.replace("dog", "cat"), 0)):  # the same columns beside another text
        told = split(read(table(tmp_path, f"{mixed()}\n{again}")), None, 0).warnings
        assert sum("1 of 41 examples are exact copies of another" in each for each in told) == n


def test_columns_that_are_to_be_ignored_are_left_out(tmp_path):
    path = table(tmp_path, mixed())
    data = read(path, ignore=("age", "job", "told too"))
    assert (data.schema.modality, [column.name for column in data.schema.columns]) == ("text", ["told"])
    assert read(path, ignore=("told", "told too")).schema.modality == "table"
    for name, found in {"agee": "'agee'; nearest: 'age'", "label": "'label', which is no feature anyway"}.items():
        with pytest.raises(InputError, match=found):
            read(path, ignore=(name,))
    with pytest.raises(InputError, match="scikit-learn's data sets have none to leave out"):
        read("sklearn:iris", ignore=("age",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty file"),
        ("\n\n", "at least two columns"),
        ("a,b,label\n", "header only"),
        ("a,label\n1,x\n2\n", "1 in line 3"),
        ("a,label\n1,x\n2,y,z\n", "3 in line 3"),
        ("a,label\n1,x,\n2,y,\n", "3 in line 2"),
        ("a,a,label\n1,2,x\n", "'a', 2 times"),
        ("a,,label\n1,2,x\n", "different names"),
        ("label\nx\ny\n", "at least two columns"),
        ("a,label\ninf,x\n2,y\n", "'inf' in column 'a', row 1"),
        ("a,label\n1e60,x\n2,y\n", "row 1"),
        ("a,label\n1,x\n1,y\n", "none that is of use"),
        ("a,split,label\n1,train,x\n2,tomorrow,y\n", "'tomorrow'"),
        ("a,split,label\n1,train,x\n2,,y\n", "column 'split'"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path, text, told):
    with pytest.raises(InputError, match=told):
        read(table(tmp_path, text))


def test_an_unknown_target_gets_the_nearest(tmp_path):
    path = table(tmp_path, "age,income\n1,x\n2,y\n")
    with pytest.raises(InputError, match="nearest: 'income'") as caught:
        read(path, target="incom")
    assert caught.value.where == "task.target"


@pytest.mark.parametrize(("name", "content"), [("a.csv", b"a,label\n\xff\xfe,x\n"), ("a.parquet", b"PAR1 but no more")])
def test_files_that_are_not_what_they_say_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        read(tmp_path / name)


def test_a_parquet_column_of_lists_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"a": [[1], [2]], "label": ["x", "y"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a list in column 'a'"):
        read(tmp_path / "a.parquet")


def test_relative_paths_start_at_the_run_files_folder(tmp_path):
    table(tmp_path, "a,label\n1,x\n2,y\n")
    assert read("data.csv", directory=tmp_path).name == "data"
    with pytest.raises(InputError, match=r"other\.csv"):
        read("other.csv", directory=tmp_path)


# the real ones


def prepared(data):
    """Split, prepare and encode again: what every run does first."""
    splits = split(data, None, 0)
    preparation = prepare(data.schema, data.examples[splits.rows["train"]])
    batch = torch.from_numpy(data.examples[splits.rows["guard"][:64]])
    out = preparation.standardise(preparation.unpack(batch))
    assert out.shape == (len(batch), *preparation.natural_shape)
    assert torch.isfinite(out).all()
    return splits


@pytest.mark.parametrize("name", VISION)
def test_the_shared_images_read_split_and_prepare(shared, name):
    shape, n_classes, n, n_test = VISION[name]
    data = read(shared / "vision" / name)
    assert (data.schema.shape, len(data.schema.classes), len(data.labels)) == (shape, n_classes, n)
    splits = prepared(data)
    assert np.array_equal(splits.rows["test"], data.parts["test"])
    assert len(splits.rows["test"]) == n_test


@pytest.mark.parametrize("name", TABLES)
def test_the_shared_tables_read_split_and_prepare(shared, name):
    target, task, width = TABLES[name]
    data = read(shared / "tabular" / name, target=target)
    assert (data.schema.task, len(data.schema.columns)) == (task, width)
    prepared(data)


def test_the_shared_pneumonia_set_keeps_its_own_validation_part(shared):
    data = read(shared / "vision" / "pneumoniamnist.npz")
    splits = prepared(data)
    assert np.array_equal(splits.rows["tune"], data.parts["val"])
    assert any("dropped from the rest: 10 examples" in warning for warning in splits.warnings)


def test_the_shared_omniglot_has_alphabets_as_an_easier_target(shared):
    data = read(shared / "vision" / "omniglot_small.npz", target="alphabet")
    assert len(data.schema.classes) == 5
    prepared(data)


@pytest.mark.parametrize(
    ("name", "n", "n_classes", "beside"),
    [
        ("trec6.csv", 5952, 6, ["label_fine"]),
        ("sst2.parquet", 9613, 2, []),
        ("banking77.parquet", 13083, 77, []),
        ("uci_sentiment_3domains.csv", 2982, 2, ["domain"]),
    ],
)
def test_the_shared_texts_are_read_whole(shared, name, n, n_classes, beside):
    data = read(shared / "text" / name)
    assert data.schema.modality == ("mixed" if beside else "text")
    assert [column.name for column in data.schema.columns] == ["text", *beside]
    assert (len(data.examples), len(data.schema.classes)) == (n, n_classes)


# groups


def test_the_group_is_no_feature_and_its_codes_follow_its_names(tmp_path):
    names = ["b", "a", "b", "c"] * 5
    lines = [f"{index * 0.5},{name},{('yes', 'no')[index % 2]}" for index, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("\n".join(["x,patient,label", *lines]))
    data = read(tmp_path / "t.csv", group="patient")
    assert [column.name for column in data.schema.columns] == ["x"]
    assert data.groups.dtype == np.int64
    assert data.groups.tolist() == [1, 0, 1, 2] * 5
    assert read(tmp_path / "t.csv").groups is None
    assert data.fingerprint() != read(tmp_path / "t.csv").fingerprint()


def test_rows_without_a_label_take_their_groups_with_them(tmp_path):
    (tmp_path / "t.csv").write_text("x,patient,label\n1,a,yes\n2,b,\n3,c,no\n4,c,yes\n5,a,no\n")
    assert read(tmp_path / "t.csv", group="patient").groups.tolist() == [0, 1, 1, 0]


def test_groups_of_texts_are_read(tmp_path):
    lines = [f"the {index}th of my short sentences,author{index % 3},{index % 2}" for index in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["text,author,label", *lines]))
    data = read(tmp_path / "t.csv", group="author")
    assert data.schema.modality == "text"
    assert data.groups.tolist() == [0, 1, 2] * 10
    assert data.warnings == ()  # the group's column is not one that was left out


def test_groups_of_arrays_are_one_and_the_same_in_all_parts(tmp_path):
    np.savez(
        tmp_path / "d.npz",
        train_features=np.eye(4),
        train_labels=[0, 1, 0, 1],
        train_patient=[7, 7, 8, 9],
        test_features=np.eye(4)[:2],
        test_labels=[0, 1],
        test_patient=[[9.0], [10.0]],
    )
    assert read(tmp_path / "d.npz", group="patient").groups.tolist() == [1, 1, 2, 3, 3, 0]  # "10" sorts before "7"
