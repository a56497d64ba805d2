"""Several sources in one run: each alone in every strategy, all together in some, the useless one stopped.

The label has two bits. The source ``one`` can read the first, ``two`` the second, ``junk`` neither: only together do
they tell all four classes apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import autoxfer
from autoxfer import explaining, selection
from autoxfer.config import load_config
from autoxfer.events import Event, Foreseen, Warned
from autoxfer.records import Job, Outcome
from autoxfer.runfolder import LONGEST, RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.terminal import explanation as words
from autoxfer.trials import Bench

CODE = """
from torch import nn

def net(width=4):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
"""
SIGNS = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])  # |x + y| > |x - y| where x * y > 0
CLASSES = np.array(["neither", "first", "second", "both"])
TOGETHER = "one+two+junk"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)).round(4)
    kinds = (x[:, 0] * x[:, 1] > 0) + 2 * (x[:, 2] * x[:, 3] > 0)
    table = pd.DataFrame(x, columns=list("abcd")).assign(label=CLASSES[kinds])
    table.to_csv(place / "bits.csv", index=False)
    (place / "nets.py").write_text(CODE)
    torch.manual_seed(0)
    readers = {"one": torch.cat([SIGNS, torch.zeros(4, 2)], 1), "two": torch.cat([torch.zeros(4, 2), SIGNS], 1)}
    readers["junk"] = torch.zeros(6, 4)
    for name, weight in readers.items():
        save_file(tensors(weight), place / f"{name}.safetensors")
    return place


def tensors(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Make a network whose features are the positive parts of ``weight``'s rows with the example."""
    n = len(weight)
    body = {"0.weight": weight, "0.bias": torch.zeros(n), "2.weight": torch.eye(n), "2.bias": torch.zeros(n)}
    return body | {"4.weight": torch.randn(2, n), "4.bias": torch.zeros(2)}


def configured(project: Path, *names: str, **changes: Any) -> dict[str, Any]:
    source = {"model": "nets.py:net", "input": {"shape": [4]}}
    sources = [{**source, "name": name, "weights": f"{name}.safetensors"} for name in names or ("one", "two", "junk")]
    sources = [s | ({"options": {"width": 6}} if s["name"] == "junk" else {}) for s in sources]
    return {
        "task": {"data": "bits.csv", "splits": {"train": 120, "tune": 80, "guard": 200, "test": 100}},
        "sources": sources,
        "strategies": [
            {"scratch": {"architecture": "compact", "steps": 2}},
            "linear_probe",
            {"residual": {"steps": 20}},
            "adapters",
        ],
        "budget": {"trials": 7},
        "device": "cpu",
        "directory": str(project),
        **changes,
    }


def setting(project: Path, *names: str, **changes: Any) -> Setting:
    return prepare(load_config(configured(project, *names, **changes)))


def test_each_source_alone_and_all_together_where_a_strategy_can(project: Path) -> None:
    studies = setting(project).studies
    singles = {f"{way}@{name}" for way in ("linear_probe", "residual", "adapters") for name in ("one", "two", "junk")}
    assert set(studies) == {"scratch", *singles, f"linear_probe@{TOGETHER}", f"residual@{TOGETHER}"}
    together = studies[f"residual@{TOGETHER}"]
    assert [source.name for source in together.problem.sources] == ["one", "two", "junk"]
    assert together.source == TOGETHER


def test_one_source_alone_is_no_several(project: Path) -> None:
    assert set(setting(project, "one", strategies=["residual"]).studies) == {"scratch", "residual@one"}


def test_a_source_under_two_names_is_not_joined_with_itself(project: Path) -> None:
    twice = configured(project, "one", "two", strategies=["residual"])
    twice["sources"][1]["weights"] = "one.safetensors"
    found = prepare(load_config(twice))
    assert set(found.studies) == {"scratch", "residual@one", "residual@two"}
    assert "one and two are one and the same network" in found.unavailable["residual@one+two"]
    assert any(warning.startswith("residual@one+two: one and two are one") for warning in found.warnings)


def test_what_was_wished_for_one_source_does_not_stop_the_others(project: Path) -> None:
    found = setting(project, "one", "two", strategies=[{"linear_probe": {"tap": "0"}}])
    assert set(found.studies) == {"scratch", "linear_probe@one", "linear_probe@two"}
    assert "last" in found.unavailable["linear_probe@one+two"]


def test_far_more_features_than_examples_are_a_warning(project: Path) -> None:
    wide = configured(project, "one", "two", "junk", strategies=["residual"])
    wide["task"] = {"data": "bits.csv", "splits": {"train": 12, "tune": 80, "guard": 200}}
    save_file(tensors(torch.randn(200, 4)), project / "wide.safetensors")
    wide["sources"][2] |= {"weights": "wide.safetensors", "options": {"width": 200}}
    (said,) = [text for text in prepare(load_config(wide)).warnings if "sources together" in text]
    assert said.startswith(f"residual@{TOGETHER}: 3 sources together have 208 features for 12 train examples")
    assert not [text for text in setting(project).warnings if "sources together" in text]


def test_the_folder_of_many_sources_has_a_name_that_a_disk_takes() -> None:
    folder = RunFolder(Path("run"))
    assert folder.best("residual@a+b").parent.name == "residual@a+b"
    many = [folder.best(f"residual@{'+'.join(f'a_long_name_{k}' for k in range(n))}").parent.name for n in (40, 41)]
    assert max(map(len, many)) < LONGEST + 20
    assert many[0] != many[1]


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture(scope="module")
def heard() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def result(project: Path, heard: Listener) -> autoxfer.Result:
    return autoxfer.run(configured(project, final="refit"), runs=project / "runs", observers=[heard])


