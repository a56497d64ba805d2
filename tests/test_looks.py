"""Looks at the guard are counted, on disk and in MLflow, and from the second on nothing is certified."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution

from autoxfer import looks, tracking
from autoxfer.config import load_config
from autoxfer.errors import StorageError, TrackingError
from autoxfer.finalists import certified
from autoxfer.looks import Ledger, before, configuration, own_look
from autoxfer.metrics import get_metric
from autoxfer.records import Verdict
from autoxfer.report import Entry, Logged, Look, Looks, RunRecord, Winner, read_record
from autoxfer.runfolder import RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.terminal import history, leaderboard
from autoxfer.tracking import evidence

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
    "strategies": [{"scratch": {"steps": 20, "architecture": "compact"}}, "linear_probe"],
    "budget": {"trials": 5},
}
ACCEPTED = Verdict("accepted", 0.1, 0.05, 0.15, 0.001, 0.05, "exact McNemar", 300, 40, 10, 0.05, "fixed 40, broke 10")


def look(config: str, *, data: str = "data", guard: str = "guard", run: str = "", time: str = "") -> Look:
    return Look(time or "2026-01-01T00:00:00+00:00", data, guard, config, run or f"run-{config}")


def numbers(ledger: Ledger, *taken: Look) -> list[int]:
    return [ledger.take(one).number for one in taken]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "looks.jsonl")


# --- what counts ---


def test_other_settings_on_the_same_data_are_another_look(ledger: Ledger) -> None:
    assert numbers(ledger, look("a"), look("b"), look("c")) == [1, 2, 3]
    assert [one.run_id for one in ledger.take(look("d")).earlier] == ["run-a", "run-b", "run-c"]


def test_the_same_settings_again_are_no_new_look(ledger: Ledger) -> None:
    assert numbers(ledger, look("a"), look("b")) == [1, 2]
    assert numbers(ledger, look("a", run="later"), look("b", run="resumed"), look("b")) == [1, 2, 2]
    assert len(ledger.read()) == 2


def test_a_fresh_guard_is_a_fresh_certificate_and_more_training_data_are_not(ledger: Ledger) -> None:
    first, fresh = look("a"), look("a", data="other", guard="fresh")
    same_guard = look("a", data="more", run="c")
    assert numbers(ledger, first, fresh, same_guard) == [1, 1, 2]
    assert numbers(ledger, look("a", data="x", guard=""), look("a", data="y", guard="")) == [1, 1]


def test_what_others_know_is_noted_in_the_order_in_which_it_happened(ledger: Ledger) -> None:
    colleague = [look("c", time="2026-01-03"), look("b", time="2026-01-02"), look("e", data="else", guard="else")]
    assert ledger.take(look("a"), colleague).number == 3
    assert [one.config for one in ledger.read()] == ["e", "b", "c", "a"]
    assert ledger.take(look("a")).number == 3, "a run that is resumed without MLflow finds what it began with"
    assert ledger.take(look("d"), colleague).number == 4, "what is noted is not noted again"


def test_a_run_that_mlflow_knows_as_the_first_stays_the_first_in_a_fresh_folder(ledger: Ledger) -> None:
    known = [look("a", time="2026-01-02", run="mine"), look("b", time="2026-01-03")]
    assert ledger.take(look("a", run="again"), known).number == 1


# --- the file ---


def test_the_ledger_is_only_added_to_and_a_torn_line_is_cut_off(ledger: Ledger) -> None:
    ledger.take(look("a"))
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"time": "2026-01-01", "da')
    assert len(ledger.read()) == 1
    assert ledger.take(look("b")).number == 2
    assert ledger.path.read_bytes().startswith(whole)
    assert [json.loads(line)["config"] for line in ledger.path.read_text().splitlines()] == ["a", "b"]


def test_lines_that_say_nothing_of_a_look_are_passed_over_and_kept(ledger: Ledger) -> None:
    ledger.path.write_text('{"kind": "note"}\n[1]\nnull\n\xff\n')
    assert ledger.take(look("a")).number == 1
    assert len(ledger.path.read_bytes().splitlines()) == 5


def test_a_ledger_that_cannot_be_written_stops_the_run_before_its_verdicts(tmp_path: Path) -> None:
    (tmp_path / "looks.jsonl").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        Ledger(tmp_path / "looks.jsonl").take(look("a"))


def _take_many(path: Path, who: int) -> None:
    for number in range(20):
        Ledger(path).take(look(f"{who}-{number}"))


def test_processes_that_look_at_once_lose_no_line(ledger: Ledger) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_take_many, args=(ledger.path, who)) for who in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert len({one.config for one in ledger.read()}) == 60 == len(ledger.read())


def _hold(path: Path, ready: Any, seconds: float) -> None:
    with path.open("a+b") as handle, looks._locked(handle):
        ready.set()
        time.sleep(seconds)
        handle.write((json.dumps(dataclasses.asdict(look("theirs"))) + "\n").encode())


def held(path: Path, seconds: float) -> Any:
    """Start a process that owns the ledger and writes a look at the end."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    owner = context.Process(target=_hold, args=(path, ready, seconds))
    owner.start()
    assert ready.wait(5)
    return owner


