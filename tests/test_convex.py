from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autoxfer.convex import minimise


@dataclass(frozen=True)
class _LogCosh:
    """sum over r of log cosh(x - center), one center per problem; flat far from it."""

    center: Tensor  # (1, k, 1)
    guess: Tensor  # (1, k, 1)

    def gradient(self, x: Tensor) -> Tensor:
        return (x - self.center).tanh()

    def keep(self, going: Tensor) -> _LogCosh:
        return replace(self, center=self.center[:, going], guess=self.guess[:, going])


def test_every_problem_finds_its_own_minimum_even_where_full_steps_overshoot() -> None:
    center = torch.tensor([-3.0, 0.0, 2.0, 40.0]).reshape(1, 4, 1)
    problem = _LogCosh(center, torch.full((1, 4, 1), 50.0))  # steps fifty times too long
    found = minimise(problem, torch.zeros(5, 4, 2), 1e-12, 20)
    torch.testing.assert_close(found, center.expand(5, 4, 2), rtol=0, atol=1e-5)


def test_a_problem_ends_where_it_would_have_ended_alone() -> None:
    center = torch.tensor([1.0, 30.0]).reshape(1, 2, 1).double()
    together = _LogCosh(center, torch.ones(1, 2, 1).double())
    start = torch.zeros(3, 2, 1).double()
    found = minimise(together, start, 1e-10, 200)
    for k in range(2):
        alone = together.keep(torch.arange(2) == k)
        assert torch.equal(minimise(alone, start[:, :1], 1e-10, 200), found[:, k : k + 1])
