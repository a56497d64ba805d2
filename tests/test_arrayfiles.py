"""What large arrays in files promise: the numbers that they have read whole, and never much memory."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.npz_data import NpzReader
from safetensors.torch import save_file
from test_streaming import both_ways
from torch import nn

from autoxfer import DataSpec, arrayfiles, keeping, mapped
from autoxfer.arrayfiles import Archive, slices
from autoxfer.dataset import Schema
from autoxfer.errors import InputError
from autoxfer.export import save_winner
from autoxfer.features import Features
from autoxfer.mapped import mapping
from autoxfer.prediction import load, predict_file
from autoxfer.preparation import prepare
from autoxfer.splitting import split
from autoxfer.strategy import Raw
from autoxfer.streaming import plain, take
from autoxfer.traindata import TrainTensors

N = 300


def pixels(n=N, seed=0, shape=(6, 8)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def vectors(n=N):
    return np.random.default_rng(1).normal(size=(n, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """A cache of its own, blocks of some rows, and so little memory that every set goes to disk."""
    monkeypatch.setenv("AUTOXFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "1e-6")
    for module in (mapped, arrayfiles):
        monkeypatch.setattr(module, "HELD_BYTES", 500)


def read(tmp_path, **arrays):
    save = arrays.pop("save", np.savez)
    save(tmp_path / "d.npz", **arrays)
    return NpzReader().read(DataSpec(str(tmp_path / "d.npz")))


def in_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "1")
    return NpzReader().read(DataSpec(str(tmp_path / "d.npz")))


CASES = {
    "images": pixels(),
    "colour": pixels(shape=(4, 4, 3)),
    "whole numbers": pixels().astype(np.int64),
    "columns first": np.asfortranarray(pixels()),
    "vectors": vectors(),
    "double": vectors().astype(np.float64),
    "vectors, columns first": np.asfortranarray(vectors()),
    "another machine's": vectors().astype(">f4"),
    "half": vectors().astype(np.float16),
    "booleans": vectors() > 0,
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("case", CASES)
def test_on_disk_examples_are_the_same_bit_for_bit(tmp_path, monkeypatch, case, save):
    x = CASES[case]
    keys = {"features" if x.ndim == 2 else "images": x}
    disk = read(tmp_path, labels=np.arange(N) % 3, save=save, **keys)
    memory = in_memory(monkeypatch, tmp_path)
    assert mapping(disk.examples) is not None
    assert mapping(memory.examples) is None
    assert disk.examples.dtype == memory.examples.dtype
    assert np.array_equal(memory.examples, x.astype(memory.examples.dtype))
    assert np.array_equal(disk.examples, memory.examples)
    assert disk.schema == memory.schema
    assert disk.warnings == memory.warnings == ()
    assert disk.fingerprint() == memory.fingerprint()


def test_parts_lie_one_after_the_other(tmp_path):
    found = read(
        tmp_path,
        train_images=pixels(),
        train_labels=np.arange(N) % 2,
        test_images=pixels(50, 1),
        test_labels=np.arange(50) % 2,
    )
    assert mapping(found.examples) is not None
    assert np.array_equal(found.examples, np.concatenate([pixels(), pixels(50, 1)]))
    assert found.parts["test"].tolist() == list(range(N, N + 50))


def test_large_arrays_are_never_read_whole_nor_those_that_nobody_asked_for(tmp_path, monkeypatch):
    whole: list[str] = []
    plain = Archive.read
    monkeypatch.setattr(Archive, "read", lambda archive, key: whole.append(key) or plain(archive, key))
    read(tmp_path, images=pixels(), labels=np.arange(N) % 2, features=vectors())
    assert set(whole) == {"labels"}


def test_the_second_time_nothing_is_read_unless_the_file_changed(tmp_path, monkeypatch):
    y = np.arange(N) % 2
    read(tmp_path, images=pixels(), labels=y)
    blocks: list[str] = []
    whole = Archive.blocks
    monkeypatch.setattr(Archive, "blocks", lambda *words: blocks.append(words[1]) or whole(*words))
    assert np.array_equal(read(tmp_path, images=pixels(), labels=y).examples, pixels())
    assert blocks == []
    assert np.array_equal(read(tmp_path, images=pixels(seed=2), labels=y).examples, pixels(seed=2))
    assert blocks == ["images"]


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 99], ids=["empty", "short", "noise"])
def test_a_damaged_file_of_the_cache_is_written_again(tmp_path, damage):
    read(tmp_path, images=pixels(), labels=np.arange(N) % 2)
    (entry,) = (tmp_path / "cache" / "pixels").iterdir()
    entry.write_bytes(damage)
    assert np.array_equal(read(tmp_path, images=pixels(), labels=np.arange(N) % 2).examples, pixels())


def test_without_a_cache_the_examples_lie_in_a_file_that_nobody_sees(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOXFER_CACHE", "off")
    found = read(tmp_path, features=vectors(), labels=np.arange(N) % 2)
    assert mapping(found.examples) is not None
    assert np.array_equal(found.examples, vectors())
    assert not (tmp_path / "cache").exists()


def bad(row, value):
    x = vectors()
    x[row, 2] = value
    return x


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named_by_its_place_in_all(tmp_path, value):
    with pytest.raises(InputError, match=r"NaN or infinity in example 207$"):
        read(tmp_path, features=bad(207, value), labels=np.arange(N) % 2)
    parts = {"val_features": bad(7, value), "train_features": vectors()}
    with pytest.raises(InputError, match=f"NaN or infinity in example {N + 7}$"):
        read(tmp_path, train_labels=np.arange(N), val_labels=np.arange(N), **parts)
    assert list((tmp_path / "cache" / "pixels").iterdir()) == []  # whole, or not there


def test_a_value_that_is_no_pixel_is_found_wherever_it_stands(tmp_path):
    x = pixels().astype(np.int32)
    x[-1, 0, 0] = 256
    with pytest.raises(InputError, match="256"):
        read(tmp_path, images=x, labels=np.arange(N) % 2)


def archive(tmp_path):
    np.savez(tmp_path / "d.npz", labels=np.arange(N) % 2, images=pixels())
    return tmp_path / "d.npz"


def test_a_file_that_is_cut_short_is_told_in_one_message(tmp_path):
    path = archive(tmp_path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InputError, match=r"d.npz: expected a .npz file.*\(it is cut short\)$"):
        NpzReader().read(DataSpec(str(path)))


def test_a_byte_that_is_not_as_written_is_noticed(tmp_path):
    path = archive(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(pixels().tobytes()) + 5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        NpzReader().read(DataSpec(str(path)))
    assert list(tmp_path.rglob("cache/pixels/*")) == []


def test_an_array_that_holds_less_than_it_says_is_refused_before_room_is_made(tmp_path):
    for key, x in {"images": pixels(), "labels": np.arange(N)}.items():
        np.save(tmp_path / f"{key}.npy", x)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.write(tmp_path / "labels.npy", "labels.npy")
        file.writestr("images.npy", (tmp_path / "images.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="images ends before its 14,400 bytes"):
        NpzReader().read(DataSpec(str(tmp_path / "d.npz")))


def test_no_pickle_is_opened_wherever_it_stands(tmp_path):
    with pytest.raises(InputError, match="Python objects"):
        read(tmp_path, images=pixels(), labels=np.arange(N), notes=np.array([{}], dtype=object))


def test_a_disk_without_room_is_told_and_memory_is_taken_while_there_is_some(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping.Store, "write", lambda *words: None)
    found = read(tmp_path, images=pixels(), labels=np.arange(N) % 2)
    assert np.array_equal(found.examples, pixels())
    assert found.warnings == ("the examples take 1.44e-05 GB of memory: the disk has no room for them",)
    monkeypatch.setattr(keeping, "all_bytes", lambda: 2 * pixels().nbytes - 1)
    with pytest.raises(InputError, match=r"d.npz: expected room for 1.44e-05 GB of examples in the cache") as caught:
        read(tmp_path, images=pixels(), labels=np.arange(N) % 2)
    assert "the disk" not in caught.value.expected


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, monkeypatch):
    written = []

    def full(file, content, member):
        written.append(len(content))
        raise InputError("room", os.strerror(errno.ENOSPC), member.key)

    monkeypatch.setattr(arrayfiles, "_put", full)
    with pytest.raises(InputError, match="No space left"):
        read(tmp_path, images=np.asfortranarray(pixels()), labels=np.arange(N) % 2)
    assert written
    assert list((tmp_path / "cache" / "pixels").iterdir()) == []


def test_statistics_splits_and_a_batch_of_vectors_are_the_same(tmp_path, monkeypatch):
    x = vectors()
    x[3], x[9, 1], x[10, 1] = x[4], 0.0, -0.0
    x[10] = np.where(np.arange(5) == 1, -0.0, x[9])
    disk = read(tmp_path, features=x, labels=np.arange(N) % 2)
    memory = in_memory(monkeypatch, tmp_path)
    splits, again = split(disk, None, 0), split(memory, None, 0)
    assert splits.warnings == again.warnings
    assert splits.warnings[0].startswith("2 of 300 examples are exact copies")
    found = []
    for each in (disk, memory):
        stored = take(each.examples, splits.rows["train"])
        preparation = prepare(each.schema, plain(stored))
        features = Features(preparation, {}, {"train": stored}, torch.device("cpu"))
        found.append((preparation.standardise, features.batch((Raw(),), "train", torch.tensor([5, 3, 5]))[0]))
    assert torch.equal(found[0][0].mean, found[1][0].mean)
    assert torch.equal(found[0][0].deviation, found[1][0].deviation)
    assert torch.equal(found[0][1], found[1][1])
    natural = x[splits.rows["train"]].astype(np.float64)
    assert np.allclose(found[0][0].mean.numpy(), natural.mean(0), atol=1e-7)
    assert np.allclose(found[0][0].deviation.numpy(), natural.std(0), rtol=1e-6)


def test_models_that_are_solved_take_as_many_examples_as_memory_bears_and_every_class(tmp_path, monkeypatch):
    y = np.zeros(N, dtype=np.int64)
    y[17], y[200:] = 2, 1
    data = read(tmp_path, features=vectors(), labels=y)
    stored = take(data.examples, np.arange(N))
    labels = torch.from_numpy(y)
    features = Features(prepare(data.schema, plain(stored)), {}, {"train": stored}, torch.device("cpu"))
    whole = TrainTensors(features, None, labels)
    some = whole.sample(Raw())
    assert 100 <= len(some.labels) <= 103
    assert some.labels.unique().tolist() == [0, 1, 2]
    place = [(features.whole(Raw(), "train") == row).all(1).nonzero().item() for row in some[Raw()]]
    assert torch.equal(labels[place], some.labels)
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "1")
    assert whole.sample(Raw()) is whole


def test_an_error_in_a_file_to_predict_counts_from_its_beginning(winner):
    predictor, folder = winner
    np.save(folder / "new.npy", bad(290, np.nan))
    with pytest.raises(InputError, match=r"NaN or infinity in example 290$"):
        predict_file(predictor, folder / "new.npy")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_a_large_file_is_predicted_as_an_array_is(winner, ending, order):
    predictor, folder = winner
    x = np.asarray(np.random.default_rng(3).normal(size=(700, 5)), np.float32, order)
    np.savez(folder / "new.npz", features=x) if ending == "npz" else np.save(folder / "new.npy", x)
    rows = predict_file(predictor, folder / f"new.{ending}")
    outputs = predictor.outputs(x)
    assert [row["row"] for row in rows] == list(range(700))
    assert [row["probability"] for row in rows] == outputs.max(1).tolist()


def test_blocks_hold_a_multiple_of_rows():
    x = np.arange(700 * 5, dtype=np.float32).reshape(700, 5)
    assert [len(part) for part in slices(x, 256)] == [256, 256, 188]
    assert np.array_equal(np.concatenate(list(slices(x, 256))), x)


@pytest.fixture(scope="module")
def winner(tmp_path_factory):
    """A linear winner of vectors."""
    place = tmp_path_factory.mktemp("winner")
    schema = Schema("vector", "classification", (5,), "float32", ("no", "yes"))
    made = prepare(schema, vectors())
    torch.manual_seed(0)
    save_winner(place, nn.Sequential(made.unpack, made.standardise, nn.Linear(5, 2)), schema, vectors()[:2], {})
    return load(place), place


NETS = """
from torch import nn

