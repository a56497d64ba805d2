"""The examples over tables run, and write what they say they write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "tables" / "transfer.py"


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "metric", "n_columns"), [("wine", "rmse", 11), ("adult", "log_loss", None)])
def test_a_source_over_one_table_is_tried_on_another(
    shared: Path, tmp_path: Path, pair: str, metric: str, n_columns: int | None
) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(shared), "--pair", pair, "--out", str(tmp_path), "--smoke"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if (path / "result.json").exists())
    record = json.loads((folder / "result.json").read_text())
    assert record["task"]["metric"] == metric
    assert {entry["strategy"] for entry in record["entries"]} == {"scratch", "linear_probe", "fine_tune"}
    columns = json.loads((tmp_path / f"{pair}_source.json").read_text())["input"]["columns"]
    assert n_columns in (None, len(columns))
    assert pair == "wine" or "education=Masters" in columns
