"""Whole runs with several labels, or several numbers, an example: digits and patients, from the file to serving."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from sklearn import metrics as sk
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

import autoxfer
from autoxfer import datacheck
from autoxfer.cli import main
from autoxfer.config import load_config
from autoxfer.planning import check_data, plan
from autoxfer.runfolder import RunFolder
from autoxfer.setting import prepare
from autoxfer.splitting import split

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits"
SOURCE = {
    "name": "digits",
    "model": f"{EXAMPLE / 'nets.py'}:SmallCNN",
    "weights": str(EXAMPLE / "digits_source.safetensors"),
}
LABELS = ("even", "big", "prime")
NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(9, 24), nn.Tanh(), nn.Linear(24, 2))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with three labels each, and patients with two numbers each."""
    place = tmp_path_factory.mktemp("several")
    digits, rows = load_digits(), np.random.default_rng(0).permutation(1797)[:400]
    kinds = digits.target[rows]
    images = np.rint(digits.images[rows] * (255 / 16)).astype(np.uint8)
    labels = np.stack([kinds % 2 == 0, kinds > 4, np.isin(kinds, [2, 3, 5, 7])], 1)
    np.savez(place / "digits.npz", images=images, labels=labels, class_names=LABELS)
    patients = load_diabetes(scaled=False)
    frame = pd.DataFrame(patients.data, columns=patients.feature_names).assign(progress=patients.target)
    frame.to_csv(place / "patients.csv", index=False)
    (place / "mlflow.yaml").write_text("enabled: false\n")
    (place / "nets.py").write_text(NET)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(9, 24), nn.Tanh(), nn.Linear(24, 2))
    save_file(layers.state_dict(), place / "net.safetensors")
    return place


def settings(place: Path, kind: str, **more: Any) -> dict[str, Any]:
    task = {"data": str(place / "digits.npz")} if kind == "labels" else {}
    task |= {"data": str(place / "patients.csv"), "target": ["progress", "s5"]} if kind == "numbers" else {}
    strategies: list[Any] = [{"scratch": {"steps": 20, "architecture": ["compact", "linear"]}}, "linear_probe"]
    net: dict[str, Any] = {"model": f"{place / 'nets.py'}:net", "weights": str(place / "net.safetensors")}
    if kind == "labels":
        strategies = [{"scratch": {"steps": 30}}, "linear_probe", {"fine_tune": {"steps": 20}}]
    return {
        "task": task | more.pop("task", {}),
        "sources": [SOURCE if kind == "labels" else {**net, "name": "net", "input": {"shape": [9]}}],
        "strategies": strategies,
        "budget": {"trials": 3, "min_trials": 2},
        **more,
    }


@pytest.fixture(scope="module")
def labels(place: Path) -> autoxfer.Result:
    (place / "logged.yaml").write_text(f"tracking_uri: sqlite:///{place}/mlflow.db\n")
    return autoxfer.run(settings(place, "labels"), runs=place / "labels", mlflow=place / "logged.yaml")


@pytest.fixture(scope="module")
def numbers(place: Path) -> autoxfer.Result:
    made = settings(place, "numbers", final="refit")
    (place / "logged.yaml").write_text(f"tracking_uri: sqlite:///{place}/mlflow.db\n")
    return autoxfer.run(made, runs=place / "numbers", mlflow=place / "logged.yaml")


def test_of_several_labels_a_transfer_is_judged_by_the_share_of_wrong_ones(labels: autoxfer.Result) -> None:
    task = labels.record.task
    assert (task["kind"], task["metric"], task["classes"], task["targets"]) == (
        "multilabel", "hamming_loss", list(LABELS), []
    )  # fmt: skip
    verdict = labels.verdicts["linear_probe@digits"]
    assert verdict.accepted, verdict.reason
    assert verdict.method == "paired t"
    losses = pd.read_parquet(labels.folder / "losses.parquet").pivot_table(
        index="example", columns="finalist", values="loss"
    )
    assert verdict.effect == pytest.approx((losses["scratch"] - losses["linear_probe@digits"]).mean())
    assert set(np.unique(np.round(3 * losses.to_numpy()))) <= {0, 1, 2, 3}


def test_the_winner_names_the_labels_of_raw_pictures(labels: autoxfer.Result, place: Path) -> None:
    with np.load(place / "digits.npz") as data:
        images, truth = data["images"], data["labels"]
    winner = autoxfer.load(labels.folder)
    chances = winner.predict_proba(images)
    assert (winner.classes, chances.shape) == (LABELS, (400, 3))
    names = winner.predict(images)
    assert names[0] == tuple(name for name, chance in zip(LABELS, chances[0], strict=True) if chance >= 0.5)
    guard = prepare(load_config(settings(place, "labels"))).rows("guard")
    assert sk.hamming_loss(truth[guard], chances[guard] >= 0.5) == pytest.approx(labels.record.winner.guard)


def test_the_winner_gives_every_number_in_its_own_units(numbers: autoxfer.Result, place: Path) -> None:
    frame = pd.read_csv(place / "patients.csv")
    winner = autoxfer.load(numbers.folder)
    found = winner.predict(frame)
    assert (winner.targets, winner.classes, found.shape) == (("progress", "s5"), (), (442, 2))
    truth, guard = frame[["progress", "s5"]].to_numpy(), prepare(load_config(settings(place, "numbers"))).rows("guard")
    rmse = sk.root_mean_squared_error(truth[guard], found[guard])
    assert rmse == pytest.approx(numbers.record.winner.guard, rel=1e-4)
    assert sk.r2_score(truth[guard], found[guard]) > 0.2
    assert numbers.record.task["targets"] == ["progress", "s5"]
    assert numbers.record.refit is not None
    assert autoxfer.load(RunFolder(numbers.folder).refit).predict(frame).shape == (442, 2)


