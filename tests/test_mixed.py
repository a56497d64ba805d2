"""Texts beside numbers and categories: stored, prepared, learned from, and whole runs from a file to a winner."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

import autoxfer
from autoxfer.architectures import Linear
from autoxfer.boosting import Trees
from autoxfer.config import load_config
from autoxfer.dataset import Column, Schema
from autoxfer.encoding import decode, encode
from autoxfer.errors import InputError
from autoxfer.export import trace
from autoxfer.features import resolve
from autoxfer.mixednets import BoostingMixed, TfIdfMixed
from autoxfer.planning import check_data, plan
from autoxfer.prediction import predict_file
from autoxfer.records import Recipe
from autoxfer.scoring import Choice
from autoxfer.setting import Setting, prepare as set_up
from autoxfer.strategy import Candidate, Fitted, Raw
from autoxfer.testing.scenes import scene
from autoxfer.testing.texts import sentences
from autoxfer.textnets import TfIdf
from autoxfer.tokens import Tokenizer, Vocabulary, fit
from autoxfer.training import GradientTrainer
from autoxfer.trials import seeded

N = 300


def people() -> pd.DataFrame:
    """Draw rows whose colour (in the text) says the class of the old, and the next class of the young."""
    rng = np.random.default_rng(0)
    kinds, age = rng.integers(3, size=N), rng.normal(40, 9, N).round(1)
    told = [f"{text} number {k}" for k, text in enumerate(sentences(kinds, rng))]
    label = np.array(["fire", "leaf", "sea"])[np.where(age > 40, kinds, (kinds + 1) % 3)]
    frame = pd.DataFrame({"told": told, "age": age, "job": rng.choice(["cook", "smith"], N), "label": label})
    frame.loc[3, "told"], frame.loc[4, "age"] = "", np.nan
    return frame


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file whose text and numbers both matter; and, beside it, a source that reads its columns."""
    place = tmp_path_factory.mktemp("mixed")
    people().to_csv(place / "people.csv", index=False)
    (place / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    save_file(layers.state_dict(), place / "net.safetensors")
    return place / "people.csv"


NETS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
"""


@pytest.fixture(scope="module")
def config(table: Path, transformer: Path) -> dict[str, Any]:
    net = {"model": f"{table.parent / 'nets.py'}:Net", "weights": str(table.parent / "net.safetensors")}
    columns = {"columns": ["job=smith", "age", "job=baker"], "mean": [0.5, 40.0, 0.0], "std": [0.5, 9.0, 1.0]}
    return {
        "task": {"data": str(table), "target": "label"},
        "sources": [{"name": "tiny", "model": f"hf:{transformer}"}, {"name": "net", **net, "input": columns}],
        "strategies": ["scratch", "linear_probe", {"residual": {"steps": 60, "encoder": "compact"}}],
        "budget": {"trials": 5},
        "guard": {"margin": 0.9, "when_undecided": "best_tune"},
    }


@pytest.fixture(scope="module")
def setting(config: dict[str, Any]) -> Setting:
    names = ["scratch", "linear_probe", "residual", "partial_transfer", "adapters", "lora", "fine_tune"]
    return set_up(load_config({**config, "strategies": names}))


def schema_of(*texts: str) -> Schema:
    told = fit(texts, {"other": Tokenizer("words", Vocabulary(("fox",), ()).content, 3, "other")})
    columns = (
        Column("a", "text"),
        Column("b", "text"),
        Column("age", "numeric"),
        Column("job", "categorical", ("x", "y")),
    )
    shape = (sum(each.length for each in told) + 2,)
    return Schema("mixed", "classification", shape, "float32", ("no", "yes"), columns, tokenizers=told)


EXAMPLES = {"job": ["y", None, "new"], "a": ["red fox", None, ""], "age": [1.5, "?", 3], "b": ["a zebra", "fox", None]}


def test_examples_come_back_as_they_were_stored() -> None:
    schema = schema_of("red fox", "a zebra fox")
    own, other = (each.length for each in schema.tokenizers)
    stored = encode(schema, EXAMPLES)
    assert stored.shape == (3, own + other + 2)
    assert stored.dtype == np.float32
    words = [["red", "fox", "a", "zebra"][:own], ["fox"], []]
    known = ("", *Vocabulary.read(schema.tokenizers[0].content).words)
    assert [[known[int(i)] for i in row if i >= 0] for row in stored[:, :own]] == words
    assert stored[0, own : own + other].tolist().count(1) == 1  # the other tokenizer knows the fox alone
    nan = np.nan
    np.testing.assert_array_equal(stored[:, own + other :], np.array([[1.5, 1], [nan, nan], [3, nan]], np.float32))
    again = decode(schema, stored)
    assert list(again) == ["a", "b", "age", "job"]
    kept = [*range(own), -2, -1]  # what a word outside the vocabulary was is lost for other tokenizers
    np.testing.assert_array_equal(encode(schema, again)[:, kept], stored[:, kept])


@pytest.mark.parametrize(
    "raw",
    [
        pd.DataFrame(EXAMPLES),
        [dict(zip(EXAMPLES, row, strict=True)) for row in zip(*EXAMPLES.values(), strict=True)],
        [["red fox", "a zebra", 1.5, "y"], [None, "fox", None, ""], ["", np.nan, "3", "new"]],
        {name: np.array(values, dtype=object) for name, values in EXAMPLES.items()},
    ],
    ids=["frame", "records", "rows", "arrays"],
)
def test_every_form_of_the_same_examples_is_stored_alike(raw: Any) -> None:
    schema = schema_of("red fox", "a zebra fox")
    np.testing.assert_array_equal(encode(schema, raw), encode(schema, EXAMPLES))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"a": ["x"], "age": [1]}, "the columns a, b, age, job, found none called b, job"),
        ({**EXAMPLES, "b": ["x"]}, "columns of one length"),
        ({**EXAMPLES, "b": ["x", 7, "y"]}, "texts in column 'b', found 7 in example 1"),
        ({**EXAMPLES, "age": ["x", 7, 8]}, "numbers in column 'age', found 'x'"),
        ({**EXAMPLES, "job": [["x"], "x", "y"]}, "numbers or text in column 'job', found a list"),
        (["a text", "another"], "rows of 4 values"),
        ([], "rows of 4 values"),
    ],
)
def test_what_is_no_mixed_example_is_refused(raw: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        encode(schema_of("red fox"), raw)


def test_unpacked_and_standardised_examples_agree_with_a_loop() -> None:
    tiny = scene("mixed", "classification", 2)
    schema_words = tiny.features.preparation.n_words
    stored, seen = (tiny.features.stored(name)[:].numpy() for name in ("train", "tune"))
    n_ids = stored.shape[1] - 5  # four numbers and a category
    preparation = tiny.features.preparation
    natural = preparation.unpack(torch.from_numpy(seen)).numpy()

    def slowly(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        medians = np.nanmedian(stored[:, n_ids:-1], axis=0)
        numbers = np.where(np.isnan(rows[:, n_ids:-1]), medians, rows[:, n_ids:-1])
        return np.column_stack([numbers, rows[:, -1] == 0, rows[:, -1] == 1]).astype(np.float64)

    np.testing.assert_array_equal(natural[:, :n_ids], seen[:, :n_ids])
    np.testing.assert_allclose(natural[:, n_ids:], slowly(seen), rtol=1e-6)
    raw = preparation.standardise(torch.from_numpy(natural)).numpy()
    train = slowly(stored)
    np.testing.assert_array_equal(raw[:, :schema_words], seen[:, :schema_words])
    np.testing.assert_allclose(raw[:, schema_words:], (slowly(seen) - train.mean(0)) / train.std(0), atol=2e-5)
    assert raw.shape[1:] == preparation.raw_shape == tiny.problem.shape


def test_ids_beyond_the_longest_vocabulary_stay_exact_beside_numbers() -> None:
    ids = np.arange(0, 2**24, 99_991, dtype=np.int32)
    assert np.array_equal(ids.astype(np.float32).astype(np.int32), ids)


def test_each_kind_of_source_reads_what_it_knows(setting: Setting) -> None:
    own, tiny = setting.stored.tokenizers
    assert setting.stored.shape == (own.length + tiny.length + 2,)
    assert setting.studies["scratch"].problem.shape == (own.length + 3,)
    stored = setting.features.stored("train")[:]
    adapted = {name: setting.features.preparation.adapt(source) for name, source in setting.sources.items()}
    natural = setting.features.preparation.unpack(stored)
    assert torch.equal(adapted["tiny"](natural), stored[:, own.length : own.length + tiny.length].int())
    job, age = stored[:, -1], natural[:, -3]
    expected = torch.stack([((job == 1).float() - 0.5) / 0.5, (age - 40) / 9, torch.zeros(len(job))], 1)
    torch.testing.assert_close(adapted["net"](natural), expected)
    assert "job=baker" in str(setting.sources["net"].card["adapted"])


def test_a_source_of_pictures_is_refused_with_a_word_on_what_is_needed(config: dict[str, Any]) -> None:
    digits = Path(__file__).resolve().parents[1] / "examples" / "digits"
    source = {"model": f"{digits / 'nets.py'}:SmallCNN", "weights": str(digits / "digits_source.safetensors")}
    with pytest.raises(InputError, match=r"a source that reads text .* or a table"):
        set_up(load_config({**config, "sources": [{"name": "digits", **source}]}))


STUDIES = [f"{name}@tiny" for name in ("linear_probe", "partial_transfer", "adapters", "lora", "fine_tune", "residual")]


@pytest.mark.parametrize("study", ["scratch", *STUDIES, "linear_probe@net", "residual@net", "residual@tiny+net"])
def test_one_exported_network_answers_as_the_parts_do(setting: Setting, study: str) -> None:
    planned = setting.studies[study]
    with seeded(0, setting.features.device):
        candidate = planned.strategy().build(planned.problem)
    composed = setting.features.compose(candidate, planned.problem)
    stored = setting.features.stored("tune")
    inputs = tuple(resolve(name, planned.problem) for name in candidate.inputs)
    with torch.no_grad():
        parts = candidate.module(*setting.features.batch(inputs, "tune", torch.arange(5)))
        torch.testing.assert_close(composed(stored[:5]), parts)
        program = trace(composed, stored[:2]).module()
        torch.testing.assert_close(program(stored[:7]), composed(stored[:7]))


def test_the_baseline_tries_every_solved_model_before_it_searches(setting: Setting) -> None:
    started = [params["architecture"] for params in setting.studies["scratch"].defaults]
    assert started == ["compact", "tfidf", "boosting", "boosting_small", "tiny", "net"]


class Remembers:
    """A trainer that takes every state in turn, and remembers how it was described and what it answers."""

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw, self.seen = raw, list[tuple[dict[str, Any], torch.Tensor]]()

    def choose(self, candidate: Candidate, states: Any) -> Fitted:
        for described, state in states:
            candidate.module.load_state_dict(state, strict=False)
            with torch.no_grad():
                self.seen.append((described, candidate.module(self.raw)))
        chosen: Any = self.seen[-1][0]
        return Fitted(candidate.module.state_dict(), score=None, notes={"chosen": chosen})  # type: ignore[arg-type]


class Data:
    """The train split of a scene."""

    weights = None

    def __init__(self, raw: torch.Tensor, labels: torch.Tensor) -> None:
        self.raw, self.labels = raw, labels

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self.raw

    def sample(self, *_: Any) -> Data:
        return self


def solved(name: str, labels: torch.Tensor) -> tuple[Any, Remembers, torch.Tensor]:
    tiny = scene("mixed", "classification")
    raw, architecture = tiny.features.whole(Raw(), "train"), tiny.problem.architectures[name]
    assert isinstance(architecture, TfIdfMixed | BoostingMixed)
    with seeded(0, torch.device("cpu")):
        module, trainer = architecture(3), Remembers(raw)
        module.solve(Candidate(module, (Raw(),)), Data(raw, labels), trainer)  # type: ignore[arg-type]
    return module, trainer, raw


def test_the_linear_model_spans_texts_alone_and_columns_alone() -> None:
    labels = scene("mixed", "classification").labels
    module, trainer, raw = solved("tfidf", labels)
    ids, columns = module.mixed.apart(raw)
    alone: tuple[Any, Any] = TfIdf(module.mixed.vocabulary)(3), Linear(columns.shape[1])(3)
    for weight, single, part in ((0.0, alone[0], ids), (None, alone[1], columns)):
        other = Remembers(part)
        single.solve(Candidate(single, (Raw(),)), Data(part, labels), other)
        mine = [answer for described, answer in trainer.seen if described["weight"] == weight]
        for found, (_, expected) in zip(mine, other.seen, strict=True):
            torch.testing.assert_close(found, expected)
    assert {described["weight"] for described, _ in trainer.seen} == {0.0, 0.1, 1.0, None}


def test_a_strength_for_columns_alone_is_found_again_by_the_nearest_as_it_depends_on_the_examples() -> None:
    tiny = scene("mixed", "classification")
    _, trainer, _ = solved("tfidf", tiny.labels)
    label = trainer.seen[-5][0]
    choice = Choice(chosen={**label, "strength": label["strength"] * 1.01})
    problem = replace(tiny.problem, sources=())
    with seeded(0, torch.device("cpu")):
        module: Any = problem.architectures["tfidf"](3)
        again = GradientTrainer(tiny.features, problem, tiny.labels, choice, Recipe(steps=1), seed=1)
        fitted = module.solve(Candidate(module, (Raw(),)), Data(trainer.raw, tiny.labels), again)
    assert fitted.notes["chosen"] == label


def test_the_trees_are_tried_with_the_texts_score_and_without() -> None:
    module, trainer, raw = solved("boosting_small", scene("mixed", "classification").labels)
    assert [described["text"] for described, _ in trainer.seen[:: len(trainer.seen) - 1]] == ["with", "without"]
    other = raw.clone()
    other[:, : module.mixed.n_words] = -1
    assert torch.equal(module(raw), module(other))  # the last that was tried


def test_the_trees_learn_from_scores_of_texts_that_were_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, kept = list[NDArray[np.float64]](), Trees.states

    def states(trees: Trees, x: NDArray[np.float64], y: NDArray[Any], *more: Any) -> Any:
        seen.append(x)
        return kept(trees, x, y, *more)

    monkeypatch.setattr(Trees, "states", states)
    labels = torch.arange(40) % 3  # which no text tells
    module, _, raw = solved("boosting_small", labels)
    ids, columns = module.mixed.apart(raw)
    fitted = module.score(ids).argmax(1)
    held_out = torch.from_numpy(seen[0][:, columns.shape[1] :]).argmax(1)
    right = [float((answer == labels).float().mean()) for answer in (fitted, held_out)]
    assert right[0] > right[1] + 0.2
    assert seen[1].shape[1] == columns.shape[1]


@pytest.fixture(scope="module")
def result(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> autoxfer.Result:
    return autoxfer.run({**config, "final": "refit"}, runs=tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_a_winner_takes_frames_records_and_files(
    result: autoxfer.Result, table: Path, setting: Setting, tmp_path: Path
) -> None:
    winner, asked = autoxfer.load(result.folder), pd.read_csv(table)
    answers = winner.predict(asked)
    assert set(answers) <= {"fire", "leaf", "sea"}
    records = asked.astype(object).where(asked.notna(), None).to_dict(orient="records")
    assert np.array_equal(answers, winner.predict(records))
    rows = predict_file(winner, table)
    assert [row["prediction"] for row in rows] == answers.tolist()
    guard = setting.rows("guard")
    assert (answers == asked["label"])[guard].mean() == pytest.approx(result.record.winner.guard)
    asked.drop(columns="told").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(InputError, match="the columns told, age, job, found none called told"):
        predict_file(winner, tmp_path / "less.csv")
    (tmp_path / "asked.txt").write_text("it was red\n")
    with pytest.raises(InputError, match=r"a \.csv or \.parquet file, found a \.txt file"):
        predict_file(winner, tmp_path / "asked.txt")


@pytest.mark.slow
def test_the_baseline_needs_text_and_columns_and_has_both(result: autoxfer.Result) -> None:
    scratch = result.record.entries[0]
    assert scratch.guard is not None
    assert scratch.guard > 0.65  # by the text alone, or by the columns alone, no more than about a half can be known


@pytest.mark.slow
def test_mlflow_serves_records(result: autoxfer.Result, table: Path) -> None:
    import mlflow  # noqa: PLC0415
    from mlflow.pyfunc.scoring_server import infer_and_parse_data  # noqa: PLC0415 - what its server does with JSON

    mlflow.set_tracking_uri(result.record.mlflow.tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/{result.record.mlflow.name}/{result.record.mlflow.version}")
    asked = pd.read_csv(table)[["job", "told", "age"]].iloc[:6]
    expected = autoxfer.load(result.folder).predict(asked).tolist()
    assert served.predict(asked)["label"].tolist() == expected
    records = asked.astype(object).where(asked.notna(), None).to_dict(orient="records")
    request = infer_and_parse_data({"dataframe_records": records}, served.metadata.get_input_schema())
    assert served.predict(request)["label"].tolist() == expected
    with pytest.raises(mlflow.MlflowException, match="told"):
        served.predict(asked.drop(columns="told"))


@pytest.mark.slow
def test_a_plan_looks_at_the_columns(config: dict[str, Any]) -> None:
    told = list(plan(load_config(config)).lines())
    assert any("mixed examples, 3 classes" in line for line in told), told


@pytest.mark.slow
def test_the_example_over_texts_beside_numbers_runs(shared: Path, transformer: Path, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "examples" / "text" / "mixed.py"
    where = ["--data", str(shared), "--out", str(tmp_path), "--source", f"hf:{transformer}"]
    done = subprocess.run(
        [sys.executable, str(script), *where, "--task", "reviews", "--smoke"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines()[2:]]
    studies = ["scratch", "linear_probe@minilm"]
    assert lines == [["reads", "study"], *(["text", name] for name in studies), ["columns", "scratch"]] + [
        ["both", name] for name in studies
    ]


def test_copies_have_the_same_text_and_the_same_columns(setting: Setting) -> None:
    data = check_data(setting)
    assert data.copies == {}
    assert data.schema["columns"] == {"text": 1, "numeric": 1, "categorical": 1}
    assert data.doubts_from in ("", "the columns", "source tiny", "source net")