def images():
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3))

def features():
    return nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
"""
QUICK = {"steps": 6, "batch": 32}
RUN = {
    "strategies": [{"scratch": {"architecture": "compact", **QUICK}}, {"residual": QUICK}, "linear_probe"],
    "budget": {"trials": 1},
    "guard": {"when_undecided": "best_tune"},
    "final": "refit",
    "device": "cpu",
}


def project(folder, kind, n, *, width=512, side=64, save=np.savez, **task):
    """Make a .npz whose classes differ in brightness, and a source of random weights."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    if kind == "images":
        x = rng.integers(0, 150, (n, side, side, 3), dtype=np.uint8)
        x += (60 * y).astype(np.uint8)[:, None, None, None]
    else:
        x = rng.normal(size=(n, width)).astype(np.float32)
        x[:, :5] += y[:, None]
    save(folder / "d.npz", **{kind: x, "labels": y})
    (folder / "nets.py").write_text(NETS.replace("512", str(width)))
    (folder / "mlflow.yaml").write_text("enabled: false\n")
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    exec(NETS.replace("512", str(width)), namespace)
    save_file(namespace[kind]().state_dict(), folder / "net.safetensors")
    shape = [3, side, side] if kind == "images" else [width]
    source = {"name": "net", "model": f"nets.py:{kind}", "weights": "net.safetensors", "input": {"shape": shape}}
    return {**RUN, "task": {"data": "d.npz", **task}, "sources": [source], "directory": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "features"])
