"""A finished run says in plain words why each strategy was accepted or not, and what its learning curves mean."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autoxfer
from autoxfer import explaining
from autoxfer.cli import main
from autoxfer.errors import AutoxferError, InputError
from autoxfer.explaining import Explanation, figure
from autoxfer.explaining.curves import nested, sizes
from autoxfer.explaining.diagnosis import Curve, diagnose
from autoxfer.records import Outcome, Score, StudyResult, Trial, Verdict
from autoxfer.report import Entry, Logged, RunRecord, Winner
from autoxfer.runfolder import RunFolder, write_json
from autoxfer.terminal import explanation as words
from autoxfer.terminal.diagnostics import source_words

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
TASK = {
    "name": "digits",
    "kind": "classification",
    "metric": "accuracy",
    "direction": "maximize",
    "classes": ["0", "1"],
    "sizes": {"train": 50, "tune": 50, "guard": 300, "test": 0},
    "warnings": [],
}
SCRATCH = Curve((12, 25, 50), (0.0, 0.0, 0.0), (2.1, 0.8, 0.4))
CHANCE = 2.3


def verdict(decision: Any, effect: float, *, level: float = 0.05, reason: str = "", **changes: Any) -> Verdict:
    fixed = round(150 + 150 * effect)
    numbers = (effect, effect - 0.02, effect + 0.02, 0.01 if decision == "accepted" else 0.4, level)
    return Verdict(decision, *numbers, "exact McNemar", 300, fixed, 300 - fixed, 0.07, reason, **changes)


def entry(strategy: str, tune: float | None, verdict: Verdict | None) -> Entry:
    source = None if verdict is None else "even"
    return Entry(strategy, source, "complete", 5, 3, 1, 1, 2.0, {}, tune, tune, None, verdict)


UNTESTED = Verdict("untested", *[math.nan] * 4, 0.0, "none", 300, None, None, math.nan, "no trial was completed: torn")
PROSPECT = "fixed 9, broke 5 of 300, p = 0.4 at level 0.05: undecided; 300 examples find a gain of 7 points"
ENTRIES = (
    entry("scratch", 0.9, None),
    entry("linear_probe", 0.95, verdict("accepted", 0.06)),
    entry("lora", 0.93, verdict("undecided", 0.01, reason=PROSPECT)),
    entry("adapters", 0.8, verdict("undecided", -0.01, level=0.0, reason="undecided: it did not compete")),
    entry("fine_tune", 0.7, verdict("harmful", -0.2, level=0.0)),
    entry("residual", None, UNTESTED),
)


def record(entries: tuple[Entry, ...] = ENTRIES, winner: int = 1, **task: Any) -> RunRecord:
    won = entries[winner]
    shipped = Winner(won.strategy, won.source, {}, won.tune, won.guard, None, certified=True)
    return RunRecord("20261121-101500-abcd", {**TASK, **task}, shipped, entries, Logged(), {"export": 1.0})


def study(line: Entry) -> StudyResult:
    trials = (
        Trial(0, {"lr": 0.001, "tap": "last"}, Outcome("complete", Score(0.6, 0.6, 1.0))),
        Trial(1, {"lr": 0.02, "tap": "last"}, Outcome("complete", Score(0.9, 0.9, 0.5))),
        Trial(2, {"lr": 9.0, "tap": "last"}, Outcome("failed", None, reason="FloatingPointError: not finite")),
    )
    return StudyResult(line.study, line.strategy, line.source, trials, 2.0)


def explained(made: RunRecord | None = None, **changes: Any) -> Explanation:
    made = made or record()
    known = {"studies": {line.study: study(line) for line in made.entries}, "diagnostics": {}, "curves": {}, **changes}
    return Explanation(made, Path("runs/x"), **known)


def said(explanation: Explanation, strategy: str) -> str:
    line = next(line for line in explanation.record.entries if line.strategy == strategy)
    return words.study_words(explanation, line)


def test_first_stands_what_won_and_why() -> None:
    first = words.headline(explained())
    assert first.startswith("linear_probe@even won: of 300 guard examples it got 159 right that scratch gets wrong")
    assert "6.0 points better" in first
    assert "between +4.0 and +8.0 points" in first
    assert first.endswith("1 of 5 transfers was accepted, and it is the only one accepted.")


def test_where_scratch_wins_it_is_said_that_nothing_was_taken_over() -> None:
    first = words.headline(explained(record(ENTRIES[:1] + ENTRIES[2:], winner=0)))
    assert "none of the 4 transfers was shown to be better on the 300 guard examples" in first
    assert "1 harmful, 2 undecided, 1 untested" in first
    one = words.headline(explained(record((ENTRIES[0], ENTRIES[4]), winner=0)))
    assert "scratch won: the one transfer was not shown to be better" in one


def test_a_smaller_winner_within_one_standard_error_is_explained() -> None:
    better = entry("fine_tune", 0.97, verdict("accepted", 0.07))
    first = words.headline(explained(record((*ENTRIES[:2], better))))
    assert "within one standard error of the best of those accepted (fine_tune@even) with fewer parameters" in first


def test_what_is_not_certified_is_said_first() -> None:
    uncertified = replace(record(winner=2), winner=replace(record(winner=2).winner, certified=False))
    assert words.headline(explained(uncertified)).startswith("lora@even won, NOT CERTIFIED: no transfer was accepted")
    again = replace(record(), winner=replace(record().winner, certified=False))
    assert "looked at before" in words.headline(explained(again))


def test_each_kind_of_verdict_is_told_in_its_own_words() -> None:
    everything = explained()
    accepted = said(everything, "linear_probe")
    assert "On tune its accuracy is 0.950 against scratch's 0.900, so it competed." in accepted
    assert "That is enough: p = 0.01 at its level 0.05 (exact McNemar)." in accepted
    undecided = said(everything, "lora")
    assert "That is not enough: p = 0.4" in undecided
    assert "300 examples find a gain of 7 points." in undecided
    absent = said(everything, "adapters")
    assert "more than a standard error below, so it did not compete for acceptance" in absent
    assert "No harm is shown either." in absent
    harmful = said(everything, "fine_tune")
    assert "20.0 points worse" in harmful
    assert "it is worse than scratch, beyond chance" in harmful
    assert "No trial was completed" in said(everything, "residual")
    assert "torn" in said(everything, "residual")
    assert "The opponent of all the others" in said(everything, "scratch")


def test_lost_trials_and_the_parameters_that_moved_are_named() -> None:
    text = said(explained(), "lora")
    assert "Of 5 trials 1 stopped early, 1 failed (mostly: FloatingPointError: not finite)." in text
    assert "Best with lr 0.02 (default 0.001)." in text
    assert "tap" not in text


def test_a_loss_on_a_scale_is_told_in_its_own_units() -> None:
    gain = replace(verdict("accepted", 0.25), fixed=None, broken=None, method="paired t")
    made = record(
        (ENTRIES[0], entry("linear_probe", 0.5, gain)), kind="regression", metric="rmse", direction="minimize"
    )
    assert (
        "its loss on 300 guard examples is 30.9% lower than scratch's (interval of the gain: between +28.4 and +33.3%)"
        in words.headline(explained(made))
    )
    exploratory = replace(gain, exploratory=True, approximate=True)
    made = record((ENTRIES[0], entry("linear_probe", 0.5, exploratory)))
    assert "The test is approximate. Exploratory: these data were looked at before." in said(
        explained(made), "linear_probe"
    )


FACTS = {
    "tap": "last",
    "n": 50,
    "p": 64,
    "n_per_feature": 0.78,
    "probe_score": 0.82,
    "chance_score": 0.1,
    "overlap": 0.71,
    "predicted_gain": -0.3,
    "logme": 0.1,
    "leep": None,
    "effective_rank": 11.3,
    "top_share": 0.31,
    "alignment": 0.83,
    "alignment_centred": 0.41,
    "zero_shot": None,
    "notes": ["the features are collapsed"],
}


def test_a_sources_diagnostics_are_put_into_words_that_claim_nothing() -> None:
    text = source_words(FACTS, TASK)
    probe = (
        "A linear probe of its last features, cross-validated on train, reaches accuracy 0.820, a constant guess 0.100."
    )
    assert text.startswith(probe)
    assert "50 train examples for 64 features are 0.78 per feature: few." in text
    assert "explain 71% of the labels' uncertainty" in text
    assert "a squared error higher by 30% of the labels' variance than" in text
    assert "LEEP" not in text
    assert "without any training" not in text
    assert text.endswith("The features are collapsed.")
    assert source_words({"notes": []}, TASK) == ""
    whole = "\n".join(words.lines(explained(diagnostics={"sources": {"even": FACTS}, "order": ["scratch"]})))
    assert "never accept or reject anything" in whole


@pytest.mark.parametrize(
    ("kind", "train", "tune"),
    [
        ("bias", (0.4, 0.4, 0.4), (1.5, 1.35, 1.3)),  # fits its own examples badly, and more of them do not help
        ("variance", (0.0, 0.0, 0.0), (2.5, 1.6, 0.9)),  # fits its own examples, and more of them help a lot
        ("healthy", (0.1, 0.05, 0.05), (0.6, 0.2, 0.1)),
        ("unclear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # a gap that more examples do not close
        ("unclear", (0.1, math.nan, math.nan), (0.6, math.nan, math.nan)),
    ],
)
def test_a_curve_is_diagnosed_beside_scratchs(kind: str, train: Any, tune: Any) -> None:
    assert diagnose(Curve(SCRATCH.sizes, train, tune), SCRATCH, CHANCE).kind == kind


def test_a_constant_factor_of_all_losses_changes_no_diagnosis() -> None:
    """Losses have no scale of their own: euros or thousands of them."""
    for train, tune in [((0.4, 0.4, 0.4), (1.5, 1.35, 1.3)), ((0.1, 0.05, 0.05), (0.6, 0.2, 0.1))]:
        found = set()
        for factor in (1e-3, 1.0, 1e3):
            scaled = Curve(SCRATCH.sizes, tuple(factor * x for x in train), tuple(factor * x for x in tune))
            scratch = replace(SCRATCH, tune_loss=tuple(factor * x for x in SCRATCH.tune_loss))
            found.add(diagnose(scaled, scratch, factor * CHANCE).kind)
        assert len(found) == 1


def test_the_thresholds_are_those_of_the_documentation() -> None:
    from autoxfer.explaining import diagnosis  # noqa: PLC0415

    assert (diagnosis.LITTLE, diagnosis.FIT, diagnosis.FLAT, diagnosis.BEHIND) == (0.05, 0.005, 0.05, 0.75)


def test_scratch_is_never_called_biased_by_a_source() -> None:
    flat = Curve((12, 25, 50), (1.0, 1.0, 1.0), (1.5, 1.5, 1.5))
    assert diagnose(flat, flat, CHANCE).kind == "unclear"
    assert diagnose(SCRATCH, SCRATCH, CHANCE).kind == "variance"


def test_parts_of_the_train_split_are_nested_and_hold_every_class() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = nested(labels, classes=True, seed=3)
    assert sorted(order) == list(range(100))
    assert set(labels[order[:3]]) == {0, 1, 2}
    assert np.bincount(labels[order[:50]]).tolist() == pytest.approx([30, 15, 5], abs=2)
    assert sorted(nested(labels, classes=False, seed=3)) == list(range(100))


def test_sizes_double_and_leave_out_what_cannot_show_every_class() -> None:
    assert sizes(800, 10) == (100, 200, 400, 800)
    assert sizes(50, 10) == (12, 25, 50)
    assert sizes(16, 10) == (16,)
    assert sizes(40, 0) == (5, 10, 20, 40)


@pytest.mark.parametrize("suffix", figure.SUFFIXES)
def test_the_plot_has_a_row_for_each_transfer(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    forest = figure._forest
    monkeypatch.setattr(figure, "_forest", lambda axes, explanation: (forest(axes, explanation), seen.append(axes)))
    path = tmp_path / f"plot{suffix}"
    figure.draw(explained(), path)
    assert path.stat().st_size > 5000
    names = [label.get_text() for label in seen[0].get_yticklabels()]
    assert names == ["★ linear_probe@even", "lora@even", "adapters@even", "fine_tune@even", "residual@even"]
    assert [text.get_text() for text in seen[0].get_legend().get_texts()] == ["accepted", "undecided", "harmful"]


def test_the_margin_is_drawn_where_the_guards_boundary_is(tmp_path: Path) -> None:
    pd.DataFrame({"finalist": ["scratch", "scratch", "x"], "loss": [1.0, 3.0, 9.0]}).to_parquet(
        tmp_path / "losses.parquet"
    )
    made = replace(explained(record(metric="log_loss", direction="minimize"), margin=0.1), folder=tmp_path)
    assert figure._boundary(made) == pytest.approx(0.2)
    assert figure._boundary(explained(margin=0.1)) == 0.1


def test_a_plot_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="png"):
        figure.check(tmp_path / "plot.jpeg")
    with pytest.raises(InputError, match="folder"):
        figure.check(tmp_path / "none" / "plot.png")


def test_without_matplotlib_a_run_is_explained_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(explanation: Explanation, path: Path) -> None:
        raise AutoxferError("a plot needs matplotlib (pip install matplotlib)")

    monkeypatch.setattr(figure, "draw", missing)
    found, drawn = explaining.draw(replace(explained(), folder=tmp_path))
    assert drawn == []
    assert "pip install matplotlib" in found.notes[-1]
    warnings: list[str] = []
    explaining.illustrate(record(), RunFolder(tmp_path), warnings.append)
    assert "no plot" in warnings[0]


def test_an_object_of_everything_is_json() -> None:
    curves = {line.study: SCRATCH for line in ENTRIES[:2]}
    given = explained(diagnostics={"sources": {"even": FACTS}, "order": ["scratch"]}, curves=curves, chance_loss=CHANCE)
    found = words.as_object(given)
    assert found["studies"][0]["study"] == "linear_probe@even"
    by_name = {line["study"]: line for line in found["studies"]}
    assert by_name["adapters@even"]["competed"] is False
    assert by_name["lora@even"]["competed"] is True
    assert by_name["scratch"]["curve"]["diagnosis"] == "variance"
    assert by_name["lora@even"]["main_failure"].startswith("FloatingPointError")
    assert found["sources"]["even"]["probe_score"] == 0.82


def test_a_run_that_is_not_there_or_not_finished_is_bad_input(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(InputError, match="a run 'none'"):
        explaining.explain("none", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text("task: {data: x}\n")
    with pytest.raises(InputError, match="autoxfer run --resume a"):
        explaining.explain("a", tmp_path)
    write_json(tmp_path / "a" / "result.json", {**record().as_dict(), "timings": {}})
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "a", "--runs", str(tmp_path), "--json"])
    assert stopped.value.code == 2


def test_a_run_whose_data_and_trials_are_gone_is_explained_without_curves(tmp_path: Path, capfd: Any) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.path.mkdir()
    folder.config.write_text("task: {data: gone.npz}\nsources: [timm:resnet18]\nguard: {margin: 0.01}\n")
    write_json(folder.result, record().as_dict())
    found = explaining.explain("a", tmp_path)
    assert found.margin == 0.01
    assert any("trials is gone" in note for note in found.notes)
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "a", "--runs", str(tmp_path)])
    assert stopped.value.code == 0
    printed = capfd.readouterr().out
    assert "harmful: negative transfer" in printed
    assert "explanation.png" in printed


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> autoxfer.Result:
    source = {"name": "digits", "model": f"{DIGITS}/nets.py:SmallCNN", "weights": f"{DIGITS}/digits_source.safetensors"}
    settings = {
        "task": {"data": f"{DIGITS}/digits.npz", "splits": {"train": 50, "tune": 50, "guard": 300, "test": 100}},
        "sources": [source],
        "strategies": [{"scratch": {"steps": 30}}, "linear_probe"],
        "budget": {"trials": 2, "min_trials": 2},
        "device": "cpu",
    }
    return autoxfer.run(settings, runs=tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_a_run_draws_itself_and_its_curves_are_measured_once(result: autoxfer.Result) -> None:
    folder, run_id = RunFolder(result.folder), result.record.run_id
    assert folder.explanation.stat().st_size > 5000
    said: list[str] = []
    found = explaining.explain(run_id, folder.path.parent, say=said.append)
    assert found.notes == () or "diagnostics" in found.notes[0]
    assert {curve.sizes for curve in found.curves.values()} == {(12, 25, 50)}
    written = json.loads(folder.curves.read_text())
    assert set(written["studies"]) == {"scratch", "linear_probe@digits"}
    probe = written["studies"]["linear_probe@digits"]
    assert {"sizes", "train_loss", "tune_loss", "diagnosis", "reason"} <= set(probe)
    assert probe["tune_loss"][0] > probe["tune_loss"][-1]
    assert sum("examples" in text for text in said) == 6

    said.clear()
    before = folder.curves.stat().st_mtime_ns
    again = explaining.explain(run_id, folder.path.parent, say=said.append)
    assert (again.curves, said, folder.curves.stat().st_mtime_ns) == (found.curves, [], before)


@pytest.mark.slow
def test_a_curve_that_was_cut_short_goes_on_where_it_stopped(result: autoxfer.Result, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / result.record.run_id)
    shutil.copytree(result.folder, folder.path)
    folder.curves.unlink(missing_ok=True)

    def killed(text: str) -> None:
        if "on 25" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explaining.explain(folder.run_id, tmp_path, say=killed)
    assert json.loads(folder.curves.read_text())["studies"]["scratch"]["sizes"] == [12]
    said: list[str] = []
    found = explaining.explain(folder.run_id, tmp_path, say=said.append)
    assert not any("on 12" in text for text in said)
    whole = explaining.explain(result.record.run_id, result.folder.parent)
    assert found.curves == whole.curves


@pytest.mark.slow
def test_the_full_size_is_the_runs_own_model(result: autoxfer.Result) -> None:
    found = explaining.explain(result.record.run_id, result.folder.parent)
    trials = pd.read_parquet(result.folder / "trials.parquet")
    probe = trials[trials.study == "linear_probe@digits"].sort_values(["value", "loss"], ascending=[False, True])
    assert found.curves["linear_probe@digits"].tune_loss[-1] == pytest.approx(probe.loss.iloc[0], rel=1e-4)


@pytest.mark.slow
def test_guard_and_test_labels_are_never_touched(
    result: autoxfer.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoxfer import provenance, setting  # noqa: PLC0415
    from autoxfer.explaining import curves  # noqa: PLC0415

    shutil.copytree(result.folder, tmp_path / "a")
    (tmp_path / "a" / "curves.json").unlink(missing_ok=True)
    prepare = setting.prepare

    def poisoned(*given: Any) -> Any:
        made = prepare(*given)
        hidden = np.concatenate([made.rows("guard"), made.rows("test")])
        made.fingerprint  # noqa: B018 - of the data as they are
        labels = made.dataset.labels.copy()
        labels[hidden] = -(10**6)  # an index that no table has
        return replace(made, dataset=replace(made.dataset, labels=labels), targets={"tune": made.targets["tune"]})

    monkeypatch.setattr(setting, "prepare", poisoned)
    monkeypatch.setattr(provenance, "confirm", lambda setting, folder: None)
    found = explaining.explain("a", tmp_path)
    assert found.curves["scratch"].sizes == (12, 25, 50)
    assert all(map(math.isfinite, found.curves["scratch"].tune_loss))
    assert curves.FEWEST == 4
