"""What a whole run promises, on the digits of the example with a small budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import autoxfer
from autoxfer import selection
from autoxfer.errors import InputError
from autoxfer.events import Event, Warned
from autoxfer.records import Job, Outcome
from autoxfer.trials import Bench

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
SETTINGS = {
    "task": {"data": str(DIGITS / "digits.npz"), "splits": {"train": 50, "tune": 50, "guard": 300, "test": 100}},
    "sources": [
        {
            "name": "digits",
            "model": f"{DIGITS / 'nets.py'}:SmallCNN",
            "weights": str(DIGITS / "digits_source.safetensors"),
        }
    ],
    "strategies": [{"scratch": {"steps": 30}}, "linear_probe", {"fine_tune": {"steps": 20}}],
    "budget": {"trials": 5},
}

pytestmark = pytest.mark.slow


class Listener:
    """Remembers what happened."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own for other searches: beside the first one they would be further looks."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def result(runs: Path, listener: Listener) -> autoxfer.Result:
    return autoxfer.run(SETTINGS, runs=runs, observers=[listener])


def stored(result: autoxfer.Result) -> dict[str, Any]:
    return json.loads((result.folder / "result.json").read_text())  # type: ignore[no-any-return]


def test_a_real_source_is_accepted_over_a_hasty_scratch(result: autoxfer.Result) -> None:
    assert result.verdicts["linear_probe@digits"].accepted
    assert result.record.winner.strategy != "scratch"
    assert result.record.winner.certified


def test_everything_that_was_promised_lies_in_the_folder(result: autoxfer.Result) -> None:
    names = {str(path.relative_to(result.folder)) for path in result.folder.rglob("*") if path.is_file()}
    promised = {"config.yaml", "environment.json", "journal.log", "trials.parquet", "losses.parquet", "result.json"}
    promised |= {
        f"studies/{study}/best.safetensors" for study in ("scratch", "linear_probe@digits", "fine_tune@digits")
    }
    promised |= {f"winner/model.{kind}" for kind in ("safetensors", "json", "pt2")}
    assert promised <= names


def test_the_record_has_the_fields_of_the_contract(result: autoxfer.Result) -> None:
    record = stored(result)
    assert record["schema_version"] == 1
    assert {"run_id", "task", "winner", "entries", "mlflow", "timings"} <= record.keys()
    assert {"strategy", "source", "params", "tune", "guard", "test", "certified"} <= record["winner"].keys()
    entry = next(entry for entry in record["entries"] if entry["strategy"] == "linear_probe")
    fields = "strategy source status n_trials n_complete n_pruned n_failed seconds params tune guard test verdict"
    assert set(fields.split()) <= entry.keys()
    fields = "decision accepted effect ci_low ci_high p_value level method n fixed broken detectable reason"
    assert set(fields.split()) <= entry["verdict"].keys()
    assert {"tracking_uri", "run_id", "model_uri", "name", "version"} <= record["mlflow"].keys()
    scratch = next(entry for entry in record["entries"] if entry["strategy"] == "scratch")
    assert scratch["verdict"] is None


def test_the_guards_counts_are_those_of_the_losses_on_disk(result: autoxfer.Result) -> None:
    losses = pd.read_parquet(result.folder / "losses.parquet").pivot_table(
        index="example", columns="finalist", values="loss"
    )
    assert len(losses) == 300
    for study, verdict in result.verdicts.items():
        difference = losses["scratch"] - losses[study]
        assert verdict.fixed == (difference > 0).sum()
        assert verdict.broken == (difference < 0).sum()


def test_the_winner_answers_raw_pictures_as_the_record_says(result: autoxfer.Result) -> None:
    rows = pd.read_parquet(result.folder / "losses.parquet")["example"].unique()
    with np.load(DIGITS / "digits.npz") as data:
        images, labels, names = data["images"][rows], data["labels"][rows], data["class_names"]
    predicted = result.winner.predict(images)
    assert np.mean(predicted == names[labels]) == pytest.approx(result.record.winner.guard)
    probabilities = autoxfer.load(result.folder).predict_proba(images[:1])
    assert probabilities.shape == (1, 10)
    assert probabilities.sum() == pytest.approx(1.0)


def test_the_leaderboard_is_a_table_with_scratch_as_the_baseline(result: autoxfer.Result) -> None:
    table = result.leaderboard()
    assert set(table["strategy"]) == {"scratch", "linear_probe", "fine_tune"}
    assert table.set_index("strategy").loc["scratch", "verdict"] == "baseline"


def test_observers_hear_of_every_trial_and_every_verdict(result: autoxfer.Result, listener: Listener) -> None:
    names = listener.names()
    assert names[0] == "RunStarted"
    assert names[-1] == "RunFinished"
    assert names.count("TrialFinished") == sum(entry.n_trials for entry in result.record.entries)
    assert names.count("VerdictReached") == 2


def test_no_transfer_gets_more_trials_than_the_baseline_was_offered(result: autoxfer.Result) -> None:
    trials = pd.read_parquet(result.folder / "trials.parquet")
    counts = trials.groupby("study").size()
    assert counts.max() == counts["scratch"] == 5


def test_the_first_trials_of_scratch_are_the_compact_network_and_the_sources_own(result: autoxfer.Result) -> None:
    trials = pd.read_parquet(result.folder / "trials.parquet")
    first = [json.loads(params)["architecture"] for params in trials[trials["study"] == "scratch"]["params"][:2]]
    assert first == ["compact", "digits"]


