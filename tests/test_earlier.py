"""One run begins where another ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import autoxfer
from autoxfer import earlier
from autoxfer.errors import InputError

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"


def config(**more: Any) -> dict[str, Any]:
    """A run of seconds."""
    return {
        "task": {"data": str(DIGITS / "digits.npz"), "splits": {"train": 60, "tune": 60, "guard": 300}},
        "sources": [
            {
                "name": "digits",
                "model": f"{DIGITS / 'nets.py'}:SmallCNN",
                "weights": str(DIGITS / "digits_source.safetensors"),
            }
        ],
        "strategies": [{"scratch": {"steps": 12}}, {"fine_tune": {"steps": 12}}],
        "budget": {"trials": 10},
        **more,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one finished run in it."""
    place = tmp_path_factory.mktemp("warm")
    (place / "mlflow.yaml").write_text("enabled: false\n")
    autoxfer.run(config(), runs=place / "runs", mlflow=place / "mlflow.yaml")
    return place / "runs"


def test_a_warm_run_tries_what_did_best_and_says_so(runs: Path) -> None:
    (first,) = (path.parent for path in runs.glob("*/result.json"))
    before = earlier.read(first.name, runs, Path())
    result = autoxfer.run(config(warm_start=first.name, seed=1), runs=runs, mlflow=runs.parent / "mlflow.yaml")
    counts = {entry.study: entry.warm_start for entry in result.record.entries}
    assert counts == {study: {"offered": 2, "used": 2, "dropped": 0} for study in ("scratch", "fine_tune@digits")}
    best = max(before.trials("fine_tune", "digits"), key=lambda trial: trial.rank)
    told = json.loads((result.folder / "warm_start.json").read_text())
    assert told["run_id"] == first.name
    import pandas as pd  # noqa: PLC0415

    table = pd.read_parquet(result.folder / "trials.parquet")
    tried = [json.loads(params) for params in table.loc[table["study"] == "fine_tune@digits", "params"]]
    assert dict(best.params) in tried[1:]


def test_a_resumed_run_needs_the_earlier_one_no_more(runs: Path, tmp_path: Path) -> None:
    (first, *_) = sorted(path.parent for path in runs.glob("*/result.json"))
    copied = Path(shutil.copytree(first, tmp_path / "earlier"))
    found = earlier.read(str(copied), tmp_path, tmp_path)
    found.write(tmp_path / "warm_start.json")
    shutil.rmtree(copied)
    again = earlier.kept(tmp_path / "warm_start.json")
    assert again.run_id == "earlier"
    assert [one.params for one in again.trials("scratch", None)] == [
        one.params for one in found.trials("scratch", None)
    ]


def test_another_source_of_the_same_strategy_will_do_and_another_strategy_will_not(runs: Path) -> None:
    (first, *_) = sorted(path.parent for path in runs.glob("*/result.json"))
    found = earlier.read(first.name, runs, Path())
    assert found.trials("fine_tune", "another") == found.trials("fine_tune", "digits") != ()
    assert found.trials("residual", "digits") == ()


def test_a_run_that_is_not_there_or_not_finished_is_one_clear_message(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a run's ID or its folder"):
        autoxfer.run(config(warm_start="yesterday"), runs=runs, mlflow=runs.parent / "mlflow.yaml")
    (first, *_) = sorted(path.parent for path in runs.glob("*/result.json"))
    (tmp_path / "half").mkdir()
    shutil.copy(first / "config.yaml", tmp_path / "half")
    with pytest.raises(InputError, match="a finished run"):
        autoxfer.run(config(warm_start="half"), runs=tmp_path, mlflow=runs.parent / "mlflow.yaml")
