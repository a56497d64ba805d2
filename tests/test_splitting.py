"""What split promises: sizes, classes, seeds, and no example twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoxfer.dataset import Dataset, Schema
from autoxfer.errors import InputError
from autoxfer.splitting import split


def points(labels, examples=None, *, parts=None, task="classification", modality="vector"):
    """A data set of two-dimensional points, all different unless given."""
    labels = np.asarray(labels)
    if examples is None:
        examples = np.arange(2 * len(labels), dtype=np.float32).reshape(-1, 2)
    classes = tuple(f"c{index}" for index in range(int(labels.max()) + 1)) if task == "classification" else ()
    schema = Schema(modality, task, (2,), "float32", classes)
    labels = labels.astype(np.int64 if classes else np.float32)
    return Dataset("points", schema, np.asarray(examples, np.float32), labels, parts or {})


def sizes_of(splits):
    return {name: len(rows) for name, rows in splits.rows.items()}


def two_classes(n):
    return points(np.arange(n) % 2)


def test_the_defaults_are_50_20_20_10_and_40_20_40_below_a_thousand():
    assert sizes_of(split(two_classes(1000), None, 0)) == {"train": 500, "tune": 200, "guard": 200, "test": 100}
    assert sizes_of(split(two_classes(999), None, 0)) == {"train": 399, "tune": 200, "guard": 400}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"tune": 0.2, "guard": 0.2, "test": 0.1}, {"train": 1000, "tune": 400, "guard": 400, "test": 200}),
        ({"guard": 500}, {"train": 900, "tune": 400, "guard": 500, "test": 200}),
        ({"tune": 50, "guard": 500, "train": 50}, {"train": 50, "tune": 50, "guard": 500}),
        ({"train": 0.5, "tune": 0.2, "guard": 0.3}, {"train": 1000, "tune": 400, "guard": 600}),
        ({"train": 100, "test": 300}, {"train": 100, "tune": 400, "guard": 400, "test": 300}),
    ],
)
def test_sizes_are_met_exactly(sizes, expected):
    assert sizes_of(split(two_classes(2000), sizes, 3)) == expected


def test_examples_that_no_split_takes_are_named():
    splits = split(two_classes(2000), {"tune": 50, "guard": 500, "train": 50}, 0)
    assert splits.warnings == ("1,400 of 2,000 examples are in no split, as the sizes say",)


def test_rows_are_disjoint_sorted_and_whole():
    splits = split(two_classes(1200), None, 0)
    rows = np.concatenate(list(splits.rows.values()))
    assert np.array_equal(np.sort(rows), np.arange(1200))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in splits.rows.values())
    assert splits.warnings == ()


def test_the_seed_alone_decides():
    first, again, other = (split(two_classes(300), None, seed) for seed in (1, 1, 2))
    np.random.default_rng(0).random(10)
    assert all(np.array_equal(first.rows[name], again.rows[name]) for name in first.rows)
    assert not np.array_equal(first.rows["train"], other.rows["train"])


def test_each_class_gets_its_share():
    labels = np.random.default_rng(0).choice(4, size=1000, p=[0.6, 0.25, 0.1, 0.05])
    splits = split(points(labels), None, 0)
    for rows in splits.rows.values():
        share = np.bincount(labels[rows], minlength=4) / len(rows)
        assert share == pytest.approx(np.bincount(labels) / 1000, abs=3 / len(rows))


def test_any_example_may_come_into_any_split():
    # 200 seeds: an example misses a split of 20% with probability .8 ** 200.
    seen = {name: set() for name in ("train", "tune", "guard")}
    for seed in range(200):
        for name, rows in split(two_classes(20), None, seed).rows.items():
            seen[name].update(rows.tolist())
    assert all(rows == set(range(20)) for rows in seen.values())


@pytest.mark.parametrize("seed", range(20))
def test_every_class_is_learnt_and_judged_even_where_two_examples_are_all_there_is(seed):
    labels = np.r_[np.zeros(300, int), np.ones(300, int), [2, 2, 3, 3, 4, 4, 4]]
    splits = split(points(labels), None, seed)
    judged = np.concatenate([splits.rows["tune"], splits.rows["guard"]])
    assert set(labels[splits.rows["train"]]) == set(labels[judged]) == set(range(5))
    assert "fewer than 5 examples" in splits.warnings[0]
    assert "'c2'" in splits.warnings[0]


def test_a_class_with_one_example_is_refused_with_its_name_and_counts():
    with pytest.raises(InputError, match="'c2' with 1 in all") as caught:
        split(points(np.r_[np.arange(100) % 2, 2]), None, 0)
    assert caught.value.where == "task.splits"


def test_a_class_whose_examples_are_all_copies_is_refused():
    data = points(np.r_[np.arange(100) % 2, 2, 2])
    data.examples[-1] = data.examples[-2]
    with pytest.raises(InputError, match="'c2' with 2 in all"):
        split(data, None, 0)


def test_one_class_is_refused():
    with pytest.raises(InputError, match="at least two classes"):
        split(points(np.zeros(50, int)), None, 0)


def test_regression_is_split_without_classes():
    splits = split(points(np.linspace(0, 1, 100), task="regression"), None, 0)
    assert sizes_of(splits) == {"train": 40, "tune": 20, "guard": 40}


@pytest.mark.parametrize(
    "sizes",
    [
        {"tune": 0},
        {"guard": 0},
        {"tune": -0.2},
        {"guard": -5},
        {"tune": 0.6, "guard": 0.6},
        {"train": 0.9, "guard": 0.4, "tune": 0.1},
        {"tune": 0.5, "guard": 0.5},
        {"tune": 150, "guard": 150},
        {"guard": 1000},
        {"train": 300},
        {"tune": float("nan")},
        {"tune": float("inf")},
        {"tune": True},
        {"tune": "20%"},
        {"tune": 1.5},
        {"dev": 0.2},
    ],
)
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError) as caught:
        split(two_classes(200), sizes, 0)
    assert caught.value.where.startswith("task.splits")


def test_splits_with_less_room_than_classes_are_refused():
    data = points(np.arange(200) % 10)
    with pytest.raises(InputError, match="each of 10 classes in train"):
        split(data, {"train": 5}, 0)
    with pytest.raises(InputError, match="each of 10 classes in tune or guard"):
        split(data, {"tune": 4, "guard": 4}, 0)


def with_copies(seed=0, n=400, share=0.3):
    """Points of which some are copied, up to four times."""
    rng = np.random.default_rng(seed)
    examples = rng.normal(size=(n, 2))
    labels = rng.integers(0, 2, n)
    source = np.where(rng.random(n) < share, rng.integers(0, n // 4, n), np.arange(n))
    return points(labels[source], examples[source])


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_together(seed):
    data = with_copies(seed)
    splits = split(data, None, seed)
    home: dict[bytes, set[str]] = {}
    for name, rows in splits.rows.items():
        for row in rows:  # the naive twin: every example's bytes, and where they are found
            home.setdefault(data.examples[row].tobytes(), set()).add(name)
    assert all(len(names) == 1 for names in home.values())
    assert "exact copies" in splits.warnings[0]
    assert sum(sizes_of(splits).values()) == 400
    assert sizes_of(splits)["tune"] == pytest.approx(80, abs=4)


def test_copies_with_different_labels_are_told():
    data = two_classes(100)
    data.examples[1] = data.examples[0]
    assert "1 examples have copies with a different label" in split(data, None, 0).warnings


def test_a_coarse_table_is_split_by_rows():
    rng = np.random.default_rng(0)
    data = points(rng.integers(0, 2, 300), rng.integers(0, 3, (300, 2)), modality="table")
    splits = split(data, None, 0)
    assert sizes_of(splits) == {"train": 120, "tune": 60, "guard": 120}
    assert "only 9 of 300 rows differ" in splits.warnings[0]


def test_an_own_test_part_is_the_test_split_and_the_rest_is_drawn_from_the_rest():
    own = np.arange(1000, 1400)
    splits = split(points(np.arange(1400) % 2, parts={"train": np.arange(1000), "test": own}), None, 0)
    assert np.array_equal(splits.rows["test"], own)
    assert sizes_of(splits) == {"train": 600, "tune": 200, "guard": 200, "test": 400}


def test_all_own_parts_are_respected():
    parts = {"train": np.arange(100), "val": np.arange(100, 130), "guard": np.arange(130, 200)}
    splits = split(points(np.arange(200) % 2, parts=parts), None, 0)
    assert np.array_equal(splits.rows["train"], parts["train"])
    assert np.array_equal(splits.rows["tune"], parts["val"])
    assert np.array_equal(splits.rows["guard"], parts["guard"])


@pytest.mark.parametrize(("size", "count"), [(50, 50), (0.1, 40), (400, 400)])
def test_a_size_for_an_own_part_takes_that_much_of_it(size, count):
    data = points(np.arange(1400) % 2, parts={"test": np.arange(1000, 1400)})
    splits = split(data, {"test": size}, 0)
    assert len(splits.rows["test"]) == count
    assert splits.rows["test"].min() >= 1000
    assert sizes_of(splits)["train"] == 600
    assert bool(splits.warnings) == (count < 400)


def test_more_than_an_own_part_holds_is_refused():
    with pytest.raises(InputError, match="at most the 400 examples"):
        split(points(np.arange(1400) % 2, parts={"test": np.arange(1000, 1400)}), {"test": 500}, 0)


def test_what_also_stands_in_the_own_test_part_is_dropped_from_the_rest():
    data = points(np.arange(300) % 2, parts={"test": np.arange(200, 300)})
    data.examples[[0, 1, 2]] = data.examples[[200, 201, 202]]
    splits = split(data, None, 0)
    assert not np.isin([0, 1, 2], np.concatenate(list(splits.rows.values()))).any()
    assert len(splits.rows["test"]) == 100
    assert "dropped from the rest: 3 examples that also stand in the own test part" in splits.warnings


def test_a_class_that_only_the_test_part_knows_is_refused():
    labels = np.r_[np.arange(100) % 2, np.full(10, 2)]
    with pytest.raises(InputError, match="'c2' with 10 in all"):
        split(points(labels, parts={"test": np.arange(90, 110)}), None, 0)


@pytest.mark.parametrize("parts", [{"dev": np.arange(5)}, {"val": np.arange(5), "tune": np.arange(5, 9)}])
def test_parts_of_unknown_or_double_name_are_refused(parts):
    with pytest.raises(InputError):
        split(points(np.arange(100) % 2, parts=parts), None, 0)


def test_parts_that_share_rows_are_refused():
    with pytest.raises(InputError, match="share no row"):
        split(points(np.arange(100) % 2, parts={"val": np.arange(30), "test": np.arange(20, 50)}), None, 0)


def test_a_class_without_examples_is_told():
    data = points(np.arange(100) % 2)
    schema = Schema("vector", "classification", (2,), "float32", ("c0", "c1", "c2"))
    splits = split(Dataset("d", schema, data.examples, data.labels), None, 0)
    assert splits.warnings == ("class 'c2' has no examples",)


def grouped(n_groups, *, seed=0, largest=12, classes=2, parts=None, modality="vector", task="classification"):
    """Points in groups of one to ``largest``, of mixed classes."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(n_groups), rng.integers(1, largest + 1, n_groups)))
    labels = rng.integers(0, classes, len(groups)) if task == "classification" else rng.normal(size=len(groups))
    return replace(points(labels, parts=parts, modality=modality, task=task), groups=groups)


