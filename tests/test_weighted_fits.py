"""Every built-in strategy, and every network of scratch's, learns from what counts; each closed form with its twin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.distill import Distill, Lesson
from autoxfer_builtins.kernel_readout import KernelReadout, Readout
from autoxfer_builtins.scratch import Scratch
from autoxfer_builtins.zero_shot import ZeroShot
from torch import Tensor, nn

from autoxfer.boosting import Boosting, Trees
from autoxfer.building import Normalise, fit_head
from autoxfer.errors import Unsupported
from autoxfer.metrics import get_metric
from autoxfer.mixednets import LinearMixed
from autoxfer.plugins import load_plugins
from autoxfer.records import Modality, Recipe, Task
from autoxfer.strategy import Raw, Strategy, Tap
from autoxfer.testing import scenes
from autoxfer.testing.promises import what_has_no_weight_teaches_it_nothing
from autoxfer.testing.scenes import SCENES, Scene, scene
from autoxfer.textnets import solve_path
from autoxfer.traindata import TrainTensors
from autoxfer.training import GradientTrainer

BUILT_IN = {
    name: strategy
    for name, strategy in load_plugins().strategies.items()
    if strategy.__module__.startswith("autoxfer_builtins.")
}
NETWORKS = {
    "vector": ("compact", "compact_wide", "linear", "boosting", "boosting_small", "tiny_vector"),
    "image": ("compact", "compact_wide", "tiny_image"),
    "text": ("compact", "compact_wide", "tfidf"),
    "mixed": ("compact", "compact_wide", "tfidf", "boosting", "boosting_small"),
}
SLOW = ("boosting", "image", "wide")  # some seconds each
NOTHING_TO_LEARN = "zero_shot"  # classes come from the source's own head


@cache
def larger(modality: Modality) -> Scene:
    """The kit's task with enough examples to learn from half of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "N_TRAIN", 200)
        patch.setattr(scenes, "N_TUNE", 100)
        made: Scene = scene.__wrapped__(modality, "classification")
    return replace(made, tune=replace(made.tune, metric=get_metric("log_loss", "classification")))


def loss(instance: Strategy, where: Scene, labels: Tensor, weights: Tensor | None) -> float:
    """The loss on tune, all labels of which are right, after some sixty steps."""
    where = replace(where, labels=labels, weights=weights)
    strategy = type(instance)
    recipe = replace(strategy.recipe or Recipe(), steps=60, batch=20, lr=1e-2, augment="none")
    problem = where.problem_for(strategy)
    trainer = GradientTrainer(where.features, problem, labels, where.tune, recipe, seed=1, weights=weights)
    return where.train(instance, where.build(instance), trainer).score.loss


def check_that_weights_are_heeded(instance: Strategy, where: Scene) -> None:
    """Half of the examples have another class's label, and next to no weight."""
    wrong = torch.arange(len(where.labels)) % 2 == 0
    spoilt = torch.where(wrong, (where.labels + 1) % 3, where.labels)
    weights = torch.where(wrong, 1e-6, 2.0)
    clean, found = (loss(instance, where, labels, weights) for labels in (where.labels, spoilt))
    misled = loss(instance, where, spoilt, None)
    assert misled > clean + 0.1
    assert found < clean + 0.2 * (misled - clean)


@pytest.mark.parametrize("name", sorted(BUILT_IN.keys() - {NOTHING_TO_LEARN}))
def test_every_strategy_learns_from_what_counts(name: str) -> None:
    check_that_weights_are_heeded(BUILT_IN[name](), larger("vector"))


@pytest.mark.parametrize(
    ("modality", "name"),
    [
        pytest.param(modality, name, marks=[pytest.mark.slow] if any(each in modality + name for each in SLOW) else [])
        for modality, names in NETWORKS.items()
        for name in names
    ],
)
def test_every_network_of_scratchs_learns_from_what_counts(modality: Any, name: str) -> None:
    check_that_weights_are_heeded(Scratch(architecture=name), larger(modality))


