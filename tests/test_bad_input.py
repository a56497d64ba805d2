"""Whatever the user gets wrong: exit code 2, one message in three parts, within seconds, nothing trained.

Every case takes a project that works and spoils one thing in it. ``CASES`` maps a name to what spoils the project and
gives the command's arguments, and to words that the message must hold: the culprit, what was wanted, what was there.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file
from torch import nn

from autoxfer.cli import main
from autoxfer.dataset import Column, Schema
from autoxfer.export import save_winner
from autoxfer.tokens import Tokenizer, Vocabulary

Arrange = Callable[[Path], list[str]]
PATIENCE_S = 30.0  # on a busy machine; a second or two on an idle one

CODE = """
from pathlib import Path

import torch
from torch import nn

Path("imported").touch()
width = 8

class Net(nn.Sequential):
    def __init__(self, width=8):
        super().__init__(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))

class Odd(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

class Two(Net):
    def forward(self, x):
        return super().forward(x), x

class Fixed(Net):
    def forward(self, x):
        return super().forward(x.reshape(4, 1))

class Fickle(Net):
    def forward(self, x):
        y = super().forward(x)
        return -y if y.sum() > 10 else y

def words():
    return "a network"

def broken():
    raise RuntimeError("no such width")
"""
RUN = """
task:
  data: table.csv
  target: label
sources:
  - {name: net, model: "nets.py:Net", weights: net.safetensors, input: {shape: [2]}}
strategies: [scratch, linear_probe]
budget: {trials: 1}
device: cpu
"""


def rows(n: int = 60) -> list[list[str]]:
    """A table that can be learnt from: x, y, label."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(n, 2)).round(4)
    return [[str(x), str(y), "yes" if x + y > 0 else "no"] for x, y in numbers]


def table(lines: list[list[str]], header: str = "x,y,label") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header.split(","), *lines])
    return text.getvalue()


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    return {name: tensor.clone() for name, tensor in layers.state_dict().items()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a project in which nothing is wrong."""
    (tmp_path / "table.csv").write_text(table(rows()))
    (tmp_path / "nets.py").write_text(CODE)
    save_file(tensors(), tmp_path / "net.safetensors")
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "AUTOXFER_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "")  # what a case sets is undone
    return tmp_path


def command(*arguments: str) -> Arrange:
    """Spoil the command line alone."""
    return lambda home: list(arguments)


def options(*overrides: str) -> Arrange:
    """Spoil the run file by ``-o``."""
    return command("run", "run.yaml", *(word for text in overrides for word in ("-o", text)))


def file(name: str, content: str | bytes, *overrides: str) -> Arrange:
    """Spoil, or add, a file."""

    def arrange(home: Path) -> list[str]:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return options(*overrides)(home)

    return arrange


def data(text: str, *overrides: str) -> Arrange:
    """Spoil the table."""
    return file("table.csv", text, *overrides)


def cells(column: int, value: str, *overrides: str, last: int = 60, first: int = 0) -> Arrange:
    """Spoil one column of the table in rows ``first`` to ``last``."""
    lines = rows()
    for row in lines[first:last]:
        row[column] = value
    return data(table(lines), *overrides)


GROUPED = "x,y,label,patient"


def patients(*overrides: str, given: tuple[str, ...] = ("A1", "A2", "A3", "A4")) -> Arrange:
    """Add a column that says whose each row is, and name it; spoil it."""
    lines = [[*row, given[index % len(given)]] for index, row in enumerate(rows())]
    return data(table(lines, GROUPED), "task.group=patient", *overrides)


def told(*overrides: str, number: str = "1.5", name: str = "x") -> Arrange:
    """Put a text and a category beside the numbers; spoil one number, or a column's name."""
    lines = [
        [x if index else number, f"the {index}th of some sentences that say {y}", ("cook", "smith")[index % 2], label]
        for index, (x, y, label) in enumerate(rows())
    ]
    return data(table(lines, f"{name},told,job,label"), *overrides)


def dated(*overrides: str, moment: str | None = None, days: int = 28) -> Arrange:
    """Add a column that says when each row was taken, and name it; spoil it."""
    lines = [[*row, f"2024-01-{index % days + 1:02}"] for index, row in enumerate(rows())]
    if moment is not None:
        lines[3][3] = moment
    return data(table(lines, "x,y,label,when"), "task.time=when", *overrides)


def heavy(*overrides: str, weight: str | None = None, first: int = 3, last: int = 4) -> Arrange:
    """Add a column of weights, and name it; spoil it."""
    lines = [[*row, str(index % 3)] for index, row in enumerate(rows())]
    for row in lines[first:last] if weight is not None else ():
        row[3] = str(weight)
    return data(table(lines, "x,y,label,weight"), "task.weight=weight", *overrides)


def npz(*overrides: str, **arrays: Any) -> Arrange:
    """Take arrays for data, one of them spoilt."""

    def arrange(home: Path) -> list[str]:
        np.savez(home / "data.npz", **arrays)
        return options("task.data=data.npz", "task.target=label", *overrides)(home)

    return arrange


def pixels(n: int = 60, size: int = 8) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (n, size, size), dtype=np.uint8)


def labels(n: int = 60) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(n) % 2


