"""The guarded comparison over target sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoxfer import curve
from autoxfer.cli import main
from autoxfer.config import load_config
from autoxfer.curve import _ordered, trace
from autoxfer.dataset import Dataset, Schema
from autoxfer.errors import InputError
from autoxfer.explaining import Explanation, figure
from autoxfer.report import Entry
from autoxfer.terminal import curved

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"


def settings(**task: Any) -> dict[str, Any]:
    """A run of seconds."""
    source = {
        "name": "digits",
        "model": f"{DIGITS / 'nets.py'}:SmallCNN",
        "weights": str(DIGITS / "digits_source.safetensors"),
    }
    splits = {"train": 120, "tune": 80, "guard": 400}
    return {
        "task": {"data": str(DIGITS / "digits.npz"), "splits": splits, **task},
        "sources": [source],
        "strategies": [{"scratch": {"steps": 12, "architecture": "compact"}}, "linear_probe"],
        "budget": {"trials": 5},
    }


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, curve.Curve]:
    runs = tmp_path_factory.mktemp("curve") / "runs"
    return runs, trace(load_config(settings()), [60, 200], runs)


def test_every_size_is_judged_on_the_same_examples_at_a_shared_level(traced: tuple[Path, curve.Curve]) -> None:
    _, found = traced
    assert [(point.size, point.n_train) for point in found.points] == [(60, 36), (200, 120)]
    for point in found.points:
        assert point.record.task["sizes"]["guard"] == 400
        (verdict,) = (entry.verdict for entry in point.record.entries if entry.verdict is not None)
        assert verdict.level == pytest.approx(0.025)
        assert point.accepted == ("linear_probe@digits",)  # 12 steps of scratch are no match for it
    assert found.last_helped == 200
    losses = [(found.folder / str(point.size) / "losses.parquet") for point in found.points]
    import pandas as pd  # noqa: PLC0415

    examples = [set(pd.read_parquet(path)["example"]) for path in losses]
    assert examples[0] == examples[1]


def test_the_guard_counts_one_look_for_a_curve(traced: tuple[Path, curve.Curve]) -> None:
    runs, found = traced
    looks = (runs / "looks.jsonl").read_text().splitlines()
    assert len(looks) == 1
    assert all(not e.verdict.exploratory for p in found.points for e in p.record.entries if e.verdict)


def test_the_same_command_goes_on_with_the_same_curve(traced: tuple[Path, curve.Curve]) -> None:
    runs, found = traced
    (found.folder / "60" / "result.json").unlink()  # killed before it was written
    again = trace(load_config(settings()), [200, 60], runs)
    assert again.folder == found.folder
    assert [p.record.entries[1].guard for p in again.points] == [p.record.entries[1].guard for p in found.points]
    assert [len(e.params) > 0 for e in again.points[0].record.entries] == [True, True]


def test_the_command_prints_one_object_and_draws(
    traced: tuple[Path, curve.Curve], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs, _ = traced
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(settings()))
    plot = tmp_path / "curve.png"
    command = ["curve", str(file), "--sizes", "60,200", "--runs", str(runs), "--plot", str(plot), "--json"]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 0
    told = json.loads(capfd.readouterr().out)
    assert [line["size"] for line in told["sizes"]] == [60, 200]
    assert plot.stat().st_size > 10_000


def test_the_plot_shows_gains_in_the_words_and_units_of_the_plot_of_a_run(
    traced: tuple[Path, curve.Curve], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes: list[Any] = []

    def kept(drawn: Callable[..., None]) -> Callable[..., None]:
        def draw(on: Any, *rest: Any) -> None:
            axes.append(on)
            drawn(on, *rest)

        return draw

    monkeypatch.setattr(curved, "_gains", kept(curved._gains))
    monkeypatch.setattr(figure, "_forest", kept(figure._forest))
    _, found = traced
    curved.draw(found, tmp_path / "curve.png")
    point = found.points[0]
    figure.draw(Explanation(point.record, found.folder / str(point.size), {}, {}, {}), tmp_path / "run.png")
    gains, forest = axes
    assert gains.get_ylabel() == "gain over scratch on the guard split (points of accuracy)"
    assert forest.get_xlabel().startswith(gains.get_ylabel())
    (effect,) = (100 * entry.verdict.effect for entry in point.record.entries if entry.verdict is not None)
    assert any(line.get_ydata()[0] == pytest.approx(effect) for line in gains.lines if len(line.get_ydata()) == 1)


def test_beginnings_hold_every_class_and_whole_groups() -> None:
    labels = np.repeat(np.arange(4), [40, 20, 10, 10])
    schema = Schema("vector", "classification", (1,), "float32", ("a", "b", "c", "d"))
    data = Dataset("made", schema, np.zeros((80, 1), np.float32), labels)
    order = _ordered(data, np.arange(80), 0)
    for n in (16, 40):
        counts = np.bincount(labels[order[:n]], minlength=4)
        assert (abs(counts - n / 80 * np.array([40, 20, 10, 10])) <= 2).all()
        assert counts.min() > 0
    groups = np.repeat(np.arange(20), 4)
    grouped = Dataset("made", schema, np.zeros((80, 1), np.float32), labels, groups=groups)
    order = _ordered(grouped, np.arange(80), 0)
    assert all(len(set(groups[order[k : k + 4]])) == 1 for k in range(0, 80, 4))


@pytest.mark.parametrize(
    ("sizes", "task", "expected"),
    [
        ([60], {}, "at least two sizes"),
        ([60, 900], {}, "at most 200"),
        ([3, 200], {}, "every class"),
    ],
)
def test_sizes_that_cannot_be_are_one_clear_message(
    sizes: list[int], task: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=expected):
        trace(load_config(settings(**task)), sizes, tmp_path / "runs")
    assert not (tmp_path / "runs" / "looks.jsonl").exists()


def test_a_curve_of_data_that_were_looked_at_before_says_so(traced: tuple[Path, curve.Curve], tmp_path: Path) -> None:
    _, found = traced
    assert curved.EXPLORATORY not in curved.lines(found)
    points = [
        replace(p, record=replace(p.record, entries=tuple(map(looked_at, p.record.entries)))) for p in found.points
    ]
    again = replace(found, points=tuple(points))
    assert curved.EXPLORATORY in curved.lines(again)
    curved.draw(again, tmp_path / "again.svg")
    assert "looked at before" in (tmp_path / "again.svg").read_text()


def looked_at(entry: Entry) -> Entry:
    return entry if entry.verdict is None else replace(entry, verdict=replace(entry.verdict, exploratory=True))
