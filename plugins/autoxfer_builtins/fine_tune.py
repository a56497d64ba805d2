r"""Fine-tuning: train the whole pretrained network, its head fitted first, as far from the source as it pays.

Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022,
https://arxiv.org/abs/2202.10054 (the head first); Li, Grandvalet and Davoine, "Explicit inductive bias for transfer
learning with convolutional networks", ICML 2018, https://arxiv.org/abs/1802.01483 (stay near the source, L2-SP):

    loss + anchor / 2 * ||w - w0||^2        for the body's weights w, which start at w0

One axis from a probe to free fine-tuning, as the elastic coupling of Lauditi, Bordelon and Pehlevan, "Transfer learning
in infinite width feature learning networks", ICLR 2026, https://arxiv.org/abs/2507.04448: an ``anchor`` of 100 or more
freezes the body exactly, its running statistics too; one of 3e-4 or less is none. Their other handle, how much features
learn (gamma), is 1 / ``head_lr`` here: with steps that do not hang on the gradient's size, an output that is multiplied
by c is a head that learns c times as fast.

Differs from the papers: the head starts at a penalised linear model, solved exactly; layers near the input may learn
more slowly, by ``layer_decay`` for every quarter of the depth (Howard and Ruder 2018, per layer there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from optuna.distributions import BaseDistribution, FloatDistribution
from torch import nn

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

FREE, FROZEN = 3e-4, 100.0  # anchors from which on the body is bound to nothing, or does not move


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
        """Search from frozen to free; a share of the range stands for each end."""
        return {
            "head_lr": FloatDistribution(0.3, 30.0, log=True),
            "layer_decay": FloatDistribution(0.3, 1.0),
            "anchor": FloatDistribution(FREE / 3, 3 * FROZEN, log=True),
            "dropout": FloatDistribution(0.0, 0.5),
        }

    def build(self, problem: Problem) -> Candidate:
        """Put a new head on the pretrained body, or on its features where it is frozen."""
        n_features, n_outputs = problem.source.n_features, problem.n_outputs
        head = Group("head", lr=self.head_lr)
        if self.anchor >= FROZEN:
            module = with_head(nn.Identity(), n_features, n_outputs, dropout=self.dropout)
            return Candidate(module, (Tap("last"),), (head,))
        body = problem.source.suffix("input")
        names = [name for name, _ in body.named_children()]
        anchor = self.anchor if self.anchor > FREE else 0.0
        groups = tuple(
            Group(f"body.{name}.", lr=self.layer_decay ** (4 * (len(names) - 1 - k) / len(names)), anchor=anchor)
            for k, name in enumerate(names)
        )
        module = with_head(body, n_features, n_outputs, dropout=self.dropout)
        return Candidate(module, (Tap("input"),), (*groups, head))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Fit the head, then train everything."""
        if self.head_first:
            start_head(candidate, data)
        return trainer.run(candidate)


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer fine-tuning."""
    return [FineTune]
