"""What is said of the data before a run: against loops that anyone can check, and on data with a known fault."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoxfer.config import load_config
from autoxfer.datacheck import Check, check, copies, leak_warnings
from autoxfer.datacheck.columns import (
    BINS,
    FOLDS,
    SMOOTHING,
    area,
    bins,
    columns_tell,
    leaks,
    near_constant,
    suspicious,
    tells,
)
from autoxfer.datacheck.doubts import doubts, probe
from autoxfer.dataset import Column, Dataset, DataSpec, Schema
from autoxfer.planning import plan
from autoxfer.plugins import load_plugins
from autoxfer.records import Task
from autoxfer.setting import prepare
from autoxfer.splitting import split

Floats = NDArray[np.float64]


def read(location: str, target: str | None = None) -> Dataset:
    spec = DataSpec(location, target)
    return load_plugins().reader_for(spec).read(spec)


def a_table(n: int = 400, task: Task = "classification", seed: int = 0) -> Dataset:
    """Numbers "weak", "x" to "z", a category "kind" and a gap here and there; the label follows "weak" a little."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    x[:, 4] = rng.integers(0, 3, n)
    x[rng.random(n) < 0.1, 1] = np.nan
    score = x[:, 0] + 1.5 * rng.normal(size=n)
    names = ("weak", "x", "y", "z")
    columns = (*(Column(name, "numeric") for name in names), Column("kind", "categorical", ("a", "b", "c")))
    classes = ("no", "yes") if task == "classification" else ()
    labels = (score > 0).astype(np.int64) if classes else score.astype(np.float32)
    return Dataset("t", Schema("table", task, (5,), "float32", classes, columns, "answer"), x, labels)


def with_column(dataset: Dataset, name: str, values: Floats) -> Dataset:
    schema = dataset.schema
    columns = (*schema.columns, Column(name, "numeric"))
    examples = np.column_stack([dataset.examples, values]).astype(np.float32)
    return replace(dataset, examples=examples, schema=replace(schema, shape=(len(columns),), columns=columns))


