"""A winner predicts from its files alone, and says which file is wrong."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from autoxfer.dataset import Column, Schema
from autoxfer.errors import InputError
from autoxfer.export import save_winner
from autoxfer.prediction import load, predict_file
from autoxfer.preparation import prepare

IMAGES = Schema("image", "classification", (6, 5), "uint8", ("cat", "dog", "owl"))
TABLE = Schema(
    "table",
    "regression",
    (2,),
    "float32",
    columns=(Column("age", "numeric"), Column("town", "categorical", ("Bonn", "Ulm"))),
    target="income",
)
RNG = np.random.default_rng(0)
RAW = RNG.integers(0, 256, (300, 6, 5), dtype=np.uint8)


class Net(nn.Module):
    def __init__(self, schema: Schema, train: np.ndarray, outputs: int) -> None:
        super().__init__()
        made = prepare(schema, train)
        self.prepare = nn.Sequential(made.unpack, made.standardise, nn.Flatten())
        self.head = nn.Linear(int(np.prod(made.natural_shape)), outputs)

    def forward(self, stored: Tensor) -> Tensor:
        return self.head(self.prepare(stored))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Net]:
    torch.manual_seed(0)
    folder, net = tmp_path_factory.mktemp("run"), Net(IMAGES, RAW, 3)
    save_winner(folder / "winner", net, IMAGES, RAW[:2], {"strategy": "scratch"})
    return folder, net.eval()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("table")
    train = np.array([[20, 0], [40, 1], [np.nan, np.nan]], np.float32)
    save_winner(folder, Net(TABLE, train, 1), TABLE, train, {})
    return folder


@pytest.fixture
def copied(images: tuple[Path, Net], tmp_path: Path) -> Path:
    for file in (images[0] / "winner").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_raw_examples_get_the_networks_probabilities_and_class_names(images: tuple[Path, Net]) -> None:
    predictor = load(images[0])
    expected = torch.softmax(images[1](torch.from_numpy(RAW)), 1).detach().numpy()
    probabilities = predictor.predict_proba(RAW)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    assert list(predictor.predict(RAW)) == [predictor.classes[i] for i in expected.argmax(1)]
    assert predictor.classes == ("cat", "dog", "owl")


def test_one_example_gets_the_same_answer_as_in_a_crowd(images: tuple[Path, Net]) -> None:
    predictor = load(images[0] / "winner")
    crowd = predictor.predict_proba(RAW)
    for row in (0, 255, 256, 299):
        np.testing.assert_allclose(predictor.predict_proba(RAW[row : row + 1])[0], crowd[row], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_another_process_predicts_without_mlflow_or_optuna(images: tuple[Path, Net]) -> None:
    code = (
        "import sys, numpy, autoxfer\n"
        "p = autoxfer.load(sys.argv[1]); print(p.predict(numpy.zeros((2, 6, 5), 'uint8')).tolist())\n"
        "assert not {'mlflow', 'optuna', 'sklearn', 'timm', 'autoxfer_builtins'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(images[0])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(load(images[0]).predict(np.zeros((2, 6, 5), np.uint8)).tolist())


def test_a_table_takes_strings_gaps_and_unseen_categories(table: Path) -> None:
    rows = [{"age": 20, "town": "Bonn"}, {"age": None, "town": "Ulm"}, {"age": "35", "town": "Atlantis"}]
    values = load(table).predict(rows)
    assert values.shape == (3,)
    assert np.isfinite(values).all()


def test_a_regression_has_no_probabilities(table: Path) -> None:
    with pytest.raises(InputError, match="a winner of a regression task"):
        load(table).predict_proba([{"age": 1, "town": "Ulm"}])


def _drop(folder: Path) -> None:
    (folder / "model.pt2").unlink()


def _flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def _cut(folder: Path) -> None:
    (folder / "model.json").write_text((folder / "model.json").read_text()[:100])


def _future(folder: Path) -> None:
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**description, "format_version": 99}))


def _list(folder: Path) -> None:
    (folder / "model.json").write_text("[]")


def _empty(folder: Path) -> None:
    (folder / "model.json").unlink()


@pytest.mark.parametrize(
    ("harm", "file", "message"),
    [
        (_drop, "model.pt2", "no such file"),
        (_flip, "model.safetensors", "the file was changed"),
        (_cut, "model.json", "JSONDecodeError"),
        (_future, "model.json", "99; another autoxfer wrote it"),
        (_list, "model.json", "TypeError"),
        (_empty, "", "no model.json"),
    ],
)
def test_a_harmed_winner_is_refused_by_file(
    copied: Path, harm: Callable[[Path], None], file: str, message: str
) -> None:
    harm(copied)
    with pytest.raises(InputError, match=message) as caught:
        load(copied)
    assert caught.value.where == str(copied / file)


def test_a_missing_folder_and_an_unfinished_run_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InputError, match="has not finished"):
        load(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return pytest.fail, ("code from the file was run",)


@pytest.mark.parametrize(
    "record", ["data/sample_inputs/model.pt", "data/constants/opaque_obj_0", "data/aotinductor/a.so"]
)
def test_code_that_hides_in_the_program_is_refused_and_not_run(copied: Path, record: str) -> None:
    path = copied / "model.pt2"
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    records[f"{next(iter(records)).partition('/')[0]}/{record}"] = pickle.dumps(Bomb(), protocol=2)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    description = json.loads((copied / "model.json").read_text())
    description["files"]["model.pt2"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copied / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="a program without pickled code"):
        load(copied)


def test_files_of_images_are_predicted_alike(images: tuple[Path, Net], tmp_path: Path) -> None:
    predictor = load(images[0])
    np.save(tmp_path / "a.npy", RAW[:3])
    np.savez(tmp_path / "a.npz", images=RAW[:3], labels=np.zeros(3))
    (tmp_path / "folder").mkdir()
    for row in range(3):
        Image.fromarray(RAW[row]).save(tmp_path / "folder" / f"{row}.png")
    expected = [(str(predictor.predict(RAW[:3])[row]), predictor.predict_proba(RAW[:3])[row].max()) for row in range(3)]
    for name in ("a.npy", "a.npz", "folder"):
        rows = predict_file(predictor, tmp_path / name)
        assert [(row["prediction"], row["probability"]) for row in rows] == expected
    assert [row["file"] for row in rows] == [str(tmp_path / "folder" / f"{row}.png") for row in range(3)]
    assert len(predict_file(predictor, tmp_path / "folder" / "1.png")) == 1


def test_a_table_is_predicted_from_csv_and_parquet_alike(table: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": [1, 2], "town": ["Ulm", None], "age": [30.5, None]})
    frame.to_csv(tmp_path / "a.csv", index=False, sep=";")
    frame.to_parquet(tmp_path / "a.parquet")
    predictor = load(table)
    expected = predictor.predict(frame)
    for name in ("a.csv", "a.parquet"):
        assert [row["prediction"] for row in predict_file(predictor, tmp_path / name)] == list(expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"PK", "a .npz file as numpy.savez writes it"),
        ("a.npy", b"", "a numpy file without Python objects"),
        ("a.png", b"no image", "an image that can be read"),
        ("a.csv", b"age,town\n1,Ulm\n", "one column of image files"),
        ("a", b"", "a file without an ending"),
        ("b.npy", None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_predicted_is_refused(
    images: tuple[Path, Net], tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        predict_file(load(images[0]), tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_ragged_rows_are_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,town\n1,Ulm\n2\n")
    with pytest.raises(InputError, match="rows that differ in length"):
        predict_file(load(table), tmp_path / "a.csv")
