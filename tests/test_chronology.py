"""What splits by time promise: nothing is learned from what came after what it is judged by."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from autoxfer_builtins.npz_data import NpzReader
from autoxfer_builtins.reading import moments
from autoxfer_builtins.table_data import TableReader

from autoxfer.chronology import CAUTION, cut
from autoxfer.dataset import Dataset, DataSpec, Schema
from autoxfer.errors import InputError
from autoxfer.partitioning import partition
from autoxfer.splitting import split

EAST = timezone(timedelta(hours=1))


def timed(times, *, parts=None, labels=None):
    times = np.asarray(times, dtype=np.float64)
    n = len(times)
    schema = Schema("vector", "classification", (2,), "float32", ("a", "b"))
    examples = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    labels = np.random.default_rng(9).integers(0, 2, n) if labels is None else labels
    return Dataset("d", schema, examples, labels, parts or {}, times=times)


def sizes_of(splits):
    return {name: len(rows) for name, rows in splits.rows.items()}


@pytest.mark.parametrize("n", [200, 2000])
def test_every_split_is_newer_than_the_one_before(n):
    data = timed(np.random.default_rng(0).permutation(n))
    splits = split(data, None, 0)
    shares = (
        {"train": 0.4, "tune": 0.2, "guard": 0.4}
        if n < 1000
        else {"train": 0.5, "tune": 0.2, "guard": 0.2, "test": 0.1}
    )
    assert {name: size / n for name, size in sizes_of(splits).items()} == shares
    ordered = [data.times[splits.rows[name]] for name in shares]
    assert all(one.max() < other.min() for one, other in itertools.pairwise(ordered))
    assert splits.warnings == (CAUTION,)
    assert all((np.diff(rows) > 0).all() for rows in splits.rows.values())


def test_the_seed_decides_nothing():
    data = timed(np.random.default_rng(0).permutation(100))
    one, other = split(data, None, 1), split(data, None, 2)
    assert all(np.array_equal(one.rows[name], other.rows[name]) for name in one.rows)


@pytest.mark.parametrize("seed", range(5))
def test_equal_times_stay_together(seed):
    times = np.random.default_rng(seed).integers(0, 30, 300)
    splits = split(timed(times), None, 0)
    homes = {}
    for name, rows in splits.rows.items():  # the naive twin: where each time is found
        for moment in times[rows]:
            homes.setdefault(moment, set()).add(name)
    assert all(len(names) == 1 for names in homes.values())
    assert sum(sizes_of(splits).values()) == 300
    assert sizes_of(splits)["guard"] == pytest.approx(120, abs=15)


def test_what_no_split_takes_is_the_oldest():
    splits = split(timed(np.arange(200)[::-1]), {"train": 50, "tune": 20, "guard": 40}, 0)
    assert sizes_of(splits) == {"train": 50, "tune": 20, "guard": 40}
    assert splits.rows["guard"].tolist() == list(range(40))
    assert splits.rows["train"].max() == 109


def test_too_few_different_times_are_refused():
    with pytest.raises(InputError, match=r"equal times kept together; 60 rows, found none for"):
        split(timed(np.arange(60) // 30), None, 0)


def test_cuts_move_to_the_nearest_place_between_different_times():
    times = np.array([0.0, 1, 1, 1, 1, 1, 2, 3, 4, 5])
    found = cut(np.arange(10), {"train": 5, "tune": 2, "guard": 3}, times)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "train": [0, 1, 2, 3, 4, 5],
        "tune": [6],
        "guard": [7, 8, 9],
    }


def test_an_early_copy_of_a_later_example_is_left_out():
    data = timed(np.arange(100))
    data.examples[[0, 1, 45]] = data.examples[[99, 98, 97]]
    splits = split(data, None, 0)
    assert not np.isin([0, 1, 45], np.concatenate(list(splits.rows.values()))).any()
    assert "task.time: 2 examples are left out of train, as a later split holds copies" in splits.warnings
    assert "task.time: 1 examples are left out of tune, as a later split holds copies" in splits.warnings


def test_own_parts_stay_and_a_disorder_is_told():
    newest = split(timed(np.arange(300), parts={"test": np.arange(200, 300)}), None, 0)
    assert np.array_equal(newest.rows["test"], np.arange(200, 300))
    assert newest.rows["guard"].min() == 120
    assert newest.warnings == (CAUTION,)
    oldest = split(timed(np.arange(300), parts={"test": np.arange(100)}), None, 0)
    assert any("test begins before guard ends" in warning for warning in oldest.warnings)


def test_a_class_that_came_up_late_is_refused_by_its_name():
    with pytest.raises(InputError, match=r"class 'b' with 20 in all \(train 0"):
        split(timed(np.arange(100), labels=(np.arange(100) >= 80).astype(np.int64)), None, 0)


def test_times_are_part_of_the_fingerprint():
    data = timed(np.arange(60))
    assert data.fingerprint() != replace(data, times=data.times[::-1].copy()).fingerprint()
    assert data.fingerprint() != replace(data, times=None).fingerprint()


@pytest.mark.parametrize(
    "values",
    [
        ["3", "-1.5", " 7 "],
        [3, -1.5, np.int64(7)],
        ["2024-03-01", "2023-12-31", "2024-03-01T12:00:00"],
        ["2024-03-01T10:00:00+02:00", "2024-03-01T07:59", "2024-03-01 08:01:00Z"],
        [date(2024, 3, 1), date(2023, 12, 31), datetime(2024, 3, 1, 12)],
        [
            datetime(2024, 3, 1, tzinfo=UTC),
            datetime(2024, 3, 1, tzinfo=timezone(timedelta(hours=1))),
            datetime(2025, 1, 1),
        ],
    ],
)
def test_numbers_and_iso_dates_are_times(values):
    assert np.argsort(moments(values, "here")).tolist() == [1, 0, 2]


@pytest.mark.parametrize("bad", ["", None, "soon", "31/12/2024", float("nan"), "inf", "NaT"])
def test_what_is_no_time_is_refused_with_its_row(bad):
    for good in ("2024-01-01", "7"):
        with pytest.raises(InputError, match=r"in example 1 \(from 0\)"):
            moments([good, bad, good], "here")


def test_the_column_of_times_is_no_feature(tmp_path):
    rows = [f"{row % 7}.5,2024-01-{row % 28 + 1:02},{'xy'[row % 2]}" for row in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,when,label", *rows]))
    data = TableReader().read(DataSpec(str(tmp_path / "t.csv"), time="when"))
    assert [column.name for column in data.schema.columns] == ["a"]
    assert np.array_equal(np.unique(np.diff(np.unique(data.times))), [86400])
    assert data.warnings == ()


def test_arrays_have_times_in_all_parts(tmp_path):
    days = np.array(["2024-01-03", "2024-01-01", "2024-01-02", "NaT"], dtype="datetime64[D]")
    arrays = {
        "train_features": np.eye(4),
        "train_labels": [0, 1, 0, 1],
        "test_features": np.eye(4)[:2],
        "test_labels": [0, 1],
    }
    path = tmp_path / "d.npz"
    np.savez(path, **arrays, train_day=days[[0, 1, 2, 0]], test_day=days[[2, 0]])
    data = NpzReader().read(DataSpec(str(path), time="day"))
    assert (np.diff(data.times) / 86400).tolist() == [-2, 1, 1, -1, 1]
    np.savez(path, **arrays, train_day=days, test_day=days[:2])
    with pytest.raises(InputError, match="'NaT' in example 3"):
        NpzReader().read(DataSpec(str(path), time="day"))


def test_folds_of_times_are_refused():
    with pytest.raises(InputError, match=r"no guard\.folds"):
        partition(timed(np.arange(100)), None, 0, 5)