def test_the_area_is_the_chance_that_a_positive_scores_higher() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 50).astype(float), rng.random(50) < 0.3
    pairs = [(s > t) + 0.5 * (s == t) for s in scores[positive] for t in scores[~positive]]
    assert area(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("n_classes", [0, 2, 4])
def test_a_column_tells_what_a_loop_over_examples_finds(n_classes: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=90)
    values[::7] = np.nan
    noisy = np.nan_to_num(values) ** (1 if n_classes else 2) + 0.5 * rng.normal(size=90)
    labels = noisy if not n_classes else np.digitize(noisy, np.linspace(-0.7, 0.7, n_classes - 1))
    fold, place = np.random.default_rng(2).permutation(90) % FOLDS, bins(values, categorical=False)
    targets = np.stack([labels == k for k in range(n_classes)], 1).astype(float) if n_classes else labels[:, None]
    predicted = []
    for i in range(90):
        rest = [j for j in range(90) if fold[j] != fold[i]]
        alike = [j for j in rest if place[j] == place[i]]
        prior = np.mean([targets[j] for j in rest], axis=0)
        total = np.sum([targets[j] for j in alike], axis=0) if alike else np.zeros_like(prior)
        predicted.append((total + SMOOTHING * prior) / (len(alike) + SMOOTHING))
    guess = np.array(predicted)
    if n_classes:
        expected = np.mean([2 * area(guess[:, k], labels == k) - 1 for k in range(n_classes)])
    else:
        filled = np.where(np.isnan(values), np.nanmean(values), values)
        expected = 1 - ((labels - guess[:, 0]) ** 2).sum() / ((labels - labels.mean()) ** 2).sum()
        expected = max(expected, np.corrcoef(filled, labels)[0, 1] ** 2)
    found = tells(values, labels, n_classes, np.random.default_rng(2), categorical=False)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0.3 < found < 1


def test_missing_values_and_categories_have_bins_of_their_own() -> None:
    assert bins(np.array([0.0, 2.0, np.nan, 1.0, 2.0]), categorical=True).tolist() == [0, 2, 3, 1, 2]
    many = np.r_[np.linspace(0, 1, 1000), np.nan]
    found = bins(many, categorical=False)
    assert len(np.unique(found)) == BINS + 1
    assert np.bincount(found)[:-1].max() < 1000 / BINS + 2


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_planted_leak_is_named_and_an_honest_column_is_not(task: Task) -> None:
    honest = a_table(task=task)
    splits = split(honest, None, 0)
    assert leak_warnings(honest, splits) == ()
    rng = np.random.default_rng(3)
    leaky = with_column(honest, "answer_copied", 3.0 * honest.labels + 0.05 * rng.normal(size=len(honest.labels)))
    (warning,) = leak_warnings(leaky, splits)
    assert "'answer_copied'" in warning
    assert "'answer'" in warning


def of_two(task: Task, *, honest: bool) -> Dataset:
    """Two labels or numbers, of which a column "a" tells "sport" alone, or neither; five columns tell nothing."""
    plain, rng = a_table(), np.random.default_rng(9)
    both = rng.normal(size=(400, 2))
    copied = rng.normal(size=400) if honest else both[:, 0]
    columns = (*plain.schema.columns, Column("a", "numeric"))
    names = ("sport", "pol")
    schema = replace(plain.schema, task=task, columns=columns, shape=(6,), target="sport, pol")
    several = task == "multilabel"
    schema = replace(schema, classes=names if several else (), targets=() if several else names)
    labels = (both > 0) if several else both
    examples = np.column_stack([plain.examples, copied]).astype(np.float32)
    return replace(plain, schema=schema, examples=examples, labels=labels.astype(np.float32))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_of_several_targets_the_one_is_named_that_a_column_tells(task: Task) -> None:
    assert leak_warnings(of_two(task, honest=True), split(of_two(task, honest=True), None, 0)) == ()
    leaky = of_two(task, honest=False)
    splits = split(leaky, None, 0)
    (warning,) = leak_warnings(leaky, splits)
    assert warning.startswith("column 'a' alone tells 100% of 'sport', where")
    told = columns_tell(leaky, splits.rows["train"])
    assert told["sport"]["a"] > 0.98
    assert told["pol"]["a"] < 0.2
    found = check(leaky, splits, {})
    assert found.suspicious == ("a",)
    assert found.tells_of["a"] == "sport"
    assert any("1 that target): a 1.00 of sport" in line for line in found.lines())
    twice = replace(leaky, labels=np.repeat(leaky.labels[:, :1], 2, axis=1))
    (warning,) = leak_warnings(twice, splits)
    assert "100% of 'sport', 100% of 'pol'" in warning


def test_a_leak_of_one_target_is_not_hidden_by_what_columns_tell_of_another() -> None:
    told = {"one": dict(zip("abcde", (0.8, 0.1, 0.1, 0.1, 0.1), strict=True)), "other": dict.fromkeys("abcde", 0.6)}
    assert leaks(told) == {"a": {"one": 0.8}}


def test_a_gap_that_gives_the_label_away_is_a_leak() -> None:
    honest = a_table()
    values = np.where(honest.labels == 1, np.nan, 1.0)  # filled in for one class alone
    leaky = with_column(honest, "discharged", values)
    assert columns_tell(leaky, np.arange(400))["answer"]["discharged"] > 0.98


def test_columns_stand_out_from_others_only_where_there_are_others() -> None:
    assert suspicious({"a": 0.8, "b": 0.7, "c": 0.2, "d": 0.1, "e": 0.1}) == ("a", "b")
    assert suspicious({"a": 0.8, "b": 0.7, "c": 0.45, "d": 0.1, "e": 0.1}) == ()  # neither near nor far
    assert suspicious({"a": 0.6, "b": 0.1, "c": 0.1, "d": 0.1}) == ()
    assert suspicious({"a": 0.8, "b": 0.1}) == ()
    assert suspicious({"a": 0.995, "b": 0.9}) == ("a",)
    assert suspicious({}) == ()


@pytest.mark.parametrize(
    ("location", "target", "named"),
    [
        ("sklearn:iris", None, ()),
        ("sklearn:breast_cancer", None, ()),
        ("sklearn:wine", None, ()),
        ("sklearn:diabetes", None, ()),
        ("tabular/student_por.csv", "G3", ("G2", "G1")),  # the grades of the terms before
        ("tabular/student_mat.csv", "G3", ("G2", "G1")),
        ("tabular/abalone.csv", "rings", ()),
        ("tabular/wine_quality_red.csv", "quality", ()),
        ("tabular/adult.parquet", "income", ()),
    ],
)
def test_real_leaks_are_named_without_false_alarms(
    location: str, target: str | None, named: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    if ":" not in location:
        location = str(request.getfixturevalue("shared") / location)
    dataset = read(location, target)
    for seed in range(3):
        train = split(dataset, None, seed).rows["train"]
        assert tuple(leaks(columns_tell(dataset, train, seed))) == named


def test_a_leak_among_strong_columns_is_not_named_but_comes_first(shared: Path) -> None:
    dataset = read(str(shared / "tabular" / "bank_additional_10pct.csv"), "y")
    told = columns_tell(dataset, split(dataset, None, 0).rows["train"])["y"]
    assert max(told, key=lambda name: told[name]) == "duration"
    assert suspicious(told) == ()


def test_doubts_are_what_a_loop_over_examples_counts() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 60)
    p = rng.dirichlet(np.ones(3), 60) + 0.8 * np.eye(3)[np.where(rng.random(60) < 0.8, labels, (labels + 1) % 3)]
    p /= p.sum(1, keepdims=True)
    t = [np.mean([p[i, j] for i in range(60) if labels[i] == j]) for j in range(3)]
    joint, suspects = np.zeros((3, 3)), []
    for i in range(60):
        above = [j for j in range(3) if p[i, j] >= t[j]]
        if above:
            j = max(above, key=lambda j, i=i: p[i, j])  # type: ignore[misc]
            joint[labels[i], j] += 1
            if j != labels[i]:
                suspects.append(i)
    joint = np.array([row / row.sum() * (labels == k).sum() for k, row in enumerate(joint)])
    found = doubts(p, labels, most=100)
    assert found.share == pytest.approx(1 - np.trace(joint) / joint.sum())
    assert sorted(found.rows) == suspects
    margins = [p[i, labels[i]] - p[i].max() for i in found.rows]
    assert margins == sorted(margins)


@pytest.mark.parametrize(("exchanged", "least", "most"), [(0.0, 0.0, 0.03), (0.1, 0.08, 0.18), (0.2, 0.17, 0.32)])
def test_exchanged_labels_are_counted_and_found(exchanged: float, least: float, most: float) -> None:
    digits = read("sklearn:digits")
    rng = np.random.default_rng(5)
    rows = rng.permutation(len(digits.labels))[:500]
    labels = digits.labels[rows].copy()
    wrong = rng.random(500) < exchanged
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    pixels = torch.from_numpy(digits.examples[rows].reshape(500, -1)).float()
    found = doubts(probe(pixels, labels, 10, rng), labels)
    assert least <= found.share <= most
    if exchanged:
        assert np.mean(wrong[list(found.rows)]) >= 0.9


def test_copies_are_counted_within_and_across_splits() -> None:
    dataset = a_table(40)
    examples = dataset.examples.copy()
    examples[5] = examples[6] = examples[0]
    splits = split(replace(dataset, examples=examples), None, 0)
    assert sum(copies(replace(dataset, examples=examples), splits).values()) == 2
    rows = {"train": np.array([0, 5, 1]), "tune": np.array([6, 2]), "guard": np.array([3])}
    found = copies(replace(dataset, examples=examples), replace(splits, rows=rows))
    assert found == {"train": 1, "train and tune": 1}


def test_a_column_that_hardly_changes_is_named() -> None:
    values = np.zeros(400)
    values[:3] = 1
    assert near_constant(with_column(a_table(), "still", values), np.arange(400)) == {"still": 397 / 400}
    gaps = np.full(400, np.nan)
    gaps[0] = 1
    assert list(near_constant(with_column(a_table(), "gaps", gaps), np.arange(400))) == ["gaps"]


def looked_at(dataset: Dataset, labels: NDArray[np.int64]) -> Check:
    splits = split(dataset, None, 0)
    train = torch.from_numpy(np.nan_to_num(dataset.examples[splits.rows["train"]]))
    return check(replace(dataset, labels=labels), splits, {"the inputs": lambda: train})


def test_of_the_other_splits_labels_only_counts_are_read() -> None:
    dataset = with_column(a_table(), "strong", a_table().labels + 0.3 * np.random.default_rng(6).normal(size=400))
    rows, labels = split(dataset, None, 0).rows, dataset.labels.copy()
    for name in ("tune", "guard"):
        labels[rows[name]] = np.random.default_rng(7).permutation(labels[rows[name]])
    assert (labels != dataset.labels).any()
    before, after = looked_at(dataset, dataset.labels), looked_at(dataset, labels)
    assert before == after
    assert before.doubts is not None
    assert set(before.doubts.rows) <= set(rows["train"].tolist())


def test_images_of_one_colour_are_counted() -> None:
    images = np.random.default_rng(8).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    images[:10] = np.arange(10)[:, None, None, None]
    images[10, ..., 1] = 7  # one channel is still, the others are not
    schema = Schema("image", "classification", (4, 4, 3), "uint8", ("a", "b"))
    dataset = Dataset("i", schema, images, np.arange(60) % 2)
    splits = split(dataset, None, 0)
    assert check(dataset, splits, {}).blank == np.isin(np.arange(10), splits.rows["train"]).sum()


def test_plan_and_run_warn_of_a_leak_before_any_budget_is_spent(tmp_path: Path) -> None:
    dataset = a_table(120)
    lines = ["weak,x,y,z,copied,answer"]
    for row, label in zip(np.nan_to_num(dataset.examples), dataset.labels, strict=True):
        lines.append(",".join([*(f"{value:.3f}" for value in row[:4]), f"{label + row[1] / 100:.4f}", "ny"[label]]))
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    config = load_config({"task": {"data": str(tmp_path / "t.csv"), "target": "answer"}, "device": "cpu"})
    assert any("'copied'" in warning for warning in prepare(config).warnings)
    planned = plan(config)
    answer = json.loads(json.dumps(planned.as_dict(), default=str))["data"]
    assert answer["suspicious"] == ["copied"]
    assert answer["counts"]["train"].keys() == {"n", "y"}
    assert answer["doubts"]["accuracy"] > 0.9
    text = "\n".join(planned.lines())
    for words in ("'copied' alone tells", "labels that may be wrong: ", "exact copies: none", "train/tune/guard: "):
        assert words in text
