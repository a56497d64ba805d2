"""Several labels and several numbers, learned by every installed strategy and by every network of scratch's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from autoxfer.errors import Unsupported
from autoxfer.plugins import load_plugins
from autoxfer.scoring import measure, probabilities
from autoxfer.strategy import Solvable, Strategy
from autoxfer.testing.scenes import N_TRAIN, Scene, scene

INSTALLED = load_plugins().strategies
QUICK = ("linear_probe", "kernel_readout", "residual", "fine_tune", "scratch")  # that learn in a dozen steps
NUMBERS = scene("vector", "regression", 1, 2)
LABELS = scene("vector", "multilabel")


def chance(where: Scene) -> float:
    """The loss of a constant prediction on tune."""
    labels = where.tune.labels
    constant = labels.mean(0) if where.problem.task == "multilabel" else where.tune.center
    return measure(np.broadcast_to(constant, labels.shape).astype(float), where.tune).loss


@pytest.mark.parametrize("where", [NUMBERS, LABELS], ids=str)
@pytest.mark.parametrize("name", INSTALLED)
def test_every_strategy_learns_several_outputs(name: str, where: Scene) -> None:
    strategy: type[Strategy] = INSTALLED[name]
    try:
        strategy.space(where.problem_for(strategy))
    except Unsupported as error:
        pytest.skip(str(error))
    candidate, fitted = where.fit(strategy())
    assert fitted.score.loss < chance(where) or name not in QUICK
    candidate.module.load_state_dict(fitted.state)
    composed = where.features.compose(candidate, where.problem, where.tune.center, where.tune.spread)
    answers = composed(where.features.stored("tune")).detach()
    own_units = dataclasses.replace(where.tune, center=0.0, spread=1.0)
    score = measure(probabilities(answers, own_units), where.tune)
    assert score.loss == pytest.approx(fitted.score.loss, rel=1e-3)
    assert answers.shape == (len(where.tune.labels), where.problem.n_outputs)


OTHERS = [("text", "multilabel"), ("mixed", "multilabel"), ("mixed", "regression", 1, 2), ("image", "regression", 1, 2)]


@pytest.mark.parametrize("where", [NUMBERS, LABELS, *(scene(*each) for each in OTHERS)], ids=str)
def test_every_network_of_scratchs_answers_with_several_outputs(where: Scene) -> None:
    scratch = INSTALLED["scratch"]
    for name, architecture in where.problem.architectures.items():
        candidate, fitted = where.fit(scratch(architecture=name))
        assert where.answer(candidate, 5).shape == (5, where.problem.n_outputs)
        if isinstance(architecture(where.problem.n_outputs), Solvable):
            assert fitted.score.loss < chance(where), name


def test_an_output_of_another_scale_counts_as_much() -> None:
    spread = NUMBERS.tune.spread
    assert isinstance(spread, np.ndarray)
    assert spread[1] > 5 * spread[0]
    assert NUMBERS.labels.shape == (N_TRAIN, 2)
    torch.testing.assert_close(NUMBERS.labels.std(0, correction=0), torch.ones(2))
    found = np.broadcast_to(NUMBERS.tune.center, NUMBERS.tune.labels.shape).copy()
    losses = []
    for output in (0, 1):
        better = found.copy()
        better[:, output] = NUMBERS.tune.labels[:, output]
        losses.append(measure(better, NUMBERS.tune).loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.5)
