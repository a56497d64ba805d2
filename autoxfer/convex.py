"""Many smooth convex problems minimised side by side: L-BFGS with one line search per problem.

Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming 1989.
Differs from it: the line search looks at slopes only, which for a convex problem is enough, so no loss is computed.
A point of k problems is a tensor (r, k, q), problem j being [:, j].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

N_PAIRS = 10  # steps remembered


class Convex(Protocol):
    """k convex problems."""

    @property
    def guess(self) -> Tensor:
        """A safe inverse of the Hessian's diagonal, at most the true one's: (r, k, 1) or (r, k, q)."""

    def gradient(self, x: Tensor) -> Tensor:
        """At a point (r, k, q), of its shape."""

    def keep(self, going: Tensor) -> Self:
        """Keep the problems where ``going`` (k,) is true."""


def minimise(problem: Convex, start: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    """Minimise from ``start`` (r, k, q); a problem is done when half of g' diag(guess) g is at most ``tolerance``.

    That is how much one step along the gradient would gain, so ``tolerance`` is in units of the loss.
    """
    final = start.clone()
    alive = torch.arange(start.shape[1], device=start.device)
    x, g, memory = start, problem.gradient(start), _Memory()
    for _ in range(max_iterations):
        going = _dot(g, problem.guess * g).flatten() > 2 * tolerance
        if not bool(going.all()):
            final[:, alive[~going]] = x[:, ~going]
            alive, x, g, problem, memory = (
                alive[going],
                x[:, going],
                g[:, going],
                problem.keep(going),
                memory.keep(going),
            )
        if not len(alive):
            return final
        moved, g_moved = _search(problem, x, g, -memory.apply(g, problem.guess))
        memory = memory.add(moved - x, g_moved - g)
        x, g = moved, g_moved
    final[:, alive] = x
    return final


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """One scalar product per problem: (r, k, q), (r, k, q) -> (1, k, 1)."""
    return (a * b).sum((0, 2), keepdim=True)


def _search(problem: Convex, x: Tensor, g: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Step along ``direction`` until the slope there is at most half as steep upwards as it was downwards.

    An overshooting problem tries next where the secant of its two slopes is zero.
    """
    slope = _dot(g, direction)  # negative
    step = torch.ones_like(slope)
    for _ in range(20):
        moved = x + step * direction
        g_moved = problem.gradient(moved)
        slope_moved = _dot(g_moved, direction)
        overshot = slope_moved > -slope / 2
        if not bool(overshot.any()):
            break
        step = torch.where(overshot, step * slope / (slope - slope_moved), step)
    return moved, g_moved


@dataclass(frozen=True)
class _Memory:
    """The last steps, the changes of gradient that came with them, and 1 over their product (0: no curvature seen)."""

    pairs: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()

    def add(self, step: Tensor, change: Tensor) -> _Memory:
        product = _dot(step, change)
        curved = product > 1e-10 * (_dot(step, step) * _dot(change, change)).sqrt()
        rho = torch.where(curved, 1 / product, torch.zeros_like(product))
        return _Memory((*self.pairs[1 - N_PAIRS :], (step, change, rho)))

    def keep(self, going: Tensor) -> _Memory:
        return _Memory(tuple((step[:, going], change[:, going], rho[:, going]) for step, change, rho in self.pairs))

    def apply(self, g: Tensor, guess: Tensor) -> Tensor:
        """Multiply ``g`` by the estimate of the inverse Hessian: the two-loop recursion."""
        shares = []
        for step, change, rho in reversed(self.pairs):
            shares.append(rho * _dot(step, g))
            g = g - shares[-1] * change
        g = guess * g
        if self.pairs:
            _, change, rho = self.pairs[-1]
            length = rho * _dot(change, guess * change)
            g = torch.where(length > 0, g / length, g)
        for (step, change, rho), share in zip(self.pairs, reversed(shares), strict=True):
            g = g + step * (share - rho * _dot(change, g))
        return g