def folder(spoil: Callable[[Path], object]) -> Arrange:
    """Take a folder of images for data, and spoil it."""

    def arrange(home: Path) -> list[str]:
        images = pixels(20)
        for index, image in enumerate(images):
            path = home / "images" / ("cat", "dog")[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        spoil(home / "images")
        return options("task.data=images", "task.target=label")(home)

    return arrange


def spoil_images(spoil: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Spoil three images, which are too many to be left out."""
    files = [f"{('cat', 'dog')[index % 2]}/{index}.png" for index in range(3)]
    return lambda path: [(path / name).write_bytes(spoil((path / name).read_bytes())) for name in files]


def listed(spoil: Callable[[Path], object], *overrides: str) -> Arrange:
    """Take a table of images for data, and spoil it."""

    def arrange(home: Path) -> list[str]:
        (home / "shots").mkdir(exist_ok=True)
        lines = [[f"shots/{index}.png", ("cat", "dog")[index % 2]] for index in range(20)]
        for (name, _), image in zip(lines, pixels(20), strict=True):
            Image.fromarray(image).save(home / name)
        (home / "list.csv").write_text(table(lines, "file,label"))
        spoil(home)
        return options("task.data=list.csv", *overrides)(home)

    return arrange


def saved_set(*splits: str, cut: bool = False, target: str = "label") -> Arrange:
    """Take for data a set, or a set of splits, as Hugging Face's ``datasets`` saves it; spoil it."""

    def arrange(home: Path) -> list[str]:
        columns = {"x": [float(row[0]) for row in rows()], "label": [row[2] for row in rows()]}
        for name in splits or ("",):
            folder = home / "saved" / name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "data-00000-of-00001.arrow"
            content = pa.table(columns)
            with pa.ipc.new_stream(path, content.schema) as writer:
                writer.write_table(content)
            if cut:
                path.write_bytes(path.read_bytes()[:500])
            (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": path.name}]}))
        if splits:
            (home / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        return options("task.data=saved", f"task.target={target}")(home)

    return arrange


def doubled(text: str) -> str:
    """Write the first column of a table down a second time."""
    first, *lines = text.splitlines()
    return "\n".join([f"{first},file2", *(f"{line},{line.partition(',')[0]}" for line in lines)])


def several(*overrides: str, first: str = "", second: Callable[[int], object] = lambda row: row % 3 > 0) -> Arrange:
    """Have two columns to predict, 0 and 1 each; spoil one cell of the first, or the second."""
    lines = [[x, y, str(int(label == "yes")), str(int(second(row)))] for row, (x, y, label) in enumerate(rows())]
    lines[3][2] = first or lines[3][2]
    return data(table(lines, "x,y,red,big"), "task.target=[red, big]", *overrides)


def tagged(tag: Callable[[int], str], *overrides: str) -> Arrange:
    """Have the labels of each row in one cell, and spoil them."""
    lines = [[x, y, tag(row)] for row, (x, y, _) in enumerate(rows())]
    return data(table(lines, "x,y,tags"), "task.target=tags", "task.kind=multilabel", *overrides)


def network(factory: str) -> Arrange:
    """Name a spoilt factory."""
    return options(f"sources.0.model=nets.py:{factory}")


def second(**settings: Any) -> Arrange:
    """Add another source, like the first in all but ``settings``."""
    net = {"name": "net", "model": "nets.py:Net", "weights": "net.safetensors", "input": {"shape": [2]}}
    return options(f"sources={json.dumps([net, net | settings])}")


def weights(content: Mapping[str, torch.Tensor] | bytes, name: str = "net.safetensors") -> Arrange:
    """Spoil the weights."""
    raw = content if isinstance(content, bytes) else save(dict(content))
    return file(name, raw, f"sources.0.weights={name}")


class Evil:
    """Unpickling it would leave a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def prediction(kind: str, name: str, content: str | bytes | Any, *more: str) -> Arrange:
    """Ask the finished run's winner about a spoilt file."""

    def arrange(home: Path) -> list[str]:
        finished(home, kind)
        if isinstance(content, np.ndarray):
            np.save(home / name, content)
        elif content is not None:
            (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["predict", "done", name, *more]

    return arrange


@functools.cache
def winner_files(kind: str) -> dict[str, bytes]:
    """Make a winner of a tiny network, once."""
    if kind == "image":
        schema = Schema("image", "classification", (8, 8), "uint8", ("cat", "dog"))
        net: nn.Module = nn.Sequential(Floats(), nn.Flatten(), nn.Linear(64, 2))
    elif kind == "mixed":
        words = (Tokenizer("words", Vocabulary(("good", "bad"), ()).content, 3),)
        columns = (Column("told", "text"), Column("x", "numeric"), Column("job", "categorical", ("cook", "smith")))
        schema = Schema("mixed", "classification", (5,), "float32", ("no", "yes"), columns, tokenizers=words)
        net = nn.Sequential(nn.Linear(5, 2))
    else:
        columns = (Column("x", "numeric"), Column("y", "numeric"))
        schema = Schema("table", "classification", (2,), "float32", ("no", "yes"), columns)
        net = nn.Sequential(nn.Linear(2, 2))
    example = np.ones((2, *schema.shape), dtype=schema.dtype)
    with tempfile.TemporaryDirectory() as place:
        save_winner(Path(place), net, schema, example, {"strategy": "scratch"})
        return {path.name: path.read_bytes() for path in Path(place).iterdir()}


class Floats(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()


def finished(home: Path, kind: str) -> Path:
    """Put a finished run called "done" into the runs folder."""
    run = home / "runs" / "done"
    (run / "winner").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(RUN)
    for name, content in winner_files(kind).items():
        (run / "winner" / name).write_bytes(content)
    return run


def spoilt_winner(name: str, content: bytes | None) -> Arrange:
    """Ask a winner one of whose own files is spoilt or missing."""

    def arrange(home: Path) -> list[str]:
        path = finished(home, "table") / "winner" / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        return ["predict", "done", "table.csv"]

    return arrange


def resumed(environment: str | None, config: str = RUN) -> Arrange:
    """Go on with a run whose folder is spoilt."""

    def arrange(home: Path) -> list[str]:
        run = home / "runs" / "stopped"
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(config.replace("task:", f"directory: {home}\ntask:"))
        if environment is not None:
            (run / "environment.json").write_text(environment)
        return ["run", "--resume", "stopped"]

    return arrange


def made(make: Callable[[Path], object], *arguments: str) -> Arrange:
    """Prepare anything else."""

    def arrange(home: Path) -> list[str]:
        make(home)
        return list(arguments)

    return arrange


def both(one: Arrange, other: Arrange) -> Arrange:
    """Spoil by both; the arguments are the second's."""
    return lambda home: (one(home), other(home))[1]


FINGERPRINTS = json.dumps({"threads": 1, "fingerprints": {"data": "another", "source net": "another"}})
GHOST = tensors() | {"4.weight": torch.zeros(3)}
WIDE = {name: torch.zeros(9, *tensor.shape[1:]) for name, tensor in tensors().items()}

_tiff = io.BytesIO()
Image.fromarray(pixels(1)[0].astype(np.float32)).save(_tiff, "tiff")
FRACTIONS = _tiff.getvalue()

CASES: dict[str, tuple[Arrange, tuple[str, ...]]] = {
    # the command line
    "no_run_file": (command("run", "rnu.yaml"), ("rnu.yaml", "a run file", "no such file", "'run.yaml'")),
    "nothing_to_run": (command("run"), ("a run file, or --data and --source", "neither")),
    "run_file_and_data": (command("run", "run.yaml", "--data", "table.csv"), ("--data", "both")),
    "source_without_data": (command("run", "--source", "timm:x"), ("--data", "only --source")),
    "target_without_data": (command("run", "--target", "label"), ("--data", "only --target")),
    "override_without_equals": (command("run", "run.yaml", "-o", "seed"), ("-o", "key=value", "'seed'")),
    "override_without_key": (command("run", "run.yaml", "-o", "=3"), ("-o", "key=value", "'=3'")),
    "override_that_is_no_yaml": (options("task.splits={tune: 0.2"), ("valid YAML", "task.splits")),
    "unknown_option": (command("run", "run.yaml", "--trials", "3"), ("--trials", "--help")),
    "unknown_command": (command("rn", "run.yaml"), ("rn", "autoxfer")),
    "unknown_plugin_off": (command("run", "run.yaml", "--no-plugin", "scrach"), ("'scrach'", "'scratch'")),
    "resume_unknown": (command("run", "--resume", "20200101"), ("'20200101'", "no run at all", "--runs runs")),
    "resume_with_options": (command("run", "--resume", "x", "-o", "seed=1"), ("--resume", "seed=1")),
    "resume_a_path_outside": (command("run", "--resume", "../elsewhere"), ("--runs runs",)),
    "resume_without_environment": (resumed(None), ("environment.json", "stopped")),
    "resume_damaged_environment": (resumed("{"), ("environment.json", "JSON")),
    "resume_environment_without_keys": (resumed("{}"), ("environment.json",)),
    "resume_damaged_config": (resumed(FINGERPRINTS, "seed: 1\n"), ("config.yaml", "task")),
    "resume_other_data": (resumed(FINGERPRINTS), ("the data that the run began with", "stopped")),
    "runs_folder_is_a_file": (command("run", "run.yaml", "--runs", "run.yaml"), ("--runs run.yaml", "a folder")),
    "runs_folder_below_a_file": (command("run", "run.yaml", "--runs", "run.yaml/runs"), ("--runs run.yaml/runs",)),
    "runs_folder_in_proc": (command("run", "run.yaml", "--runs", "/proc/runs"), ("--runs /proc/runs",)),
    # the run file as a file
    "run_file_is_a_folder": (made(lambda home: (home / "d").mkdir(), "run", "d"), ("a run file", "directory")),
    "run_file_empty": (file("run.yaml", ""), ("run.yaml", "task", "nothing")),
    "run_file_binary": (file("run.yaml", bytes(range(256))), ("run.yaml", "UTF-8", "no text")),
    "run_file_in_latin_1": (file("run.yaml", "task: {data: caf\xe9.csv}".encode("latin-1")), ("run.yaml", "UTF-8")),
    "run_file_with_tabs": (file("run.yaml", "task:\n\tdata: table.csv\n"), ("run.yaml, line 2", "valid YAML", "\\t")),
    "run_file_with_nul": (file("run.yaml", "task: \0\n"), ("run.yaml", "valid YAML")),
    "run_file_is_json_list": (file("run.yaml", "[1, 2]"), ("run.yaml", "a mapping", "[1, 2]")),
    "run_file_is_prose": (file("run.yaml", "please transfer"), ("run.yaml", "a mapping", "please transfer")),
    "run_file_with_python_tag": (
        file("run.yaml", "task: !!python/object/apply:os.system ['touch ran']\n"),
        ("run.yaml", "valid YAML", "python/object/apply:os.system"),
    ),
    "run_file_bomb": (file("run.yaml", "[" * 2000), ("run.yaml", "valid YAML")),
    # keys and values
    "unknown_key": (options("budget.trails=3"), ("'trails'", "'trials'")),
    "unknown_section": (options("gaurd.alpha=0.1"), ("'gaurd'", "'guard'")),
    "wrong_type": (options("budget=many"), ("a mapping", "'many'")),
    "no_data": (file("run.yaml", "task: {target: label}"), ("'data'", "nothing", "line 1")),
    "zero_trials": (options("budget.trials=0"), ("at least 1", "0", "budget.trials")),
    "fractional_trials": (options("budget.trials=2.5"), ("a whole number", "2.5")),
    "zero_seconds": (options("budget.seconds=0"), ("above 0", "budget.seconds")),
    "alpha_of_one": (options("guard.alpha=1"), ("guard.alpha", "below 0.5")),
    "alpha_below_zero": (options("guard.alpha=-0.05"), ("guard.alpha", "-0.05")),
    "margin_of_one": (options("guard.margin=1"), ("guard.margin", "below 1")),
    "seed_a_word": (options("seed=lucky"), ("seed", "a whole number", "'lucky'")),
    "seed_a_fraction": (options("seed=1.5"), ("seed", "1.5")),
    "seed_beyond_all_bounds": (options("seed=1" + "0" * 4400), ("seed",)),
    "unknown_engine": (options("engine=ray"), ("engine", "local", "'ray'")),
    "unknown_device": (options("device=tpu"), ("device", "cuda", "'tpu'")),
    "absent_device": (options("device=cuda:99"), ("device", "CUDA")),
    "disable_unknown_plugin": (options("plugins.disable=[lorra]"), ("plugins.disable", "'lorra'", "'lora'")),
    "disable_scratch": (options("plugins.disable=[scratch]"), ("scratch", "disabled")),
    # splits and metrics
    "split_below_zero": (options("task.splits.guard=-0.1"), ("task.splits.guard", "-0.1")),
    "splits_above_one": (options("task.splits={tune: 0.6, guard: 0.6}"), ("task.splits", "1.2")),
    "split_unknown": (options("task.splits.validate=0.1"), ("'validate'", "train, tune, guard, test")),
    "split_beyond_the_data": (options("task.splits.guard=100000"), ("task.splits", "60 examples", "100,000")),
    "split_of_astronomic_size": (options(f"task.splits.guard={10**30}"), ("task.splits", "60 examples")),
    "split_of_one": (options("task.splits.train=1"), ("2 classes in train", "train 1")),
    "splits_without_tune": (options("task.splits={tune: 0}"), ("task.splits", "at least 1", "0")),
    "split_is_text": (options("task.splits.tune=half"), ("task.splits.tune", "'half'")),
    "metric_unknown": (options("task.metric=acuracy"), ("task.metric", "'acuracy'", "accuracy")),
    "metric_of_another_task": (
        options("task.metric=rmse"),
        ("task.metric", "classification", "'rmse'", "task.kind: regression asks for that"),
    ),
    "decimal_commas": (
        data("x;y;label\n" + "".join(f"{i},5;{i % 7};{'yn'[i % 2]}\n" for i in range(60))),
        ("table.csv", "numbers with a decimal point in column 'x'", "'0,5', with a comma"),
    ),
    "word_among_numbers": (
        cells(0, "n/k", first=6, last=7),
        ("table.csv", "numbers in column 'x', as 59 of 60 of its cells are", "'n/k' in row 7", "task.ignore"),
    ),
    "regression_of_words": (options("task.kind=regression"), ("numbers", "regression", "label")),
    # the table
    "data_missing": (options("task.data=tabel.csv"), ("task.data", "tabel.csv", "'table.csv'")),
    "data_empty": (data(""), ("task.data", "empty", "table.csv")),
    "data_header_only": (data("x,y,label\n"), ("table.csv", "at least one row", "a header only")),
    "data_one_row": (data("x,y,label\n1,2,no\n"), ("table.csv", "rows to learn from", "one row")),
    "data_ragged": (data(table([*rows(), ["1"]])), ("table.csv", "3 values", "1 in line 62")),
    "data_one_column": (data("label\nyes\nno\n"), ("table.csv", "two columns")),
    "data_in_latin_1": (file("table.csv", "x,y,label\n1,2,\xe9\n".encode("latin-1")), ("table.csv", "UTF-8")),
    "data_binary": (file("table.csv", bytes(range(256)) * 4), ("table.csv",)),
    "data_column_twice": (data(table(rows(), "x,x,label")), ("table.csv", "'x'", "2 times")),
    "data_unknown_kind": (options("task.data=table.xls"), ("task.data", "table.xls")),
    "data_scheme_unknown": (options("task.data=kaggle:titanic"), ("task.data", "kaggle:titanic")),
    "data_sklearn_unknown": (options("task.data=sklearn:digit"), ("task.data", "'digit", "'digits'")),
    "target_missing": (options("task.target=lable"), ("task.target", "'lable'", "'label'")),
    "target_in_another_case": (options("task.target=LABEL"), ("task.target", "'LABEL'", "'label'")),
    "target_all_missing": (cells(2, ""), ("table.csv", "'label'", "none")),
    "one_class": (cells(2, "yes"), ("two classes", "only 'yes'", "60")),
    "class_of_one": (cells(2, "maybe", last=1), ("'maybe'", "1 in all", "task.splits")),
    "classes_all_different": (
        data(table([[*row[:2], f"name{index}"] for index, row in enumerate(rows())])),
        ("60 different values", "label"),
    ),
    "features_infinite": (cells(0, "inf", last=1), ("table.csv", "finite", "'x'", "row 1")),
    "features_too_large": (cells(0, "1e300", last=1), ("table.csv", "finite", "'x'")),
    "labels_infinite": (cells(2, "inf", "task.kind=regression"), ("finite labels", "'label'")),
    "labels_constant": (cells(2, "3.5", "task.kind=regression"), ("labels that differ", "only 3.5")),
    "nothing_to_learn_from": (data(table([["1", "1", row[2]] for row in rows()])), ("columns to learn from", "none")),
    "own_split_of_unknown_name": (
        data(table([[*row, "dev"] for row in rows()], "x,y,label,split")),
        ("'split'", "'dev'", "train"),
    ),
    "own_test_with_a_class_of_its_own": (
        data(
            table(
                [
                    [*row[:2], "new" if index > 55 else row[2], "test" if index > 50 else "train"]
                    for index, row in enumerate(rows())
                ],
                "x,y,label,split",
            )
        ),
        ("class 'new'", "train 0"),
    ),
    # texts beside numbers and categories
    "mixed_infinite_number": (told(number="inf"), ("table.csv", "finite numbers", "'inf' in column 'x', row 1")),
    "mixed_for_a_source_of_other_widths": (told(), ("source 'net'", "2 values, as the source reads", "3 values")),
    "mixed_without_a_column_that_a_source_reads": (
        told("sources.0.input={columns: [x, age]}"),
        ("source 'net'", "a table with age", "a table of x, job"),
    ),
    "ignored_column_unknown": (told("task.ignore=[jobs]"), ("task.ignore", "x, told, job", "'jobs'", "nearest: 'job'")),
    "ignored_target": (told("task.ignore=[label]"), ("task.ignore", "'label', which is no feature anyway")),
    "ignored_all": (told("task.ignore=[x, told, job]"), ("table.csv", "columns to learn from", "none")),
    "ignored_is_text": (told("task.ignore=job"), ("task.ignore", "names of columns", "'job'")),
    "ignored_of_sklearn": (
        options("task.data=sklearn:iris", "task.ignore=[petal]"),
        ("task.ignore", "no columns to ignore", "petal"),
    ),
    "ignored_of_arrays": (
        npz("task.ignore=[x]", features=np.eye(2).repeat(30, 0), label=np.arange(60) // 30),
        ("task.ignore", "no columns to ignore", "x"),
    ),
    # times
    "time_missing": (dated("task.time=wen"), ("task.time", "'wen'", "nearest: 'when'")),
    "time_is_the_target": (dated("task.time=label"), ("task.time", "'label', the target", "x, y, when")),
    "time_of_numbers_unquoted": (dated("task.time=7"), ("task.time", "text", "7")),
    "time_of_words": (dated(moment="soon"), ("column 'when'", "'soon' in example 3 (from 0)", "2024-12-31")),
    "time_day_first": (dated(moment="31/12/2024"), ("column 'when'", "'31/12/2024'")),
    "time_left_out": (dated(moment=""), ("column 'when'", "'' in example 3")),
    "time_without_an_end": (dated(moment="inf"), ("column 'when'", "'inf'")),
    "time_all_the_same": (dated(days=1), ("task.splits", "equal times kept together", "none for")),
    "time_of_two_days": (dated(days=2), ("task.splits", "equal times kept together", "none for")),
    "time_beside_groups": (dated("task.group=x"), ("task.time", "task.group", "cut")),
    "time_beside_folds": (dated("guard.folds=3"), ("task.time", "guard.folds")),
    "time_of_sklearn": (options("task.data=sklearn:iris", "task.time=t"), ("task.time", "no time", "'t'")),
    "time_of_arrays_short": (
        npz("task.time=day", features=np.eye(60), labels=labels(), day=labels(59)),
        ("day of shape (60,)", "(59,)"),
    ),
    "time_of_arrays_unknown": (npz("task.time=day", features=np.eye(60), labels=labels()), ("task.time", "no time")),
    # weights
    "weight_missing": (heavy("task.weight=wait"), ("task.weight", "'wait'", "nearest: 'weight'")),
    "weight_negative": (heavy(weight="-1"), ("column 'weight'", "'-1' in example 3", "at least 0")),
    "weight_of_words": (heavy(weight="much"), ("column 'weight'", "'much'")),
    "weight_left_out": (heavy(weight=""), ("column 'weight'", "'' in example 3")),
    "weight_infinite": (heavy(weight="inf"), ("column 'weight'", "'inf'")),
    "weight_nothing_counts": (heavy(weight="0", last=60, first=0), ("column 'weight'", "some are above 0")),
    "weight_zero_in_train": (
        both(
            heavy(weight="0"),
            heavy("task.splits={train: 10, tune: 20, guard: 20}", weight="0", first=2, last=60),
        ),
        ("task.weight", "above 0 in train", "0 for all of"),
    ),
    "weight_is_ignored_too": (heavy("task.ignore=[weight]"), ("task.ignore", "'weight', which is no feature anyway")),
    "weight_of_folders": (
        both(folder(lambda path: None), options("task.data=images", "task.target=label", "task.weight=w")),
        ("task.weight", "no weight"),
    ),
    # groups
    "group_missing": (patients("task.group=patent"), ("task.group", "'patent'", "'patient'")),
    "group_is_the_target": (patients("task.group=label"), ("task.group", "'label', the target", "x, y, patient")),
    "group_of_numbers_unquoted": (patients("task.group=7"), ("task.group", "text", "7")),
    "group_with_gaps": (patients(given=("", "A1", "A2", "A3")), ("'patient'", "none in 15 of 60", "example 0")),
    "group_of_one": (patients(given=("A1",)), ("task.group", "3 groups", "1")),
    "group_cut_by_own_parts": (
        data(
            table([[*row, f"A{i // 4}", ("train", "test")[i % 2]] for i, row in enumerate(rows())], GROUPED + ",split"),
            "task.group=patient",
        ),
        ("task.group", "cut through the groups", "own test part"),
    ),
    "group_of_sklearn": (options("task.data=sklearn:iris", "task.group=plot"), ("task.group", "no group", "'plot'")),
    "group_of_a_folder": (
        both(folder(lambda path: None), options("task.data=images", "task.target=label", "task.group=patient")),
        ("task.group", "no group", "'patient'"),
    ),
    "group_missing_in_the_npz": (
        npz("task.group=patent", features=np.ones((60, 2)), labels=labels(), patient=labels()),
        ("task.group", "'patent'", "'patient'"),
    ),
    "group_missing_in_a_part": (
        npz(
            "task.group=patient",
            train_features=np.eye(60),
            train_labels=labels(),
            test_features=np.eye(60),
            test_labels=labels(),
            train_patient=labels(),
        ),
        ("task.group", "the key test_patient beside test_features"),
    ),
    "group_of_another_length": (
        npz("task.group=patient", features=np.eye(60), labels=labels(), patient=labels(59)),
        ("data.npz", "patient of shape (60,)", "(59,)"),
    ),
    "group_of_nan": (
        npz("task.group=patient", features=np.eye(60), labels=labels(), patient=np.full(60, np.nan)),
        ("data.npz", "patient", "none in 60 of 60"),
    ),
    "parquet_that_is_none": (file("t.parquet", "x,y\n1,2\n", "task.data=t.parquet"), ("t.parquet", "Parquet")),
    # arrays
    "npz_that_is_none": (file("data.npz", "x,y\n", "task.data=data.npz"), ("data.npz", ".npz file")),
    "npz_without_images": (npz(pictures=pixels(), labels=labels()), ("data.npz", "images or features", "pictures")),
    "npz_without_labels": (npz(images=pixels()), ("data.npz", "labels")),
    "npz_lengths": (npz(images=pixels(), labels=labels(59)), ("data.npz", "as many labels", "59")),
    "npz_objects": (
        npz(images=np.array([[1], [1, 2]], dtype=object), labels=labels(2)),
        ("data.npz", "Python objects"),
    ),
    "npz_words_as_pixels": (npz(images=pixels().astype(str), labels=labels()), ("data.npz", "numbers")),
    "npz_fractions_as_pixels": (npz(images=pixels() / 255, labels=labels()), ("data.npz", "0..255", "float64")),
    "npz_negative_pixels": (npz(images=-pixels().astype(int), labels=labels()), ("data.npz", "0..255")),
    "npz_complex": (npz(features=np.ones((60, 2)) * 1j, labels=labels()), ("data.npz", "complex")),
    "npz_nan": (npz(features=np.full((60, 2), np.nan), labels=labels()), ("data.npz", "finite", "example 0")),
    "npz_zero_width": (npz(features=np.zeros((60, 0)), labels=labels()), ("data.npz", "(60, 0)")),
    "npz_no_examples": (npz(features=np.zeros((0, 2)), labels=labels(0)), ("data.npz", "at least one example")),
    "npz_five_axes": (npz(images=np.zeros((6, 2, 2, 2, 3), "u1"), labels=labels(6)), ("data.npz", "(6, 2, 2, 2, 3)")),
    "npz_channels_first": (npz(images=np.zeros((60, 3, 8, 8), "u1"), labels=labels()), ("data.npz", "channels last")),
    "npz_labels_of_three_axes": (
        npz(images=pixels(), labels=np.zeros((60, 2, 2), np.int64)),
        ("data.npz", "labels of shape (n,), or (n, k)", "(60, 2, 2)"),
    ),
    "npz_more_labels_than_names": (
        npz(images=pixels(), labels=labels() + 5, class_names=np.array(["cat", "dog"])),
        ("labels 5..6", "class names"),
    ),
    "npz_parts_unlike": (
        npz(train_images=pixels(), train_labels=labels(), test_images=pixels(size=9), test_labels=labels()),
        ("data.npz", "(8, 8)", "(9, 9)"),
    ),
    "all_examples_alike": (npz(features=np.ones((60, 2)), labels=labels()), ("every split", "60")),
    # images
    "images_without_classes": (
        folder(lambda path: [each.rename(path.parent / each.name) for each in path.iterdir()]),
        ("images", "a folder per class"),
    ),
    "images_corrupt": (folder(spoil_images(lambda image: b"\x89PNG no more")), ("3 of 20", "cat/0.png", "can be read")),
    "images_empty": (folder(spoil_images(lambda image: b"")), ("3 of 20", "cat/0.png", "no kind of image")),
    "images_cut_short": (folder(spoil_images(lambda image: image[:60])), ("3 of 20", "cat/0.png", "can be read")),
    "images_of_fractions": (folder(spoil_images(lambda image: FRACTIONS)), ("3 of 20", "cat/0.png", "fractions")),
    "listed_images_all_missing": (
        listed(lambda home: shutil.rmtree(home / "shots")),
        ("list.csv: column 'file'", "image files that exist", "20 of 20", "row 0", "0.png"),
    ),
    "listed_images_many_missing": (
        listed(lambda home: [(home / "shots" / f"{row}.png").unlink() for row in (4, 5, 6)]),
        ("3 of 20", "row 4 (from 0)", "4.png"),
    ),
    "listed_images_broken": (
        listed(lambda home: [(home / "shots" / f"{row}.png").write_bytes(b"x") for row in (4, 5, 6)]),
        ("3 of 20 that cannot", "4.png"),
    ),
    "listed_images_elsewhere": (
        listed(lambda home: (home / "list.csv").write_text((home / "list.csv").read_text().replace("shots", "shot"))),
        ("no such file for 20 of 20", "paths that start at the table's folder"),
    ),
    "listed_images_twice": (
        listed(lambda home: (home / "list.csv").write_text(doubled((home / "list.csv").read_text()))),
        ("one column of images", "2: file, file2", "task.ignore"),
    ),
    "listed_images_of_no_group": (listed(lambda home: None, "task.group=pacient"), ("task.group", "'pacient'")),
    "memory_bound_of_words": (
        both(made(lambda home: os.environ.update(AUTOXFER_MEMORY_GB="much")), folder(lambda path: None)),
        ("AUTOXFER_MEMORY_GB", "gigabytes", "'much'"),
    ),
    "images_of_one_class": (folder(lambda path: shutil.rmtree(path / "dog")), ("'cat'",)),
    # Arrow
    "arrow_missing": (options("task.data=t.arrow"), ("task.data", "no t.arrow")),
    "arrow_empty": (file("t.arrow", "", "task.data=t.arrow"), ("task.data", "empty file")),
    "arrow_of_prose": (file("t.arrow", "prose " * 99, "task.data=t.arrow"), ("t.arrow", "a whole Arrow file")),
    "arrow_cut_short": (saved_set(cut=True), ("data-00000-of-00001.arrow", "a whole Arrow file")),
    "feather_cut_short": (file("t.feather", b"ARROW1\0\0more", "task.data=t.feather"), ("t.feather", "a whole Arrow")),
    "saved_set_without_train": (saved_set("test", "validation"), ("saved", "a split called train", "test, validation")),
    "saved_set_without_its_folder": (
        both(
            saved_set("train", "test"),
            made(lambda home: shutil.rmtree(home / "saved" / "test"), "run", "run.yaml", "-o", "task.data=hf:saved"),
        ),
        ("a folder for the split 'test'", "dataset_dict.json"),
    ),
    "saved_set_of_bad_json": (
        both(saved_set("train"), file("saved/train/state.json", "{", "task.data=saved")),
        ("state.json", "JSON"),
    ),
    "saved_set_of_no_target": (saved_set("train", target="lable"), ("task.target", "'lable'", "nearest: 'label'")),
    "hub_out_of_reach": (
        options("task.data=hf:nobody/nothing"),
        ("task.data", "a data set on a hub that answers", "no file nobody/nothing"),
    ),
    "hub_folder_of_nothing": (
        made(lambda home: (home / "empty").mkdir(exist_ok=True), "run", "run.yaml", "-o", "task.data=hf:empty"),
        ("empty", "save_to_disk", "none of them"),
    ),
    # sources
    "source_twice_by_its_weights_name": (
        options(
            'sources=[{model: "nets.py:Net", weights: net.safetensors}, {model: "nets.py:Two", '
            "weights: sub/net.safetensors}]"
        ),
        ("every name once", "'net' at 0 and 1"),
    ),
    "source_called_like_a_built_in": (options("sources.0.name=compact"), ("sources", "'compact'")),
    "source_named_like_two_together": (options("sources.0.name=a+b"), ("sources.0.name", "'.', '_' and '-'", "a+b")),
    "source_twice_without_a_name": (
        options("sources=['timm:resnet18', 'timm:resnet18']"),
        ("sources", "every name once", "'resnet18' at 0 and 1"),
    ),
    "sources_that_differ_in_case": (second(name="Net"), ("sources", "every name once", "'net' at 0 and 'Net' at 1")),
    "second_source_does_not_fit": (
        both(
            file("odd.safetensors", save({**tensors(), "0.weight": torch.zeros(8, 3)})),
            second(name="odd", model="nets.py:Odd", weights="odd.safetensors", input={"shape": [3]}),
        ),
        ("source 'odd'", "2", "3"),
    ),
    "second_source_without_its_weights": (
        second(name="odd", weights="odd.safetensors"),
        ("sources.odd.weights", "odd.safetensors"),
    ),
    "second_source_of_another_width": (
        second(name="odd", options={"width": 9}),
        ("sources.odd.weights", "0.weight 9x2 in the network, 8x2 in the file"),
    ),
    "strategy_with_its_sources": (options("strategies=['residual@a+b']"), ("strategies", "'residual@a+b'", "residual")),
    "source_of_unknown_scheme": (options("sources.0.model=torchhub:resnet"), ("sources.net", "torchhub:resnet")),
    "source_file_missing": (options("sources.0.model=netz.py:Net"), ("sources.net.model", "netz.py")),
    "source_module_missing": (options("sources.0.model=my.nets:Net"), ("sources.net.model", "no module my")),
    "source_file_broken": (file("nets.py", "import nothing_of_the_kind\n"), ("nets.py", "nothing_of_the_kind")),
    "source_file_with_an_error": (file("nets.py", "def Net(:\n"), ("nets.py", "SyntaxError")),
    "source_file_that_exits": (file("nets.py", "raise SystemExit(0)\n"), ("nets.py", "SystemExit")),
    "factory_missing": (network("Nat"), ("sources.net.model", "Nat", "Net")),
    "factory_is_a_number": (network("width"), ("sources.net.model", "int")),
    "factory_returns_words": (network("words"), ("sources.net.model", "torch.nn.Module", "words() -> str")),
    "factory_raises": (network("broken"), ("sources.net.model", "no such width")),
    "factory_options_unknown": (options("sources.0.options.depth=3"), ("sources.net.model", "depth")),
    "network_returns_a_tuple": (network("Two"), ("net", "one tensor", "tuple")),
    "network_fails_on_its_input": (options("sources.0.input.shape=[5]"), ("net", "input shape 5", "RuntimeError")),
    "network_that_fixes_its_batch": (network("Fixed"), ("net", "runs on its input shape 2")),
    "network_that_cannot_be_exported": (network("Fickle"), ("sources.net.model", "torch.export")),
    "weights_left_out": (options("sources.0.weights=null"), ("sources.net.weights", "none")),
    "weights_missing": (options("sources.0.weights=nat.safetensors"), ("sources.net.weights", "nat.safetensors")),
    "weights_are_a_folder": (
        both(file("w.safetensors/x", ""), options("sources.0.weights=w.safetensors")),
        ("sources.net.weights", "w.safetensors", "folder"),
    ),
    "weights_empty": (weights(b""), ("sources.net.weights", "net.safetensors")),
    "weights_of_prose": (weights(b"not weights at all", "net.pt"), ("sources.net.weights", "net.pt")),
    "weights_too_wide": (weights(WIDE), ("sources.net.weights", "0.weight 8x2 in the network, 9x2 in the file")),
    "weights_of_another_depth": (weights(GHOST), ("sources.net.weights", "4.weight", "missing in the network")),
    "weights_nan": (weights({**tensors(), "0.bias": torch.full((8,), torch.nan)}), ("finite weights", "0.bias")),
    "weights_that_want_to_run_code": (weights(pickle.dumps({"x": Evil()}), "net.pth"), ("net.pth", "not run")),
    "input_left_out": (options("sources.0.input={}"), ("sources.net.input", "shape", "no JSON card net.json")),
    "input_key_unknown": (options("sources.0.input.shapes=[2]"), ("sources.net.input", "'shapes'", "shape")),
    "input_shape_of_words": (options("sources.0.input.shape=[three, 8, 8]"), ("sources.net.input", "three")),
    "input_std_zero": (options("sources.0.input.std=0"), ("sources.net.input", "std above 0")),
    "card_that_is_no_json": (
        file("net.json", "{shape: [2]}", "sources.0.input={}"),
        ("net.json", "a JSON card"),
    ),
    "card_without_shape": (file("net.json", "{}", "sources.0.input={}"), ("sources.net.input", "shape")),
    "card_that_is_a_list": (file("net.json", "[2]", "sources.0.input={}"), ("net.json", "list")),
    "card_in_latin_1": (file("net.json", b'{"x": "\xe9"}', "sources.0.input={}"), ("net.json", "a JSON card")),
    "data_that_do_not_fit_the_source": (
        data(table([["1", *row] for row in rows()], "z,x,y,label").replace("\n1,", "\n2,", 30)),
        ("source 'net'", "2", "3"),
    ),
    "timm_name_unknown": (options("sources.0={model: 'timm:resnet19'}"), ("'resnet19'", "'resnet18'")),
    # several labels, several numbers
    "target_list_empty": (several("task.target=[]"), ("task.target", "list of names", "[]")),
    "target_list_of_numbers": (several("task.target=[red, 2]"), ("task.target", "in quotes", "2")),
    "target_named_twice": (several("task.target=[red, red]"), ("different names", "'red', 2 times")),
    "target_among_several_unknown": (several("task.target=[red, bug]"), ("'bug'", "nearest: 'big'")),
    "targets_for_one_class": (several("task.kind=classification"), ("one column", "2 columns")),
    "targets_of_words": (several(first="crimson"), ("0 and 1", "or numbers", "'crimson' in column 'red'")),
    "targets_of_words_as_numbers": (several("task.kind=regression", first="no"), ("numbers", "'no' in column 'red'")),
    "labels_of_other_numbers": (several("task.kind=multilabel", first="2"), ("0 and 1", "'2' in column 'red'")),
    "label_never_true": (several(second=lambda row: False), ("task.target", "'big' never true in 60")),
    "label_always_true": (several(second=lambda row: True), ("task.target", "'big' always true in 60")),
    "label_true_once": (several(second=lambda row: row == 5), ("every label true and false", "'big', true of")),
    "label_false_once_in_folds": (
        several("guard.folds=3", second=lambda row: row != 5),
        ("guard.folds", "every label true and false in train of every fold", "'big', true of 59 of 60"),
    ),
    "number_that_never_changes": (
        several("task.kind=regression", second=lambda row: True),
        ("targets that differ", "'big' always 1"),
    ),
    "labels_without_rows": (
        data(table([["1", "2", "", "1"]] * 60, "x,y,red,big"), "task.target=[red, big]"),
        ("a value in each of red, big", "none"),
    ),
    "metric_of_classes_for_labels": (several("task.metric=mcc"), ("a metric for multilabel", "'mcc'")),
    "metric_of_labels_for_classes": (options("task.metric=hamming_loss"), ("a metric for classification", "hamming")),
    "group_among_the_targets": (several("task.group=big"), ("task.group", "'big', the target")),
    "tags_without_a_separator": (tagged(lambda row: ("a", "b")[row % 2]), ("with ; or |", "one label, or none")),
    "tags_all_missing": (tagged(lambda row: "NA"), ("labels in column 'tags'", "none")),
    "tag_once": (tagged(lambda row: "a;b" if row == 7 else ("a", "")[row % 2]), ("every label true", "'b', true of")),
    "label_arrays_of_other_numbers": (
        npz(features=np.eye(60), labels=np.stack([labels(), labels() * 2], 1)),
        ("0 and 1 as labels (n, k)", "2"),
    ),
    "label_arrays_with_too_few_names": (
        npz(features=np.eye(60), labels=np.stack([labels(), 1 - labels()], 1), class_names=["one"]),
        ("a name for each of 2", "1 names"),
    ),
    "label_arrays_for_one_class": (
        npz("task.kind=classification", features=np.eye(60), labels=np.stack([labels(), labels()], 1)),
        ("labels of shape (n,)", "(60, 2)"),
    ),
    "label_arrays_of_one_label": (
        npz("task.kind=multilabel", features=np.eye(60), labels=labels()),
        ("labels of shape (n, k)", "(60,)"),
    ),
    "number_arrays_with_a_gap": (
        npz(features=np.eye(60), labels=np.stack([np.arange(60.0), np.where(labels(), 1.5, np.nan)], 1)),
        ("finite labels", "example 0"),
    ),
    "targets_of_arrays": (
        npz("task.target=[labels, other]", features=np.eye(60), labels=labels(), other=labels()),
        ("one name as target", "2"),
    ),
    "labels_of_folders": (
        both(folder(lambda path: None), options("task.data=images", "task.target=label", "task.kind=multilabel")),
        ("task.target", "the folders' names", "multilabel"),
    ),
    "labels_of_scikit_learn": (
        options("task.data=sklearn:iris", "task.target=label", "task.kind=multilabel"),
        ("task.kind", "one label for each example", "multilabel"),
    ),
    # strategies
    "strategy_unknown": (options("strategies.1=liner_probe"), ("'liner_probe'", "'linear_probe'")),
    "strategy_twice": (options("strategies.1=scratch"), ("'scratch' at 0 and 1",)),
    "strategies_without_transfer": (options("strategies=[scratch]"), ("at least one transfer strategy",)),
    "no_sources_at_all": (options("sources=[]"), ("source",)),
    "parameter_unknown": (options("strategies.1={linear_probe: {stength: 1}}"), ("'stength'", "linear_probe")),
    "parameter_below_zero": (options("strategies.1={fine_tune: {lr: -1}}"), ("fine_tune.lr", "above 0", "-1")),
    "parameter_of_zero": (options("strategies.1={fine_tune: {batch: 0}}"), ("fine_tune.batch", "above 0", "0")),
    "parameter_not_offered": (options("strategies.0={scratch: {architecture: wide}}"), ("compact_wide", "'wide'")),
    "parameter_that_cannot_be_built": (options("strategies.1={fine_tune: {dropout: 7}}"), ("fine_tune", "dropout")),
    "strategy_without_a_source_given": (options("sources=null", "strategies=[lora]"), ("sources", "at least one")),
    "parameter_of_words": (options("strategies.1={fine_tune: {lr: fast}}"), ("fine_tune", "lr", "fast")),
    # MLflow
    "mlflow_file_missing": (command("run", "run.yaml", "--mlflow", "mflow.yaml"), ("--mlflow mflow.yaml",)),
    "mlflow_file_is_no_yaml": (file("mlflow.yaml", "a: [1\n"), ("mlflow.yaml", "YAML")),
    "mlflow_key_unknown": (file("mlflow.yaml", "tracking_url: x\n"), ("mlflow.yaml", "'tracking_url'")),
    "mlflow_scheme_unknown": (file("mlflow.yaml", "tracking_uri: ftp://x\n"), ("mlflow.yaml", "ftp://x")),
    "mlflow_alias_reserved": (file("mlflow.yaml", "aliases: {champion: latest}\n"), ("mlflow.yaml", "'latest'")),
    "mlflow_server_silent": (
        file("mlflow.yaml", "tracking_uri: http://127.0.0.1:9\n"),
        ("mlflow.yaml: tracking_uri", "http://127.0.0.1:9", "no answer"),
    ),
    "mlflow_database_is_none": (
        both(file("x.db", "prose " * 99), file("mlflow.yaml", "tracking_uri: sqlite:///x.db\n")),
        ("mlflow.yaml: tracking_uri", "database"),
    ),
    # planning and predicting
    "plan_without_file": (command("plan", "rnu.yaml"), ("rnu.yaml", "no such file")),
    "plan_of_bad_data": (made(lambda home: (home / "table.csv").write_text(""), "plan", "run.yaml"), ("empty",)),
    "predict_unknown_run": (command("predict", "nope", "table.csv"), ("'nope'", "no run at all")),
    "predict_unfinished_run": (both(resumed("{}"), command("predict", "stopped", "table.csv")), ("not finished",)),
    "predict_file_missing": (prediction("table", "new.csv", None), ("new.csv", "no such file")),
    "predict_wrong_kind": (prediction("table", "new.npz", b""), ("new.npz", ".csv or .parquet")),
    "predict_wrong_columns": (prediction("table", "new.csv", "x,z\n1,2\n"), ("new.csv", "columns x, y", "called y")),
    "predict_words": (prediction("table", "new.csv", "x,y\n1,two\n"), ("new.csv", "'y'", "'two'")),
    "predict_header_only": (prediction("table", "new.csv", "x,y\n"), ("new.csv", "at least one")),
    "predict_empty": (prediction("table", "new.csv", ""), ("new.csv",)),
    "predict_ragged": (prediction("table", "new.csv", "x,y\n1\n"), ("new.csv", "as many values")),
    "predict_without_the_text": (
        prediction("mixed", "new.csv", "x,job\n1,cook\n"),
        ("new.csv", "columns told, x, job", "none called told"),
    ),
    "predict_without_a_column_beside_the_text": (
        prediction("mixed", "new.csv", "told,job\ngood,cook\n"),
        ("new.csv", "columns told, x, job", "none called x"),
    ),
    "predict_a_word_beside_a_text": (
        prediction("mixed", "new.csv", "told,x,job\ngood,two,cook\n"),
        ("new.csv", "numbers in column 'x'", "'two'"),
    ),
    "predict_lines_without_columns": (
        prediction("mixed", "new.txt", "good\nbad\n"),
        ("new.txt", ".csv or .parquet", "a .txt file"),
    ),
    "predict_header_of_a_mixed_table_only": (
        prediction("mixed", "new.csv", "told,x,job\n"),
        ("new.csv", "at least one row"),
    ),
    "predict_wrong_size": (prediction("image", "new.npy", pixels(3, 9)), ("new.npy", "(n, 8, 8)", "(3, 9, 9)")),
    "predict_fractions": (prediction("image", "new.npy", pixels(3) / 255), ("new.npy", "0..255", "float64")),
    "predict_scalar": (prediction("image", "new.npy", np.array(3)), ("new.npy", "(n, 8, 8)")),
    "predict_corrupt_image": (prediction("image", "new.png", b"no image"), ("new.png", "can be read")),
    "predict_corrupt_array": (prediction("image", "new.npy", b"no array"), ("new.npy", "numpy")),
    "predict_pickle": (prediction("image", "new.npy", pickle.dumps(Evil())), ("new.npy", "without Python objects")),
    "predict_into_no_folder": (
        prediction("table", "new.csv", "x,y\n1,2\n", "--output", "no/where.csv"),
        ("--output no/where.csv",),
    ),
    "winner_changed": (spoilt_winner("model.safetensors", b"other"), ("model.safetensors", "changed")),
    "winner_incomplete": (spoilt_winner("model.pt2", None), ("model.pt2", "no such file")),
    "winner_of_bad_json": (spoilt_winner("model.json", b"{"), ("model.json", "JSON")),
}


def call(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> SimpleNamespace:
    """Run the command line in this process."""
    capfd.readouterr()
    started = time.perf_counter()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    out, err = capfd.readouterr()
    return SimpleNamespace(code=stopped.value.code, out=out, err=err, seconds=time.perf_counter() - started)


def left_behind(home: Path) -> set[str]:
    """Name every run's folder, and the mark of code that should not have run."""
    patterns = ("runs/", "runs/*/", "ran", "**/best.safetensors")
    return {str(path) for pattern in patterns for path in home.glob(pattern)}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_message_and_nothing_else(case: str, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arrange, words = CASES[case]
    arguments = arrange(home)
    before = left_behind(home)
    result = call(arguments, capfd)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    start = result.err.index("error: ")
    message = result.err[start:].splitlines()
    assert (result.err.count("error: "), len(message)) == (1, 3), result.err
    assert [line.split()[0] for line in message] == ["error:", "expected", "found"]
    for word in words:
        assert word in result.err[start:], result.err
    assert max(map(len, message)) < 600
    assert (result.out, left_behind(home)) == ("", before)
    assert result.seconds < PATIENCE_S
    answer = call([*arguments, "--json"], capfd)
    assert answer.code == 2
    error = json.loads(answer.out)["error"]
    assert list(error) == ["expected", "found", "where"]
    assert all(error.values())
    assert message == [f"error: {error['where']}", f"  expected  {error['expected']}", f"  found     {error['found']}"]
    assert left_behind(home) == before


def test_what_the_cases_spoil_was_right(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "run.yaml"], capfd).code == 0
    many = tuple(f"A{index}" for index in range(15))
    planned = call(["plan", *patients(given=many)(home)[1:]], capfd)
    assert (planned.code, "groups: 6 in train, 3 in tune, 6 in guard" in planned.out) == (0, True)
    assert call(prediction("table", "new.csv", "x,y\n1,2\n")(home), capfd).code == 0
    assert call(["predict", "done", "table.csv"], capfd).code == 0
    finished(home, "image")
    assert call(prediction("image", "new.npy", pixels(3))(home), capfd).code == 0
    assert call(prediction("mixed", "new.csv", "told,x,job\ngood,,cook\n,1,smith\n")(home), capfd).code == 0
    planned = call(["plan", *told("sources.0.input={columns: [x, job=cook]}", "task.ignore=[told]")(home)[1:]], capfd)
    assert (planned.code, "of table examples" in planned.out) == (0, True)
    planned = call(["plan", *told("sources.0.input={columns: [x, job=cook]}")(home)[1:]], capfd)
    assert (planned.code, "of mixed examples" in planned.out) == (0, True)


@pytest.mark.parametrize("case", ["zero_trials", "data_ragged", "weights_that_want_to_run_code", "resume_unknown"])
def test_a_process_of_its_own_says_the_same(case: str, home: Path) -> None:
    arrange, words = CASES[case]
    arguments = [sys.executable, "-m", "autoxfer", *arrange(home), "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=home)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert set(json.loads(done.stdout)["error"]) == {"expected", "found", "where"}
    for word in words:
        assert word in done.stdout
    assert left_behind(home) == set()
