"""Sources that autoxfer has trained, on data that they know: refused before anything is searched, by every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoxfer
from autoxfer.cli import main
from autoxfer.config import load_config
from autoxfer.errors import InputError
from autoxfer.pretraining import pretrain
from autoxfer.setting import Setting, prepare

SOURCE = {"name": "made", "model": "compact", "weights": "made.safetensors"}
BUDGET = {"trials": 1, "min_trials": 1}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures whose labels are coin flips, and other such pictures."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (240, 6, 6)).astype(np.uint8), rng.integers(0, 2, 240)
    np.savez(tmp_path / "noise.npz", images=images[:120], labels=labels[:120])
    np.savez(tmp_path / "fresh.npz", images=images[120:], labels=labels[120:])
    np.savez(tmp_path / "both.npz", images=images, labels=labels)
    parts = {"train": np.arange(140), "tune": np.arange(140, 160), "guard": np.arange(160, 240)}
    own: dict[str, Any] = {f"{part}_images": images[rows] for part, rows in parts.items()}
    own |= {f"{part}_labels": labels[rows] for part, rows in parts.items()}
    np.savez(tmp_path / "dealt.npz", **own)
    (tmp_path / "mlflow.yaml").write_text("enabled: false\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOXFER_PLUGINS", raising=False)
    return tmp_path


def settings(data: str, source: Any = SOURCE, **more: Any) -> dict[str, Any]:
    return {
        "task": {"data": data},
        "sources": [source] if source else [],
        "strategies": ["scratch", "linear_probe"],
        "budget": BUDGET,
        "device": "cpu",
        **more,
    }


def made(home: Path, data: str = "noise.npz") -> None:
    found = pretrain(load_config({**settings(data, "compact"), "directory": str(home)}), home, "made")
    assert found.card["trained_on"]["sketches"][0]["examples"] == 120


def checked(home: Path, data: str, **more: Any) -> Setting:
    return prepare(load_config({**settings(data, **more), "directory": str(home)}))


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_coin_flips_that_a_source_knows_by_heart_are_refused_by_every_command(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made(home)
    (home / "run.yaml").write_text(json.dumps(settings("noise.npz")))
    for command in (["run"], ["plan"], ["run", "-o", "guard={folds: 3}"], ["curve", "--sizes", "20,40"]):
        assert call(command[0], "run.yaml", *command[1:]) == 2
        told = capfd.readouterr().err
        assert "examples in tune, guard and test that the source has not learned from" in told
        assert "made, which learned from about 100% of " in told
        assert "sources.made" in told
        assert not list((home / "runs").glob("*/*"))


def test_one_half_teaches_and_the_other_judges(home: Path) -> None:
    made(home)
    setting = checked(home, "fresh.npz")
    assert not [warning for warning in setting.warnings if "learned from" in warning]
    assert "sketches" not in setting.sources["made"].card["trained_on"]  # which plan and environment.json show


def test_data_that_have_grown_are_taken_once_the_old_rows_are_in_train(home: Path) -> None:
    made(home)
    with pytest.raises(InputError, match="made, which learned from about") as caught:
        checked(home, "both.npz")
    assert "keys train_, tune_, ..." in caught.value.expected
    setting = checked(home, "dealt.npz")
    assert not [warning for warning in setting.warnings if "learned from" in warning]


def test_a_few_old_rows_are_a_warning_that_counts_them(home: Path) -> None:
    made(home)
    old, new = np.load("noise.npz"), np.load("fresh.npz")
    guard: dict[str, Any] = {"guard_images": np.concatenate([new["images"][:60], old["images"][:3]])}
    guard["guard_labels"] = np.concatenate([new["labels"][:60], old["labels"][:3]])
    np.savez("few.npz", train_images=new["images"][60:], train_labels=new["labels"][60:], **guard)
    (told,) = [warning for warning in checked(home, "few.npz").warnings if "learned from" in warning]
    assert told == "source made has learned from examples that equal about 3 of 63 in guard"


def test_a_model_of_a_source_has_learned_from_what_the_source_had(home: Path) -> None:
    made(home)
    setting = checked(home, "fresh.npz")
    alone, with_source = setting.learned(None), setting.learned("made")
    card = json.loads((home / "made.json").read_text())
    assert [sketch["examples"] for sketch in with_source] == [120, 120]
    assert with_source == [*alone, *card["trained_on"]["sketches"]]


def _table(path: Path, rows: range, *, order: str = "abt", town: str = "") -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 2)).round(3)
    labels = rng.choice(["no", "yes"], 200)
    towns = rng.choice(["Ulm", "Bonn", "Kiel"], 200)
    towns[150:] = np.where(np.arange(50) % 2, towns[150:], town or towns[150:])
    cells = {"a": values[:, 0], "b": values[:, 1], "t": towns}
    lines = [",".join([*(str(cells[key][row]) for key in order), labels[row]]) for row in rows]
    path.write_text("\n".join([",".join([*order, "label"]), *lines]))


def test_the_winner_of_a_run_is_no_source_for_its_own_data_grown_recoded_and_reordered(home: Path) -> None:
    _table(home / "first.csv", range(120))
    _table(home / "grown.csv", range(200), order="tba", town="Aachen")
    _table(home / "later.csv", range(120, 200))
    config = settings("first.csv", None, final="refit", guard={"when_undecided": "best_tune"})
    config["strategies"] = [{"scratch": {"architecture": "compact", "steps": 5}}]
    first = autoxfer.run({**config, "directory": str(home)}, runs=home / "runs", mlflow=home / "mlflow.yaml")
    for place in ("winner", "winner_refit"):
        description = json.loads((first.folder / place / "model.json").read_text())
        (sketch,) = description["trained_on"]["sketches"]
        assert (sketch["examples"], sketch["columns"]) == (120, ["a", "b", "t"])
        source = {"name": "old", "model": f"run:{first.folder / place}"}
        for data in ("first.csv", "grown.csv"):
            with pytest.raises(InputError, match=r"old, which learned from about .* of guard"):
                checked(home, data, source=source)
        assert checked(home, "later.csv", source=source).sources["old"].learned[0].examples == 120
