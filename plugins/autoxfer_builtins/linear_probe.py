r"""Linear probe: a linear model on the frozen source's features, for every penalty at once.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016,
https://arxiv.org/abs/1610.01644:

    min over W, b of  sum_i loss(W' f(x_i) + b, y_i) + strength / 2 * ||W||^2

Differs from the paper: solved to the optimum, not by gradient steps, along a path of strengths among which the tune
split chooses; so no trial is spent on the strength.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import nn

from autoxfer import (
    Candidate,
    Fitted,
    Normalise,
    Pool,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    hookimpl,
    linear_path,
    with_head,
)


@final
@dataclass(frozen=True)
class LinearProbe(Strategy):
    """Fit a linear model on the activation at ``tap``, averaged over space, after ``normalisation``.

    ``n_strengths`` are tried in each trial; the run file can ask for more.
    """

    name: ClassVar[str] = "linear_probe"
    recipe: ClassVar[Recipe | None] = None
    tap: str = "last"
    normalisation: str = "standardise"
    n_strengths: int = 25

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose among the last three taps."""
        taps = [tap.name for tap in reversed(problem.source.taps[1:])]
        return {
            "tap": CategoricalDistribution(taps[:3]),
            "normalisation": CategoricalDistribution(["none", "standardise", "l2"]),
        }

    def build(self, problem: Problem) -> Candidate:
        """Make the linear model."""
        tap = problem.source.tap(self.tap)
        pool = Pool(masked=tap.masked)
        with torch.no_grad():
            n_features = pool(torch.zeros(1, *tap.shape)).shape[1]
        normalise = Normalise(n_features, self.normalisation)
        body = nn.Sequential(OrderedDict(pool=pool, normalise=normalise))
        return Candidate(with_head(body, n_features, problem.n_outputs), (Tap(self.tap),))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Solve for the whole path and let the tune split choose; the chosen strength is in units of the features."""
        module = candidate.module.to(data.labels.device)
        head, normalise = module.get_submodule("head"), module.get_submodule("body.normalise")
        pool = module.get_submodule("body.pool")
        assert isinstance(head, nn.Linear)
        assert isinstance(normalise, Normalise)
        with torch.no_grad():
            features = pool(data[candidate.inputs[0]])
            normalise.fit(features)
            features = normalise(features)
        path = linear_path(features, data.labels, head.out_features, self.n_strengths)
        states = ((strength, {"head.weight": weight, "head.bias": bias}) for strength, weight, bias in path)
        fitted = trainer.choose(candidate, states)
        return replace(fitted, notes={**fitted.notes, "strength": fitted.notes["chosen"]})


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer the linear probe."""
    return [LinearProbe]
