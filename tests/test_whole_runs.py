"""Whole runs whose metric is no mean of losses, and whose examples come in groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import autoxfer
from autoxfer.errors import InputError

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"

pytestmark = pytest.mark.slow


def settings(data: Path, metric: str, **task: object) -> dict[str, object]:
    return {
        "task": {
            "data": str(data),
            "metric": metric,
            "splits": {"train": 50, "tune": 50, "guard": 200, "test": 100},
            **task,
        },
        "sources": [
            {
                "name": "digits",
                "model": f"{DIGITS / 'nets.py'}:SmallCNN",
                "weights": str(DIGITS / "digits_source.safetensors"),
            }
        ],
        "strategies": [{"scratch": {"steps": 30}}, "linear_probe"],
        "budget": {"trials": 5},
    }


@pytest.mark.parametrize(
    ("metric", "method", "title"), [("auroc", "DeLong", "AUROC"), ("f1_macro", "exchange test", "macro F1")]
)
def test_a_run_is_judged_by_the_metric_that_it_is_tuned_for(
    metric: str, method: str, title: str, tmp_path: Path
) -> None:
    result = autoxfer.run(settings(DIGITS / "digits.npz", metric), runs=tmp_path)
    verdict = result.verdicts["linear_probe@digits"]
    assert verdict.accepted
    assert verdict.approximate
    assert verdict.method == method
    assert verdict.reason.startswith(f"{title} ")
    entries = {entry.strategy: entry for entry in result.record.entries}
    gain = entries["linear_probe"].guard - entries["scratch"].guard  # type: ignore[operator]
    assert verdict.effect == pytest.approx(gain)
    losses = pd.read_parquet(result.folder / "losses.parquet").groupby("finalist")["loss"].mean()
    assert losses["scratch"] - losses["linear_probe@digits"] == pytest.approx(gain)
    assert 1 - losses["scratch"] == pytest.approx(entries["scratch"].guard)


def test_a_run_on_groups_counts_them(tmp_path: Path) -> None:
    with np.load(DIGITS / "digits.npz") as file:
        arrays = dict(file)
    n = len(next(iter(arrays.values())))
    np.savez(tmp_path / "grouped.npz", **arrays, writer=np.arange(n) // 4)
    result = autoxfer.run(settings(tmp_path / "grouped.npz", "accuracy", group="writer"), runs=tmp_path / "runs")
    verdict = result.verdicts["linear_probe@digits"]
    assert verdict.approximate
    assert verdict.method == "clustered t"
    assert " groups, p " in verdict.reason or "groups" in verdict.reason


def test_a_metric_for_two_classes_is_refused_for_ten(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two classes for f1"):
        autoxfer.run(settings(DIGITS / "digits.npz", "f1"), runs=tmp_path)
