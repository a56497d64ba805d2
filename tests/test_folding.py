"""What a guard of folds promises: nothing judges what it has trained on, and a killed run ends as a whole one does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import autoxfer
from autoxfer import folding, selection
from autoxfer.config import load_config
from autoxfer.errors import InputError
from autoxfer.events import Event, RunStarted, StudyStarted, TrialFinished
from autoxfer.planning import plan
from autoxfer.records import Job, Outcome, Verdict
from autoxfer.runfolder import RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.terminal import leaderboard
from autoxfer.trials import Bench

N, FOLDS = 180, 3
NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
"""


class Listener:
    """Remembers what happened."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Vectors whose class a network knows that has one hidden layer; and that network."""
    place = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    weights = {
        "0.weight": torch.randn(16, 8, generator=generator),
        "0.bias": torch.randn(16, generator=generator),
        "2.weight": torch.randn(2, 16, generator=generator),
        "2.bias": torch.zeros(2),
    }
    x = torch.randn(N, 8, generator=generator)
    hidden = torch.tanh(x @ weights["0.weight"].T + weights["0.bias"])
    labels = (hidden @ weights["2.weight"].T).argmax(1)
    np.savez(place / "vectors.npz", features=x.numpy(), labels=labels.numpy())
    save_file(weights, str(place / "net.safetensors"))
    (place / "net.py").write_text(NET)
    return {
        "task": {"data": str(place / "vectors.npz")},
        "sources": [
            {
                "name": "net",
                "model": f"{place / 'net.py'}:net",
                "weights": str(place / "net.safetensors"),
                "input": {"shape": [8]},
            }
        ],
        "strategies": [{"scratch": {"steps": 4, "architecture": "compact"}}, "linear_probe"],
        "budget": {"trials": 2, "min_trials": 2},
        "guard": {"folds": FOLDS},
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def setting(settings: dict[str, Any]) -> Setting:
    return prepare(load_config(settings))


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def result(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> autoxfer.Result:
    return autoxfer.run(settings, runs=tmp_path_factory.mktemp("runs"), observers=[listener])


@pytest.fixture
def untracked(tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.yaml"
    path.write_text("enabled: false\n")
    return path


def stored(result: autoxfer.Result) -> dict[str, Any]:
    return json.loads((result.folder / "result.json").read_text())  # type: ignore[no-any-return]


# The setting


def test_a_fold_has_a_setting_of_its_own_on_what_was_read_once(setting: Setting) -> None:
    folds = [setting.fold(number) for number in (1, 2, 3)]
    assert all(fold.dataset is setting.dataset and fold.material is setting.material for fold in folds)
    assert len({fold.config.seed for fold in folds} | {setting.config.seed}) == 4
    assert sorted(setting.judged) == list(range(N))
    for fold in folds:
        assert set(fold.studies) == set(setting.studies)
        assert len(fold.rows("guard")) == N // FOLDS
        assert len(fold.labels) == len(fold.rows("train")) == 80
    assert "guard" not in setting.targets


def test_preparation_is_fitted_to_each_folds_own_train_rows(setting: Setting) -> None:
    fold = setting.fold(1)
    rows = setting.dataset.examples[fold.rows("train")]
    mean = next(iter(dict(fold.features.preparation.standardise.named_buffers()).values()))
    assert torch.allclose(mean.flatten().cpu().double(), torch.from_numpy(rows.mean(0)).double(), atol=1e-5)


def test_the_seconds_are_shared_by_all_searches(settings: dict[str, Any]) -> None:
    limited = prepare(load_config({**settings, "budget": {"trials": 2, "seconds": 80}}))
    assert limited.seconds == limited.fold(2).seconds == 20
    assert prepare(load_config({**settings, "guard": {}, "budget": {"seconds": 80}})).seconds == 80


def test_no_first_candidate_is_rehearsed_once_per_fold(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoxfer.rehearsal.fault", lambda *_: pytest.fail("rehearsed again"))
    assert list(setting.fold(1).studies) == list(setting.studies)


@pytest.mark.parametrize(
    ("change", "expected", "where"),
    [
        ({"guard": {"folds": 1}}, "a whole number from 2 to 20", "guard.folds"),
        ({"guard": {"folds": 21}}, "a whole number from 2 to 20", "guard.folds"),
        ({"guard": {"folds": 2.5}}, "a whole number from 2 to 20", "guard.folds"),
        ({"guard": {"folds": True}}, "a whole number from 2 to 20", "guard.folds"),
        ({"splits": {"guard": 0.2}}, "no size of guard", "task.splits.guard"),
        ({"splits": {"test": 150}, "guard": {"folds": 20}}, "at least 60 different examples", "guard.folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(settings: dict[str, Any], change: Any, expected: str, where: str) -> None:
    task = {**settings["task"], "splits": change.get("splits")}
    with pytest.raises(InputError, match=expected) as refused:
        prepare(load_config({**settings, "task": task, "guard": change.get("guard", {"folds": 3})}))
    assert where in refused.value.where


def test_an_area_under_the_curve_of_several_models_is_warned_of(settings: dict[str, Any]) -> None:
    ranked = {**settings, "task": {**settings["task"], "metric": "auroc"}}
    assert any("ranks scores of different models" in text for text in prepare(load_config(ranked)).warnings)
    one = prepare(load_config({**ranked, "guard": {}}))
    assert not any("ranks scores" in text for text in one.warnings)


def test_a_plan_counts_every_search_and_every_example(settings: dict[str, Any]) -> None:
    planned = plan(load_config(settings))
    one_search = sum(study.seconds for study in planned.studies)
    assert planned.forecast.stages["folds"] > 3 * one_search > 0
    assert planned.seconds == pytest.approx(sum(planned.forecast.stages.values()))
    assert (planned.guard.n, planned.guard.pooled) == (N, True)
    assert any("each of 3 folds" in line for line in planned.lines())


# A search of folds


@pytest.fixture(scope="module")
def searched(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> tuple[folding.Pooled, RunFolder]:
    folder = RunFolder(tmp_path_factory.mktemp("searched"))
    return folding.search_folds(setting, folder, lambda event: None), folder


def test_every_example_is_answered_once_by_its_own_folds_models(
    setting: Setting, searched: tuple[folding.Pooled, RunFolder]
) -> None:
    pooled, folder = searched
    assert np.array_equal(pooled.rows, setting.judged)
    assert {name: answer.shape for name, answer in pooled.predictions.items()} == dict.fromkeys(setting.studies, (N, 2))
    for number in (1, 2, 3):
        with np.load(folder.fold(number).predictions) as kept:
            assert np.array_equal(kept["rows"], pooled.rows[pooled.number == number])
            assert np.array_equal(kept["of scratch"], pooled.predictions["scratch"][pooled.number == number])
    assert not list(folder.path.rglob("best.safetensors"))  # K times the weights of every study


def test_a_folds_labels_and_examples_touch_nothing_of_its_search(
    setting: Setting, searched: tuple[folding.Pooled, RunFolder], tmp_path: Path
) -> None:
    data, held = setting.dataset, setting.folds[0].rows["guard"]
    before, _ = searched

    def trained(labels: Any, examples: Any) -> folding.Pooled:
        changed = dataclasses.replace(data, labels=labels, examples=examples)
        material = dataclasses.replace(setting.material, dataset=changed)
        only = dataclasses.replace(setting, dataset=changed, material=material, folds=setting.folds[:1])
        place = RunFolder(tmp_path / str(len(list(tmp_path.iterdir()))))
        return folding.search_folds(only, place, lambda event: None)

    labels, examples = data.labels.copy(), data.examples.copy()
    labels[held] = 1 - labels[held]
    flipped = trained(labels, examples)
    for name, answers in flipped.predictions.items():
        assert np.array_equal(answers, before.predictions[name][before.number == 1])
    examples[held] += 100
    moved = trained(labels, examples)
    assert list(map(timeless, moved.weakest)) == list(map(timeless, flipped.weakest))
    outside = setting.folds[0].rows["train"][:5]  # the test bites: one label that is trained on
    labels[outside] = 1 - labels[outside]
    assert list(map(timeless, trained(labels, examples).weakest)) != list(map(timeless, flipped.weakest))


def timeless(study: Any) -> list[Any]:
    """All that a study found, but how long that took."""
    return [
        (trial.number, dict(trial.params), trial.outcome.score, trial.outcome.curve, trial.outcome.state)
        for trial in study.trials
    ]


def test_a_finished_fold_is_read_and_not_searched_again(
    setting: Setting, searched: tuple[folding.Pooled, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled, folder = searched
    monkeypatch.setattr(Bench, "execute", lambda *_: pytest.fail("searched again"))
    heard: list[Event] = []
    again = folding.search_folds(setting, folder, heard.append)
    assert all(np.array_equal(again.predictions[name], pooled.predictions[name]) for name in pooled.predictions)
    assert list(map(timeless, again.weakest)) == list(map(timeless, pooled.weakest))
    assert [event.n_done for event in heard if isinstance(event, StudyStarted)] == [2] * 6


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut short"])
def test_a_damaged_folds_predictions_are_made_again(
    setting: Setting, searched: tuple[folding.Pooled, RunFolder], tmp_path: Path, damage: bytes
) -> None:
    pooled, folder = searched
    place = RunFolder(tmp_path).fold(2)
    place.path.mkdir(parents=True)
    place.journal.write_bytes(folder.fold(2).journal.read_bytes())
    place.predictions.write_bytes(damage)
    only = dataclasses.replace(setting, folds=(setting.folds[1],) * 2)  # the second of two
    again = folding._searched(only, 2, place, lambda event: None)
    for name, answers in again.predictions.items():  # trained again from the journal's best parameters
        assert np.array_equal(answers, pooled.predictions[name][pooled.number == 2])


def test_a_verdict_says_that_it_is_about_the_procedure() -> None:
    verdict = Verdict("accepted", 0.1, 0.0, 0.2, 0.01, 0.05, "exact McNemar", 90, 9, 0, 0.1, "fixed 9: better")
    said = folding.of_procedure(verdict, 5)
    assert (said.method, said.approximate, said.claim) == ("exact McNemar, pooled over 5 folds", True, "procedure")
    assert said.reason.startswith("fixed 9: better (pooled over 5 folds")
    assert (verdict.caveat, said.caveat) == ("", "the folds have tested the search, not its weights")
    untested = dataclasses.replace(verdict, decision="untested", method="none", reason="no trial was completed")
    assert folding.of_procedure(untested, 5).reason == "no trial was completed"


# A whole run


@pytest.mark.slow
def test_a_run_accepts_on_pooled_examples_and_ships_weights_of_a_search_on_all(result: autoxfer.Result) -> None:
    verdict = result.verdicts["linear_probe@net"]
    assert (verdict.decision, verdict.n, verdict.claim, verdict.approximate) == ("accepted", N, "procedure", True)
    winner = result.record.winner
    assert (winner.strategy, winner.certified) == ("linear_probe", False)
    losses = pd.read_parquet(result.folder / "losses.parquet").pivot_table(
        index="example", columns="finalist", values="loss"
    )
    assert len(losses) == N
    assert 1 - losses["linear_probe@net"].mean() == pytest.approx(winner.guard)
    assert (losses["scratch"] - losses["linear_probe@net"]).mean() == pytest.approx(verdict.effect)
    record = stored(result)
    assert record["task"]["folds"] == FOLDS
    assert record["task"]["sizes"] == {"train": 120, "tune": 60, "guard": N, "test": 0}
    assert record["entries"][1]["verdict"]["claim"] == "procedure"
    assert any("NOT CERTIFIED (the folds" in line for line in leaderboard.sentences(result.record))
    assert len(result.winner.predict(np.zeros((3, 8), np.float32))) == 3


@pytest.mark.slow
def test_every_fold_is_announced_and_heard_of(result: autoxfer.Result, listener: Listener) -> None:
    started = next(event for event in listener.events if isinstance(event, RunStarted))
    assert started.studies[:3] == ("fold 1/3 scratch", "fold 1/3 linear_probe@net", "fold 2/3 scratch")
    assert started.studies[-2:] == ("scratch", "linear_probe@net")
    assert {event.study for event in listener.events if isinstance(event, StudyStarted)} == set(started.studies)
    assert sum(isinstance(event, TrialFinished) for event in listener.events) == 2 * len(started.studies)
    assert result.record.entries[0].n_trials == 2  # of the search that made what is shipped


@pytest.mark.slow
@pytest.mark.parametrize("at", [7, 14])  # in the second fold, in the last search
def test_a_run_that_is_killed_and_resumed_ends_as_a_whole_one(
    result: autoxfer.Result, tmp_path: Path, untracked: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    execute, count = Bench.execute, [0]

    def breaks(self: Bench, job: Job) -> Outcome:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return execute(self, job)

    monkeypatch.setattr(Bench, "execute", breaks)
    with pytest.raises(KeyboardInterrupt):
        autoxfer.run(load_config(result.folder / "config.yaml"), runs=tmp_path, mlflow=untracked)
    (folder,) = (path.parent for path in tmp_path.glob("*/config.yaml"))
    resumed = stored(selection.resume(folder.name, runs=tmp_path, mlflow=untracked))
    assert count[0] == 16 + 1  # the broken one ran twice
    whole = stored(result)
    for one, other in zip(resumed["entries"], whole["entries"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert resumed["winner"] == whole["winner"]


@pytest.mark.slow
def test_a_study_that_fails_in_one_fold_is_not_judged(
    settings: dict[str, Any], tmp_path: Path, untracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "linear_probe@net", fold="2")
    failed = autoxfer.run({**settings, "guard": {"folds": 2}}, runs=tmp_path, mlflow=untracked)
    verdict = failed.verdicts["linear_probe@net"]
    assert verdict.decision == "untested"
    assert "no trial was completed: RuntimeError: broken" in verdict.reason
    assert (failed.record.winner.strategy, failed.record.winner.certified) == ("scratch", True)
    assert stored(failed)["entries"][1]["guard"] is None


@pytest.mark.slow
def test_a_baseline_that_fails_in_one_fold_decides_nothing(
    settings: dict[str, Any], tmp_path: Path, untracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "scratch", fold="1")
    failed = autoxfer.run({**settings, "guard": {"folds": 2}}, runs=tmp_path, mlflow=untracked)
    verdict = failed.verdicts["linear_probe@net"]
    assert verdict.decision == "untested"
    assert "under-tuned (0 completed trials, 2 needed)" in verdict.reason
    assert failed.record.winner.strategy == "scratch"


@pytest.mark.slow
def test_a_refit_with_folds_trains_on_train_and_tune(settings: dict[str, Any], tmp_path: Path, untracked: Path) -> None:
    refitted = autoxfer.run({**settings, "guard": {"folds": 2}, "final": "refit"}, runs=tmp_path, mlflow=untracked)
    assert refitted.record.refit is not None
    assert not refitted.record.refit.certified


def failing(monkeypatch: pytest.MonkeyPatch, study: str, fold: str) -> None:
    execute = Bench.execute

    def fails(self: Bench, job: Job) -> Outcome:
        if job.study == study and self._folder.path.parts[-2:] == ("folds", fold):
            raise RuntimeError("broken")
        return execute(self, job)

    monkeypatch.setattr(Bench, "execute", fails)