def test_the_run_that_is_resumed_after_it_ended_repeats_nothing(result: autoxfer.Result, runs: Path) -> None:
    before = stored(result)
    heard = Listener()
    again = selection.resume(result.record.run_id, runs=runs, observers=[heard])
    assert "TrialFinished" not in heard.names()
    after = stored(again)
    assert {**after, "timings": {}} == {**before, "timings": {}}


def test_a_run_that_breaks_off_ends_where_an_unbroken_one_ends(
    result: autoxfer.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, count = Bench.execute, [0]

    def breaks(self: Bench, job: Job) -> Outcome:
        count[0] += 1
        if count[0] == 8:
            raise KeyboardInterrupt
        return execute(self, job)

    monkeypatch.setattr(Bench, "execute", breaks)
    with pytest.raises(KeyboardInterrupt):
        autoxfer.run(SETTINGS, runs=tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("*/config.yaml"))
    resumed = stored(selection.resume(folder.name, runs=tmp_path))
    whole = stored(result)
    assert count[0] == sum(entry["n_trials"] for entry in whole["entries"]) + 1  # the broken one ran twice
    for one, other in zip(resumed["entries"], whole["entries"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert resumed["winner"] == whole["winner"]


def test_changed_data_are_not_resumed(result: autoxfer.Result, runs: Path, tmp_path: Path) -> None:
    copied = tmp_path / result.record.run_id
    copied.mkdir()
    for name in ("config.yaml", "environment.json"):
        (copied / name).write_bytes((result.folder / name).read_bytes())
    config = yaml.safe_load((copied / "config.yaml").read_text())
    with np.load(config["task"]["data"]) as data:
        arrays = dict(data)
    arrays["images"][0, 0, 0] += 1
    config["task"]["data"] = str(tmp_path / "changed.npz")
    np.savez(config["task"]["data"], **arrays)
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="data that the run began with"):
        selection.resume(result.record.run_id, runs=tmp_path)


def test_an_under_tuned_baseline_leaves_everything_untested(elsewhere: Path) -> None:
    hasty = _with(elsewhere, trials=2)
    assert {verdict.decision for verdict in hasty.verdicts.values()} == {"untested"}
    assert hasty.record.winner.strategy == "scratch"
    assert "under-tuned" in hasty.verdicts["linear_probe@digits"].reason
    assert any("nothing can be accepted" in warning for warning in hasty.record.task["warnings"])


def test_failing_trials_are_failed_and_the_rest_goes_on(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Bench.execute

    def fails(self: Bench, job: Job) -> Outcome:
        if job.strategy == "fine_tune" and job.number != 1:
            raise RuntimeError("the third-party layer broke")
        return execute(self, job)

    monkeypatch.setattr(Bench, "execute", fails)
    result = _with(elsewhere, trials=5)
    entry = next(entry for entry in result.record.entries if entry.strategy == "fine_tune")
    assert (entry.n_complete, entry.n_failed, entry.n_pruned) == (1, 4, 0)
    trials = pd.read_parquet(result.folder / "trials.parquet")
    assert trials["reason"].str.contains("third-party layer").sum() == 4


def test_a_study_without_a_completed_trial_says_why(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Bench.execute

    def fails(self: Bench, job: Job) -> Outcome:
        if job.strategy == "linear_probe":
            raise RuntimeError("no such feature")
        return execute(self, job)

    monkeypatch.setattr(Bench, "execute", fails)
    result = _with(elsewhere, trials=5)
    verdict = result.verdicts["linear_probe@digits"]
    assert verdict.decision == "untested"
    assert "no such feature" in verdict.reason


def test_another_search_on_the_same_data_is_exploratory_and_certifies_nothing(
    result: autoxfer.Result, runs: Path, listener: Listener
) -> None:
    assert not any(verdict.exploratory for verdict in result.verdicts.values())
    assert stored(result)["looks"]["number"] == 1
    heard = Listener()
    second = autoxfer.run({**SETTINGS, "seed": 1}, runs=runs, observers=[heard])
    told = [event.text for event in heard.events if isinstance(event, Warned)]
    assert (
        sum(
            f"look 2 at these data, with other settings than earlier ones (run {result.record.run_id}" in text
            for text in told
        )
        == 1
    )
    assert heard.names().index("Warned") < heard.names().index("StudyStarted"), "it is said before time is spent"
    assert all(verdict.exploratory for verdict in second.verdicts.values())
    if second.record.winner.strategy != "scratch":
        assert second.record.winner.certified is False
    assert (stored(second)["looks"]["number"], stored(second)["entries"][1]["verdict"]["exploratory"]) == (2, True)
    again = autoxfer.run(SETTINGS, runs=runs)
    assert (again.record.looks and again.record.looks.number) == 1
    assert again.record.winner.certified
    lines = (runs / "looks.jsonl").read_text().splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == [result.record.run_id, second.record.run_id]


def test_nothing_is_seeded_globally_and_nothing_is_drawn(elsewhere: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    _with(elsewhere, trials=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_trial_is_given_to_a_study_whose_time_is_up(elsewhere: Path) -> None:
    result = autoxfer.run({**SETTINGS, "budget": {"trials": 5, "seconds": 1e-9}}, runs=elsewhere)
    counts = {entry.study: entry.n_trials for entry in result.record.entries}
    assert counts == {"scratch": 2, "linear_probe@digits": 0, "fine_tune@digits": 0}  # scratch's defaults, no more
    assert all("no trial" in verdict.reason for verdict in result.verdicts.values())


def _with(elsewhere: Path, trials: int) -> autoxfer.Result:
    return autoxfer.run({**SETTINGS, "budget": {"trials": trials}}, runs=elsewhere)
