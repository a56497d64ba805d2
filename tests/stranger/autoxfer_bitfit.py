"""BitFit: train the biases and a new head, keep every other weight of the source.

Ben Zaken, Goldberg and Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models", ACL 2022, https://arxiv.org/abs/2106.10199.

Differs from the paper: the head learns at a rate of its own, and the source may be any network that has biases.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, final

from optuna.distributions import BaseDistribution, FloatDistribution
from torch import nn

from autoxfer import Candidate, Group, Problem, Recipe, Strategy, Tap, Unsupported, hookimpl


@final
@dataclass(frozen=True)
class BitFit(Strategy):
    """Train biases and head; ``head_rate`` multiplies the head's learning rate."""

    name: ClassVar[str] = "bitfit"
    recipe: ClassVar[Recipe | None] = Recipe(lr=1e-2, decay=0.0)
    head_rate: float = 1.0

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Search how fast the head learns. Raises Unsupported for a source without biases."""
        if not any(name.endswith("bias") for name, _ in problem.source.suffix().named_parameters()):
            raise Unsupported("the source has no biases to train")
        return {"head_rate": FloatDistribution(0.1, 10.0, log=True)}

    def build(self, problem: Problem) -> Candidate:
        """Copy the whole network, freeze all but its biases, and put a new head on its features."""
        backbone = problem.source.suffix("input")
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
        head = nn.Linear(problem.source.n_features, problem.n_outputs)
        module = nn.Sequential(OrderedDict(backbone=backbone, head=head))
        return Candidate(module, (Tap("input"),), groups=(Group("head", lr=self.head_rate), Group()))


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer BitFit."""
    return [BitFit]
