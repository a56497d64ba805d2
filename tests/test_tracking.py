"""A run stands in MLflow once, with its evidence, and its winner serves raw examples."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoxfer.dataset import Schema
from autoxfer.errors import InputError, TrackingError
from autoxfer.export import save_winner
from autoxfer.records import Outcome, Score, StudyResult, Trial, Verdict
from autoxfer.report import Entry, Logged, Look, Looks, RunRecord, Winner
from autoxfer.runfolder import write_json
from autoxfer.tracking import TrackingSettings, check, evidence, log_run, past_looks, read_settings

IMAGES = Schema("image", "classification", (8, 8), "uint8", tuple("0123456789"))
RAW = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
ACCEPTED = Verdict(
    "accepted", 0.08, 0.02, 0.14, 0.018, 0.025, "exact McNemar", 200, 34, 18, 0.05, "fixed 34, broke 18, p = 0.018"
)
HARMFUL = Verdict(
    "harmful", -0.2, -0.3, -0.1, 0.99, 0.0, "exact McNemar", 200, 4, 44, 0.05, "fixed 4, broke 44: worse than scratch"
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, stored: Tensor) -> Tensor:
        return self.head(stored.float().flatten(1) / 255)


NET = Net().requires_grad_(False)


def probabilities(raw: np.ndarray) -> np.ndarray:
    return torch.softmax(NET(torch.from_numpy(raw)), 1).numpy()


def entry(strategy: str, source: str | None, tune: float, verdict: Verdict | None) -> Entry:
    params = {"lr": 3e-3, "steps": 200, "augment": "shift"}
    return Entry(strategy, source, "complete", 4, 3, 1, 0, 12.5, params, tune, tune - 0.01, tune - 0.02, verdict)


def study(strategy: str, source: str | None) -> StudyResult:
    trials = tuple(
        Trial(n, {"lr": 1e-3 * n}, Outcome("complete", Score(0.7 + 0.02 * n, 0.7 + 0.02 * n, 0.5), seconds=3.0))
        for n in range(3)
    )
    pruned = Trial(3, {"lr": 0.5}, Outcome("pruned", None, reason="below the floor at 30% of the steps"))
    return StudyResult(f"{strategy}@{source}" if source else strategy, strategy, source, (*trials, pruned), 12.5)


def record(run_id: str, *, certified: bool = True) -> RunRecord:
    entries = (
        entry("scratch", None, 0.84, None),
        entry("linear_probe", "even", 0.93, ACCEPTED),
        entry("residual", "even", 0.7, HARMFUL),
    )
    task = {
        "name": "digits",
        "kind": "classification",
        "modality": "image",
        "metric": "accuracy",
        "direction": "maximize",
        "classes": list(IMAGES.classes),
        "sizes": {"train": 50, "tune": 50, "guard": 200, "test": 100},
        "data_fingerprint": "c0ffee" * 10,
        "warnings": [],
    }
    best = entries[1]
    winner = Winner(best.strategy, best.source, best.params, best.tune, best.guard, best.test, certified)
    return RunRecord(run_id, task, winner, entries, Logged(), {"data": 0.5, "search": 37.5, "guard": 1.0})


STUDIES = (study("scratch", None), study("linear_probe", "even"), study("residual", "even"))


def make_run(runs: Path, run_id: str, *, certified: bool = True) -> tuple[Path, RunRecord]:
    folder, made = runs / run_id, record(run_id, certified=certified)
    save_winner(folder / "winner", NET, IMAGES, RAW[:2], {"strategy": "linear_probe", "source": "even"})
    config = "task: {data: 'sklearn:digits', target: label}\nsources: [{name: even, model: nets.py:Small}]\nseed: 0\n"
    (folder / "config.yaml").write_text(config)
    write_json(folder / "environment.json", {"python": "3.11"})
    write_json(folder / "result.json", made.as_dict())
    (folder / "losses.parquet").write_bytes(b"PAR1")
    return folder, made


def log(settings: TrackingSettings, run_id: str, *, certified: bool = True) -> Logged:
    folder, made = make_run(settings.runs, run_id, certified=certified)
    return log_run(settings, folder, made, STUDIES)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "AUTOXFER_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database: MLflow needs several seconds for each that it makes."""
    made = TrackingSettings(f"sqlite:///{tmp_path_factory.mktemp('fresh')}/mlflow.db", Path())
    check(made)
    assert made.database is not None
    return made.database


