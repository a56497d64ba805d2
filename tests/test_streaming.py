"""What examples on disk promise: the numbers that they have in memory, without being there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from autoxfer import mapped
from autoxfer.activations import Store, content
from autoxfer.config import load_config
from autoxfer.datacheck import _blank, copies
from autoxfer.dataset import Dataset, Schema
from autoxfer.features import Features
from autoxfer.mapped import mapping, pieces
from autoxfer.preparation import prepare
from autoxfer.selection import run
from autoxfer.splitting import split
from autoxfer.strategy import Raw
from autoxfer.streaming import OnDisk, batches, join, pick, plain, take


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The same pixels in memory and on disk, where few of them may be held at a time."""
    monkeypatch.setattr(mapped, "HELD_BYTES", 500)
    monkeypatch.setenv("AUTOXFER_MEMORY_GB", "1e-6")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6, 8), dtype=np.uint8)
    pixels[7], pixels[8] = pixels[20], 9
    store = Store(tmp_path / "store")
    store.write("pixels", [torch.from_numpy(each) for each in pixels], pixels.shape, torch.uint8)
    on_disk = store.map("pixels")
    assert mapping(on_disk) is not None
    return pixels, on_disk


def dataset(pixels):
    schema = Schema("image", "classification", pixels.shape[1:], "uint8", ("a", "b"))
    return Dataset("d", schema, pixels, np.arange(len(pixels)) % 2)


ROWS = np.array([5, 3, 59, 3])


def test_rows_on_disk_are_a_tensors_rows(images):
    pixels, on_disk = images
    memory, disk = take(pixels, ROWS), take(on_disk, ROWS)
    assert isinstance(memory, torch.Tensor)
    assert isinstance(disk, OnDisk)
    assert (len(disk), disk.shape, disk.ndim, disk.dtype) == (4, (4, 6, 8), 3, torch.uint8)
    for index in (slice(1, 3), [0, 3], torch.tensor([2, 2, 0])):
        assert torch.equal(disk[index], memory[index])
    assert [part.tolist() for part in batches(disk, 3)] == [part.tolist() for part in batches(memory, 3)]
    assert torch.equal(pick(disk, np.array([2, 1]))[:], pick(memory, np.array([2, 1])))
    assert torch.equal(join([disk, disk.pick(np.array([1]))])[:], join([memory, memory[1:2]]))
    assert plain(disk) is disk
    assert content(disk) == content(memory)


def test_what_is_read_may_be_changed_without_harm(images):
    pixels, on_disk = images
    take(on_disk, ROWS)[:].zero_()
    next(pieces(on_disk))[:] = 0
    assert np.array_equal(np.concatenate(list(pieces(on_disk))), pixels)


def test_splits_fingerprints_statistics_and_checks_are_the_same(images):
    pixels, on_disk = images
    memory, disk = dataset(pixels), dataset(on_disk)
    splits = split(memory, None, 0)
    again = split(disk, None, 0)
    assert all(np.array_equal(splits.rows[name], again.rows[name]) for name in splits.rows)
    assert splits.warnings == again.warnings
    assert memory.fingerprint() == disk.fingerprint()
    assert memory.fingerprint(ROWS) == disk.fingerprint(ROWS) != memory.fingerprint()
    assert copies(memory, splits) == copies(disk, splits)
    assert _blank(pixels, np.arange(20)) == _blank(on_disk, np.arange(20)) == 1
    one, other = (prepare(memory.schema, plain(take(each, ROWS))) for each in (pixels, on_disk))
    assert torch.equal(one.standardise.mean, other.standardise.mean)
    assert torch.equal(one.standardise.deviation, other.standardise.deviation)