def stored(result: autoxfer.Result) -> dict[str, Any]:
    return json.loads((result.folder / "result.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_together_they_win_and_the_winner_says_whose_it_is(result: autoxfer.Result) -> None:
    winner = stored(result)["winner"]
    assert (winner["strategy"], winner["source"]) == ("linear_probe", TOGETHER)
    assert winner["certified"]
    assert winner["test"] > 0.9
    description = json.loads((result.folder / "winner" / "model.json").read_text())["winner"]
    assert description["source"] == TOGETHER
    assert set(description["sources"]) == set(TOGETHER.split("+"))
    assert (result.folder / "winner_refit" / "model.pt2").is_file()


@pytest.mark.slow
def test_together_they_have_the_same_number_of_trials_and_no_other_has_more(result: autoxfer.Result) -> None:
    counts = {entry.study: entry.n_trials for entry in result.record.entries}
    assert counts[f"residual@{TOGETHER}"] == counts["scratch"] == max(counts.values()) == 7


@pytest.mark.slow
def test_the_winner_of_several_sources_answers_raw_examples_wherever_it_is_loaded(
    result: autoxfer.Result, project: Path
) -> None:
    import mlflow  # noqa: PLC0415

    rows = pd.read_parquet(result.folder / "losses.parquet")["example"].unique()
    table = pd.read_csv(project / "bits.csv").iloc[rows]
    x, labels = table[list("abcd")], table["label"].to_numpy()
    predicted = autoxfer.load(result.folder).predict(x)
    assert np.mean(predicted == labels) == pytest.approx(result.record.winner.guard)
    logged = result.record.mlflow
    mlflow.set_tracking_uri(logged.tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/{logged.name}/{logged.version}").predict(x)
    assert list(served["label"]) == list(predicted)


@pytest.mark.slow
def test_mlflow_has_a_child_for_each_study_and_one_for_all_together(result: autoxfer.Result) -> None:
    import mlflow  # noqa: PLC0415

    client = mlflow.MlflowClient(result.record.mlflow.tracking_uri)
    experiment = client.get_run(result.record.mlflow.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`autoxfer.study` = 'residual@{TOGETHER}'")
    assert [child.data.params["source"] for child in children] == [TOGETHER]
    stopped = client.search_runs([experiment], "tags.`autoxfer.study` = 'linear_probe@junk'")
    assert "junk is plainly worse than" in stopped[0].data.tags["autoxfer.given_up"]


@pytest.mark.slow
def test_the_useless_source_is_stopped_and_everything_that_reports_says_so(
    result: autoxfer.Result, heard: Listener
) -> None:
    entries = {entry.study: entry for entry in result.record.entries}
    stopped = entries["linear_probe@junk"]
    assert "junk is plainly worse than one" in stopped.given_up or "junk is plainly worse than two" in stopped.given_up
    assert stopped.verdict is not None
    assert stopped.status == "complete", "it is a finalist all the same"
    assert not entries["scratch"].given_up
    told = [event.text for event in heard.events if isinstance(event, Warned)]
    assert f"linear_probe@junk: no further trials, {stopped.given_up}" in told
    assert "junk is plainly worse than" in words.study_words(
        explaining.explain(result.record.run_id, result.folder.parent, curves=False), stopped
    )


@pytest.mark.slow
def test_what_together_learned_is_explained_with_its_curve_and_was_forecast(
    result: autoxfer.Result, heard: Listener
) -> None:
    found = explaining.explain(result.record.run_id, result.folder.parent)
    text = "\n".join(words.lines(found))
    assert f"linear_probe@{TOGETHER} won" in text
    assert f"residual@{TOGETHER}" in found.diagnoses
    assert not found.notes
    assert set(found.diagnostics["sources"]) == set(TOGETHER.split("+"))
    assert found.diagnostics["order"][-2:] == [f"linear_probe@{TOGETHER}", f"residual@{TOGETHER}"]
    for event in heard.events:
        if isinstance(event, Foreseen):
            assert f"residual@{TOGETHER}" in event.forecast.studies


@pytest.mark.slow
def test_killed_while_all_are_together_it_ends_where_it_would_have_ended(
    result: autoxfer.Result, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute: Callable[[Bench, Job], Outcome] = Bench.execute
    begun: list[str] = []

    def breaks(self: Bench, job: Job) -> Outcome:
        begun.append(job.study)
        if begun.count(f"residual@{TOGETHER}") == 3 and job.study == f"residual@{TOGETHER}" and len(set(begun)) > 1:
            raise KeyboardInterrupt
        return execute(self, job)

    monkeypatch.setattr(Bench, "execute", breaks)
    with pytest.raises(KeyboardInterrupt):
        autoxfer.run(configured(project, final="refit"), runs=tmp_path)
    monkeypatch.setattr(Bench, "execute", execute)
    (folder,) = (path.parent for path in tmp_path.glob("*/config.yaml"))
    resumed = stored(selection.resume(folder.name, runs=tmp_path))
    for one, other in zip(resumed["entries"], stored(result)["entries"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert resumed["winner"] == stored(result)["winner"]


@pytest.mark.slow
def test_over_folds_they_come_together_in_each(project: Path, tmp_path: Path) -> None:
    config = configured(
        project,
        "one",
        "two",
        guard={"folds": 2},
        strategies=[{"scratch": {"architecture": "compact", "steps": 2}}, "linear_probe"],
    )
    del config["task"]["splits"]
    found = autoxfer.run({**config, "task": {"data": "bits.csv"}, "budget": {"trials": 5}}, runs=tmp_path)
    verdict = found.verdicts["linear_probe@one+two"]
    assert verdict.accepted
    assert verdict.claim == "procedure"
