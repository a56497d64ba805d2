"""A refit repeats what was chosen on everything but test, and nothing lets it pass for the tested weights."""

from __future__ import annotations

import csv
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoxfer
from autoxfer.config import load_config
from autoxfer.errors import Unsupported
from autoxfer.prediction import load
from autoxfer.records import Recipe
from autoxfer.scoring import Choice
from autoxfer.setting import prepare
from autoxfer.strategy import Candidate, Raw
from autoxfer.terminal import history, leaderboard
from autoxfer.testing.scenes import Scene, scene
from autoxfer.training import GradientTrainer

RECIPE = Recipe(lr=0.3, steps=24, batch=16)  # too fast: the last step is not the best
DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"


@pytest.fixture
def vectors() -> Scene:
    return scene("vector", "classification")


def trainer(tiny: Scene, choice: Choice | None = None) -> GradientTrainer:
    return GradientTrainer(tiny.features, tiny.problem, tiny.labels, choice or tiny.tune, RECIPE, seed=3)


def linear(tiny: Scene) -> Candidate:
    torch.manual_seed(0)
    return Candidate(nn.Linear(6, tiny.problem.n_outputs), (Raw(),))


def states(*strengths: float) -> list[tuple[float, dict[str, torch.Tensor]]]:
    return [(strength, {"weight": torch.full((3, 6), strength)}) for strength in strengths]


def test_a_refit_on_the_same_examples_ends_at_the_checkpoint_that_was_kept(vectors: Scene) -> None:
    first = trainer(vectors).run(linear(vectors))
    assert 0 < first.notes["kept"] < 1
    again = trainer(vectors, Choice.of(first.notes)).run(linear(vectors))
    assert again.steps == round(24 * first.notes["kept"])
    assert all(torch.equal(again.state[name], first.state[name]) for name in first.state)
    assert math.isnan(again.score.rank)


def test_where_the_state_before_the_first_step_was_kept_a_refit_takes_no_step(vectors: Scene) -> None:
    candidate = linear(vectors)
    before = candidate.module.weight.detach().clone()
    assert trainer(vectors, Choice(kept=0.0)).run(candidate).steps == 0
    assert torch.equal(candidate.module.weight, before)


def test_of_strengths_a_refit_takes_the_nearest_to_the_chosen_one(vectors: Scene) -> None:
    again = trainer(vectors, Choice(chosen=0.9)).choose(linear(vectors), states(0.01, 0.1, 1.0, 10.0))
    assert again.notes["chosen"] == 1.0
    assert torch.equal(again.state["weight"], torch.ones(3, 6))
    named = [("few", states(1.0)[0][1]), ("many", states(2.0)[0][1])]
    assert trainer(vectors, Choice(chosen="many")).choose(linear(vectors), named).notes["chosen"] == "many"


def test_what_was_chosen_in_a_way_that_is_not_known_is_refused(vectors: Scene) -> None:
    with pytest.raises(Unsupported, match="nothing like 'gone'"):
        trainer(vectors, Choice(chosen="gone")).choose(linear(vectors), states(1.0))
    with pytest.raises(Unsupported, match="not recorded"):
        trainer(vectors, Choice()).run(linear(vectors))
    with pytest.raises(Unsupported, match="scores the tune split by itself"):
        trainer(vectors, Choice(kept=1.0)).score(linear(vectors))
    twice = trainer(vectors, Choice(kept=1.0))
    twice.run(linear(vectors))
    with pytest.raises(Unsupported, match="not recorded"):
        twice.run(linear(vectors))


def settings(**changes: Any) -> dict[str, Any]:
    source = {"name": "digits", "model": f"{DIGITS}/nets.py:SmallCNN", "weights": f"{DIGITS}/digits_source.safetensors"}
    return {
        "task": {"data": f"{DIGITS}/digits.npz", "splits": {"train": 50, "tune": 50, "guard": 300, "test": 100}},
        "sources": [source],
        "strategies": [{"scratch": {"steps": 30}}, "linear_probe", {"fine_tune": {"steps": 20}}],
        "budget": {"trials": 2, "min_trials": 2},
        "device": "cpu",
        **changes,
    }


class Warnings(list[str]):
    """Collects what a user is warned of."""

    def notify(self, event: Any) -> None:
        self += [event.text] if hasattr(event, "text") else []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def refitted(runs: Path) -> autoxfer.Result:
    return autoxfer.run(settings(final="refit"), runs=runs)


def versions(record: Any) -> tuple[Any, Any]:
    """Give the registered model and MLflow's client."""
    from mlflow import MlflowClient  # noqa: PLC0415

    client = MlflowClient(record.mlflow.tracking_uri, record.mlflow.tracking_uri)
    return client.get_registered_model(record.mlflow.name), client


