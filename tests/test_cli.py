from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import autoxfer
from autoxfer import testing
from autoxfer.cli import main
from autoxfer.config import RunConfig, load_config
from autoxfer.errors import AutoxferError, InputError
from autoxfer.events import RunFinished, RunStarted, StageStarted, Warned
from autoxfer.records import Verdict
from autoxfer.report import Entry, Logged, RunRecord, Winner
from autoxfer.strategy import Strategy

VERDICT = Verdict(
    "untested", *[float("nan")] * 4, 0.0, "exact McNemar", 400, None, None, float("inf"), "untested: no trial completed"
)
RECORD = RunRecord(
    "20260611-101500-3fa2",
    {"name": "digits", "metric": "accuracy", "direction": "maximize", "warnings": ["8 is rare"]},
    Winner("scratch", None, {"lr": np.float64(0.001)}, 0.871, 0.8625, None, certified=True),
    (
        Entry("scratch", None, "complete", 30, 30, 0, 0, 12.0, {}, 0.871, 0.8625, None, None),
        Entry("linear_probe", "even", "no_complete_trial", 30, 0, 0, 30, 1.0, {}, None, None, None, VERDICT),
    ),
    Logged("sqlite:///x.db", "8f2c1", "models:/m-1", "digits", "3"),
    {"search": 12.0, "export": 1.0},
)
RUN_FILE = "task: {data: sklearn:digits}\nsources: [timm:resnet18]\nbudget: {trials: 3}\n"

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run file."""
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the search; what it was called with."""
    seen: list[dict[str, Any]] = []

    def run(config: RunConfig | str, **options: Any) -> SimpleNamespace:
        seen.append({"config": config, **options})
        for observer in options["observers"]:
            tell(observer)
        return SimpleNamespace(record=RECORD, folder=Path("runs") / RECORD.run_id)

    stand_in(monkeypatch, run)
    return seen


def tell(observer: Any) -> None:
    folder = Path("runs") / RECORD.run_id
    folder.mkdir(parents=True, exist_ok=True)
    observer.notify(RunStarted(RECORD.run_id, folder, ("scratch", "linear_probe@even"), 3, None, "accuracy"))
    observer.notify(Warned("8 is rare"))
    observer.notify(StageStarted("search"))
    print("a library talks")
    os.system("echo so does a child process")
    observer.notify(RunFinished(RECORD, folder))