@pytest.fixture
def settings(tmp_path: Path, database: Path) -> TrackingSettings:
    (tmp_path / "runs").mkdir()
    shutil.copyfile(database, tmp_path / "runs" / "mlflow.db")
    return read_settings(None, tmp_path / "runs")


@contextlib.contextmanager
def mlflow_at(settings: TrackingSettings) -> Iterator[Any]:
    import mlflow  # noqa: PLC0415

    mlflow.set_tracking_uri(settings.uri)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(None)


def assert_serves(mlflow: Any, name: str) -> None:
    served = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    for n in (1, 2, 20):
        answer, expected = served.predict(RAW[:n]), probabilities(RAW[:n])
        assert list(answer.columns) == ["label", *(f"probability_{name}" for name in IMAGES.classes)]
        np.testing.assert_allclose(answer.iloc[:, 1:], expected, rtol=0, atol=1e-7)
        assert list(answer["label"]) == [IMAGES.classes[best] for best in expected.argmax(1)]


@pytest.mark.slow
def test_a_run_stands_in_the_embedded_database_with_its_evidence(tmp_path: Path) -> None:
    settings = read_settings(None, tmp_path / "runs")
    check(settings)
    logged = log(settings, "run-1")
    assert logged == Logged(settings.uri, logged.run_id, "models:/digits/1", "digits", "1")
    with mlflow_at(settings) as mlflow:
        client = mlflow.MlflowClient()
        parent = client.get_run(logged.run_id)
        assert parent.info.run_name == "autoxfer-digits-run-1"
        assert parent.info.status == "FINISHED"
        assert parent.data.params["winner"] == "linear_probe@even"
        assert parent.data.params["task.data"] == "sklearn:digits"
        assert parent.data.metrics["guard"] == pytest.approx(0.92)
        assert parent.data.metrics["p_value"] == 0.018
        assert parent.data.tags["autoxfer.verdict"] == "accepted"
        assert "| residual@even |" in parent.data.tags["mlflow.note.content"]
        assert parent.inputs.dataset_inputs[0].dataset.digest == ("c0ffee" * 10)[:16]
        artifacts = {file.path for file in client.list_artifacts(logged.run_id)}
        files = {"config.yaml", "environment.json", "result.json", "losses.parquet", "trials.json", "leaderboard.md"}
        assert artifacts == files | {"weights"}
        names = {file.path for file in client.list_artifacts(logged.run_id, "weights")}
        assert names == {"weights/model.json", "weights/model.safetensors"}
        children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{logged.run_id}'")
        assert {child.info.run_name for child in children} == {"scratch", "linear_probe@even", "residual@even"}
        probe = next(child for child in children if child.info.run_name == "linear_probe@even")
        assert probe.data.metrics["fixed"] == 34
        assert [m.value for m in client.get_metric_history(probe.info.run_id, "trial/tune")] == [0.7, 0.72, 0.74]
        version = client.get_model_version_by_alias("digits", "champion")
        assert version.tags["autoxfer.p_value"] == "0.018"
        assert version.tags["autoxfer.certified"] == "true"
        assert "Fixed 34, broke 18, p = 0.018" in version.description
        assert_serves(mlflow, "digits")
    assert not (Path.cwd() / "mlruns").exists()


