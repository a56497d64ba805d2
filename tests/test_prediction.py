"""A winner predicts from its files alone, and says which file is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from autoxfer.cli import main
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


def some_pictures(folder: Path, n: int, broken: Sequence[int]) -> Path:
    """Save the first ``n`` images, cut short where they are broken, and a table that lists them."""
    folder.mkdir()
    for row in range(n):
        file = folder / f"{row:03}.png"
        Image.fromarray(RAW[row]).save(file)
        if row in broken:
            file.write_bytes(file.read_bytes()[:40])
    pd.DataFrame({"file": [f"{row:03}.png" for row in range(n)]}).to_csv(folder / "list.csv", index=False)
    return folder


@pytest.mark.parametrize("listed", [False, True])
def test_a_broken_picture_has_an_empty_answer_and_costs_the_others_nothing(
    images: tuple[Path, Net], tmp_path: Path, listed: bool
) -> None:
    predictor, warnings = load(images[0]), list[str]()
    folder = some_pictures(tmp_path / "new", 270, broken=(0, 7))  # more than are predicted at a time
    rows = predict_file(predictor, folder / "list.csv" if listed else folder, warnings.append)
    assert [row["file"] for row in rows] == [str(folder / f"{row:03}.png") for row in range(270)]
    sound = [row for row in range(270) if row not in (0, 7)]
    whole = predictor.predict_proba(RAW[sound])
    assert [rows[row]["probability"] for row in sound] == whole.max(1).tolist()
    assert [rows[row]["prediction"] for row in sound] == predictor.predict(RAW[sound]).tolist()
    for row in (0, 7):
        assert list(rows[row]) == list(rows[1]) == ["file", "prediction", "probability", "error"]
        assert rows[row]["prediction"] is rows[row]["probability"] is rows[1]["error"] is None
        assert rows[row]["error"]
    (warning,) = warnings
    assert warning.startswith(f"2 of 270 images cannot be read and have no answer, the first {folder / '000.png'}: ")


def test_a_list_may_name_a_picture_that_is_gone(images: tuple[Path, Net], tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "new", 5, broken=())
    (folder / "003.png").unlink()
    rows = predict_file(load(images[0]), folder / "list.csv")
    assert [row["prediction"] is None for row in rows] == [False, False, False, True, False]
    assert "FileNotFoundError" in rows[3]["error"]


def test_pictures_of_which_none_can_be_read_are_one_error(images: tuple[Path, Net], tmp_path: Path) -> None:
    folder = some_pictures(tmp_path / "new", 3, broken=range(3))
    with pytest.raises(InputError, match="an image that can be read, found 3 of 3 that cannot, the first: "):
        predict_file(load(images[0]), folder)


@pytest.mark.parametrize("option", [(), ("--json",), ("--output", "out.csv")])
def test_the_command_answers_for_the_rest_and_exits_with_0(
    images: tuple[Path, Net], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    some_pictures(tmp_path / "new", 3, broken=[1])
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(images[0]), "new", *option])
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert err.startswith("warning: 1 of 3 images cannot be read and have no answer, the first new/001.png: ")
    if option == ("--json",):
        rows = json.loads(out)["predictions"]
        assert [row["prediction"] is None for row in rows] == [row["error"] is not None for row in rows]
        assert rows[1]["error"]
        return
    table = pd.read_csv("out.csv" if option else io.StringIO(out))
    assert list(table) == ["file", "prediction", "probability", "error"]
    assert table["prediction"].isna().tolist() == table["error"].notna().tolist() == [False, True, False]


def test_ragged_rows_are_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,town\n1,Ulm\n2\n")
    with pytest.raises(InputError, match="rows that differ in length"):
        predict_file(load(table), tmp_path / "a.csv")
