"""Boosted trees as tensors answer as scikit-learn's do, travel as tensors, and stand among what scratch may choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from autoxfer_builtins.scratch import Scratch
from numpy.typing import NDArray

from autoxfer.architectures import RESERVED, architectures
from autoxfer.boosting import CHECKPOINTS, Boosting, Trees, boost
from autoxfer.testing.scenes import scene

N, WIDTH = 240, 5
SOLVED = ("boosting", "boosting_small", "linear")


def table(seed: int, n: int = N, *, coarse: bool = True) -> NDArray[np.float32]:
    """Draw numbers of few different values, so that examples lie on both sides of every threshold, close to it."""
    x = np.random.default_rng(seed).normal(size=(n, WIDTH))
    return (np.round(x, 1) if coarse else x).astype(np.float32)


def labels(x: NDArray[np.float32], n_outputs: int) -> NDArray[Any]:
    score = np.nan_to_num(x[:, 0] + np.abs(x[:, 1]) - x[:, 2] * (x[:, 3] > 0))
    if n_outputs == 1:
        return np.asarray(score, np.float64)
    classes: NDArray[np.int64] = np.digitize(score, np.quantile(score, np.arange(1, n_outputs) / n_outputs))
    return classes


def fitted(settings: Boosting, x: NDArray[np.float32], n_outputs: int) -> tuple[Trees, Any]:
    torch.manual_seed(0)
    (model,) = boost(settings, x.astype(np.float64), labels(x, n_outputs), n_outputs)
    trees = settings(n_outputs)
    trees.load_state_dict(trees.read([model]))
    return trees.eval(), model


def answers(trees: Trees, x: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        outputs = trees(torch.from_numpy(x)).double()
    found: NDArray[np.float64] = (outputs[:, 0] if trees.n_outputs == 1 else outputs.softmax(1)).numpy()
    return found


def expected(model: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    x = x.astype(np.float64)
    found: NDArray[np.float64] = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
    return found


def walk(trees: Trees, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Walk down every tree, one example and one node at a time: (n, slots) raw scores."""
    raw = np.tile(trees.baseline.numpy(), (len(x), 1))
    nodes = trees.values.shape[1]
    for i, example in enumerate(x):
        for tree in range(len(trees.values)):
            node = 0
            while (children := trees.branches[tree, node] - tree * nodes).tolist() != [node, node]:
                cell = example[trees.feature[tree, node]]
                left = bool(trees.missing_left[tree, node]) if np.isnan(cell) else cell <= trees.threshold[tree, node]
                node = int(children[0] if left else children[1])
            raw[i, tree % trees.n_slots] += float(trees.values[tree, node])
    return raw


@pytest.mark.parametrize("settings", [Boosting(WIDTH), Boosting(WIDTH, n_leaves=4, min_leaf=3, columns=0.5)])
@pytest.mark.parametrize("n_outputs", [1, 2, 4])
def test_trees_answer_as_scikit_learns_do(n_outputs: int, settings: Boosting) -> None:
    trees, model = fitted(settings, table(0), n_outputs)
    for x in (table(0), table(1), table(2, coarse=False)):
        np.testing.assert_allclose(answers(trees, x), expected(model, x), rtol=0, atol=1e-6)


def test_trees_answer_as_a_walk_from_node_to_node_does() -> None:
    trees, _ = fitted(Boosting(WIDTH, n_leaves=6), table(0), 3)
    x = table(1, 6)
    with torch.no_grad():
        np.testing.assert_allclose(trees(torch.from_numpy(x)).numpy(), walk(trees, x), atol=1e-6)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_missing_values_go_where_scikit_learn_sends_them(n_outputs: int) -> None:
    x, unseen = table(0), table(1)
    holes = np.random.default_rng(3)
    for part in (x, unseen):
        part[holes.random(part.shape) < 0.2] = np.nan
    trees, model = fitted(Boosting(WIDTH), x, n_outputs)
    np.testing.assert_allclose(answers(trees, unseen), expected(model, unseen), rtol=0, atol=1e-6)
    whole, learned = fitted(Boosting(WIDTH), table(0), n_outputs)  # none were missing while it was fitted
    np.testing.assert_allclose(answers(whole, unseen), expected(learned, unseen), rtol=0, atol=1e-6)