@pytest.mark.slow
def test_the_second_winner_waits_as_challenger_and_the_same_run_is_not_registered_twice(
    settings: TrackingSettings,
) -> None:
    first, second = log(settings, "run-1"), log(settings, "run-2")
    assert log(settings, "run-1") == first
    assert log(settings, "run-2") == second
    with mlflow_at(settings) as mlflow:
        client = mlflow.MlflowClient()
        assert client.get_registered_model("digits").aliases == {"champion": 1, "challenger": 2}
        assert len(client.search_model_versions("name = 'digits'")) == 2
        assert len(client.search_runs([client.get_run(first.run_id).info.experiment_id])) == 8


@pytest.mark.slow
def test_a_winner_that_is_not_certified_is_never_champion(settings: TrackingSettings) -> None:
    log(settings, "run-1", certified=False)
    log(settings, "run-2")
    with mlflow_at(settings) as mlflow:
        client = mlflow.MlflowClient()
        assert client.get_registered_model("digits").aliases == {"champion": 2, "challenger": 1}
        version = client.get_model_version("digits", "1")
        assert version.tags["autoxfer.certified"] == "false"
        assert "NOT CERTIFIED" in version.description


@pytest.mark.slow
def test_what_others_logged_of_the_same_data_are_looks_and_what_is_elsewhere_is_not(settings: TrackingSettings) -> None:
    own = Look("2026-03-01", "c0ffee" * 10, "guard", "mine", "run-9")
    assert past_looks(settings, "digits", own) == ()
    for number, (data, guard) in enumerate([("c0ffee" * 10, "x"), ("other", "guard"), ("other", "x")]):
        folder, made = make_run(settings.runs, f"run-{number}")
        looks = Looks(
            dataclasses.replace(own, time=f"2026-01-0{9 - number}", data=data, guard=guard, run_id=folder.name)
        )
        made = dataclasses.replace(made, task={**made.task, "data_fingerprint": data}, looks=looks)
        log_run(dataclasses.replace(settings, model=False, register=False, trials=False), folder, made, ())
    log(settings, "run-without-looks")
    found = past_looks(settings, "digits", own)
    assert [look.run_id for look in found] == ["run-1", "run-0"]
    assert (found[0].guard, found[0].config, found[0].time) == ("guard", "mine", "2026-01-08")
    assert past_looks(settings, "another task", own) == ()
    assert past_looks(dataclasses.replace(settings, enabled=False), "digits", own) == ()


STEPS = (
    "create_run",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "set_model_version_tag",
    "log_batch",
    "log_inputs",
    "log_artifact",
    "set_tag",
    "set_terminated",
)


@pytest.mark.slow
def test_logging_that_stops_after_any_step_is_completed_by_the_next_call(
    settings: TrackingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    folder, made = make_run(settings.runs, "run-1")
    for step in STEPS:
        original = getattr(MlflowClient, step)

        def stop(*arguments: Any, original: Any = original, **named: Any) -> Any:
            original(*arguments, **named)
            raise ConnectionError("the server is gone")

        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, step, stop)
            with pytest.raises(TrackingError, match="the server is gone"):
                log_run(settings, folder, made, STUDIES)
    logged = log_run(settings, folder, made, STUDIES)
    with mlflow_at(settings) as mlflow:
        client = mlflow.MlflowClient()
        experiment = client.get_run(logged.run_id).info.experiment_id
        assert len(client.search_runs([experiment])) == 4
        assert {run.info.status for run in client.search_runs([experiment])} == {"FINISHED"}
        assert [version.version for version in client.search_model_versions("name = 'digits'")] == [1]
        assert client.get_registered_model("digits").aliases == {"champion": 1}
        assert len(client.search_logged_models([experiment])) == 1
        assert len(client.get_metric_history(logged.run_id, "guard")) == 1
        assert_serves(mlflow, "digits")