def test_one_waits_for_the_look_that_another_is_taking(ledger: Ledger) -> None:
    ledger.take(look("a"))
    owner = held(ledger.path, 0.3)
    assert ledger.take(look("b")).number == 3
    owner.join(5)


def test_a_killed_owner_leaves_no_lock(ledger: Ledger) -> None:
    ledger.take(look("a"))
    owner = held(ledger.path, 60)
    os.kill(owner.pid, signal.SIGKILL)
    started = time.monotonic()
    assert ledger.take(look("b")).number == 2
    assert time.monotonic() - started < 2
    owner.join(5)


# --- what a configuration is ---


@pytest.fixture(scope="module")
def setting() -> Setting:
    return prepare(load_config(SETTINGS))


def hashed(setting: Setting, *overrides: str, **changed: Any) -> str:
    config = load_config(SETTINGS, overrides)
    return own_look(dataclasses.replace(setting, config=config, **changed), "x").config


def test_paths_names_and_devices_make_no_new_look(setting: Setting, tmp_path: Path) -> None:
    copy = tmp_path / "moved.npz"
    copy.write_bytes((DIGITS / "digits.npz").read_bytes())
    unread = ["task.name=other", "device=cpu", "final=refit", "guard.when_undecided=best_tune"]
    moved = prepare(load_config(SETTINGS, [f"task.data={copy}", *unread]))
    mine, other = own_look(setting, "x"), own_look(moved, "y")
    assert (mine.data, mine.guard, mine.config) == (other.data, other.guard, other.config)


@pytest.mark.parametrize(
    "override", ["seed=1", "budget.trials=6", "budget.seconds=60", "guard.alpha=0.1", "guard.margin=0.01"]
)
def test_settings_of_the_search_and_of_the_test_make_a_new_look(setting: Setting, override: str) -> None:
    assert hashed(setting, override) != hashed(setting)


def test_other_splits_sources_studies_or_metrics_make_a_new_look(setting: Setting) -> None:
    rows, probe = setting.splits.rows, setting.studies["linear_probe@digits"]
    narrowed = dataclasses.replace(probe, space={**probe.space, "strength": CategoricalDistribution([1.0])})
    started = dataclasses.replace(probe, defaults=({**probe.defaults[0], "strength": 2.0},))
    changed: list[dict[str, Any]] = [
        {"splits": dataclasses.replace(setting.splits, rows={**rows, "guard": rows["guard"][:-1]})},
        {"sources": {"renamed": setting.sources["digits"]}},
        {"studies": {"scratch": setting.studies["scratch"]}},
        {"studies": {**setting.studies, "linear_probe@digits": narrowed}},
        {"studies": {**setting.studies, "linear_probe@digits": started}},
        {"metric": get_metric("log_loss", "classification")},
    ]
    found = {hashed(setting), *(hashed(setting, **change) for change in changed)}
    assert len(found) == 1 + len(changed)


def test_the_guards_print_is_of_its_examples_alone(setting: Setting) -> None:
    mine, rows, train = own_look(setting, "x"), setting.rows("guard"), setting.rows("train")

    def changed(row: int) -> Look:
        examples = setting.dataset.examples.copy()
        examples[row, 0, 0] += 1
        dataset = dataclasses.replace(setting.dataset, examples=examples)
        return own_look(dataclasses.replace(setting, dataset=dataset), "x")

    assert changed(train[0]).guard == mine.guard
    assert changed(train[0]).data != mine.data
    assert changed(rows[0]).guard != mine.guard
    assert before([mine], dataclasses.replace(changed(train[0]), run_id="y")).number == 2