def stand_in(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    fake = SimpleNamespace(run=run, resume=run)
    monkeypatch.setitem(sys.modules, "autoxfer.selection", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(autoxfer, "selection", fake, raising=False)


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def call(*arguments: str) -> SimpleNamespace:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        out, err = capfd.readouterr()
        return SimpleNamespace(code=stopped.value.code, out=out, err=err)

    return call


def test_a_run_prints_the_leaderboard_and_how_to_use_the_winner(calls: list[dict[str, Any]], invoke: Run) -> None:
    result = invoke("run", "run.yaml", "-o", "budget.trials=7", "-o", "seed=2", "--no-plugin", "lora")
    assert result.code == 0
    for text in ("scratch", "linear_probe", "untested: no trial completed", "winner: scratch", "8 is rare"):
        assert text in result.out
    assert f"autoxfer predict {RECORD.run_id} FILE" in result.out
    assert "MLFLOW_TRACKING_URI=sqlite:///x.db mlflow models serve -m models:/digits/3" in result.out
    assert "searching" in result.err
    (call,) = calls
    assert (call["config"].budget.trials, call["config"].seed) == (7, 2)
    assert call["config"].plugins.disable == ("lora",)
    assert (call["runs"], call["mlflow"]) == (Path("runs"), None)


def test_json_is_alone_on_stdout_whatever_libraries_print(calls: list[dict[str, Any]], invoke: Run) -> None:
    result = invoke("run", "run.yaml", "--json")
    assert result.code == 0
    printed = json.loads(result.out)
    assert printed["winner"]["params"] == {"lr": 0.001}
    assert printed["entries"][1]["verdict"]["effect"] is None  # NaN is no JSON
    assert printed["entries"][1]["verdict"]["accepted"] is False
    for text in ("a library talks", "so does a child process", "winner: scratch"):
        assert text in result.err


def test_quiet_leaves_the_result_only(calls: list[dict[str, Any]], invoke: Run) -> None:
    assert "searching" not in invoke("run", "run.yaml", "--quiet").err
    assert "winner" not in invoke("run", "run.yaml", "--quiet", "--json").err


def test_the_quick_way_builds_the_same_configuration(calls: list[dict[str, Any]], invoke: Run) -> None:
    invoke("run", "--data", "sklearn:digits", "--source", "timm:resnet18", "-o", "budget.trials=3")
    assert calls[0]["config"].fingerprint() == load_config("run.yaml").fingerprint()


def test_several_columns_are_predicted_where_several_are_named(calls: list[dict[str, Any]], invoke: Run) -> None:
    for columns in (["sport"], ["sport", "politics"]):
        invoke("run", "--data", "news.csv", *(word for name in columns for word in ("--target", name)))
    assert [call["config"].task.target for call in calls] == ["sport", ("sport", "politics")]
    twice = invoke("run", "--data", "news.csv", "--target", "sport", "--target", "sport")
    assert twice.code == 2
    assert "error: --target sport --target sport" in twice.err


def test_resume_takes_the_run_as_it_began(calls: list[dict[str, Any]], invoke: Run) -> None:
    assert invoke("run", "--resume", "20260611", "--runs", "elsewhere").code == 0
    assert (calls[0]["config"], calls[0]["runs"]) == ("20260611", Path("elsewhere"))
    refused = invoke("run", "--resume", "20260611", "-o", "seed=1")
    assert refused.code == 2
    assert "a run goes on as it began" in refused.err


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_bad_input_is_one_message_in_three_parts(calls: list[dict[str, Any]], invoke: Run, flag: list[str]) -> None:
    result = invoke("run", "run.yaml", "-o", "budget.trails=3", *flag)
    assert result.code == 2
    assert "Traceback" not in result.err
    lines = ["error: -o budget.trails=3", "  expected  one of trials, seconds, trial_seconds, min_trials"]
    assert result.err.splitlines() == [*lines, "  found     unknown key 'trails'; did you mean 'trials'?"]
    if flag:
        error = {"expected": "one of trials, seconds, trial_seconds, min_trials", "where": "-o budget.trails=3"}
        found = "unknown key 'trails'; did you mean 'trials'?"
        assert json.loads(result.out) == {"error": {**error, "found": found}}
    assert not calls


@pytest.mark.parametrize(
    "arguments", [["rnu"], ["run", "--josn"], ["predict", "x"], ["plan"], ["run", "a", "b"], ["run", "--runs"]]
)
def test_a_misspelt_command_line_is_bad_input_too(invoke: Run, arguments: list[str]) -> None:
    result = invoke(*arguments, "--json")
    assert result.code == 2
    assert set(json.loads(result.out)["error"]) == {"expected", "found", "where"}
    plain = invoke(*arguments)
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.startswith("error: autoxfer")


def test_nothing_heavy_is_loaded_before_the_run_file_is_right(home: Path) -> None:
    code = "import sys, autoxfer.cli\ntry: autoxfer.cli.main(['run', 'run.yaml', '-o', 'seed=x'])\n"
    code += "except SystemExit as stop: print(stop.code, 'torch' in sys.modules, 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False", "False"]


def test_an_interrupted_run_says_how_to_go_on(home: Path, invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: RunConfig, **options: Any) -> None:
        tell(options["observers"][0])
        raise KeyboardInterrupt

    stand_in(monkeypatch, run)
    result = invoke("run", "run.yaml")
    assert result.code == 130
    command = f"go on with: autoxfer run --resume {RECORD.run_id}"
    assert result.err.splitlines()[-2:] == ["interrupted", f"  {command}"]
    assert command in json.loads(invoke("run", "run.yaml", "--json").out)["error"]["notes"]


def test_a_crash_says_how_to_go_on_and_keeps_its_traceback(
    home: Path, invoke: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: RunConfig, **options: Any) -> None:
        tell(options["observers"][0])
        raise RuntimeError("the disk\nis full")

    stand_in(monkeypatch, run)
    result = invoke("run", "run.yaml")
    assert result.code == 1
    assert "error: RuntimeError: the disk is full" in result.err
    assert "Traceback" not in result.err
    assert f"autoxfer run --resume {RECORD.run_id}" in result.err
    assert "the disk\nis full" in (home / "runs" / RECORD.run_id / "error.log").read_text()
    assert "Traceback" in invoke("--debug", "run", "run.yaml").err


def test_an_error_before_the_run_has_an_id_promises_no_resume(
    home: Path, invoke: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: RunConfig, **options: Any) -> None:
        raise AutoxferError("run x is being worked on by another process")

    stand_in(monkeypatch, run)
    result = invoke("run", "run.yaml")
    assert result.code == 1
    assert "error: run x is being worked on by another process" in result.err
    assert "resume" not in result.err


def test_the_runs_are_listed_with_what_is_left_to_do(home: Path, invoke: Run) -> None:
    for name, result in (("a", RECORD.as_dict()), ("b", None), ("c", {"winner": 3})):
        folder = home / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(load_config("run.yaml").resolved()))
        if result is not None:
            (folder / "result.json").write_text(json.dumps(result, default=float))
    listed = json.loads(invoke("list", "--json").out)["runs"]
    assert [(run["run_id"], run["state"], run["task"]) for run in listed] == [
        ("a", "finished", "digits"),
        ("b", "unfinished", "digits"),
        ("c", "damaged", "digits"),
    ]
    assert (listed[0]["winner"], listed[0]["guard"], listed[0]["model"]) == ("scratch", 0.8625, "digits version 3")
    shown = invoke("list").out
    assert "autoxfer run --resume RUN" in shown
    assert "digits version 3" in shown
    assert invoke("list", "--runs", "none").out == "no runs in none\n"