@pytest.mark.slow
def test_a_refit_stands_beside_the_tested_weights_without_their_certificate(
    refitted: autoxfer.Result, tmp_path: Path
) -> None:
    record, folder = refitted.record, refitted.folder
    assert record.winner.certified
    assert record.refit is not None
    assert (record.refit.strategy, record.refit.params) == (record.winner.strategy, record.winner.params)
    assert (record.refit.certified, record.refit.tune, record.refit.guard) == (False, None, None)
    setting = prepare(load_config(folder / "config.yaml"))
    examples, labels = setting.dataset.examples[setting.rows("test")], setting.dataset.labels[setting.rows("test")]
    refit = load(folder / "winner_refit")
    assert (refit.predict_proba(examples).argmax(1) == labels).mean() == record.refit.test
    assert refit.description["winner"]["certified"] is False
    assert not np.allclose(refit.predict_proba(examples), refitted.winner.predict_proba(examples), atol=1e-3)
    text = "\n".join([*leaderboard.sentences(record), *leaderboard.usage(record, folder)])
    assert "refit of" in text
    assert text.count("NOT CERTIFIED") == 2
    assert "refit 2 (NOT CERTIFIED)" in "\n".join(map(" ".join, history.rows(history.past_runs(folder.parent))))


@pytest.mark.slow
def test_mlflow_never_serves_a_refit_as_champion(refitted: autoxfer.Result) -> None:
    record = refitted.record
    registered, client = versions(record)
    assert {alias: str(version) for alias, version in registered.aliases.items()} == {"champion": "1"}
    tested, refit = client.get_model_version("digits", "1"), client.get_model_version("digits", "2")
    assert record.mlflow.refit_version == "2"
    assert (tested.tags["autoxfer.certified"], refit.tags["autoxfer.certified"]) == ("true", "false")
    assert (tested.tags["autoxfer.weights"], refit.tags["autoxfer.weights"]) == ("tested", "refit")
    assert refit.description.startswith("NOT CERTIFIED: refit of ")
    assert "version 1, the tested weights, only" in refit.description
    assert not {"autoxfer.verdict", "autoxfer.guard", "autoxfer.p_value", "autoxfer.effect", "autoxfer.alias"} & set(
        refit.tags
    )
    note = client.get_run(record.mlflow.run_id).data.tags["mlflow.note.content"]
    assert note.split("\n\n")[1].startswith("NOT CERTIFIED: refit of ")  # MLflow folds away what stands lower


@pytest.mark.slow
def test_a_refit_that_is_resumed_is_neither_trained_nor_registered_again(refitted: autoxfer.Result, runs: Path) -> None:
    from autoxfer.selection import resume  # noqa: PLC0415

    before = {path.name: path.stat().st_mtime_ns for path in (refitted.folder / "winner_refit").iterdir()}
    again = resume(refitted.record.run_id, runs=runs).record
    assert again.refit == refitted.record.refit
    assert again.mlflow == refitted.record.mlflow
    assert {path.name: path.stat().st_mtime_ns for path in (refitted.folder / "winner_refit").iterdir()} == before
    assert len(versions(again)[1].search_model_versions("name = 'digits'")) == 2


@pytest.mark.slow
def test_the_best_of_the_undecided_is_shipped_as_not_certified_and_never_as_champion(tmp_path: Path) -> None:
    undecided = settings(guard={"when_undecided": "best_tune"}, budget={"trials": 2, "min_trials": 3})
    warnings = Warnings()
    result = autoxfer.run(undecided, runs=tmp_path / "runs", observers=[warnings])
    record = result.record
    assert record.winner.strategy != "scratch"
    assert record.winner.certified is False
    assert result.winner.description["winner"]["certified"] is False
    assert any("NOT CERTIFIED" in text for text in warnings)
    assert "NOT CERTIFIED" in leaderboard.sentences(record)[-2]  # the last is about its probabilities
    registered, client = versions(record)
    assert "champion" not in registered.aliases
    version = client.get_model_version("digits", "1")
    assert version.tags["autoxfer.certified"] == "false"
    assert version.description.startswith("NOT CERTIFIED")


@pytest.mark.slow
def test_a_winner_predicts_on_another_machine_without_the_data_and_the_sources_code(
    refitted: autoxfer.Result, tmp_path: Path
) -> None:
    shutil.copytree(refitted.folder / "winner", tmp_path / "elsewhere" / "winner")
    setting = prepare(load_config(refitted.folder / "config.yaml"))
    examples, labels = setting.dataset.examples[setting.rows("guard")], setting.dataset.labels[setting.rows("guard")]
    np.save(tmp_path / "elsewhere" / "new.npy", examples)
    python = "import sys, importlib.util, autoxfer, numpy; assert importlib.util.find_spec('nets') is None; "
    python += "print(*autoxfer.load('winner').predict(numpy.load('new.npy')))"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    answers = [
        subprocess.run(
            [sys.executable, *command], cwd=tmp_path / "elsewhere", env=environment, check=True, capture_output=True
        ).stdout.decode()
        for command in (["-c", python], ["-m", "autoxfer", "predict", "./winner", "new.npy"])
    ]
    names = [setting.dataset.schema.classes[label] for label in labels]
    for predicted in (answers[0].split(), [row["prediction"] for row in csv.DictReader(answers[1].splitlines())]):
        assert np.mean(np.array(predicted) == names) == refitted.record.winner.guard
