"""Scratch: train a newly initialised network; the baseline that every transfer has to beat.

E1 of the definition of negative transfer asks for it: the same data, the same budget, nothing from the source but,
among the choices, its architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from autoxfer import Candidate, Fitted, Problem, Recipe, Solvable, Strategy, TrainData, Trainer, hookimpl


@final
@dataclass(frozen=True)
class Scratch(Strategy):
    """Train ``architecture`` from nothing, with ``dropout`` before its last layer."""

    name: ClassVar[str] = "scratch"
    needs_source: ClassVar[bool] = False
    recipe: ClassVar[Recipe | None] = Recipe(augment="shift")
    architecture: str = "compact"
    dropout: float = 0.0

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose among the compact encoders and the sources' own architectures."""
        return {
            "architecture": CategoricalDistribution(list(problem.architectures)),
            "dropout": FloatDistribution(0.0, 0.5),
        }

    def build(self, problem: Problem) -> Candidate:
        """Make the network."""
        architecture = problem.architectures[self.architecture]
        return Candidate(architecture(problem.n_outputs, dropout=self.dropout), (architecture.input,))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Solve what can be solved, ignoring the recipe; train the rest."""
        if isinstance(candidate.module, Solvable):
            return candidate.module.solve(candidate, data, trainer)
        return trainer.run(candidate)


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer scratch."""
    return [Scratch]
