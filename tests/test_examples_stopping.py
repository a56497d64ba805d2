"""The replay of the bars against scratch counts what they would have done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from autoxfer.records import Outcome, Score
from autoxfer.tuning import Journal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "evidence"))
import stopping

SCRATCH = (0.1, 0.6, 0.8, 0.8, 0.9)
TRANSFER = [
    (0.1, 0.4, 0.5, 0.5, 0.6),  # the default, however bad
    (0.1, 0.2, 0.3, 0.3, 0.4),  # behind both: stopped halfway
    (0.1, 0.4, 0.6, 0.6, 0.65),  # the best of its study: goes on
    (0.1, 0.2, 0.3, 0.3, 0.95),  # a competitor that starts late: lost
]


def write(folder: Path, accepted: bool) -> None:
    """Write what the replay reads of a run."""
    folder.mkdir()
    journal = Journal(folder / "journal.log")
    for name, curves in (("scratch", [SCRATCH] * 5), ("lora@a", TRANSFER)):
        study = journal.open_study(name)
        for curve in curves:
            number = journal.begin(study, {}, {}, (), 0).number
            points = tuple((k / 4, rank) for k, rank in enumerate(curve))
            journal.finish(study, number, Outcome("complete", Score(curve[-1], max(curve), 0.0), points, 8.0))
    entries = [
        {"strategy": "scratch", "source": None, "verdict": None},
        {"strategy": "lora", "source": "a", "verdict": {"accepted": accepted}},
    ]
    task = {"name": "digits", "metric": "accuracy", "sizes": {"tune": 400}}
    (folder / "result.json").write_text(json.dumps({"task": task, "entries": entries}))
    pd.DataFrame({"finalist": ["scratch"], "loss": [0.1]}).to_parquet(folder / "losses.parquet")


def test_a_trial_that_would_have_been_stopped_is_counted_with_what_it_cost(tmp_path: Path) -> None:
    write(tmp_path / "run", accepted=True)
    (row,) = stopping.run(tmp_path / "run")
    assert (row["trials"], row["stopped"], row["not_begun"]) == (4, 2, 0)
    assert (row["competitors_lost"], row["finalist_lost"], row["accepted_lost"]) == (1, 1, 1)
    assert (row["seconds"], row["saved_s"]) == (32.0, pytest.approx(8.0))


def test_the_sums_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run", accepted=False)
    monkeypatch.setattr(sys, "argv", ["stopping.py", str(tmp_path), "--allowance", "2"])
    stopping.main()
    printed = capsys.readouterr().out
    assert "25.0%" in printed
    assert "errors behind" in printed
