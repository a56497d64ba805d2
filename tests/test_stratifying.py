"""Splits of examples with several labels each, and what their labels have to show."""

from __future__ import annotations

import numpy as np
import pytest

from autoxfer.dataset import Dataset, Schema
from autoxfer.errors import InputError
from autoxfer.partitioning import partition
from autoxfer.splitting import split
from autoxfer.stratifying import draw

SHARES = np.array([0.5, 0.3, 0.9, 0.02])


def tagged(n: int = 400, shares=SHARES, seed: int = 0, **more) -> Dataset:
    """Vectors with a label for each share, rare ones among them."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, len(shares))) < shares).astype(np.float32)
    names = tuple("abcdefgh"[: len(shares)])
    schema = Schema("vector", "multilabel", (5,), "float32", names)
    return Dataset("tagged", schema, rng.normal(size=(n, 5)).astype(np.float32), labels, **more)


def numbered(labels: np.ndarray) -> Dataset:
    """Vectors with several numbers each."""
    names = tuple(f"y{k}" for k in range(labels.shape[1]))
    schema = Schema("vector", "regression", (5,), "float32", targets=names)
    examples = np.random.default_rng(0).normal(size=(len(labels), 5)).astype(np.float32)
    return Dataset("numbers", schema, examples, labels.astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_every_label_gets_near_to_its_share_of_every_split(seed: int):
    dataset = tagged()
    rows = split(dataset, None, seed).rows
    assert [len(rows[name]) for name in ("train", "tune", "guard")] == [160, 80, 160]
    for name, part in rows.items():
        expected = dataset.labels.sum(0) * len(part) / 400
        # a split taken at random is off by 6 and more for the frequent labels
        assert np.abs(dataset.labels[part].sum(0) - expected).max() <= 2.0, name
    assert len(np.unique(np.concatenate(list(rows.values())))) == 400


def test_the_same_seed_draws_the_same_splits():
    first, second, other = (split(tagged(), None, seed).rows["guard"].tolist() for seed in (0, 0, 1))
    assert first == second != other


@pytest.mark.parametrize("seed", range(8))
def test_a_label_of_two_examples_stands_in_train_and_where_it_is_judged(seed: int):
    dataset = tagged(shares=[0.5, 0.4])
    labels = dataset.labels
    labels[:, 1] = 0
    labels[[5, 17], 1] = 1
    splits = split(dataset, None, seed)
    assert labels[splits.rows["train"], 1].sum() == 1
    assert any("'b', true of 1 of 160 in train" in text for text in splits.warnings)


@pytest.mark.parametrize("seed", range(8))
def test_a_label_that_two_examples_lack_is_dealt_by_those(seed: int):
    dataset = tagged(shares=[0.5, 0.4])
    dataset.labels[:, 1] = 1
    dataset.labels[[5, 17], 1] = 0
    assert (1 - dataset.labels)[split(dataset, None, seed).rows["train"], 1].sum() == 1


def test_copies_stay_together():
    dataset = tagged(shares=[0.5, 0.3])
    dataset.examples[200:] = dataset.examples[:200]
    rows = split(dataset, None, 0).rows
    for part in rows.values():
        assert set((part + 200) % 400) == set(part.tolist())


def test_groups_stay_whole_and_near_to_the_shares_of_their_labels():
    dataset = tagged(groups=np.arange(400) // 5)
    rows = split(dataset, None, 0).rows
    for part in rows.values():
        assert len(np.unique(part // 5)) * 5 == len(part)
        expected = dataset.labels.sum(0) * len(part) / 400
        assert np.abs(dataset.labels[part].sum(0) - expected).max() <= 6


def test_a_rare_label_that_always_comes_with_another_still_reaches_every_split_that_needs_it():
    labels = np.zeros((60, 2), np.float32)
    labels[:6, 0] = 1
    labels[:4, 1] = 1  # dealt first, and with it most of the other
    for seed in range(10):
        rows = draw(
            np.arange(60), {"train": 24, "tune": 12, "guard": 24}, labels, np.arange(60), np.random.default_rng(seed)
        )
        judged = np.concatenate([rows["tune"], rows["guard"]])
        assert labels[rows["train"]].sum(0).all()
        assert labels[judged].sum(0).all()


@pytest.mark.parametrize(("value", "word"), [(0, "never"), (1, "always")])
def test_a_label_that_is_always_or_never_true_is_refused_by_name(value: int, word: str):
    dataset = tagged()
    dataset.labels[:, 3] = value
    with pytest.raises(InputError, match=rf"true of some examples and not of others, found 'd' {word} true in 400"):
        split(dataset, None, 0)


def test_a_label_of_one_example_is_refused_with_its_counts():
    dataset = tagged()
    dataset.labels[:, 3] = 0
    dataset.labels[7, 3] = 1
    with pytest.raises(
        InputError, match=r"every label true and false in train, .*found 'd', true of \d of 160 in train"
    ):
        split(dataset, None, 0)


def test_folds_show_every_label_to_every_search():
    parts = partition(tagged(), None, 0, 4)
    dataset = tagged()
    for fold in parts.folds:
        assert dataset.labels[fold.rows["train"]].sum(0).all()
    dataset.labels[:, 3] = 0
    dataset.labels[7, 3] = 1
    with pytest.raises(InputError, match="every label true and false in train of every fold"):
        partition(dataset, None, 0, 4)


def test_several_numbers_are_dealt_at_random_and_have_to_vary():
    labels = np.random.default_rng(0).normal(size=(100, 2))
    assert len(split(numbered(labels), None, 0).rows["train"]) == 40
    labels[:, 1] = 3
    with pytest.raises(InputError, match="targets that differ, found 'y1' always 3 in 100 examples"):
        split(numbered(labels), None, 0)