def test_a_run_that_mlflow_did_not_get_is_listed_as_such(home: Path, invoke: Run) -> None:
    folder = home / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(RUN_FILE)
    unlogged = {**RECORD.as_dict(), "mlflow": Logged("http://gone").__dict__}
    (folder / "result.json").write_text(json.dumps(unlogged, default=float))
    assert json.loads(invoke("list", "--json").out)["runs"][0]["state"] == "not logged"


def test_predictions_come_as_csv_as_json_or_in_a_file(home: Path, invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"row": 0, "prediction": "a, b", "probability": 0.5}, {"row": 1, "prediction": "c", "probability": 1.0}]
    fake = SimpleNamespace(load=lambda folder: folder.name, predict_file=lambda predictor, path, warn: rows)
    monkeypatch.setitem(sys.modules, "autoxfer.prediction", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(autoxfer, "prediction", fake, raising=False)
    (home / "runs" / "a").mkdir(parents=True)
    (home / "runs" / "a" / "config.yaml").write_text(RUN_FILE)
    csv = 'row,prediction,probability\n0,"a, b",0.5\n1,c,1.0\n'
    assert invoke("predict", "a", "x.npz").out == csv
    assert json.loads(invoke("predict", "a", "x.npz", "--json").out) == {"run_id": "a", "predictions": rows}
    assert invoke("predict", "runs/a", "x.npz", "--output", "out.csv").out == ""
    assert (home / "out.csv").read_text() == csv
    assert invoke("predict", "b", "x.npz").code == 2
    assert invoke("predict", "a", "x.npz", "--output", "no/where.csv").code == 2


def test_the_plan_is_printed_and_is_an_object(home: Path, invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(as_dict=lambda: {"n_studies": 2}, lines=lambda: ["two studies", "three trials each"])
    fake = SimpleNamespace(plan=lambda config, say, settings: made)
    monkeypatch.setitem(sys.modules, "autoxfer.planning", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(autoxfer, "planning", fake, raising=False)
    assert invoke("plan", "run.yaml").out == "two studies\nthree trials each\n"
    assert json.loads(invoke("plan", "run.yaml", "--json").out) == {"n_studies": 2}


def test_a_new_run_file_is_written_once(home: Path, invoke: Run) -> None:
    assert invoke("config", "init", "new.yaml").code == 0
    assert load_config("new.yaml").task.data == "sklearn:digits"
    assert invoke("config", "init", "new.yaml").code == 2
    assert invoke("config", "init").code == 2  # run.yaml is there
    assert invoke("config", "init", "-").out == (home / "new.yaml").read_text()
    assert json.loads(invoke("config", "schema").out)["title"] == "RunConfig"


def test_plugins_are_listed_with_what_they_offer(invoke: Run) -> None:
    listed = json.loads(invoke("plugins", "--json").out)["plugins"]
    assert {"scratch", "linear_probe"} <= {item["name"] for item in listed if item["state"] == "loaded"}
    assert "linear_probe" in invoke("plugins").out
    refused = invoke("plugins", "check", "linear_prob")
    assert refused.code == 2
    assert "'linear_probe'" in refused.err


def test_a_check_shows_what_is_broken_and_a_line_for_each_scene(invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_checks(strategy: type[Strategy]) -> list[testing.Report]:
        first, second, *others = (
            check for check in testing.checks(strategy) if str(check.scene).startswith("vector-c")
        )
        wrong = [testing.Report(first, "broken", "it lies"), testing.Report(second, "kept after all", "it was hard")]
        return [*wrong, *(testing.Report(check, "kept") for check in others)]

    monkeypatch.setattr(testing, "run_checks", run_checks)
    short, long = invoke("plugins", "check", "scratch"), invoke("plugins", "check", "scratch", "--verbose")
    n = len(json.loads(invoke("plugins", "check", "scratch", "--json").out)["checks"])
    assert (short.code, long.code) == (1, 1)
    broken, kept_after_all, blank, scene, total = short.out.splitlines()
    assert broken.startswith("broken ")
    assert broken.endswith("it lies")
    assert kept_after_all.startswith("kept after all")
    assert kept_after_all.endswith("it was hard")
    assert blank == ""
    assert scene == f"vector-classification: scratch keeps {n - 2} of {n} promises"
    assert total == f"scratch keeps {n - 2} of {n} promises"
    assert len(long.out.splitlines()) == n + 3


def test_the_doctor_finds_a_healthy_machine_and_a_broken_setting(home: Path, invoke: Run) -> None:
    healthy = invoke("doctor", "--json")
    report = json.loads(healthy.out)
    broken = [item for item in report["findings"] if item["state"] == "broken"]
    assert (healthy.code, report["ok"], broken) == (0, True, [])
    assert {"python", "torch", "device", "threads", "runs", "MLflow", "plugins"} <= {
        item["name"] for item in report["findings"]
    }
    assert not (home / "runs").exists()  # looking leaves nothing behind
    (home / "mlflow.yaml").write_text("tracking_uri: ftp://nowhere\n")
    sick = invoke("doctor")
    assert sick.code == 1
    assert "broken" in sick.out


def test_help_is_there_at_once_and_lists_what_works(invoke: Run) -> None:
    shown = invoke().out
    assert shown == invoke("--help").out
    for command in ("run", "plan", "pretrain", "explain", "curve", "list", "predict", "plugins", "doctor", "config"):
        assert f"\n  {command} " in shown
    for later in ("report", "registry", "serve"):
        assert f"\n  {later} " not in shown
    assert invoke("--version").out == f"autoxfer {autoxfer.__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'mlflow', 'optuna', 'pandas', 'numpy', 'pydantic', 'yaml', 'rich', 'scipy', 'sklearn'}"
    code = "import sys, autoxfer.cli\ntry: autoxfer.cli.main(['--help'])\n"
    code += f"except SystemExit: print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert time.perf_counter() - started < 5  # 0.2 s on an idle machine; the list above is what keeps it so


def test_an_input_error_of_the_run_itself_stays_in_three_parts(
    home: Path, invoke: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: RunConfig, **options: Any) -> None:
        tell(options["observers"][0])
        raise InputError("a .npz file", "no such file", "task.data")

    stand_in(monkeypatch, run)
    assert invoke("run", "run.yaml").err.endswith(
        "error: task.data\n  expected  a .npz file\n  found     no such file\n"
    )
