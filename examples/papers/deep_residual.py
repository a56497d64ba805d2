"""Residual integration with a deep head, as a plugin by somebody else: what its authors found to undo the protection.

Xu, Nakada, Zhang and Li, https://arxiv.org/abs/2505.11771: the source's features and the new encoder's, joined, go
through hidden layers before the last one. Here to be refused by the guard; no built-in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from autoxfer import Candidate, Problem, Recipe, Strategy, Tap, hookimpl


class Fused(nn.Module):
    """Both features, joined, through hidden layers."""

    def __init__(self, encoder: nn.Module, n_features: int, width: int, n_outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        first, second = nn.Linear(n_features + width, width), nn.Linear(width, width)
        self.head = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(width, n_outputs))

    def forward(self, example: Tensor, features: Tensor) -> Tensor:
        """(batch, ...), (batch, n_features) -> (batch, n_outputs)."""
        joined: Tensor = self.head(torch.cat([self.encoder(example).relu(), features], 1))
        return joined


@final
@dataclass(frozen=True)
class DeepResidual(Strategy):
    """Train an encoder, and a head of two hidden layers over its features and the source's."""

    name: ClassVar[str] = "deep_residual"
    recipe: ClassVar[Recipe | None] = Recipe()
    encoder: str = "compact"
    width: int = 64

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Search the recipe alone."""
        return {}

    def build(self, problem: Problem) -> Candidate:
        """Make encoder and head."""
        encoder = problem.architectures[self.encoder]
        module = Fused(encoder(self.width), problem.source.n_features, self.width, problem.n_outputs)
        return Candidate(module, (encoder.input, Tap("last")))


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer it."""
    return [DeepResidual]
