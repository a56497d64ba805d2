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
from safetensors.torch import save_file

from autoxfer import mapped
from autoxfer.activations import Store, content
from autoxfer.datacheck import _blank, copies
from autoxfer.dataset import Dataset, Schema
from autoxfer.features import Features
from autoxfer.mapped import mapping, pieces
from autoxfer.preparation import prepare
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
    """A folder of images that are told apart by their brightness, a source, a run file."""
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
    (folder / "mlflow.yaml").write_text("enabled: false\n")
    (folder / "run.yaml").write_text(RUN.replace("SIDE", str(side)))


NETS = """
from torch import nn

def net():
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3))
"""
NUMBERS = ("strategy", "tune", "guard", "test")
RUN = """
task: {data: images, splits: {tune: 60, guard: 60}}
sources:
  - {name: net, model: "nets.py:net", weights: net.safetensors, input: {shape: [3, SIDE, SIDE]}}
strategies: [{scratch: {architecture: compact, steps: 6, batch: 32}}, {residual: {steps: 6, batch: 32}}, linear_probe]
budget: {trials: 2}
guard: {when_undecided: best_tune}
final: refit
device: cpu
"""
SCRIPT = """
import json, resource, sys
from autoxfer.cli import main
try:
    main(["run", "run.yaml", "--json", "--runs", sys.argv[1]])
except SystemExit as stopped:
    code = stopped.code
print(json.dumps({"code": code, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), file=sys.stderr)
"""


def finish(folder, runs, bound):
    """Run a project in a process of its own: its record, its peak of memory, its predictions."""
    environment = {**os.environ, "AUTOXFER_MEMORY_GB": bound, "AUTOXFER_CACHE": str(folder / f"cache-{runs}")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, runs], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["code"] in (0, None), done.stderr
    record = json.loads(done.stdout)
    return record, told["peak"], Path(folder / runs / record["run_id"])


@pytest.mark.slow
def test_a_run_on_disk_ends_as_in_memory_and_takes_far_less_of_it(tmp_path):
    n, side = 2000, 160
    for name, count in (("few", 200), ("many", n)):
        (tmp_path / name).mkdir()
        project(tmp_path / name, count, side)
    decoded = n * side * side * 3  # 154 MB
    _, base, _ = finish(tmp_path / "few", "held", "16")
    small, low, here = finish(tmp_path / "many", "streamed", "0.01")
    large, high, there = finish(tmp_path / "many", "held", "16")
    for one, other in zip(small["leaderboard"], large["leaderboard"], strict=True):
        assert [one[key] for key in NUMBERS] == [other[key] for key in NUMBERS]
    files = sorted(path.relative_to(there) for path in there.rglob("*.safetensors"))
    assert len(files) > 2
    assert all((there / path).read_bytes() == (here / path).read_bytes() for path in files)
    print(f"peaks {base / 1e6:.0f}, {low / 1e6:.0f} and {high / 1e6:.0f} MB; {decoded / 1e6:.0f} MB decoded")
    assert low - base < decoded / 2
    assert high - low > decoded