def test_the_fingerprint_of_some_rows_is_that_of_a_data_set_of_them(images):
    data = replace(dataset(images[0]), groups=np.arange(60) // 3)
    some = replace(data, examples=data.examples[ROWS], labels=data.labels[ROWS], groups=data.groups[ROWS])
    assert data.fingerprint(ROWS) == some.fingerprint()
    assert replace(data, parts={"test": ROWS}).fingerprint(ROWS) == some.fingerprint()


@pytest.mark.parametrize("kind", ["none", "shift_flip"])
def test_batches_are_the_same_whether_kept_or_live(images, kind):
    schema, found = dataset(images[0]).schema, []
    for each in images:
        stored = {"train": take(each, np.arange(60))}
        features = Features(prepare(schema, plain(stored["train"])), {}, stored, torch.device("cpu"))
        found.append(features.batch((Raw(),), "train", torch.tensor(ROWS), kind, torch.Generator().manual_seed(0))[0])
        kept = len(features._cache)
    assert torch.equal(*found)
    assert kept == 0  # on disk nothing of this size is kept in memory


def project(folder, n, side):
    """A folder of images that are told apart by their brightness, and a source."""
    rng = np.random.default_rng(0)
    for row in range(n):
        path = folder / "images" / ("dark", "light")[row % 2] / f"{row}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 60 * (row % 2)
        Image.fromarray(rng.integers(low, low + 150, (side, side, 3), dtype=np.uint8)).save(path)
    (folder / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    exec(NETS, namespace)
    save_file(namespace["net"]().state_dict(), folder / "net.safetensors")
    source = {"name": "net", "model": "nets.py:net", "weights": "net.safetensors", "input": {"shape": [3, side, side]}}
    return {**RUN, "sources": [source], "directory": str(folder)}


NETS = """
from torch import nn

def net():
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3))
"""
QUICK = {"steps": 6, "batch": 32}
RUN = {
    "task": {"data": "images"},
    "strategies": [{"scratch": {"architecture": "compact", **QUICK}}, {"residual": QUICK}, "linear_probe"],
    "budget": {"trials": 1},
    "guard": {"when_undecided": "best_tune"},
    "final": "refit",
    "device": "cpu",
}


def weights(path):
    """The numbers of a file, bit for bit; the order in which its header names them is left to chance."""
    with safe_open(path, "numpy") as handle:
        return handle.metadata(), {name: handle.get_tensor(name).tobytes() for name in handle.keys()}  # noqa: SIM118


@pytest.mark.slow
def test_a_run_on_disk_ends_as_in_memory(tmp_path, monkeypatch):
    on_disk, in_memory = both_ways(project(tmp_path, 120, 16), tmp_path, monkeypatch)
    assert len(on_disk) > 3
    assert on_disk == in_memory


def both_ways(config, tmp_path, monkeypatch):
    """Run with the examples on disk and in memory: what each run saved, file by file."""
    found = []
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    for place, bound in (("disk", "1e-6"), ("memory", "16")):
        monkeypatch.setenv("AUTOXFER_MEMORY_GB", bound)
        monkeypatch.setenv("AUTOXFER_CACHE", str(tmp_path / f"cache-{place}"))
        result = run(load_config(config), runs=tmp_path / place, mlflow=tmp_path / "mlflow.yaml")
        assert (tmp_path / f"cache-{place}" / "pixels").exists() == (place == "disk")
        folder = tmp_path / place / result.record.run_id
        found.append({str(path.relative_to(folder)): weights(path) for path in folder.rglob("*.safetensors")})
    return found


SCRIPT = """
import json, re, sys
from pathlib import Path
import numpy as np, torch
from autoxfer.config import load_config
from autoxfer.setting import prepare
from autoxfer.strategy import Raw, Tap

setting = prepare(load_config(json.loads(sys.argv[1])))
setting.fingerprint
features = setting.features
summed = 0.0
for start in range(0, len(setting.rows("train")) - 32, 32):
    rows = torch.arange(start, start + 32)
    summed += features.batch((Raw(),), "train", rows)[0].double().sum().item()
tap = setting.sources["net"].taps[-1].name
digest = features.whole(Tap(tap, "net"), "train").double().sum().item()
# Of getrusage's a process begins with its parent's.
peak = int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"peak": peak, "numbers": [setting.fingerprint, summed, digest]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc that tells a process's peak")
def test_what_lies_on_disk_takes_hardly_any_memory(tmp_path):
    n, side = 3000, 160
    many, few = project(tmp_path, n, side), project(tmp_path / "few", 100, side)
    decoded = n * side * side * 3  # 230 MB
    peaks, numbers = {}, {}
    for place, config, bound in (("few", few, "16"), ("disk", many, "0.01"), ("memory", many, "16")):
        environment = {**os.environ, "AUTOXFER_MEMORY_GB": bound, "AUTOXFER_CACHE": str(tmp_path / f"cache-{place}")}
        command = [sys.executable, "-c", SCRIPT, json.dumps(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        peaks[place], numbers[place] = told["peak"], told["numbers"]
    print({place: f"{peak / 1e6:.0f} MB" for place, peak in peaks.items()}, f"{decoded / 1e6:.0f} MB decoded")
    assert numbers["disk"] == numbers["memory"]
    assert peaks["disk"] - peaks["few"] < decoded  # 70 to 180 MB were measured; in memory 1,280
    assert peaks["memory"] - peaks["disk"] > decoded