@pytest.mark.slow
def test_a_real_server_takes_runs_and_serves_the_champion(mlflow_server: Any, tmp_path: Path) -> None:
    text = f"tracking_uri: {mlflow_server.uri}\nname: team-digits\nexperiment: digits at work\n"
    (tmp_path / "mlflow.yaml").write_text(text)
    settings = read_settings(None, tmp_path / "runs")
    check(settings)
    logged = log(settings, "run-1")
    log(settings, "run-2")
    assert log(settings, "run-1") == logged
    with mlflow_at(settings) as mlflow:
        client = mlflow.MlflowClient()
        assert client.get_registered_model("team-digits").aliases == {"champion": "1", "challenger": "2"}
        assert client.get_experiment_by_name("digits at work").artifact_location.startswith("mlflow-artifacts:")
        assert_serves(mlflow, "team-digits")
    assert not (tmp_path / "runs" / "mlartifacts").exists()


@pytest.mark.slow
def test_the_winner_loads_under_mlflows_strict_gate_and_where_there_is_a_gpu(
    settings: TrackingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(settings, "run-1")
    monkeypatch.setenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "false")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with mlflow_at(settings) as mlflow:
        import mlflow.pytorch  # noqa: PLC0415

        loaded = mlflow.pytorch.load_model("models:/digits@champion")
        np.testing.assert_allclose(loaded(torch.from_numpy(RAW)).numpy(), probabilities(RAW), rtol=0, atol=1e-7)
        monkeypatch.undo()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert_serves(mlflow, "digits")


@pytest.mark.slow
def test_six_processes_open_a_fresh_database_at_once_and_all_log(tmp_path: Path) -> None:
    settings = read_settings(None, tmp_path / "runs")
    for number in range(6):
        make_run(settings.runs, f"run-{number}")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_tracking as t\n"
        "settings = t.read_settings(None, Path('runs')); t.check(settings)\n"
        "t.log_run(settings, Path('runs') / sys.argv[2], t.record(sys.argv[2]), t.STUDIES)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    processes = [subprocess.Popen([*command, f"run-{n}"], stderr=subprocess.PIPE, text=True) for n in range(6)]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, errors
    with mlflow_at(settings) as mlflow:
        client = mlflow.MlflowClient()
        aliases = client.get_registered_model("digits").aliases
        assert len(client.search_model_versions("name = 'digits'")) == 6
        assert aliases["champion"] == 1


