"""What goes wrong around a run costs the run nothing that was finished: real runs, real faults, small data."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from optuna.storages.journal import JournalFileBackend
from torch import nn

import autoxfer
from autoxfer import selection
from autoxfer.cli import main
from autoxfer.errors import StorageError
from autoxfer.events import Event, StageStarted, TrialFinished, Warned

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
SETTINGS: dict[str, Any] = {
    "task": {"data": str(DIGITS / "digits.npz"), "splits": {"train": 50, "tune": 50, "guard": 100, "test": 50}},
    "sources": [
        {"name": "digits", "model": f"{DIGITS}/nets.py:SmallCNN", "weights": str(DIGITS / "digits_source.safetensors")}
    ],
    "strategies": [{"scratch": {"steps": [5, 10]}}, "linear_probe", {"fine_tune": {"steps": [5, 10]}}],
    "budget": {"trials": 3, "min_trials": 3},
    "device": "cpu",
}

pytestmark = pytest.mark.slow


class Listener:
    """Does something when something happens."""

    def __init__(self, react: Callable[[Event], object] = lambda event: None) -> None:
        self.react = react
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)
        self.react(event)

    def warnings(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Warned))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "AUTOXFER_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def untracked(tmp_path: Path) -> None:
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts of a run that nothing disturbs."""
    place = tmp_path_factory.mktemp("whole")
    (place / "off.yaml").write_text("enabled: false\n")
    return facts(autoxfer.run(SETTINGS, runs=place, mlflow=place / "off.yaml").folder)


def facts(folder: Path) -> dict[str, Any]:
    """The result, but for what the clock and chance put into it."""
    result = json.loads((folder / "result.json").read_text())
    entries = [{**entry, "seconds": 0} for entry in result["entries"]]
    return {"winner": result["winner"], "entries": entries, "task": result["task"]}


def only(runs: Path) -> str:
    (folder,) = (path.parent for path in runs.glob("*/config.yaml"))
    return folder.name


def states(runs: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["list", "--runs", str(runs), "--json"])
    return [run["state"] for run in json.loads(capsys.readouterr().out)["runs"]]


# --- kills and signals ---


def test_twenty_kills_at_random_instants_cost_nothing() -> None:
    """A smoke run of the example that does this at length."""
    command = [sys.executable, str(ROOT / "examples" / "evidence" / "kill.py"), "--kills", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    tally = json.loads(done.stdout or "{}")
    assert done.returncode == 0, f"{tally} {done.stderr[-3000:]}"
    assert tally["kills"] == 20
    assert len(tally["stages"]) >= 2  # not all in one place


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_signal_ends_with_130_and_one_line_on_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**SETTINGS, "budget": {"trials": 500}}))
    command = [sys.executable, "-m", "autoxfer", "run", "run.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    heed = partial(signal.signal, number, signal.SIG_DFL)  # a shell's background jobs inherit an ignored SIGINT
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
        preexec_fn=heed,  # noqa: PLW1509
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "searching" in line:
                    break
            time.sleep(0.5)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-2:] == ["interrupted", f"  go on with: autoxfer run --resume {only(tmp_path / 'runs')}"]


# --- trials ---


class Faulty(nn.Module):
    """A head that does what it should not."""

    def __init__(self, fault: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))
        self.fault = fault

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.fault(inputs.flatten(1)[:, :10] * self.weight)


def hang(outputs: torch.Tensor) -> torch.Tensor:
    time.sleep(600)
    return outputs


def spread_nan(outputs: torch.Tensor) -> torch.Tensor:
    return outputs * float("nan")


def use_up_memory(outputs: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (hang, "TimeoutError: the trial took more than budget.trial_seconds = 0.5, in test_faults.py"),
        (spread_nan, "FloatingPointError: the candidate's outputs on the tune split are not finite"),
        (use_up_memory, "MemoryError: out of memory with one example at a time: CUDA out of memory"),
    ],
)
def test_a_strategy_whose_trials_go_wrong_fails_alone_and_says_why(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, reason: str
) -> None:
    from autoxfer import Candidate, Tap  # noqa: PLC0415
    from autoxfer.plugins import load_plugins  # noqa: PLC0415

    strategy = load_plugins().strategy("fine_tune")
    monkeypatch.setattr(strategy, "build", lambda self, problem: Candidate(Faulty(fault), (Tap("input"),)))
    monkeypatch.setattr(strategy, "fit", autoxfer.Strategy.fit)
    monkeypatch.setattr(selection, "prepare", unrehearsed(selection.prepare, monkeypatch))
    # Not for the hanging one alone: the others must not mind a limit.
    limited = {**SETTINGS, "budget": {**SETTINGS["budget"], "trial_seconds": 0.5 if fault is hang else 60}}
    result = autoxfer.run(limited, runs=tmp_path / "runs")
    entry = next(entry for entry in result.record.entries if entry.strategy == "fine_tune")
    assert (entry.n_failed, entry.n_complete) == (3, 0)
    assert result.verdicts["fine_tune@digits"].reason.startswith(f"no trial was completed: {reason}")
    if fault is not hang:  # a loaded machine may need more than half a second for an honest trial
        others = [entry for entry in facts(result.folder)["entries"] if entry["strategy"] == "scratch"]
        assert others == [entry for entry in whole["entries"] if entry["strategy"] == "scratch"]


