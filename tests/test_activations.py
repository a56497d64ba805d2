"""What the store of activations promises: whole entries or none, bounded, and never a number of another network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoxfer import activations, features as features_module
from autoxfer.activations import Store, open_store
from autoxfer.composed import Reader
from autoxfer.errors import InputError
from autoxfer.features import Features
from autoxfer.source import Source
from autoxfer.strategy import Tap
from autoxfer.testing.scenes import Scene, scene


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(features_module, "STORED_BYTES", 0)
    return scene("image", "classification")


def with_store(tiny: Scene, store: Store | None) -> Features:
    old = tiny.features
    stored = {split: old.stored(split) for split in ("train", "tune")}
    return Features(old.preparation, old.sources, stored, old.device, store)


def write(store: Store, key: str, value: float, n: int = 100) -> Tensor | None:
    parts = (torch.full((n // 10, 25), value + index) for index in range(10))
    return store.write(key, parts, (n, 25), torch.float32)


def count_examples(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    forward = Reader.forward
    monkeypatch.setattr(Reader, "forward", lambda self, x: calls.append(len(x)) or forward(self, x))  # type: ignore[func-returns-value]
    return calls


def test_what_is_written_in_parts_is_read_as_one(store: Store) -> None:
    written = write(store, "a", 1.0)
    assert written is not None
    again = Store(store.folder).read("a")
    assert again is not None
    assert torch.equal(again, torch.arange(1.0, 11.0).repeat_interleave(10)[:, None].expand(100, 25))
    assert store.read("b") is None


def test_what_was_read_longest_ago_goes_first(tmp_path: Path) -> None:
    small = Store(tmp_path, limit=35_000)  # three entries of 10 kB
    for index, name in enumerate("abc"):
        write(small, name, 0.0)
        os.utime(tmp_path / f"{name}.safetensors", (1000 + index, 1000 + index))
    held = small.read("b")
    assert small.read("a") is not None
    os.utime(tmp_path / "b.safetensors", (1000, 1000))
    write(small, "d", 0.0)
    assert [name for name in "abcd" if small.read(name) is not None] == ["a", "c", "d"]
    assert held is not None
    assert float(held.sum()) == 25 * 10 * 45  # who holds it keeps it
    assert small.size() <= small.limit
    assert write(small, "huge", 0.0, n=10_000) is None


def test_a_cut_file_is_a_miss_and_is_removed(store: Store) -> None:
    write(store, "a", 1.0)
    path = store.folder / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert store.read("a") is None
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, pictures: Scene) -> None:
    place = tmp_path / "file"
    place.write_text("in the way")
    assert write(Store(place), "a", 1.0) is None
    name = Tap("last", "tiny_image")
    assert torch.equal(with_store(pictures, Store(place)).whole(name, "train"), pictures.features.whole(name, "train"))


WRITER = """
import sys
from pathlib import Path
import torch
from autoxfer.activations import Store
store = Store(Path(sys.argv[1]))
while True:
    print("begun", flush=True)
    store.write("shared", (torch.full((1000, 250), 7.0) for _ in range(20)), (20_000, 250), torch.float32)
"""


@pytest.mark.slow
def test_writers_that_are_killed_leave_a_whole_entry_or_none(store: Store) -> None:
    for pause in (0.0, 0.02, 0.05):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(store.folder)], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(pause)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        found = store.read("shared")
        assert found is None or (found.shape == (20_000, 250) and bool((found == 7.0).all()))
    for left in store.folder.glob("*.tmp"):  # swept away once it is stale
        os.utime(left, (0, 0))
    write(store, "next", 0.0)
    assert not list(store.folder.glob("*.tmp"))


def test_another_run_reads_what_this_one_computed(
    pictures: Scene, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = Tap("last", "tiny_image")
    first = with_store(pictures, store).whole(name, "train").clone()
    calls = count_examples(monkeypatch)
    assert torch.equal(with_store(pictures, store).whole(name, "train"), first)
    assert sum(calls) == 2  # the first and the last example, to see that the network is the same


def test_other_examples_or_weights_are_another_entry(pictures: Scene, store: Store) -> None:
    name = Tap("last", "tiny_image")
    before = with_store(pictures, store).whole(name, "train").clone()
    old = pictures.features
    changed = old.stored("train").clone()
    changed[7] = 255 - changed[7]
    other = Features(old.preparation, old.sources, {"train": changed}, old.device, store)
    assert not torch.equal(other.whole(name, "train")[7], before[7])
    assert torch.equal(with_store(pictures, store).whole(name, "train"), before)


def test_changed_code_is_noticed_though_the_fingerprint_is_the_same(
    pictures: Scene, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = Tap("last", "tiny_image")
    before = with_store(pictures, store).whole(name, "train").clone()
    forward = nn.ReLU.forward
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: 2 * forward(self, x))
    after = with_store(pictures, store).whole(name, "train")
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, with_store(pictures, None).whole(name, "train"))


def test_what_was_computed_before_changes_no_bit(pictures: Scene) -> None:
    source: Source = pictures.problem.source
    late = Tap(source.taps[-1].name, source.name)
    alone = with_store(pictures, None).whole(late, "train")
    features = with_store(pictures, None)
    for tap in source.taps:
        features.whole(Tap(tap.name, source.name), "train")
    assert torch.equal(features.whole(late, "train"), alone)


def test_an_input_too_large_for_memory_is_mapped(
    pictures: Scene, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, rows = Tap("last", "tiny_image"), torch.tensor([5, 1, 8])
    expected = pictures.features.batch((name,), "train", rows)[0]
    monkeypatch.setattr(features_module, "CACHE_BYTES", 0)
    features = with_store(pictures, store)
    calls = count_examples(monkeypatch)
    for _ in range(3):
        assert torch.equal(features.batch((name,), "train", rows)[0], expected)
    assert sum(calls) == 2 + len(pictures.labels)  # once for all batches


def test_the_place_and_the_limit_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOXFER_CACHE", "off")
    assert open_store() is None
    monkeypatch.setenv("AUTOXFER_CACHE", str(tmp_path))
    monkeypatch.setenv("AUTOXFER_CACHE_GB", "0.5")
    opened = open_store()
    assert opened is not None
    assert (opened.folder, opened.limit) == (tmp_path, 5e8)
    monkeypatch.delenv("AUTOXFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened = open_store()
    assert opened is not None
    assert opened.folder == tmp_path / "autoxfer"
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("AUTOXFER_CACHE_GB", wrong)
        with pytest.raises(InputError, match="AUTOXFER_CACHE_GB"):
            open_store()


def test_threads_are_part_of_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    before = activations.key("a")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    assert activations.key("a") != before
