"""What a partition promises: every example but test is the guard once, and nothing that it trains on is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autoxfer.dataset import Dataset, Schema
from autoxfer.errors import InputError
from autoxfer.partitioning import partition
from autoxfer.splitting import split


def points(labels, examples=None, *, parts=None, groups=None, task="classification"):
    """A data set of two-dimensional points, all different unless given."""
    labels = np.asarray(labels)
    if examples is None:
        examples = np.arange(2 * len(labels), dtype=np.float32).reshape(-1, 2)
    classes = tuple(f"c{index}" for index in range(int(labels.max()) + 1)) if task == "classification" else ()
    schema = Schema("vector", task, (2,), "float32", classes)
    labels = labels.astype(np.int64 if classes else np.float32)
    return Dataset("points", schema, np.asarray(examples, np.float32), labels, parts or {}, groups=groups)


def sizes_of(splits):
    return {name: len(rows) for name, rows in splits.rows.items()}


@pytest.mark.parametrize("n_folds", [2, 3, 5, 20])
@pytest.mark.parametrize("n", [97, 1200])
def test_every_example_but_test_is_the_guard_of_one_fold(n: int, n_folds: int):
    found = partition(points(np.arange(n) % 3), None, 0, n_folds)
    guards = np.concatenate([fold.rows["guard"] for fold in found.folds])
    last = np.concatenate([found.last.rows["train"], found.last.rows["tune"]])
    assert sorted(guards) == sorted(last)
    assert len(found.folds) == n_folds
    everything = np.concatenate([guards, found.last.rows.get("test", np.array([], np.int64))])
    assert sorted(everything) == list(range(n))
    for fold in found.folds:
        assert set(fold.rows) == {"train", "tune", "guard"}
        assert sorted(np.concatenate(list(fold.rows.values()))) == sorted(guards)
        assert all((np.diff(rows) > 0).all() for rows in fold.rows.values())
    sizes = [len(fold.rows["guard"]) for fold in found.folds]
    assert max(sizes) - min(sizes) <= 1


def test_train_and_tune_keep_their_usual_proportion():
    few = partition(points(np.arange(300) % 2), None, 0, 5)
    assert sizes_of(few.last) == {"train": 200, "tune": 100}
    assert sizes_of(few.folds[0]) == {"train": 160, "tune": 80, "guard": 60}
    many = partition(points(np.arange(2000) % 2), None, 0, 5)
    assert sizes_of(many.last) == {"train": 1286, "tune": 514, "test": 200}
    assert sizes_of(many.folds[0]) == {"train": 1029, "tune": 411, "guard": 360}


@pytest.mark.parametrize(
    ("sizes", "last"),
    [
        ({"tune": 0.4}, {"train": 150, "tune": 300}),  # of 450, as without folds .2 is train's, .4 guard's
        ({"train": 0.6, "tune": 0.2}, {"train": 338, "tune": 112}),
        ({"train": 60, "tune": 20}, {"train": 338, "tune": 112}),
        ({"test": 50}, {"train": 236, "tune": 164, "test": 50}),
        ({"train": 0.3, "tune": 0.3, "test": 0.2}, {"train": 180, "tune": 180, "test": 90}),
    ],
)
def test_sizes_are_a_proportion_and_test_is_met_exactly(sizes, last):
    assert sizes_of(partition(points(np.arange(450) % 2), sizes, 0, 3).last) == last


def test_every_class_is_spread_evenly_over_the_folds():
    labels = np.r_[np.zeros(150), np.ones(60), np.full(15, 2)].astype(int)
    found = partition(points(labels), None, 3, 5)
    counts = np.array([np.bincount(labels[fold.rows["guard"]], minlength=3) for fold in found.folds])
    assert np.abs(counts - np.array([30, 12, 3])).max() <= 1


def test_copies_stay_in_one_fold_and_on_one_side():
    examples = np.repeat(np.arange(60), 3)[:, None] * np.ones(2)
    found = partition(points(np.repeat(np.arange(60) % 2, 3), examples), None, 0, 4)
    for splits in (*found.folds, found.last):
        held = [set(examples[rows, 0]) for rows in splits.rows.values()]
        assert sum(map(len, held)) == 60


def test_groups_stay_in_one_fold_and_on_one_side():
    groups = np.arange(240) // 6
    found = partition(points(np.arange(240) % 2, groups=groups), None, 0, 5)
    for splits in (*found.folds, found.last):
        held = [set(groups[rows]) for rows in splits.rows.values()]
        assert sum(map(len, held)) == 40


def test_one_seed_deals_one_way_and_another_deals_otherwise():
    data = points(np.arange(200) % 2)
    one, again, other = (partition(data, None, seed, 5) for seed in (0, 0, 1))
    for left, right in zip((*one.folds, one.last), (*again.folds, again.last), strict=True):
        assert all(np.array_equal(left.rows[name], right.rows[name]) for name in left.rows)
    assert not np.array_equal(one.folds[0].rows["guard"], other.folds[0].rows["guard"])


def test_an_own_test_part_is_kept_and_the_other_own_parts_are_dealt():
    parts = {"test": np.arange(100), "validation": np.arange(100, 160)}
    found = partition(points(np.arange(400) % 2, parts=parts), None, 0, 5)
    assert np.array_equal(found.last.rows["test"], np.arange(100))
    guards = np.concatenate([fold.rows["guard"] for fold in found.folds])
    assert sorted(guards) == list(range(100, 400))
    assert "the data set's own validation part is dealt into the folds with the rest" in found.last.warnings


def test_what_is_copied_from_the_own_test_part_is_in_no_fold():
    examples = np.arange(400, dtype=np.float32).reshape(-1, 2)
    examples[150:160] = examples[:10]
    found = partition(points(np.arange(200) % 2, examples, parts={"test": np.arange(100)}), None, 0, 3)
    guards = np.concatenate([fold.rows["guard"] for fold in found.folds])
    assert not set(guards) & set(range(150, 160))


def test_a_class_of_three_is_learnt_in_every_fold():
    labels = np.r_[np.zeros(60), np.ones(3)].astype(int)
    for seed in range(30):
        found = partition(points(labels), None, seed, 5)
        assert all((labels[splits.rows["train"]] == 1).any() for splits in (*found.folds, found.last))
    assert any("'c1'" in text for text in found.last.warnings)


@pytest.mark.parametrize(
    ("labels", "settings", "n_folds", "expected", "where"),
    [
        (np.arange(14) % 2, None, 5, "at least 15 different examples", "guard.folds"),
        (np.r_[np.zeros(40), np.ones(1)].astype(int), None, 5, "every class in train of every fold", "guard.folds"),
        (np.arange(100) % 2, {"guard": 0.2}, 5, "no size of guard", "task.splits.guard"),
        (np.arange(100) % 2, {"test": 100}, 5, "a test split that leaves some", "task.splits.test"),
        (np.arange(100) % 2, {"tune": 0.7}, 5, "splits that fit into 100 examples", "task.splits"),
        (np.zeros(100).astype(int), None, 5, "at least two classes", "task.data"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(labels, settings, n_folds, expected, where):
    with pytest.raises(InputError, match=expected) as refused:
        partition(points(labels), settings, 0, n_folds)
    assert refused.value.where == where


def test_sizes_that_leave_no_train_are_shown_with_those_that_nobody_gave():
    with pytest.raises(InputError) as refused:
        partition(points(np.arange(1197) % 2), {"test": 900}, 0, 5)
    with pytest.raises(InputError) as without_folds:
        split(points(np.arange(1197) % 2), {"test": 900}, 0)
    assert refused.value.found == "tune 239, guard 239, test 900"
    assert str(refused.value) == str(without_folds.value)


def test_too_few_groups_are_refused():
    with pytest.raises(InputError, match="at least 15 groups"):
        partition(points(np.arange(200) % 2, groups=np.arange(200) // 20), None, 0, 5)


def test_regression_is_dealt_by_chance_alone():
    data = points(np.linspace(0, 1, 90), task="regression")
    found = partition(data, None, 0, 3)
    assert sizes_of(found.folds[0]) == {"train": 40, "tune": 20, "guard": 30}
    with pytest.raises(InputError, match="labels that differ"):
        partition(dataclasses.replace(data, labels=np.ones(90, np.float32)), None, 0, 3)