def homes(data, splits):
    """The naive twin: each group's number, and the splits that it is found in."""
    found: dict[int, set[str]] = {}
    for name, rows in splits.rows.items():
        for row in rows:
            found.setdefault(int(data.groups[row]), set()).add(name)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_group_is_never_cut(seed, task):
    data = grouped(120, seed=seed, task=task)
    splits = split(data, None, seed)
    assert all(len(names) == 1 for names in homes(data, splits).values())
    n = len(data.labels)
    assert sum(sizes_of(splits).values()) == n
    shares = {name: size / n for name, size in sizes_of(splits).items()}
    assert shares == pytest.approx({"train": 0.4, "tune": 0.2, "guard": 0.4}, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_groups_and_their_copies_stay_together_along_whole_chains(seed):
    data = grouped(60, seed=seed, largest=4)
    for first, second in ((0, 1), (1, 2), (10, 11)):  # a copy ties group 0 to 1, another 1 to 2
        one, other = (np.flatnonzero(data.groups == group)[0] for group in (first, second))
        data.examples[other] = data.examples[one]
    splits = split(data, None, seed)
    found = homes(data, splits)
    assert all(len(names) == 1 for names in found.values())
    assert len(found[0] | found[1] | found[2]) == len(found[10] | found[11]) == 1
    assert any("57 of 60 to be dealt" in warning for warning in splits.warnings)


def test_classes_keep_their_shares_as_far_as_groups_allow():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    of_group = rng.choice(3, 200, p=[0.7, 0.2, 0.1])  # a patient has one diagnosis
    data = replace(points(of_group[groups]), groups=groups)
    splits = split(data, None, 0)
    for rows in splits.rows.values():
        share = np.bincount(data.labels[rows], minlength=3) / len(rows)
        assert share == pytest.approx(np.bincount(data.labels) / 1000, abs=0.03)


@pytest.mark.parametrize("seed", range(20))
def test_a_class_of_two_groups_is_learnt_and_judged(seed):
    groups = np.repeat(np.arange(42), 5)
    data = replace(points(np.where(groups >= 40, 2, groups % 2)), groups=groups)
    splits = split(data, None, seed)
    judged = np.concatenate([splits.rows["tune"], splits.rows["guard"]])
    assert set(data.labels[splits.rows["train"]]) == set(data.labels[judged]) == {0, 1, 2}


def test_a_class_of_one_group_is_refused():
    groups = np.repeat(np.arange(41), 5)
    data = replace(points(np.where(groups >= 40, 2, groups % 2)), groups=groups)
    with pytest.raises(InputError, match=r"at least 2 groups.*'c2' with 5 in all"):
        split(data, None, 0)


def test_groups_of_one_seed_stay_where_they_are():
    data = grouped(100)
    first, again, other = (split(data, None, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first.rows[name], again.rows[name]) for name in first.rows)
    assert not np.array_equal(first.rows["train"], other.rows["train"])


def test_any_group_may_come_into_any_split():
    data = grouped(20, largest=3)
    seen = {name: set() for name in ("train", "tune", "guard")}
    for seed in range(200):
        for group, names in homes(data, split(data, None, seed)).items():
            seen[names.pop()].add(group)
    assert all(groups == set(range(20)) for groups in seen.values())


def test_fewer_groups_than_splits_are_refused():
    data = replace(two_classes(60), groups=np.repeat([0, 1], 30))
    with pytest.raises(InputError, match="at least 3 groups, one for each of train, tune, guard") as caught:
        split(data, None, 0)
    assert (caught.value.where, caught.value.found) == ("task.group", "2")


def test_groups_of_one_example_each_are_told():
    data = replace(two_classes(60), groups=np.arange(60))
    assert "task.group: every one of 60 examples is a group of its own" in split(data, None, 0).warnings


def test_a_group_that_also_stands_in_the_own_test_part_is_dropped_from_the_rest():
    groups = np.r_[np.repeat(np.arange(50), 4), np.repeat(np.arange(48, 73), 4)]  # 48 and 49 stand on both sides
    data = replace(points(np.arange(300) % 2, parts={"test": np.arange(200, 300)}), groups=groups)
    splits = split(data, None, 0)
    assert sizes_of(splits)["test"] == 100
    assert sum(sizes_of(splits).values()) == 292
    assert all(len(names) == 1 for names in homes(data, splits).values())
    told = "dropped from the rest: 8 examples that also stand in the own test part, or whose group stands there"
    assert told in splits.warnings


def test_own_parts_that_cut_through_every_group_are_refused():
    data = replace(points(np.arange(300) % 2, parts={"test": np.arange(100)}), groups=np.arange(300) % 100)
    with pytest.raises(
        InputError, match="do not cut through the groups, found every group of the rest in the own test"
    ):
        split(data, None, 0)


def test_a_size_for_an_own_part_takes_whole_groups():
    groups = np.arange(1400) // 7
    data = replace(points(np.arange(1400) % 2, parts={"test": np.arange(700, 1400)}), groups=groups)
    splits = split(data, {"test": 350}, 0)
    assert len(splits.rows["test"]) == pytest.approx(350, abs=7)
    assert set(np.unique(groups[splits.rows["test"]], return_counts=True)[1]) == {7}


def test_a_coarse_table_is_split_by_groups():
    rng = np.random.default_rng(0)
    data = points(rng.integers(0, 2, 300), rng.integers(0, 3, (300, 2)), modality="table")
    data = replace(data, groups=np.arange(300) // 3)
    assert all(len(names) == 1 for names in homes(data, split(data, None, 0)).values())
