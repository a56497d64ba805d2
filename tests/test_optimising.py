"""What the optimiser promises: AdamW's own numbers, from fewer and larger tensors."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoxfer.optimising import MAX_NORM, Optimiser, schedule
from autoxfer.records import Recipe
from autoxfer.strategy import Group

GROUPS = (Group("0", lr=0.1, decay=0.5), Group("2.bias", decay=0.0), Group())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 3))
    net[1].weight.requires_grad_(False)
    return net


def gradients(net: nn.Module, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(20, 6, generator=generator), torch.randint(0, 3, (20,), generator=generator)
    (scale * functional.cross_entropy(net(x), y)).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["small", "clipped"])
def test_the_numbers_are_those_of_adamw_over_the_separate_tensors(scale: float) -> None:
    joint, separate = network(), network()
    recipe = Recipe(lr=0.05, decay=0.1)
    optimiser = Optimiser(joint, GROUPS, recipe)
    by_hand = torch.optim.AdamW(
        [
            {"params": [separate[0].weight, separate[0].bias], "lr": 0.005, "peak": 0.005, "weight_decay": 0.5},
            {"params": [separate[2].bias], "lr": 0.05, "peak": 0.05, "weight_decay": 0.0},
            {"params": [separate[2].weight], "lr": 0.05, "peak": 0.05, "weight_decay": 0.1},
        ]
    )
    for step in range(1, 8):
        optimiser.zero_grad()
        gradients(joint, scale)
        optimiser.step(step, 7)
        by_hand.zero_grad()
        gradients(separate, scale)
        for group in by_hand.param_groups:
            group["lr"] = group["peak"] * schedule(step, 7)
        nn.utils.clip_grad_norm_(separate.parameters(), MAX_NORM)
        by_hand.step()
    optimiser.release()
    for name, value in separate.state_dict().items():
        torch.testing.assert_close(joint.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert torch.equal(joint[1].weight, torch.full((5,), 0.25))


def test_what_is_released_shares_no_memory() -> None:
    net = network()
    Optimiser(net, (), Recipe()).release()
    places = [parameter.untyped_storage().data_ptr() for parameter in net.parameters()]
    assert len(set(places)) == len(places)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_nothing_to_train_is_said_plainly() -> None:
    with pytest.raises(ValueError, match="no parameter to train"):
        Optimiser(nn.Linear(2, 2).requires_grad_(False), (), Recipe())


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero() -> None:
    rates = [schedule(step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert all(a > b for a, b in pairwise(rates[9:]))
    assert rates[-1] == pytest.approx(0.0)
    assert rates[54] == pytest.approx(0.5 * (1 + math.cos(math.pi * 45 / 90)))