def test_numbers_next_to_a_threshold_go_the_same_way() -> None:
    x = np.repeat(np.array([[1.0], [np.nextafter(np.float32(1.0), np.float32(2.0))]], np.float32), 30, axis=0)
    torch.manual_seed(0)
    (model,) = boost(Boosting(1), x.astype(np.float64), np.repeat([0, 1], 30), 2)
    trees = Boosting(1)(2)
    trees.load_state_dict(trees.read([model]))
    assert float(model._predictors[0][0].nodes["num_threshold"][0]) != float(trees.threshold[0, 0])  # between the two
    np.testing.assert_allclose(answers(trees, x[29:31]), expected(model, x[29:31]), atol=1e-6)


def test_the_chosen_checkpoint_is_the_best_on_the_tune_split_and_loads_into_a_new_module() -> None:
    where = scene("vector", "classification")
    strategy = Scratch(architecture="boosting_small")
    _, fit = where.fit(strategy)
    assert fit.notes["chosen"]["iterations"] in CHECKPOINTS
    again = where.build(strategy)
    again.module.load_state_dict(fit.state)
    assert where.trainer(Scratch).score(again) == fit.score  # with all trees, those beyond the checkpoint zero


def test_no_two_trials_draw_the_same_settings() -> None:
    torch.manual_seed(0)
    drawn = [Boosting(WIDTH).draw() for _ in range(50)]
    assert len(set(drawn)) == 50
    assert all(3 <= d.n_leaves <= 31 and 2 <= d.min_leaf <= 30 for d in drawn)
    assert all(0.1 <= d.penalty <= 30 and 0.03 <= d.learning_rate <= 0.15 and 0.3 <= d.columns <= 1 for d in drawn)


def test_a_class_without_an_example_is_refused() -> None:
    with pytest.raises(ValueError, match="every one of 3 classes needs a train example; got 2"):
        boost(Boosting(WIDTH), table(0).astype(np.float64), labels(table(0), 2), 3)


def test_tables_and_vectors_offer_what_is_solved_and_images_do_not() -> None:
    assert set(SOLVED) < set(RESERVED)
    assert set(SOLVED) < set(architectures("table", (4,), []))
    assert set(SOLVED) < set(architectures("vector", (4,), []))
    assert not set(SOLVED) & set(architectures("image", (1, 8, 8), []))


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_what_is_solved_exports_with_any_batch(name: str, task: Any) -> None:
    where = scene("vector", task)
    strategy = Scratch(architecture=name)
    candidate, _ = where.fit(strategy)
    x = torch.randn(8, *where.problem.shape)
    program = torch.export.export(candidate.module.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for batch in (x[:1], x, torch.cat([x, x])):
        torch.testing.assert_close(program.module()(batch), candidate.module(batch))


@pytest.mark.parametrize("labels", ["true or not", "numbers"])
def test_several_outputs_are_boosted_each_by_itself(labels: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4))
    scores = np.stack([x[:, 0] + x[:, 1], x[:, 2] ** 2], 1) + 0.3 * rng.normal(size=(120, 2))
    y = (scores > scores.mean(0)).astype(np.float32) if labels == "true or not" else scores.astype(np.float32)
    settings = Boosting(4, n_leaves=5, separate=True)
    models = boost(settings, x, y, 2)
    trees = settings(2)
    trees.load_state_dict(trees.read(models))
    ours = trees(torch.from_numpy(x).float()).detach().numpy()
    theirs = [model.decision_function(x) if labels == "true or not" else model.predict(x) for model in models]
    np.testing.assert_allclose(ours, np.stack(theirs, 1), atol=1e-4)


def test_a_label_that_is_never_true_gets_a_low_score_and_no_trees() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = np.stack([x[:, 0] > 0, np.zeros(60)], 1).astype(np.float32)
    settings = Boosting(3, n_leaves=4, separate=True)
    trees = settings(2)
    trees.load_state_dict(trees.read(boost(settings, x, y, 2)))
    scores = trees(torch.from_numpy(x).float()).sigmoid()
    torch.testing.assert_close(scores[:, 1], torch.full((60,), 0.5 / 61))
    assert ((scores[:, 0] > 0.5).numpy() == (x[:, 0] > 0)).mean() > 0.95