def test_a_run_on_disk_ends_as_in_memory(tmp_path, monkeypatch, kind):
    on_disk, in_memory = both_ways(project(tmp_path, kind, 120), tmp_path, monkeypatch)
    assert len(on_disk) > 3
    assert on_disk == in_memory


SCRIPT = """
import json, re, sys
from pathlib import Path
from autoxfer.config import load_config
from autoxfer.planning import plan
from autoxfer.prediction import load, predict_file
from autoxfer.selection import run

what, config, folder = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
if what == "plan":
    told = len(plan(load_config(config)).studies)
elif what == "run":
    result = run(load_config(config), runs=folder / "runs", mlflow=folder / "mlflow.yaml")
    told = result.record.run_id
else:
    told = len(predict_file(load(next((folder / "runs").glob("*/result.json")).parent), folder / "d.npz"))
# Of getrusage's a process begins with its parent's.
peak = re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([told, int(peak[1]) * 1024]))
"""


BYTES = 400e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc that tells a process's peak")
@pytest.mark.parametrize("kind", ["images", "features"])
def test_planning_running_and_predicting_take_hardly_any_memory(tmp_path, kind):
    side, width, peaks = 128, 4096, {}
    cheap = [
        {"scratch": {"architecture": "net", **QUICK}},
        {"residual": {"encoder": "source", **QUICK}},
        "linear_probe",
    ]
    row = side * side * 3 if kind == "images" else 4 * width
    for place, n in (("many", int(BYTES / row)), ("few", 2300)):  # enough to be sampled from
        splits = {"train": n - 240, "tune": 80, "guard": 80, "test": 80}
        config = project(tmp_path / place, kind, n, width=width, side=side, save=np.savez_compressed, splits=splits)
        config |= {"final": "tested", "strategies": cheap}
        environment = {**os.environ, "AUTOXFER_MEMORY_GB": "0.02", "AUTOXFER_CACHE": str(tmp_path / "cache" / place)}
        for what in ("plan", "run", "predict"):
            command = [sys.executable, "-c", SCRIPT, what, json.dumps(config), str(tmp_path / place)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr
            peaks[place, what] = json.loads(done.stdout.splitlines()[-1])[1]
    print({key: f"{peak / 1e6:.0f} MB" for key, peak in peaks.items()})
    for what in ("plan", "run", "predict"):
        assert peaks["many", what] - peaks["few", what] < 0.7 * BYTES, what  # whole it takes more than all