@pytest.mark.slow
def test_nothing_is_said_and_nothing_is_left_behind(
    settings: TrackingSettings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///theirs.db")
    before, disabled = dict(os.environ), logging.root.manager.disable
    check(settings)
    log(settings, "run-1")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    after = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")}  # torch's own
    assert after == {name: value for name, value in before.items() if not name.startswith("TORCHINDUCTOR")}
    assert logging.root.manager.disable == disabled
    assert not Path("theirs.db").exists()


def test_a_dead_server_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.yaml").write_text("tracking_uri: http://127.0.0.1:9\n")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"mlflow\.yaml: tracking_uri: expected an MLflow server at http://127"):
        check(read_settings(None, tmp_path))
    assert time.monotonic() - started < 3


def test_a_server_that_does_not_answer_is_given_up_soon(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(InputError, match="no answer"):
            check(dataclasses.replace(read_settings(None, tmp_path), uri=uri))
        assert time.monotonic() - started < 4


@pytest.mark.slow
def test_a_file_that_is_no_database_is_reported(settings: TrackingSettings) -> None:
    (settings.folder / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(InputError, match="an MLflow server or database that can be used"):
        check(settings)


@pytest.mark.slow
def test_a_disk_that_is_full_before_the_database_is_made_leaves_nothing_of_it(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from autoxfer.errors import InputError\n"
        "from autoxfer.tracking import check, read_settings\n"
        "import mlflow\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"  # of one file, as if no room were left
        "try:\n"
        "    check(read_settings(None, Path(sys.argv[1])))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "an MLflow server or database that can be used" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {".mlflow.lock"}


def test_tracking_that_is_off_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    settings = read_settings(None, tmp_path / "runs")
    check(settings)
    assert log_run(settings, tmp_path, record("run-1"), ()) == Logged()
    assert not (tmp_path / "runs").exists()


def test_importing_tracking_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys, autoxfer.tracking; assert not {'mlflow', 'torch', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documented_file_holds_the_defaults(tmp_path: Path) -> None:
    documented = Path(__file__).parents[1] / "mlflow.yaml"
    if not documented.is_file():
        pytest.skip("mlflow.yaml is not beside the tests")
    assert read_settings(documented, tmp_path) == read_settings(None, tmp_path)


def test_environment_variables_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.yaml").write_text(
        "tracking_uri: http://file\nregistry_uri: http://file\nexperiment: file\nname: file\n"
    )
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "http://variable")
    for name in ("MLFLOW_EXPERIMENT_NAME", "AUTOXFER_MODEL_NAME"):
        monkeypatch.setenv(name, "variable")
    settings = read_settings(None, tmp_path)
    assert (settings.uri, settings.registry_uri) == ("http://variable", "http://variable")
    assert (settings.experiment, settings.name) == ("variable", "variable")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trackin_uri: x", "expected the keys enabled, tracking_uri, .* found 'trackin_uri'"),
        ("- a", "a mapping with the keys"),
        ("a: [", "expected YAML"),
        ("tracking_uri: ./mlruns", r"tracking_uri: expected a server or a database .* found ./mlruns"),
        ("tracking_uri: 5", "tracking_uri: expected text, found 5"),
        ("log: {model: perhaps}", "log.model: expected true or false, found 'perhaps'"),
        ("log: {model: false, register: true}", "expected model: true beside register: true"),
        ("log: true", "log: expected a mapping"),
        ("aliases: {champion: latest}", "an alias that MLflow does not reserve, found 'latest'"),
        ("aliases: {challenger: v3}", "an alias that MLflow does not reserve, found 'v3'"),
        ("aliases: {champion: a b}", "an alias of letters"),
        ("aliases: {champion: challenger}", "two different aliases"),
        ("name: a/b", "a model's name without"),
        ("enabled: 1", "enabled: expected true or false"),
    ],
)
def test_a_wrong_mlflow_yaml_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mlflow.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_settings(None, tmp_path)
    assert "mlflow.yaml" in caught.value.where


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--mlflow"):
        read_settings(tmp_path / "nowhere.yaml", tmp_path)


def test_settings_are_flattened_to_dotted_names() -> None:
    nested = {"task": {"data": "a.npz", "splits": None}, "strategies": ["scratch", {"residual": {"width": 32}}], "x": 1}
    assert evidence.flatten(nested) == {
        "task.data": "a.npz",
        "strategies.0": "scratch",
        "strategies.1.residual.width": "32",
        "x": "1",
    }


def test_the_leaderboard_is_sorted_by_tune_and_says_each_verdict() -> None:
    lines = evidence.leaderboard(record("run-1")).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["linear_probe@even", "scratch", "residual@even"]
    assert "| accepted | +0.08 | 0.018 |" in lines[2]
    assert "| baseline |" in lines[3]
    assert "| harmful | -0.2 |" in lines[4]


def test_a_scratch_winner_is_told_as_one() -> None:
    base = record("run-1")
    scratch = base.entries[0]
    winner = Winner("scratch", None, scratch.params, scratch.tune, scratch.guard, None, certified=True)
    kept = dataclasses.replace(base, winner=winner)
    assert "no transfer was accepted" in evidence.verdict_text(kept)
    assert evidence.version_tags(kept)["autoxfer.verdict"] == "baseline"
    assert "test" not in evidence.run_metrics(kept)


def test_every_trial_is_a_row_of_the_table() -> None:
    table = evidence.trial_table(STUDIES)
    assert len(table["data"]) == 12
    assert all(len(row) == len(table["columns"]) for row in table["data"])
    assert json.loads(json.dumps(table)) == table
