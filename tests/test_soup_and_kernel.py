"""Soups, and readouts of the tangent kernel: each against a naive twin."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from autoxfer_builtins.kernel_readout import KernelReadout, Readout, Tangent
from autoxfer_builtins.soup import Soup, mixed, mixtures
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from autoxfer.scoring import Choice
from autoxfer.strategy import Tap
from autoxfer.testing.scenes import N_TUNE, STEPS, Scene, scene
from autoxfer.training import GradientTrainer

VECTORS = scene("vector", "classification")
NUMBERS = scene("vector", "regression")


def whole(where: Scene, tap: str, split: str) -> Tensor:
    return where.features.whole(Tap(tap, where.problem.source.name), split)


# Soups


def test_an_average_goes_from_the_start_towards_the_mean_of_the_members() -> None:
    start, one, two = ({"w": torch.tensor([value]), "n": torch.tensor(3)} for value in (1.0, 3.0, 7.0))
    assert mixed(start, [one, two], 0.5)["w"].item() == 1 + 0.5 * (5 - 1)
    assert mixed(start, [one], 1.0)["w"].item() == 3
    assert mixed(start, [one], 1.0)["n"].item() == 3


def test_every_average_that_is_tried_holds_the_best_member() -> None:
    state = {"w": torch.zeros(1)}
    labels = [label for label, _ in mixtures(state, [state] * 3, best=1)]
    assert {label.partition(" ")[0] for label in labels} == {"0", "2", "1+2", "2+3", "1+2+3"}
    assert len([label for label, _ in mixtures(state, [state] * 3, best=None)]) == 1 + 7 * 2


def test_a_soup_costs_no_more_steps_than_one_fine_tuning_and_is_no_worse_than_start_and_members() -> None:
    for members in (2, 3, 4):
        _, fitted = VECTORS.fit(Soup(members=members))
        assert fitted.steps == STEPS
        assert fitted.score.rank == max(rank for _, rank in fitted.curve)
        shares = [share for share, _ in fitted.curve]
        assert shares == sorted(shares)
        assert len(fitted.notes["kept"]) == members


def test_a_soup_can_be_cooked_again_without_a_split_to_choose_on() -> None:
    recipe = replace(VECTORS.trainer(Soup).recipe, steps=60, lr=0.02)
    first = GradientTrainer(VECTORS.features, VECTORS.problem, VECTORS.labels, VECTORS.tune, recipe, seed=2)
    fitted = VECTORS.train(Soup(), VECTORS.build(Soup()), first)
    choice = Choice.of({**fitted.notes, "kept": list(fitted.notes["kept"])})
    again = GradientTrainer(VECTORS.features, VECTORS.problem, VECTORS.labels, choice, recipe, seed=2)
    repeated = VECTORS.train(Soup(), VECTORS.build(Soup()), again)
    assert "+" in fitted.notes["chosen"]
    for name, tensor in fitted.state.items():
        torch.testing.assert_close(repeated.state[name], tensor)


# The tangent kernel


def jacobian(block: nn.Module, x: Tensor) -> Tensor:
    """Of a block's features by all its weights, exactly: (n, p, P) in double precision."""
    weights = {name: tensor.detach().double() for name, tensor in block.named_parameters()}
    rows = jacrev(lambda given: functional_call(block, given, (x.double(),)))(weights)
    return torch.cat([part.flatten(2) for part in rows.values()], 2)


def basis(tangent: Tangent) -> None:
    """Put every weight's own direction in the place of random ones: the sketch becomes the whole."""
    sizes = [tangent.block.get_parameter(name).numel() for name in tangent.names]
    whole = torch.eye(sum(sizes)) * sum(sizes) ** 0.5
    for index, (name, part) in enumerate(zip(tangent.names, whole.split(sizes, 1), strict=True)):
        shape = tangent.block.get_parameter(name).shape
        setattr(tangent, f"direction_{index}", part.reshape(sum(sizes), *shape))
    tangent.n_directions = sum(sizes)


def test_along_every_weight_the_tangent_features_have_exactly_the_tangent_kernel() -> None:
    candidate = VECTORS.build(KernelReadout())
    assert isinstance(candidate.module, Readout)
    tangent, x = candidate.module.tangent, whole(VECTORS, candidate.inputs[0].name, "train")
    J = jacobian(tangent.block, x).flatten(1)
    basis(tangent)
    f, slopes = tangent(x)
    torch.testing.assert_close(f, whole(VECTORS, "last", "train"))
    torch.testing.assert_close(slopes.double() @ slopes.double().T, J @ J.T, rtol=1e-5, atol=1e-5)


def test_along_random_directions_they_have_it_on_average() -> None:
    torch.manual_seed(0)
    block = VECTORS.problem.source.suffix(VECTORS.problem.source.taps[-2].name)
    x = whole(VECTORS, VECTORS.problem.source.taps[-2].name, "train")
    K = (J := jacobian(block, x).flatten(1)) @ J.T
    errors = []
    for n_directions in (8, 800):
        slopes = Tangent(block, n_directions)(x)[1].double()
        errors.append(float((slopes @ slopes.T - K).norm() / K.norm()))
    assert errors[1] < 0.1
    assert errors[1] < errors[0] < 1.0


def test_the_readout_is_ridge_regression_with_the_sum_of_the_two_kernels() -> None:
    strength = 3.0
    candidate = NUMBERS.build(KernelReadout(strength=strength, normalisation="none"))
    module, tap = candidate.module, candidate.inputs[0].name
    assert isinstance(module, Readout)
    x = torch.cat([whole(NUMBERS, tap, split) for split in ("train", "tune")])
    f = torch.cat([whole(NUMBERS, "last", split) for split in ("train", "tune")]).double()
    J = jacobian(module.tangent.block, x).flatten(1)
    basis(module.tangent)
    module.head = nn.Linear(f.shape[1] * (1 + module.tangent.n_directions), 1)
    fitted = NUMBERS.train(KernelReadout(strength=strength), candidate)
    n, Y = len(NUMBERS.labels), NUMBERS.labels.double()
    K = torch.zeros(len(x), len(x), dtype=torch.float64)
    for values, weight in ((f, 1.0), (J, strength)):
        centred = values - values[:n].mean(0)
        K += weight * centred @ centred.T / centred[:n].square().sum(1).mean()
    solved = torch.linalg.solve(K[:n, :n] + fitted.notes["penalty"] * torch.eye(n), Y - Y.mean())
    expected = K[n:, :n] @ solved + Y.mean()
    torch.testing.assert_close(NUMBERS.answer(candidate, N_TUNE).double(), expected, rtol=1e-3, atol=1e-3)


def test_the_features_of_the_tune_split_are_computed_once_for_all_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = Tangent.forward
    monkeypatch.setattr(Tangent, "forward", lambda self, x: (seen.append(len(x)), forward(self, x))[1])
    VECTORS.fit(KernelReadout())
    assert seen == [len(VECTORS.labels)] * 2 + [N_TUNE]
