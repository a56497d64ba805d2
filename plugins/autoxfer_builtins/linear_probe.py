r"""Linear probe: a linear model on the features of frozen sources, for every penalty at once.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016,
https://arxiv.org/abs/1610.01644:

    min over W, b of  sum_i loss(W' f(x_i) + b, y_i) + strength / 2 * ||W||^2

Differs from the paper: solved to the optimum, not by gradient steps, along a path of strengths among which the tune
split chooses; so no trial is spent on the strength. f(x) may be the features of several sources, one beside the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import Tensor, nn

from autoxfer import (
    Candidate,
    Fitted,
    Normalise,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TapInfo,
    TrainData,
    Trainer,
    hookimpl,
    linear_path,
)


class Probe(nn.Module):
    """Activations, each pooled and made comparable by itself, joined under one linear head."""

    def __init__(self, taps: Sequence[TapInfo], normalisation: str, pooling: str, n_outputs: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_part(tap, normalisation, pooling) for tap in taps)
        with torch.no_grad():
            n_features = self.joined(*(torch.zeros(1, *tap.shape) for tap in taps)).shape[1]
        self.head = nn.Linear(n_features, n_outputs)

    def joined(self, *activations: Tensor) -> Tensor:
        """(batch, ...) for each tap -> (batch, features of all)."""
        return torch.cat([part(each) for part, each in zip(self.parts, activations, strict=True)], 1)

    def forward(self, *activations: Tensor) -> Tensor:
        """(batch, ...) for each tap -> (batch, n_outputs)."""
        outputs: Tensor = self.head(self.joined(*activations))
        return outputs


def _part(tap: TapInfo, normalisation: str, pooling: str) -> nn.Sequential:
    pool = tap.pool(own=pooling == "own")
    n_features = pool(torch.zeros(1, *tap.shape)).shape[1]
    return nn.Sequential(OrderedDict(pool=pool, normalise=Normalise(n_features, normalisation)))


@final
@dataclass(frozen=True)
class LinearProbe(Strategy):
    """Fit a linear model on the activation at ``tap``, averaged over space, after ``normalisation``.

    Tokens are pooled as the source's own head pools them, or averaged. ``n_strengths`` are tried in each trial; the run
    file can ask for more. Several sources together are read at "last".
    """

    name: ClassVar[str] = "linear_probe"
    many_sources: ClassVar[bool] = True
    recipe: ClassVar[Recipe | None] = None
    tap: str = "last"
    normalisation: str = "standardise"
    pooling: str = "own"  # own, mean: of tokens
    n_strengths: int = 25

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose among the ends of the last three stages; the pooling too, where the source does not average tokens."""
        taps = list(reversed(problem.source.stages))[: 3 if len(problem.sources) == 1 else 1]
        pools = any(len(tap.shape) == 2 and tap.pooling != ("mean", 0) for tap in taps)
        return {
            "tap": CategoricalDistribution([tap.name for tap in taps]),
            "normalisation": CategoricalDistribution(["none", "standardise", "l2"]),
            **({"pooling": CategoricalDistribution(["own", "mean"])} if pools else {}),
        }

    def build(self, problem: Problem) -> Candidate:
        """Make the linear model."""
        taps = [source.tap(self.tap) for source in problem.sources]
        inputs = tuple(Tap(self.tap, index) for index in range(len(taps)))
        return Candidate(Probe(taps, self.normalisation, self.pooling, problem.n_outputs), inputs)

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Solve for the whole path and let the tune split choose; the chosen strength is in units of the features."""
        module = candidate.module.to(data.labels.device)
        assert isinstance(module, Probe)
        activations = [data[name] for name in candidate.inputs]
        with torch.no_grad():
            for part, each in zip(module.parts, activations, strict=True):
                normalise = part.get_submodule("normalise")
                assert isinstance(normalise, Normalise)
                normalise.fit(part.get_submodule("pool")(each), data.weights)
            features = module.joined(*activations)
        path = linear_path(features, data.labels, module.head.out_features, self.n_strengths, data.weights)
        states = ((strength, {"head.weight": weight, "head.bias": bias}) for strength, weight, bias in path)
        fitted = trainer.choose(candidate, states)
        return replace(fitted, notes={**fitted.notes, "strength": fitted.notes["chosen"]})


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer the linear probe."""
    return [LinearProbe]
