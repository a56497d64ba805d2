"""What an assessment promises: train labels alone, the same order every time, results that do not depend on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import autoxfer
from autoxfer import assessment, diagnostics
from autoxfer.assessment import assess
from autoxfer.config import load_config
from autoxfer.dataset import Schema
from autoxfer.events import Event, StudyStarted
from autoxfer.runfolder import RunFolder
from autoxfer.setting import Setting, prepare
from autoxfer.testing.scenes import SCENES, Scene, scene

ROOT = Path(__file__).resolve().parents[1] / "examples"
DIGITS = ROOT / "digits"
FIELDS = [
    *("tap", "n", "p", "n_per_feature", "logme", "h_score", "leep", "nce", "probe_score", "chance_score", "overlap"),
    *("predicted_gain", "alignment", "alignment_centred", "zero_shot", "effective_rank", "top_share", "notes"),
]
HEAD = {"leep", "nce", "alignment", "alignment_centred"}  # what asks the source's own classes


def config(*strategies: Any) -> dict[str, Any]:
    model = f"{DIGITS / 'nets.py'}:SmallCNN"
    weights = {"shuffled": ROOT / "negative_transfer/shuffled_source", "digits": DIGITS / "digits_source"}
    return {
        "task": {"data": str(DIGITS / "digits.npz"), "splits": {"train": 50, "tune": 50, "guard": 300, "test": 100}},
        "sources": [{"name": name, "model": model, "weights": f"{path}.safetensors"} for name, path in weights.items()],
        "strategies": [{"scratch": {"steps": 20}}, *strategies],
        "budget": {"trials": 5},
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def setting() -> Setting:
    return prepare(load_config(config({"fine_tune": {"steps": 10}}, "linear_probe")))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def stored(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.diagnostics.read_text())  # type: ignore[no-any-return]


EXPECTED = (
    *("scratch", "linear_probe@digits", "fine_tune@digits"),
    *("linear_probe@shuffled", "fine_tune@shuffled", "linear_probe@shuffled+digits"),
)


def test_the_better_source_is_searched_first_and_the_file_says_why(setting: Setting, folder: RunFolder) -> None:
    assert assess(setting, folder) == EXPECTED
    report = stored(folder)
    assert tuple(report["order"]) == EXPECTED
    assert report["seconds"] > 0
    good, bad = report["sources"]["digits"], report["sources"]["shuffled"]
    assert list(good) == FIELDS
    assert (good["n"], good["p"], good["n_per_feature"]) == (50, 64, 50 / 64)
    for name in ("logme", "leep", "nce", "probe_score", "overlap", "predicted_gain", "zero_shot"):
        assert good[name] > bad[name], name
    assert bad["probe_score"] > bad["chance_score"]


def test_the_same_run_is_ordered_the_same_way_and_measured_the_same(setting: Setting, tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert assess(setting, one) == assess(setting, two)
    assert stored(one)["sources"] == stored(two)["sources"]


def test_labels_outside_the_train_split_change_nothing(setting: Setting, tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    labels = (setting.dataset.labels + 1) % 10
    labels[setting.rows("train")] = setting.dataset.labels[setting.rows("train")]
    other = replace(setting, dataset=replace(setting.dataset, labels=labels), targets={})
    assess(setting, one)
    assess(other, two)
    assert stored(one)["sources"] == stored(two)["sources"]


def test_a_resumed_run_keeps_its_order_and_a_damaged_file_is_written_again(setting: Setting, folder: RunFolder) -> None:
    kept = [EXPECTED[0], *reversed(EXPECTED[1:])]
    folder.diagnostics.write_text(json.dumps({"order": kept}))
    assert assess(setting, folder) == tuple(kept)
    for damaged in ('{"order": ["scratch"]}', '{"order": 3}', '{"order": [1, "scratch"]}', "[]", '{"or'):
        folder.diagnostics.write_text(damaged)
        assert assess(setting, folder) == EXPECTED
        assert stored(folder)["sources"].keys() == {"digits", "shuffled"}


def test_a_diagnostic_that_breaks_costs_its_number_alone(
    setting: Setting, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(case: diagnostics.Case) -> Mapping[str, float]:
        raise np.linalg.LinAlgError("did not converge")

    monkeypatch.setitem(diagnostics.examination.DIAGNOSTICS, "LogME", broken)
    monkeypatch.setattr(assessment, "scratch_error", broken)
    assert assess(setting, folder) == EXPECTED
    found = stored(folder)["sources"]["digits"]
    assert found["logme"] is None
    assert found["predicted_gain"] is None
    assert found["overlap"] > 0.5
    assert "no LogME: LinAlgError: did not converge" in found["notes"]


def test_of_many_examples_some_are_looked_at(
    setting: Setting, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assessment, "ENOUGH", 30)
    monkeypatch.setattr(assessment, "PART", 7)
    assess(setting, folder)
    found = stored(folder)["sources"]["digits"]
    assert found["n"] == 50
    assert found["notes"][0] == "measured on 30 of the 50 train examples, drawn at random"


def test_some_rows_of_an_input_are_those_of_the_whole(setting: Setting) -> None:
    rows = torch.tensor([4, 0, 9])
    for name in (autoxfer.Raw(), autoxfer.Tap("conv2", "digits")):
        before = setting.features.some(name, "train", rows)
        torch.testing.assert_close(before, setting.features.whole(name, "train")[rows], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(setting.features.some(name, "train", rows), before, rtol=1e-5, atol=1e-5)


class Listener:
    """Remembers which study began when."""

    def __init__(self) -> None:
        self.studies: list[str] = []

    def notify(self, event: Event) -> None:
        if isinstance(event, StudyStarted):
            self.studies.append(event.study)


def numbers(result: autoxfer.Result) -> list[Any]:
    """Everything of the record that is no time."""
    return [replace(entry, seconds=0.0) for entry in result.record.entries]


@pytest.mark.slow
def test_the_order_of_the_search_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, listeners = config("linear_probe", {"fine_tune": {"steps": 10}}), (Listener(), Listener())
    one = autoxfer.run(settings, runs=tmp_path / "one", observers=[listeners[0]])
    monkeypatch.setattr(assessment, "arrange", lambda studies, found: ("scratch", *reversed([*studies][1:])))
    two = autoxfer.run(settings, runs=tmp_path / "two", observers=[listeners[1]])
    assert listeners[0].studies == list(EXPECTED)
    assert listeners[1].studies != listeners[0].studies
    assert numbers(one) == numbers(two)
    assert one.record.winner == two.record.winner
    assert [entry.study for entry in one.record.entries][1] == "linear_probe@shuffled"  # as in the run file


@pytest.mark.parametrize("tiny", [scene(*each) for each in SCENES], ids=str)
def test_pictures_vectors_and_texts_classes_and_numbers_are_all_examined(tiny: Scene, folder: RunFolder) -> None:
    classes = ("a", "b", "c") if is_classes(tiny) else ()
    schema = Schema(tiny.problem.modality, tiny.problem.task, (1,), "float32", classes)
    labels = tiny.labels.numpy() if tiny.problem.task == "multilabel" else tiny.labels.flatten().numpy()
    setting = SimpleNamespace(
        config=SimpleNamespace(seed=0),
        dataset=SimpleNamespace(labels=labels, schema=schema),
        stored=schema,
        metric=tiny.tune.metric,
        features=tiny.features,
        sources=dict(tiny.features.sources),
        studies={"scratch": SimpleNamespace(strategy=SimpleNamespace(name="scratch"), source=None)},
        rows=lambda split: np.arange(len(labels)),
    )
    assert assess(setting, folder) == ("scratch",)  # type: ignore[arg-type]
    (found,) = stored(folder)["sources"].values()
    missing = {name for name in FIELDS if found[name] is None}
    of_head = set() if is_classes(tiny) and tiny.problem.source.head else HEAD | {"zero_shot"}
    assert missing == of_head | (set() if is_classes(tiny) else {"h_score"})
    assert not any(note.startswith("no ") for note in found["notes"])


def is_classes(tiny: Scene) -> bool:
    return tiny.problem.task == "classification"