def test_no_network_is_left_out() -> None:
    for modality, names in NETWORKS.items():
        where: Any = modality
        found = set(scene(where, "classification").problem.architectures)
        assert found - set(names) <= {"tiny_text", "tiny_mixed"}  # trained by gradient, and of little use


def of(name: str) -> type[Strategy]:
    """Scratch with one network."""

    @dataclass(frozen=True)
    class One(Scratch):  # type: ignore[misc]
        architecture: str = name

    return One


QUICK = [("text", "classification", 1), ("vector", "regression", 1)]
EVERYWHERE = [*((*each, 1) for each in SCENES), ("vector", "regression", 2)]


@pytest.mark.parametrize(
    ("modality", "task", "n"),
    [pytest.param(*each, marks=[] if each in QUICK else [pytest.mark.slow]) for each in EVERYWHERE],
)
def test_labels_of_no_weight_reach_none_of_scratchs_networks(modality: Modality, task: Task, n: int) -> None:
    where = scene(modality, task, 1, n)
    for name in where.problem.architectures:
        what_has_no_weight_teaches_it_nothing(of(name), where)


@pytest.mark.parametrize(
    "modality", [*("vector", "text"), *(pytest.param(each, marks=pytest.mark.slow) for each in ("image", "mixed"))]
)
def test_a_class_that_counts_nothing_does_no_harm(modality: Modality) -> None:
    where = scene(modality, "classification")
    weights = (where.labels != 1).float()
    where = replace(where, weights=weights / weights.mean())
    made = [(name, strategy()) for name, strategy in BUILT_IN.items()]
    for name, instance in [*made, *((each, Scratch(architecture=each)) for each in where.problem.architectures)]:
        try:
            type(instance).space(where.problem_for(type(instance)))
        except Unsupported:
            continue
        candidate, fitted = where.fit(instance)
        assert np.isfinite(fitted.score.loss), name
        assert torch.isfinite(where.answer(candidate, 5)).all(), name


def test_a_linear_model_beside_texts_is_weighted_without_them_too() -> None:
    where = scene("mixed", "classification")
    module, weights = where.build(Scratch(architecture="tfidf")).module, torch.ones(len(where.labels))
    assert isinstance(module, LinearMixed)
    weights[::4] = 0
    found = []
    for labels in (where.labels, torch.where(weights > 0, where.labels, 2)):
        given = TrainTensors(where.features, where.problem, labels, weights=weights)
        ids, columns = module.mixed.apart(given[Raw()])
        with torch.no_grad():
            found.append(list(module._states(module.terms.count(ids), columns, given)))
    for (label, ours), (_, theirs) in zip(*found, strict=True):
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], msg=f"{label} {name}")


def test_weights_go_with_the_examples_that_memory_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    where, rows = scene("vector", "classification"), torch.tensor([3, 8, 9])
    monkeypatch.setattr(type(where.features), "sampled", lambda *_: rows)
    weights = torch.arange(len(where.labels)).float()
    some = TrainTensors(where.features, where.problem, where.labels, weights=weights).sample(Raw())
    assert some.weights is not None
    torch.testing.assert_close(some.weights, rows / (20 / 3))
    assert torch.equal(some.labels, where.labels[rows])


# Naive twins


def whole_numbers(n: int) -> tuple[Tensor, Tensor]:
    """Weights, and the rows that are as many as they say."""
    weights = torch.arange(n) % 4
    return weights.float(), torch.arange(n).repeat_interleave(weights)


@pytest.mark.parametrize("n_components", [0, 3])
def test_statistics_of_features_are_those_of_repeated_examples(n_components: int) -> None:
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6) + 3
    weights, rows = whole_numbers(60)
    heavy, many = (Normalise(5, "standardise", n_components) for _ in range(2))
    heavy.fit(features, weights)
    many.fit(features[rows])
    torch.testing.assert_close(heavy(features).abs(), many(features).abs(), atol=1e-4, rtol=1e-4)


