"""Texts beside columns with numbers, several numbers and several labels to predict: whole runs, by every strategy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autoxfer
from autoxfer import selection
from autoxfer.config import load_config
from autoxfer.errors import InputError
from autoxfer.prediction import predict_file
from autoxfer.testing.texts import sentences

N = 300
TASKS: dict[str, dict[str, Any]] = {
    "number": {"target": "price", "kind": "regression"},
    "numbers": {"target": ["price", "weight"]},
    "labels": {"target": ["dear", "green"], "kind": "multilabel"},
}
STRATEGIES = ["scratch", "linear_probe", {"residual": {"steps": 60, "encoder": "compact"}}]
SHORT = {"steps": 4, "batch": 32}
OTHERS = ["zero_shot", "kernel_readout", *({name: SHORT} for name in ("fine_tune", "lora", "adapters", "distill"))]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose colour stands in the text and whose size in a column; both together say all that is asked."""
    rng = np.random.default_rng(0)
    kinds, size = rng.integers(3, size=N), rng.normal(40, 9, N).round(1)
    frame = pd.DataFrame(
        {
            "told": [f"{text} number {k}" for k, text in enumerate(sentences(kinds, rng))],
            "size": size,
            "shop": rng.choice(["north", "south"], N),
            "price": 1000 + 200 * kinds + 5 * (size - 40) + rng.normal(0, 5, N).round(1),
            "weight": 3 + 0.1 * (size - 40) - kinds,
            "dear": ((kinds == 2) | (size > 45)).astype(int),
            "green": (kinds == 1).astype(int),
        }
    )
    frame.loc[3, "told"], frame.loc[4, "size"] = "", np.nan
    path = tmp_path_factory.mktemp("tasks") / "goods.csv"
    frame.to_csv(path, index=False)
    (path.parent / "mlflow.yaml").write_text("enabled: false\n")
    return path


def settings(table: Path, transformer: Path, task: str, strategies: list[Any], **more: Any) -> dict[str, Any]:
    asked = TASKS[task]["target"]
    ignored = sorted({"price", "weight", "dear", "green"} - set([asked] if isinstance(asked, str) else asked))
    return {
        "task": {"data": str(table), "ignore": ignored, **TASKS[task]},
        "sources": [{"name": "tiny", "model": f"hf:{transformer}"}],
        "strategies": strategies,
        "budget": {"trials": 2},
        "guard": {"when_undecided": "best_tune"},
        "device": "cpu",
        **more,
    }


def run(table: Path, config: dict[str, Any], runs: Path) -> autoxfer.Result:
    return autoxfer.run(load_config(config), runs=runs, mlflow=table.parent / "mlflow.yaml")


@pytest.fixture(scope="module", params=list(TASKS))
def result(
    request: pytest.FixtureRequest, table: Path, transformer: Path, tmp_path_factory: pytest.TempPathFactory
) -> autoxfer.Result:
    config = settings(table, transformer, request.param, STRATEGIES, final="refit", budget={"trials": 4})
    return run(table, config, tmp_path_factory.mktemp(request.param))


@pytest.mark.slow
def test_the_baseline_has_both_text_and_columns(result: autoxfer.Result) -> None:
    board = result.leaderboard()
    assert set(board["strategy"]) == {"scratch", "linear_probe", "residual"}
    scratch = result.record.entries[0]
    assert scratch.guard is not None
    # Without the text the price is known to 160, the two numbers to about 110 and a label of five is wrong.
    assert scratch.guard < {"number": 40, "numbers": 30, "labels": 0.1}[task_of(result)]


def task_of(result: autoxfer.Result) -> str:
    described = result.record.task
    return "labels" if described["kind"] == "multilabel" else "numbers" if described["targets"] else "number"


@pytest.mark.slow
def test_a_winner_answers_frames_records_and_files_alike(result: autoxfer.Result, table: Path, tmp_path: Path) -> None:
    winner, asked, task = autoxfer.load(result.folder), pd.read_csv(table), task_of(result)
    answers = winner.predict(asked)
    records = asked.astype(object).where(asked.notna(), None).to_dict(orient="records")
    assert np.array_equal(answers, winner.predict(records))
    rows = predict_file(winner, table)
    if task == "labels":
        told = [row["prediction"] for row in rows]
        assert told == [";".join(each) for each in answers]
        chances = winner.predict_proba(asked)
        assert chances.shape == (N, 2)
        assert np.array_equal(chances[:, 1], [row["probability_green"] for row in rows])
        assert ((chances[:, 1] >= 0.5) == asked["green"]).mean() > 0.9
        return
    names = ["price", "weight"] if task == "numbers" else ["price"]
    keys = [f"prediction_{name}" for name in names] if task == "numbers" else ["prediction"]
    assert np.array_equal(answers.reshape(N, -1), [[row[key] for key in keys] for row in rows])
    for name, column in zip(names, answers.reshape(N, -1).T, strict=True):
        assert np.corrcoef(column, asked[name])[0, 1] > 0.9
    with pytest.raises(InputError, match="expected a classifier"):
        winner.predict_proba(asked)
    asked.drop(columns="told").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(InputError, match="found none called told"):
        predict_file(winner, tmp_path / "less.csv")


@pytest.mark.slow
def test_a_run_that_lost_its_end_goes_on_and_ends_as_it_had(
    result: autoxfer.Result, table: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(result.folder, tmp_path / result.record.run_id)
    for gone in ("result.json", "losses.parquet"):
        (folder / gone).unlink()
    shutil.rmtree(folder / "winner")
    again = selection.resume(folder.name, runs=tmp_path, mlflow=table.parent / "mlflow.yaml")
    asked = pd.read_csv(table)
    assert [entry.guard for entry in again.record.entries] == [entry.guard for entry in result.record.entries]
    one, other = (autoxfer.load(each).outputs(asked) for each in (folder, result.folder))
    assert np.array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_other_strategy_takes_them(table: Path, transformer: Path, tmp_path: Path, task: str) -> None:
    config = settings(table, transformer, task, ["scratch", *OTHERS], budget={"trials": 1})
    entries = run(table, config, tmp_path).record.entries
    studied = {entry.strategy for entry in entries if entry.n_complete}
    assert studied == {"scratch", "kernel_readout", "fine_tune", "lora", "adapters", "distill"}
    assert all(entry.guard is not None for entry in entries if entry.n_complete)