def test_every_setting_of_guard_and_budget_is_part_of_the_configuration(setting: Setting) -> None:
    plain, config = configuration(setting), setting.config
    assert set(plain["guard"]) == set(type(config.guard).model_fields) - {"when_undecided"}
    assert set(plain["budget"]) == set(type(config.budget).model_fields)
    assert set(plain["splits"]) == {"train", "tune", "guard", "test"}
    assert set(plain["studies"]) == set(setting.studies)


# --- MLflow ---


def test_a_server_that_is_down_is_a_warning(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*arguments: object) -> None:
        raise TrackingError("http://server: no answer")

    monkeypatch.setattr(tracking, "past_looks", down)
    said: list[str] = []
    settings = tracking.TrackingSettings("http://server", tmp_path)
    assert looks.take(setting, RunFolder(tmp_path / "run"), settings, said.append).number == 1
    assert "http://server: no answer" in said[0]


def test_a_look_comes_back_from_its_tags() -> None:
    taken = look("a")
    assert evidence.look(evidence.tags(record(taken))) == taken
    assert evidence.look({"autoxfer.run_id": "old"}) is None


# --- what is shown ---


def record(own: Look, *earlier: Look) -> RunRecord:
    verdict = dataclasses.replace(ACCEPTED, exploratory=bool(earlier))
    entries = (
        Entry("scratch", None, "complete", 5, 5, 0, 0, 1.0, {}, 0.8, 0.8, None, None),
        Entry("linear_probe", "digits", "complete", 5, 5, 0, 0, 1.0, {}, 0.9, 0.9, None, verdict),
    )
    sure = certified("linear_probe@digits", {"linear_probe@digits": verdict})
    winner = Winner("linear_probe", "digits", {}, 0.9, 0.9, None, sure)
    task = {"name": "digits", "metric": "accuracy", "direction": "maximize", "data_fingerprint": "data"}
    return RunRecord(own.run_id, task, winner, entries, Logged(), {"export": 1.0}, looks=Looks(own, earlier))


def test_an_accepted_transfer_of_a_second_look_is_not_certified_anywhere() -> None:
    second = record(look("b"), look("a"))
    assert not second.winner.certified
    assert evidence.tags(second)["autoxfer.look"] == "2"
    assert evidence.version_tags(second)["autoxfer.certified"] == "false"
    assert "NOT CERTIFIED: linear_probe@digits wins, exploratory" in evidence.verdict_text(second)
    assert "This is look 2 at these data" in evidence.page(second)
    assert "accepted (exploratory)" in evidence.leaderboard(second)
    assert "exploratory verdict" in leaderboard.text(second)
    assert leaderboard.sentences(second)[-1].startswith(
        "winner: linear_probe@digits, NOT CERTIFIED, look 2 at these data"
    )
    first = record(look("a"))
    assert first.winner.certified
    shown = (evidence.page(first), leaderboard.text(first), *leaderboard.sentences(first))
    assert not any("exploratory" in text or "NOT CERTIFIED" in text for text in shown)


def test_the_note_says_which_look_it_is_when_the_others_were_and_what_to_do() -> None:
    note = Looks(look("d"), (look("a"), look("b"), look("c", time="2026-02-03T04:05:06+00:00"))).note
    assert "look 4" in note
    assert "(1 before, then run run-b on 2026-01-01 and run run-c on 2026-02-03)" in note
    assert "fresh examples" in note
    assert Looks(look("a")).note == ""


def test_the_record_comes_back_with_its_looks_and_the_list_shows_them(tmp_path: Path) -> None:
    second = record(look("b"), look("a"))
    plain = json.loads(json.dumps(second.as_dict()))
    assert plain["looks"]["number"] == 2
    assert "look 2" in plain["looks"]["note"]
    assert read_record(plain) == second
    assert read_record({key: item for key, item in plain.items() if key != "looks"}).looks is None
    folder = tmp_path / "run-b"
    folder.mkdir()
    (folder / "config.yaml").write_text("task: {data: x, name: digits, metric: accuracy}\n")
    (folder / "result.json").write_text(json.dumps(plain))
    (run,) = history.past_runs(tmp_path)
    assert run["look"] == 2
    assert "(NOT CERTIFIED) (look 2: exploratory)" in history.rows([run])[1][3]