def unrehearsed(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Skip the rehearsal, which would find these faults before the search."""
    with contextlib.suppress(ImportError):
        from autoxfer import rehearsal  # noqa: PLC0415

        monkeypatch.setattr(rehearsal, "fault", lambda *arguments: "")
    return prepare


# --- the disk ---


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize(
    ("write", "code"), [("journal", errno.ENOSPC), (4, errno.EROFS), (9, errno.EACCES), (13, errno.ENOSPC)]
)
def test_a_disk_that_refuses_a_write_stops_the_run_and_it_goes_on_later(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, code: int
) -> None:
    seen, replace, append = [0], os.replace, JournalFileBackend.append_logs

    def refuse(*arguments: Any) -> None:
        seen[0] += 1
        if seen[0] == write:
            raise OSError(code, os.strerror(code))
        replace(*arguments)

    def tear(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        seen[0] += 1
        if seen[0] == 40:
            with open(self._file_path, "ab") as file:
                file.write(b'{"op_code": 5, "wor')
            raise OSError(code, os.strerror(code))
        append(self, logs)

    with monkeypatch.context() as patched:
        if write == "journal":
            patched.setattr(JournalFileBackend, "append_logs", tear)
        else:
            patched.setattr(os, "replace", refuse)
        with pytest.raises(StorageError, match=f"cannot be written: {os.strerror(code)}; what is finished is kept"):
            autoxfer.run(SETTINGS, runs=tmp_path / "runs")
    again = selection.resume(only(tmp_path / "runs"), runs=tmp_path / "runs")
    assert facts(again.folder) == whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; only where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.usefixtures("untracked")
def test_a_disk_that_is_full_is_named_and_with_more_room_the_run_goes_on(
    whole: dict[str, Any], small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    with pytest.raises(SystemExit) as stopped:
        main(["run", "run.yaml", "--runs", str(small_disk)])
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert "cannot be written: No space left on device; what is finished is kept" in said
    assert f"go on with: autoxfer run --resume {only(small_disk)} --runs {small_disk}" in said
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert facts(selection.resume(only(small_disk), runs=small_disk).folder) == whole


# --- MLflow ---


def test_a_server_that_dies_gets_the_run_when_it_is_back(
    whole: dict[str, Any], mlflow_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    (tmp_path / "mlflow.yaml").write_text(f"tracking_uri: {mlflow_server.uri}\n")

    def die(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.study == "linear_probe@digits":
            mlflow_server.stop()

    listener = Listener(die)
    result = autoxfer.run(SETTINGS, runs=runs, observers=[listener])
    assert facts(result.folder) == whole
    assert result.record.mlflow.run_id == ""
    assert f"`autoxfer run --resume {result.record.run_id}` logs it" in listener.warnings()
    assert states(runs, capsys) == ["not logged"]
    mlflow_server.start()
    again = selection.resume(result.record.run_id, runs=runs)
    assert (again.record.mlflow.name, again.record.mlflow.version) == ("digits", "1")
    assert states(runs, capsys) == ["finished"]
    assert facts(again.folder) == whole
    mlflow_server.stop()
    assert selection.resume(result.record.run_id, runs=runs).record == again.record  # nothing is left to do
    mlflow_server.start()
    assert registered(mlflow_server.uri) == (4, 1)


def test_a_server_that_dies_while_it_is_told_gets_the_run_once(
    mlflow_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    runs, original = tmp_path / "runs", MlflowClient.create_model_version
    (tmp_path / "mlflow.yaml").write_text(f"tracking_uri: {mlflow_server.uri}\n")

    def then_die(*arguments: Any, **named: Any) -> Any:
        version = original(*arguments, **named)
        mlflow_server.stop()
        return version

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", then_die)
        result = autoxfer.run(SETTINGS, runs=runs)
    assert states(runs, capsys) == ["not logged"]
    mlflow_server.start()
    assert selection.resume(result.record.run_id, runs=runs).record.mlflow.version == "1"
    assert registered(mlflow_server.uri) == (4, 1)


def registered(uri: str) -> tuple[int, int]:
    """Runs and versions."""
    import mlflow  # noqa: PLC0415

    client = mlflow.MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("digits")
    return len(client.search_runs([experiment.experiment_id])), len(client.search_model_versions("name = 'digits'"))


def test_two_runs_at_once_in_one_database_both_keep_their_word(whole: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    command = [sys.executable, "-m", "autoxfer", "run", "run.yaml", "--json", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    results = [json.loads(out) for out, _ in ended]
    assert sorted(result["mlflow"]["version"] for result in results) == ["1", "2"]
    assert all(facts(tmp_path / "runs" / result["run_id"]) == whole for result in results)
    assert registered(f"sqlite:///{tmp_path}/runs/mlflow.db") == (8, 2)


def test_the_stages_of_a_finished_run_are_not_gone_through_again(whole: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "off.yaml").write_text("enabled: false\n")
    first = autoxfer.run(SETTINGS, runs=tmp_path / "runs", mlflow=tmp_path / "off.yaml")
    heard = Listener()
    again = selection.resume(
        first.record.run_id, runs=tmp_path / "runs", mlflow=tmp_path / "off.yaml", observers=[heard]
    )
    assert again.record.as_dict() == first.record.as_dict()
    assert not [event for event in heard.events if isinstance(event, StageStarted)]