def test_the_scales_of_both_kernels_are_those_of_repeated_examples() -> None:
    where = scene("image", "classification")
    heavy, many = (where.build(KernelReadout()) for _ in range(2))
    x, (weights, rows) = data(where)[heavy.inputs[0]], whole_numbers(len(where.labels))
    assert isinstance(heavy.module, Readout)
    assert isinstance(many.module, Readout)
    heavy.module.prepare(x, 2.0, weights)
    many.module.prepare(x[rows], 2.0)
    torch.testing.assert_close(heavy.module.scale, many.module.scale, atol=0, rtol=1e-3)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_linear_models_of_terms_are_those_of_repeated_texts(task: str) -> None:
    from scipy.sparse import csr_matrix  # noqa: PLC0415

    rng = np.random.default_rng(0)
    terms = np.maximum(rng.normal(size=(80, 12)), 0)
    numbers = terms[:, :3] + 0.3 * rng.normal(size=(80, 3))
    labels = {"classification": numbers.argmax(1), "multilabel": (numbers > 0.5).astype(np.float32)}.get(task, numbers)
    weights, rows = (each.numpy() for each in whole_numbers(80))
    heavy = solve_path(csr_matrix(terms), labels, 3, (1.0, 0.1), weights=weights)
    for ours, theirs in zip(heavy, solve_path(csr_matrix(terms[rows]), labels[rows], 3, (1.0, 0.1)), strict=True):
        torch.testing.assert_close(ours[1:], theirs[1:], atol=5e-3, rtol=5e-3)


def test_trees_are_scikit_learns_with_these_weights() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415

    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    y, weights = x[:, 0] + np.abs(x[:, 1]), rng.random(150).astype(np.float32)
    trees = Trees(Boosting(4), 1)
    *_, (_, last) = [each for _, each in zip(range(13), trees.states(x, y[:, None], weights), strict=False)]
    trees.load_state_dict(last)
    naive = HistGradientBoostingRegressor(max_iter=150, max_depth=8, early_stopping=False).fit(x, y, weights)
    trees.counted = 150
    np.testing.assert_allclose(trees(torch.from_numpy(x).float())[:, 0].detach(), naive.predict(x), atol=1e-5)


def test_a_line_through_the_sources_numbers_is_the_weighted_least_squares_fit() -> None:
    where = scene("vector", "regression")
    weights = torch.rand(len(where.labels), generator=torch.Generator().manual_seed(0))
    head = nn.Linear(where.problem.source.n_features, 1)
    features = data(where)[Tap("last")]
    given = TrainTensors(where.features, where.problem, where.labels, weights=weights)
    found = head(features).detach().double()
    slope, intercept = ZeroShot(affine=True)._line(found, given)
    expected = np.polyfit(found[:, 0], where.labels[:, 0], 1, w=weights.sqrt())
    np.testing.assert_allclose([float(slope), float(intercept)], expected, rtol=1e-4)


def test_the_distance_to_a_teacher_counts_by_weight_and_the_teacher_has_learned_by_it() -> None:
    where = scene("image", "classification")
    weights = torch.rand(len(where.labels), generator=torch.Generator().manual_seed(0)) * 2
    given = TrainTensors(where.features, where.problem, where.labels, weights=weights)
    lesson = where.build(Distill(weight=1.0, temperature=2.0)).objective
    assert isinstance(lesson, Lesson)
    features = given[Tap("last")]
    weight, bias = fit_head(features, where.labels, 3, weights)
    rows, outputs = torch.tensor([3, 7]), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    p, q = ((features @ weight.T + bias)[rows] / 2).softmax(1), (outputs / 2).softmax(1)
    expected = 4 * (weights[rows] * (p * (p / q).log()).sum(1)).mean()
    torch.testing.assert_close(lesson.taught(given)(outputs, torch.tensor(0.0), rows), expected)


def data(where: Scene) -> TrainTensors:
    return TrainTensors(where.features, where.problem, where.labels)
