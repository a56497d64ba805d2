r"""Kernel readout: a linear model on the source's features and on the tangent features of its last block.

Lauditi, Bordelon and Pehlevan, "Transfer learning in infinite width feature learning networks", ICLR 2026,
https://arxiv.org/abs/2507.04448: fine-tuning so lazy that no feature moves (gamma_2 -> 0) is regression with the kernel
of the network as the source has left it. With a new readout, that kernel is on average (Jacot, Gabriel and Hongler,
"Neural tangent kernel", NeurIPS 2018, https://arxiv.org/abs/1806.07572):

    k(x, x') = f(x) . f(x')  +  strength * <J(x), J(x')>

| symbol | meaning                                                                 | shape       |
|--------|-------------------------------------------------------------------------|-------------|
| f      | features of the frozen source; their mean square length on train is 1   | (p,)        |
| J      | Jacobian of f by the last block's weights; scaled likewise              | (p, P)      |
| U      | random directions in the space of these weights, drawn once             | (P, m)      |
| psi    | explicit features [f, sqrt(strength) J U / sqrt(m)]; psi . psi' is k on average | (p + p m,) |

Differs from the papers: of the tangent kernel the last block's part, by random directions; J U comes from differences
in double precision, so that any block serves and exports; classes are fitted by softmax regression.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor, nn
from torch.func import functional_call

from autoxfer import (
    Candidate,
    Fitted,
    Normalise,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    Unsupported,
    hookimpl,
    linear_path,
    weighted_mean,
)

STEP = 1e-6  # along a direction, whose entries are of order 1
PART = 256  # examples at a time
WIDTH, MOST = 512, 8  # tangent features that are aimed at, directions at most


class Tangent(nn.Module):
    """A frozen block's features, and their derivatives along some directions in the space of its weights."""

    def __init__(self, block: nn.Module, n_directions: int) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        self.names = [name for name, _ in block.named_parameters()]
        for index, (_, weights) in enumerate(block.named_parameters()):
            self.register_buffer(f"direction_{index}", torch.randn(n_directions, *weights.shape))
        self.n_directions = n_directions

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Activation before the block -> f (batch, p), J U (batch, p * n_directions) / sqrt(n_directions)."""
        x = x.double() if x.is_floating_point() else x
        there = {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in (*self.block.named_parameters(), *self.block.named_buffers())
        }
        f = functional_call(self.block, there, (x,))
        slopes = []
        for number in range(self.n_directions):
            moved = {
                name: there[name] + STEP * self.get_buffer(f"direction_{index}")[number].double()
                for index, name in enumerate(self.names)
            }
            slopes.append((functional_call(self.block, {**there, **moved}, (x,)) - f) / STEP)
        return f.float(), (torch.cat(slopes, 1) / self.n_directions**0.5).float()


class Readout(nn.Module):
    """Both kinds of features, each of mean square length 1 on the train split, under one linear head."""

    scale: Tensor  # (2,) what the features and the tangent features are multiplied by

    def __init__(self, tangent: Tangent, normalise: Normalise, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.tangent = tangent
        self.normalise = normalise
        self.register_buffer("scale", torch.ones(2))
        self.head = nn.Linear(n_features * (1 + tangent.n_directions), n_outputs)
        self._known: dict[tuple[object, ...], Tensor] | None = None

    @torch.no_grad()
    def prepare(self, x: Tensor, strength: float, weights: Tensor | None = None) -> None:
        """Take the scales from the train split's activations; ``weights`` are ``TrainData.weights``."""
        f, slopes = (torch.cat(parts) for parts in zip(*map(self.tangent, torch.split(x, PART)), strict=True))
        self.normalise.fit(f, weights)
        for place, (values, share) in enumerate([(self.normalise(f), 1.0), (slopes, strength)]):
            length = weighted_mean((values - weighted_mean(values, weights)).square().sum(1), weights)
            self.scale[place] = (share / length.clamp(min=1e-12)).sqrt()

    def features(self, x: Tensor) -> Tensor:
        """Activation before the block -> psi (batch, p * (1 + n_directions))."""
        f, slopes = self.tangent(x)
        return torch.cat([self.normalise(f) * self.scale[0], slopes * self.scale[1]], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Activation before the block -> (batch, n_outputs)."""
        answer: Tensor = self.head(self.features(x) if self._known is None else self._recalled(x))
        return answer

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Compute the features of a batch once, while heads on them are compared."""
        self._known = {}
        try:
            yield
        finally:
            self._known = None

    def _recalled(self, x: Tensor) -> Tensor:
        assert self._known is not None
        key = (tuple(x.shape), hash(x.cpu().numpy().tobytes()))
        if key not in self._known:
            self._known[key] = self.features(x)
        return self._known[key]


@final
@dataclass(frozen=True)
class KernelReadout(Strategy):
    """Fit a linear model on features and tangent features; ``strength`` weighs the latter, 0 leaves a linear probe."""

    name: ClassVar[str] = "kernel_readout"
    recipe: ClassVar[Recipe | None] = None
    strength: float = 1.0
    normalisation: str = "standardise"  # of the features
    n_strengths: int = 25  # penalties that are tried in each trial

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Weigh the two kernels. Raises Unsupported for a source without weights."""
        if not problem.source.n_parameters:
            raise Unsupported("the source has no weights to take derivatives by")
        return {
            "strength": FloatDistribution(0.01, 100.0, log=True),
            "normalisation": CategoricalDistribution(["none", "standardise"]),
        }

    def build(self, problem: Problem) -> Candidate:
        """Take the last block that has weights, and draw directions."""
        source = problem.source
        before = next(tap for tap in reversed(source.taps[:-1]) if tap.inherited < 1)
        tangent = Tangent(source.suffix(before.name), max(1, min(MOST, WIDTH // source.n_features)))
        normalise = Normalise(source.n_features, self.normalisation)
        return Candidate(Readout(tangent, normalise, source.n_features, problem.n_outputs), (Tap(before.name),))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Solve for the whole path of penalties and let the tune split choose."""
        module = candidate.module.to(data.labels.device).eval()
        assert isinstance(module, Readout)
        x = data[candidate.inputs[0]]
        module.prepare(x, self.strength, data.weights)
        with torch.no_grad():
            features = torch.cat([module.features(part) for part in torch.split(x, PART)])
        path = linear_path(features, data.labels, module.head.out_features, self.n_strengths, data.weights)
        states = ((penalty, {"head.weight": weight, "head.bias": bias}) for penalty, weight, bias in path)
        with module.remembering():
            fitted = trainer.choose(candidate, states)
        return replace(fitted, notes={**fitted.notes, "penalty": fitted.notes["chosen"]})


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer the kernel readout."""
    return [KernelReadout]
