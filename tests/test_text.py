"""Whole runs on sentences: from a file to a winner that takes strings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import autoxfer
from autoxfer.config import load_config
from autoxfer.errors import InputError
from autoxfer.export import trace
from autoxfer.features import resolve
from autoxfer.planning import plan
from autoxfer.prediction import predict_file
from autoxfer.setting import Setting, prepare
from autoxfer.testing.texts import sentences
from autoxfer.tokens import Vocabulary
from autoxfer.trials import seeded

N = 240


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of tiny sentences, one word of which tells their class."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(3, size=N)
    path = tmp_path_factory.mktemp("texts") / "colours.csv"
    told = [f"{text} number {k}" for k, text in enumerate(sentences(kinds, rng))]
    pd.DataFrame({"text": told, "label": np.array(["fire", "leaf", "sea"])[kinds]}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def config(texts: Path, transformer: Path) -> dict[str, Any]:
    return {
        "task": {"data": str(texts), "target": "label"},
        "sources": [{"name": "tiny", "model": f"hf:{transformer}"}],
        "strategies": [
            {"scratch": {"architecture": ["compact", "tfidf"], "steps": 20}},
            "linear_probe",
            {"residual": {"steps": 20, "encoder": "compact"}},
        ],
        "budget": {"trials": 5},
        "guard": {"margin": 0.9, "when_undecided": "best_tune"},
        "final": "refit",
    }


@pytest.fixture(scope="module")
def setting(config: dict[str, Any]) -> Setting:
    names = ["scratch", "linear_probe", "residual", "partial_transfer", "adapters", "lora", "fine_tune"]
    return prepare(load_config({**config, "strategies": names}))


STUDIES = [
    "scratch",
    *(f"{name}@tiny" for name in ("linear_probe", "partial_transfer", "adapters", "lora", "fine_tune")),
]


def test_texts_are_stored_as_the_ids_of_all_tokenizers_side_by_side(setting: Setting) -> None:
    own, tiny = setting.stored.tokenizers
    assert setting.features.stored("train").shape[1:] == setting.stored.shape == (own.length + tiny.length,)
    assert setting.studies["scratch"].problem.shape == (own.length,)
    assert setting.sources["tiny"].input_shape == (tiny.length,)


def test_the_words_of_the_judging_splits_are_not_learned(setting: Setting) -> None:
    known = Vocabulary.read(setting.stored.tokenizers[0].content).words
    numbers = {str(row) for row in setting.rows("train")}  # every sentence ends in its number
    assert {word for word in known if word.isdigit()} == numbers


@pytest.mark.parametrize("study", [*STUDIES, "residual@tiny"])
def test_one_exported_network_answers_as_the_parts_do(setting: Setting, study: str) -> None:
    plan = setting.studies[study]
    with seeded(0, setting.features.device):
        candidate = plan.strategy().build(plan.problem)
    composed = setting.features.compose(candidate, plan.problem)
    stored = setting.features.stored("tune")
    inputs = tuple(resolve(name, plan.problem) for name in candidate.inputs)
    with torch.no_grad():
        parts = candidate.module(*setting.features.batch(inputs, "tune", torch.arange(5)))
        torch.testing.assert_close(composed(stored[:5]), parts)
        program = trace(composed, stored[:2]).module()
        torch.testing.assert_close(program(stored[:7]), composed(stored[:7]))


def test_the_baseline_tries_the_linear_model_before_it_searches(setting: Setting) -> None:
    started = [params["architecture"] for params in setting.studies["scratch"].defaults]
    assert started == ["compact", "tfidf", "tiny"]


def test_a_source_of_pictures_is_refused_with_a_word_on_what_is_needed(config: dict[str, Any]) -> None:
    digits = Path(__file__).resolve().parents[1] / "examples" / "digits"
    source = {"model": f"{digits / 'nets.py'}:SmallCNN", "weights": str(digits / "digits_source.safetensors")}
    with pytest.raises(InputError, match="a source that reads text"):
        prepare(load_config({**config, "sources": [{"name": "digits", **source}]}))


@pytest.fixture(scope="module")
def result(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> autoxfer.Result:
    return autoxfer.run(config, runs=tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_a_winner_takes_sentences_and_answers_as_reported(
    result: autoxfer.Result, texts: Path, setting: Setting
) -> None:
    winner, asked = autoxfer.load(result.folder), pd.read_csv(texts)
    answers = winner.predict(asked)
    assert set(answers) <= {"fire", "leaf", "sea"}
    assert np.array_equal(answers, winner.predict(asked["text"].tolist()))
    guard = setting.rows("guard")
    assert (answers == asked["label"])[guard].mean() == pytest.approx(result.record.winner.guard)


@pytest.mark.slow
def test_the_winners_folder_holds_the_tokenizers_that_it_needs(result: autoxfer.Result) -> None:
    for place in (result.folder / "winner", result.folder / "winner_refit"):
        kinds = [each.kind for each in autoxfer.load(place).schema.tokenizers]
        assert kinds == ["words", "tokenizers" if result.record.winner.source else "unused"]
        names = {path.name for path in place.iterdir()}
        assert ("tokenizer_1.json" in names) == (result.record.winner.source is not None)
        (place / "tokenizer_0.json").rename(place / "away")
        with pytest.raises(InputError, match=r"the file that model\.json lists"):
            autoxfer.load(place)
        (place / "away").rename(place / "tokenizer_0.json")


@pytest.mark.slow
def test_lines_of_a_file_are_predicted(result: autoxfer.Result, tmp_path: Path) -> None:
    path = tmp_path / "asked.txt"
    path.write_text("it was red\nthe blue of it\n")
    rows = predict_file(autoxfer.load(result.folder), path)
    assert [row["row"] for row in rows] == [0, 1]
    with pytest.raises(InputError, match=r"or a \.txt file"):
        predict_file(autoxfer.load(result.folder), tmp_path)


@pytest.mark.slow
def test_mlflow_serves_sentences(result: autoxfer.Result) -> None:
    import mlflow  # noqa: PLC0415

    mlflow.set_tracking_uri(result.record.mlflow.tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/{result.record.mlflow.name}/{result.record.mlflow.version}")
    asked = ["it was red", "the blue of it"]
    answer = served.predict(pd.DataFrame({"text": asked}))
    assert answer["label"].tolist() == autoxfer.load(result.folder).predict(asked).tolist()


@pytest.mark.slow
def test_the_example_over_texts_runs(shared: Path, transformer: Path, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "examples" / "text" / "transfer.py"
    where = ["--data", str(shared), "--out", str(tmp_path), "--source", f"hf:{transformer}"]
    done = subprocess.run(
        [sys.executable, str(script), *where, "--task", "trec6", "--smoke"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "'How far is the moon ?' -> " in done.stdout


@pytest.mark.slow
def test_a_plan_says_what_a_reader_of_texts_reads(config: dict[str, Any]) -> None:
    told = list(plan(load_config(config)).lines())
    assert any(line.endswith("reads texts of up to 32 tokens") for line in told), told
    assert any("text examples, 3 classes" in line for line in told), told
