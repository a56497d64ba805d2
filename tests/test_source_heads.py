"""Strategies that ask the source's own head, and what it teaches: each against a naive twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.distill import Distill, Lesson
from autoxfer_builtins.scratch import Scratch
from autoxfer_builtins.zero_shot import ZeroShot
from torch import Tensor, nn

from autoxfer.errors import Unsupported
from autoxfer.linear import fit_head
from autoxfer.matching import match_classes
from autoxfer.scoring import Choice
from autoxfer.source import Source
from autoxfer.strategy import Problem, Strategy, Tap
from autoxfer.testing.scenes import N_TUNE, Scene, scene, scene_of
from autoxfer.traindata import TrainTensors
from autoxfer.training import GradientTrainer, count_trained

IMAGES = scene("image", "classification")
VECTORS = scene("vector", "classification")
NUMBERS = scene("vector", "regression")


def whole(where: Scene, tap: str, split: str) -> Tensor:
    return where.features.whole(Tap(tap, where.problem.source.name), split)


def own_answer(where: Scene, split: str) -> Tensor:
    head = where.problem.source.head
    assert head is not None
    with torch.no_grad():
        answer: Tensor = head(whole(where, "last", split))
    return answer


def with_classes(where: Scene, classes: tuple[str, ...], own: tuple[str, ...] | None = None) -> Problem:
    """The problem of a scene with other names for the target's classes, and the source's."""
    source = Source.__new__(Source)
    source.__dict__.update(where.problem.source.__dict__)
    source.classes = where.problem.source.classes if own is None else own
    return replace(where.problem, classes=classes, sources=(source,))


def a_number() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))


@pytest.fixture(scope="module")
def prices() -> Scene:
    """Numbers, and a source that gives one."""
    return scene_of("vector", "regression", [Source.from_network("one", a_number, a_number(), input_shape=(6,))])


# The source's own head


def test_zero_shot_is_the_head_of_the_source_restricted_to_what_the_target_calls_alike() -> None:
    assert IMAGES.problem.source.classes == ("x", "B", "a", "y", "c")
    candidate, fitted = IMAGES.fit(ZeroShot())
    torch.testing.assert_close(IMAGES.answer(candidate, N_TUNE), own_answer(IMAGES, "tune")[:, [2, 1, 4]])
    assert count_trained(candidate) == 0
    assert fitted.steps == 0


def test_names_are_the_same_whatever_their_case_and_underscores() -> None:
    assert match_classes(["Red_Fox", "red  cat", "dog"], ["RED FOX", "dog", "red_cat"]) == (0, 2, 1)
    assert match_classes(["fox"], ["RED FOX"]) == (None,)


@pytest.mark.parametrize("mapping", ["pet = x | b", "pet=x|b"])
def test_several_classes_of_the_source_may_mean_one_of_the_target(mapping: str) -> None:
    problem = with_classes(VECTORS, ("pet", "a", "c"))
    candidate = ZeroShot(mapping=mapping).build(problem)
    logits = own_answer(VECTORS, "tune")
    likely = logits.softmax(1)
    expected = torch.stack([likely[:, 0] + likely[:, 1], likely[:, 2], likely[:, 4]], 1)
    found = candidate.module(whole(VECTORS, "last", "tune")).softmax(1)
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("mapping", "classes", "own", "reason"),
    [
        ("names", ("a", "b", "wolf"), None, "the source has no class called wolf"),
        ("pet = cat", ("a", "b", "pet"), None, "the source has no class called cat"),
        ("foo", ("a", "b", "c"), None, "mapping has to be names, order or pairs"),
        ("pets = a", ("a", "b", "c"), None, "mapping names 'pets', which is no class of the target"),
        ("order", ("a", "b", "c"), None, "the source has 5, the target 3"),
        ("names", ("a", "b", "c", "d", "e"), (), "mapping: order takes them as they stand"),
    ],
)
def test_a_head_that_does_not_know_the_target_is_refused_with_the_reason(
    mapping: str, classes: tuple[str, ...], own: tuple[str, ...] | None, reason: str
) -> None:
    problem = replace(with_classes(VECTORS, classes, own), n_outputs=len(classes))
    ZeroShot.space(problem)
    with pytest.raises(Unsupported, match=reason):
        ZeroShot(mapping=mapping).build(problem)


def test_classes_without_names_are_taken_in_order_where_the_user_says_so() -> None:
    problem = replace(with_classes(VECTORS, ("a", "b", "c", "d", "e"), ()), n_outputs=5)
    candidate = ZeroShot(mapping="order").build(problem)
    torch.testing.assert_close(candidate.module(whole(VECTORS, "last", "tune")), own_answer(VECTORS, "tune"))


def test_a_head_of_nameless_answers_or_none_is_unsupported_before_anything_is_built() -> None:
    with pytest.raises(Unsupported, match="nothing says which classes"):
        ZeroShot.space(with_classes(VECTORS, ("a", "b", "c"), ()))
    with pytest.raises(Unsupported, match="gives 5 answers"):
        ZeroShot.space(NUMBERS.problem)
    headless = with_classes(VECTORS, ("a", "b", "c"))
    headless.source.head = None
    with pytest.raises(Unsupported, match="no head of its own"):
        ZeroShot.space(headless)


def test_the_sources_numbers_come_out_in_the_targets_units_as_they_are(prices: Scene) -> None:
    candidate, _ = prices.fit(ZeroShot())
    served = prices.features.compose(candidate, prices.problem, prices.tune.center, prices.tune.spread)
    with torch.no_grad():
        torch.testing.assert_close(
            served(prices.features.stored("tune")), own_answer(prices, "tune"), rtol=1e-4, atol=1e-4
        )


def test_a_line_through_the_sources_numbers_is_the_least_squares_fit_on_train(prices: Scene) -> None:
    candidate, _ = prices.fit(ZeroShot(affine=True))
    slope, intercept = np.polyfit(own_answer(prices, "train")[:, 0], prices.labels[:, 0], 1)
    expected = slope * own_answer(prices, "tune")[:, 0] + intercept
    torch.testing.assert_close(prices.answer(candidate, N_TUNE)[:, 0], expected, rtol=1e-4, atol=1e-4)


# Distillation


@pytest.mark.parametrize("teacher", ["head", "probe"])
def test_the_student_minimises_the_mixture_of_the_labels_and_the_teachers_softened_answers(teacher: str) -> None:
    lesson = IMAGES.build(Distill(teacher=teacher, weight=0.3, temperature=2.0)).objective
    assert isinstance(lesson, Lesson)
    features = whole(IMAGES, "last", "train")
    weight, bias = fit_head(features, IMAGES.labels, 3)
    answers = own_answer(IMAGES, "train")[:, [2, 1, 4]] if teacher == "head" else features @ weight.T + bias
    rows, outputs = torch.tensor([3, 7]), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    p, q = (answers[rows] / 2).softmax(1), (outputs / 2).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    found = lesson.taught(data(IMAGES))(outputs, torch.tensor(0.7), rows)
    torch.testing.assert_close(found, 0.7 * torch.tensor(0.7) + 0.3 * 4 * divergence)


def test_a_teacher_without_weight_leaves_what_scratch_trains_bit_for_bit() -> None:
    trainer = VECTORS.trainer(Scratch)
    taught = VECTORS.train(Distill(weight=0.0), VECTORS.build(Distill(weight=0.0)), trainer)
    alone = VECTORS.train(Scratch(), VECTORS.build(Scratch()), VECTORS.trainer(Scratch))
    assert all(torch.equal(taught.state[name], alone.state[name]) for name in alone.state)


def test_a_student_of_numbers_comes_near_its_teacher_and_is_shipped_without_it() -> None:
    candidate = NUMBERS.build(Distill(weight=1.0))
    assert NUMBERS.features.compose(candidate, NUMBERS.problem).reader.names == []
    features = whole(NUMBERS, "last", "train")
    weight, bias = fit_head(features, NUMBERS.labels, 1)
    answers, raw = features @ weight.T + bias, NUMBERS.features.whole(candidate.inputs[0], "train")
    before = (candidate.module.eval()(raw) - answers).square().mean()
    NUMBERS.train(Distill(weight=1.0), candidate, to_the_end(NUMBERS, Distill, steps=100))
    assert (candidate.module.eval()(raw) - answers).square().mean() < 0.1 * before


def test_only_a_source_whose_classes_map_may_teach_with_its_own_head() -> None:
    assert Distill.space(IMAGES.problem)["teacher"].choices == ("probe", "head")
    assert Distill.space(NUMBERS.problem)["teacher"].choices == ("probe",)
    assert Distill.space(with_classes(IMAGES, ("a", "b", "wolf")))["teacher"].choices == ("probe",)


def data(where: Scene) -> TrainTensors:
    return TrainTensors(where.features, where.problem, where.labels, where.tune.center, where.tune.spread)


def to_the_end(where: Scene, strategy: type[Strategy], **recipe: Any) -> GradientTrainer:
    """A trainer that keeps the last step, whatever the tune split says of the steps before."""
    recipe = replace(where.trainer(strategy).recipe, **recipe)
    return GradientTrainer(where.features, where.problem, where.labels, Choice(kept=1.0), recipe, seed=1)
