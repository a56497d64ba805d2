r"""Fine-tuning: train the whole pretrained network, its head fitted first.

Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022,
https://arxiv.org/abs/2202.10054 (the head first); Li, Grandvalet and Davoine, "Explicit inductive bias for transfer
learning with convolutional networks", ICML 2018, https://arxiv.org/abs/1802.01483 (stay near the source, L2-SP):

    loss + anchor / 2 * ||w - w0||^2        for the body's weights w, which start at w0

Differs from the papers: the head starts at a penalised linear model, solved exactly; layers near the input may learn
more slowly, by ``layer_decay`` for every quarter of the depth (Howard and Ruder 2018, per layer there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from optuna.distributions import BaseDistribution, FloatDistribution

from autoxfer import (
    Candidate,
    Fitted,
    Group,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    hookimpl,
    start_head,
    with_head,
)


@final
@dataclass(frozen=True)
class FineTune(Strategy):
    """Train everything, the head ``head_lr`` times as fast as the body."""

    name: ClassVar[str] = "fine_tune"
    recipe: ClassVar[Recipe | None] = Recipe(lr=2e-3, augment="shift")
    head_first: bool = True
    head_lr: float = 1.0
    layer_decay: float = 0.8
    anchor: float = 1e-3
    dropout: float = 0.0

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Search from nearly frozen to free; the lowest ``anchor`` is as good as none."""
        return {
            "head_lr": FloatDistribution(0.3, 30.0, log=True),
            "layer_decay": FloatDistribution(0.3, 1.0),
            "anchor": FloatDistribution(1e-4, 1.0, log=True),
            "dropout": FloatDistribution(0.0, 0.5),
        }

    def build(self, problem: Problem) -> Candidate:
        """Put a new head on the pretrained body."""
        body = problem.source.suffix("input")
        names = [name for name, _ in body.named_children()]
        groups = tuple(
            Group(f"body.{name}.", lr=self.layer_decay ** (4 * (len(names) - 1 - k) / len(names)), anchor=self.anchor)
            for k, name in enumerate(names)
        )
        module = with_head(body, problem.source.n_features, problem.n_outputs, dropout=self.dropout)
        return Candidate(module, (Tap("input"),), (*groups, Group("head", lr=self.head_lr)))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Fit the head, then train everything."""
        if self.head_first:
            start_head(candidate, data)
        return trainer.run(candidate)


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer fine-tuning."""
    return [FineTune]
