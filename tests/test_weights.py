"""What example weights promise: they count in the loss, by their proportions, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from autoxfer_builtins.npz_data import NpzReader
from torch import nn
from torch.nn import functional

from autoxfer import DataSpec, InputError
from autoxfer.config import load_config
from autoxfer.dataset import Dataset, Schema
from autoxfer.labelling import class_center, train_labels, train_weights
from autoxfer.linear import fit_head
from autoxfer.losses import TaskLoss
from autoxfer.records import Recipe
from autoxfer.runfolder import RunFolder
from autoxfer.searching import job_maker
from autoxfer.setting import prepare
from autoxfer.strategy import Candidate, Raw
from autoxfer.testing.scenes import scene
from autoxfer.training import GradientTrainer

CPU = torch.device("cpu")
EACH = {  # the naive twin: one example at a time
    "classification": lambda x, y: functional.cross_entropy(x[None], y[None], label_smoothing=0.1),
    "multilabel": lambda x, y: functional.binary_cross_entropy_with_logits(x, 0.9 * y + 0.05),
    "regression": lambda x, y: ((x - y) ** 2).mean(),
}


def batch(task, n=7, k=3):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(n, k, generator=generator)
    labels = torch.randn(n, k, generator=generator)
    labels = {"classification": labels.argmax(1), "multilabel": (labels > 0).float()}.get(task, labels)
    return outputs, labels, torch.rand(n, generator=generator)


@pytest.mark.parametrize("task", EACH)
def test_each_examples_loss_counts_by_its_weight(task):
    outputs, labels, weights = batch(task)
    expected = sum(w * EACH[task](x, y) for x, y, w in zip(outputs, labels, weights, strict=True)) / len(weights)
    torch.testing.assert_close(TaskLoss(task, 0.1)(outputs, labels, weights), expected)
    plain = TaskLoss(task, 0.1)(outputs, labels)
    torch.testing.assert_close(TaskLoss(task, 0.1)(outputs, labels, torch.ones(7)), plain)


def trained(tiny, labels, weights, batch=16):
    torch.manual_seed(0)
    candidate = Candidate(nn.Linear(6, tiny.problem.n_outputs), (Raw(),))
    recipe = Recipe(lr=0.01, decay=0.0, steps=24, batch=batch)
    trainer = GradientTrainer(tiny.features, tiny.problem, labels, tiny.tune, recipe, seed=3, weights=weights)
    trainer.run(candidate)
    return candidate.module.weight.detach().clone()


def test_an_example_of_no_weight_teaches_nothing():
    tiny = scene("vector", "classification")
    weights = torch.ones(len(tiny.labels))
    weights[::3] = 0
    spoilt = tiny.labels.clone()
    spoilt[::3] = 1 - spoilt[::3].clamp(max=1)
    assert torch.equal(trained(tiny, tiny.labels, weights), trained(tiny, spoilt, weights))
    assert not torch.equal(trained(tiny, tiny.labels, None), trained(tiny, spoilt, None))


def weighted(weights):
    n = len(weights)
    schema = Schema("vector", "classification", (1,), "float32", ("a", "b"))
    examples = np.arange(n, dtype=np.float32)[:, None]
    return Dataset("d", schema, examples, np.arange(n) % 2, weights=np.asarray(weights, np.float32))


def test_only_proportions_count():
    rows = np.array([0, 1, 3])
    one, other = weighted([1, 2, 100, 3]), weighted([10, 20, 0, 30])
    assert train_weights(one, rows, CPU).tolist() == [0.5, 1.0, 1.5]
    assert torch.equal(train_weights(one, rows, CPU), train_weights(other, rows, CPU))
    assert train_weights(replace(one, weights=None), rows, CPU) is None


def test_a_train_split_without_weight_is_refused():
    with pytest.raises(InputError, match=r"task\.weight: expected weights above 0 in train"):
        train_weights(weighted([0, 0, 1]), np.array([0, 1]), CPU)


def several(labels, weights, task="regression", classes=()):
    schema = Schema("vector", task, (1,), "float32", classes)
    examples = np.zeros((len(labels), 1), np.float32)
    return Dataset("d", schema, examples, np.asarray(labels), weights=np.asarray(weights, np.float32))


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_numbers_are_standardised_by_the_examples_that_count(n_outputs):
    labels, weights = np.float32([1, 2, 4, 1e6]), [3, 1, 2, 0]
    many = np.repeat(labels, weights)
    if n_outputs > 1:
        labels, many = labels[:, None] * [1, -5], many[:, None] * [1, -5]
    found, center, spread = train_labels(several(labels, weights), np.arange(4))
    assert np.allclose(center, many.mean(0))
    assert np.allclose(spread, many.std(0))
    assert np.allclose(found[:3], ((labels - many.mean(0)) / many.std(0)).reshape(4, -1)[:3], atol=1e-6)


def test_where_all_that_counts_is_alike_numbers_keep_their_scale():
    assert train_labels(several(np.float32([0, 0, 1, 1]), [1, 0.1, 0, 0]), np.arange(4))[2] == 0.5
    assert train_labels(several(np.float32([0.1] * 4), [1, 0.1, 0.3, 0.7]), np.arange(4))[2] == 1.0


def test_balanced_classes_are_so_by_the_weights_of_their_examples():
    """As scikit-learn has it since 1.6; a class's frequency is what training has seen of it."""
    labels, classes = np.repeat([0, 1], [9, 1]), ("cat", "dog")
    weights = np.where(labels == 0, 1, 9)
    equal = several(labels, weights, "classification", classes)
    assert np.allclose(class_center(equal, np.arange(10), "balanced"), 0)
    repeated = several(np.repeat(labels, 1 + labels), np.ones(11), "classification", classes)
    heavier = several(labels, 1 + labels, "classification", classes)
    expected = class_center(repeated, np.arange(11), "balanced")
    assert np.allclose(class_center(heavier, np.arange(10), "balanced"), expected)
    assert np.allclose(class_center(heavier, np.arange(10), {"dog": 3.0}), [0, np.log(3)])
    both = np.stack([labels, 1 - labels], 1).astype(np.float32)
    assert np.allclose(class_center(several(both, weights, "multilabel", classes), np.arange(10), "balanced"), 0)