def test_a_file_is_predicted_with_a_column_for_each_label_and_each_number(
    labels: autoxfer.Result, numbers: autoxfer.Result, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def predicted(result: autoxfer.Result, file: str) -> list[dict[str, str]]:
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(result.folder), str(place / file)])
        assert not stop.value.code
        return list(csv.DictReader(capsys.readouterr().out.splitlines()))

    rows = predicted(labels, "digits.npz")
    assert list(rows[0]) == ["row", "prediction", *(f"probability_{name}" for name in LABELS)]
    named = [name for name in LABELS if float(rows[0][f"probability_{name}"]) >= 0.5]
    assert rows[0]["prediction"] == ";".join(named)
    rows = predicted(numbers, "patients.csv")
    assert list(rows[0]) == ["row", "prediction_progress", "prediction_s5"]


def test_a_run_of_several_outputs_is_planned_and_explained(
    labels: autoxfer.Result, numbers: autoxfer.Result, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, result in (("labels", labels), ("numbers", numbers)):
        with pytest.raises(SystemExit) as stop:
            main(["explain", result.record.run_id, "--runs", str(result.folder.parent), "--json"])
        assert not stop.value.code
        told = json.loads(capsys.readouterr().out)
        assert not [note for note in told["notes"] if "no " in note and "diagnostics" not in note]
        curve = next(study for study in told["studies"] if study["study"] == "scratch")["curve"]
        assert np.isfinite(curve["tune_loss"]).all()
        said = "\n".join(plan(load_config(settings(place, kind)), logs=False).lines())
        assert ("3 labels" if kind == "labels" else "2 numbers each") in said
        assert (result.folder / "explanation.png").stat().st_size > 10_000


def test_the_registered_model_answers_with_every_label_and_every_number(
    labels: autoxfer.Result, numbers: autoxfer.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow  # noqa: PLC0415

    def served(result: autoxfer.Result) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", result.record.mlflow.tracking_uri)
        mlflow.set_tracking_uri(result.record.mlflow.tracking_uri)
        return mlflow.pyfunc.load_model(result.record.mlflow.model_uri)

    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    answer = served(labels).predict(images)
    assert list(answer) == ["label", *(f"probability_{name}" for name in LABELS)]
    named = autoxfer.load(labels.folder).predict(images)
    assert answer["label"].tolist() == [";".join(names) for names in named]
    winner = autoxfer.load(numbers.folder)
    rows = pd.DataFrame({column.name: [1.0, 2.0] for column in winner.schema.columns})
    answer = served(numbers).predict(rows)
    assert list(answer) == ["prediction_progress", "prediction_s5"]
    np.testing.assert_allclose(answer.to_numpy(), winner.predict(rows))


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_folds_judge_several_outputs_too(place: Path, tmp_path: Path, kind: str) -> None:
    made = settings(place, kind, guard={"folds": 2}, budget={"trials": 2, "min_trials": 1})
    if kind == "numbers":
        made["task"]["metric"] = "r2"
    else:
        made["task"]["metric"] = "f1_macro"
    result = autoxfer.run(made, runs=tmp_path, mlflow=place / "mlflow.yaml")
    assert all(verdict.n == result.record.task["sizes"]["guard"] for verdict in result.verdicts.values())
    assert all(verdict.claim == "procedure" for verdict in result.verdicts.values())


def test_a_run_of_several_labels_goes_on_and_ends_as_it_would_have(place: Path, tmp_path: Path) -> None:
    made = settings(place, "labels", budget={"trials": 2, "min_trials": 1})
    first = autoxfer.run(made, runs=tmp_path, mlflow=place / "mlflow.yaml")
    (first.folder / "result.json").unlink()
    again = autoxfer.selection.resume(first.record.run_id, runs=tmp_path, mlflow=place / "mlflow.yaml")
    assert again.record.winner == first.record.winner
    assert again.verdicts == first.verdicts


def test_the_data_are_checked_as_far_as_that_has_a_meaning(place: Path) -> None:
    found = check_data(prepare(load_config(settings(place, "labels"))))
    assert found.counts["train"]["even"] > 0
    assert found.doubts is None
    assert any("not looked for where an example has several" in line for line in found.lines())
    told = check_data(prepare(load_config(settings(place, "numbers")))).labels
    assert told["progress largest"] > told["progress mean"] > told["s5 smallest"]


def test_a_column_that_gives_one_of_several_numbers_away_is_called_a_leak(place: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(place / "patients.csv").assign(s6=lambda each: 3 * each["progress"] + 1)
    frame.to_csv(tmp_path / "leak.csv", index=False)
    setting = prepare(load_config(settings(place, "numbers", task={"data": str(tmp_path / "leak.csv")})))
    assert any("'s6' alone tells" in text for text in setting.warnings)


def test_the_configuration_of_several_targets_is_read_back(numbers: autoxfer.Result) -> None:
    kept = yaml.safe_load((numbers.folder / "config.yaml").read_text())
    assert kept["task"]["target"] == ["progress", "s5"]
    config = load_config(numbers.folder / "config.yaml")
    assert config.task.target == ("progress", "s5")
    dataset = prepare(config).dataset
    assert datacheck.leak_warnings(dataset, split(dataset, None, 0)) == ()
