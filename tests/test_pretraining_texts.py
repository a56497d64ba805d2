"""``autoxfer pretrain`` on texts: the compact network's words stand on its card, and a run reads them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.compact_source import CompactLoader

import autoxfer
from autoxfer.config import load_config
from autoxfer.errors import InputError
from autoxfer.pretraining import pretrain
from autoxfer.records import SourceSpec
from autoxfer.source import Source
from autoxfer.testing.texts import sentences

N = 160
COLOURS = np.array(["fire", "leaf", "sea"])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Sentences whose words say the class, or how large a number is; and others for a run."""
    rng = np.random.default_rng(0)
    for name, n in (("first", N), ("second", 90)):
        kinds = rng.integers(3, size=n)
        texts = [f"{text} line {k}" for k, text in enumerate(sentences(kinds, rng))]
        for task, values in (("", COLOURS[kinds]), ("_sizes", 500 + 40.0 * kinds)):
            rows = [f'"{text}",{value}' for text, value in zip(texts, values, strict=True)]
            (tmp_path / f"{name}{task}.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    return tmp_path


def made(home: Path, data: str = "first.csv", **task: Any) -> Source:
    config = {"task": {"data": data, **task}, "sources": ["compact"], "budget": {"trials": 1}, "device": "cpu"}
    found = pretrain(load_config({**config, "directory": str(home)}), home, "texts")
    assert found.source == {"name": "texts", "model": "compact", "weights": str(home / "texts.safetensors")}
    return read(home)


def read(home: Path) -> Source:
    return CompactLoader().load(SourceSpec("texts", "compact", Path("texts.safetensors"), directory=home))


def answers(source: Source, texts: list[str], length: int = 20) -> torch.Tensor:
    short = source.of_length(length)
    assert short.tokenizer is not None
    assert short.head is not None
    with torch.no_grad():
        found: torch.Tensor = short.head(short.extract(["last"])(torch.from_numpy(short.tokenizer.encode(texts)))[0])
    return found


def columns(home: Path, name: str) -> tuple[list[str], list[str]]:
    rows = [line.rsplit(",", 1) for line in (home / name).read_text().splitlines()[1:]]
    return [text.strip('"') for text, _ in rows], [value for _, value in rows]


def test_a_network_over_texts_is_trained_saved_and_read_with_its_words(home: Path) -> None:
    source = made(home)
    card = json.loads((home / "texts.json").read_text())
    assert card["tune"] > 0.9
    assert {"red", "line", "7"} <= set(card["vocabulary"])
    assert "vocabulary" not in source.card
    assert source.classes == ("fire", "leaf", "sea")
    texts, labels = columns(home, "second.csv")
    named = np.array(source.classes)[answers(source, texts).argmax(1)]
    assert (named == labels).mean() > 0.9
    torch.testing.assert_close(answers(source, texts, 40), answers(source, texts))
    assert read(home).fingerprint == source.fingerprint


def test_numbers_are_answered_in_their_own_units(home: Path) -> None:
    texts, labels = columns(home, "second_sizes.csv")
    found = answers(made(home, "first_sizes.csv", kind="regression"), texts)[:, 0].numpy()
    assert np.abs(found - np.array(labels, dtype=float)).mean() < 15


def test_other_words_are_another_source(home: Path) -> None:
    before = made(home)
    path = home / "texts.json"
    card = json.loads(path.read_text())
    card["vocabulary"][0], card["vocabulary"][1] = card["vocabulary"][1], card["vocabulary"][0]
    path.write_text(json.dumps(card))
    assert read(home).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("vocabulary", "told"),
    [("red", "vocabulary: a list of words"), ([1, 2], "a list of words"), (["red"], "weights that fit the network")],
)
def test_words_that_are_not_the_networks_are_refused(home: Path, vocabulary: Any, told: str) -> None:
    made(home)
    path = home / "texts.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocabulary": vocabulary}))
    with pytest.raises(InputError, match=told):
        read(home)


def test_a_run_starts_from_it_and_ships_it(home: Path) -> None:
    made(home)
    config = {
        "task": {"data": "second.csv"},
        "sources": [{"name": "texts", "model": "compact", "weights": "texts.safetensors"}],
        "strategies": ["scratch", "linear_probe", "zero_shot", {"fine_tune": {"steps": 5}}, {"lora": {"steps": 5}}],
        "budget": {"trials": 1},
        "guard": {"when_undecided": "best_tune"},
        "device": "cpu",
        "directory": str(home),
    }
    result = autoxfer.run(load_config(config), runs=home / "runs", mlflow=home / "mlflow.yaml")
    entries = {entry.strategy: entry for entry in result.record.entries}
    assert set(entries) == {"scratch", "linear_probe", "zero_shot", "fine_tune", "lora"}
    found = entries["zero_shot"].tune
    assert found is not None
    assert found > 0.9
    texts, labels = columns(home, "second.csv")
    assert (autoxfer.load(result.folder).predict(texts) == labels).mean() > 0.9