def test_weights_of_examples_and_of_classes_compose():
    """What knows nothing but the classes' weighted shares finds all equally likely once they are balanced."""
    labels, weights = np.repeat([0, 1, 2], [20, 8, 4]), np.repeat([1.0, 4.0, 0.5], [20, 8, 4])
    dataset = several(labels, weights, "classification", ("a", "b", "c"))
    rows = np.arange(32)
    _, bias = fit_head(torch.ones(32, 2), torch.from_numpy(labels), 3, train_weights(dataset, rows, CPU))
    shares = torch.tensor([20.0, 32.0, 2.0]) / 54
    torch.testing.assert_close(bias.softmax(0), shares, atol=5e-3, rtol=0)
    logits = bias.double() + torch.from_numpy(class_center(dataset, rows, "balanced"))
    torch.testing.assert_close(logits.softmax(0), torch.full((3,), 1 / 3).double(), atol=1e-2, rtol=0)


def test_weights_are_part_of_the_fingerprint():
    assert weighted([1, 2]).fingerprint() != weighted([2, 1]).fingerprint()
    assert weighted([1, 1]).fingerprint() != replace(weighted([1, 1]), weights=None).fingerprint()


def test_arrays_have_weights(tmp_path):
    np.savez(tmp_path / "d.npz", features=np.eye(4), labels=[0, 1, 0, 1], cost=[[1], [2], [0], [0.5]])
    data = NpzReader().read(DataSpec(str(tmp_path / "d.npz"), weight="cost"))
    assert (data.weights.dtype, data.weights.tolist()) == (np.float32, [1, 2, 0, 0.5])


def test_a_runs_weights_are_no_feature_and_reach_every_strategy(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.4f},{rng.normal():.4f},{row % 3},{'xy'[row % 2]}" for row in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,weight,label", *rows]))
    task = {"data": str(tmp_path / "t.csv"), "target": "label", "weight": "weight"}
    setting = prepare(load_config({"task": task, "device": "cpu"}))
    assert [column.name for column in setting.dataset.schema.columns] == ["a", "b"]
    assert not any("weight" in warning for warning in setting.warnings)
    seen = []
    study = next(iter(setting.studies))
    monkeypatch.setattr(setting.studies[study].strategy, "fit", lambda *each: seen.append(each[2].weights) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        setting.bench(RunFolder(tmp_path)).train(job_maker(setting, study)(0, {}, ()))
    assert torch.equal(seen[0], train_weights(setting.dataset, setting.rows("train"), CPU))
