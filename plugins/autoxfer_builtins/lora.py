r"""LoRA: low-rank changes of a frozen source's weights.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022, https://arxiv.org/abs/2106.09685:

    W x + (lora_alpha / rank) B A x,        B = 0 at the start

Differs from the paper: all linear layers and ungrouped convolutions, not attention alone (a convolution's A has its
kernel, B is 1x1); the head is fitted first, so that training starts at the linear probe.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn

from autoxfer import (
    Candidate,
    Fitted,
    Problem,
    Recipe,
    Strategy,
    Tap,
    TrainData,
    Trainer,
    Unsupported,
    hookimpl,
    start_head,
    with_head,
)


class LowRank(nn.Module):
    """A frozen layer and a trainable change of it, of low rank; starts as the layer."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.down: nn.Module
        self.up: nn.Linear | nn.Conv2d
        if isinstance(base, nn.Linear):
            rank = min(rank, base.in_features, base.out_features)
            self.down = nn.Linear(base.in_features, rank, bias=False)
            self.up = nn.Linear(rank, base.out_features, bias=False)
        else:
            rank = min(rank, base.in_channels, base.out_channels)
            self.down = copy.deepcopy(base)  # keeps stride, padding, dilation, and what a subclass does with them
            self.down.out_channels, self.down.bias = rank, None
            self.down.weight = nn.Parameter(base.weight.new_empty(rank, *base.weight.shape[1:]))
            self.down.reset_parameters()
            self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        out: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return out


def adaptable(body: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Find the layers whose change can be of low rank; an attention module uses its projections' weights itself."""
    closed = tuple(f"{name}." for name, part in body.named_modules() if isinstance(part, nn.MultiheadAttention))
    for name, part in body.named_modules():
        own = {key for key, _ in part.named_parameters(recurse=False)}
        dense = isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)
        if dense and own <= {"weight", "bias"} and not name.startswith(closed):
            yield name, part


@final
@dataclass(frozen=True)
class LoRA(Strategy):
    """Train low-rank changes in all blocks, or in the last half of them."""

    name: ClassVar[str] = "lora"
    recipe: ClassVar[Recipe | None] = Recipe(lr=3e-3)
    rank: int = 8
    lora_alpha: float = 8.0
    blocks: str = "all"  # all, late
    dropout: float = 0.0
    head_first: bool = True

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose rank, scale and place. Raises Unsupported for a source without a dense layer."""
        blocks = [blocks for blocks in ("all", "late") if any(adaptable(cls(blocks=blocks)._body(problem)[1]))]
        if not blocks:
            raise Unsupported(f"source {problem.source.name!r} has no linear layer and no ungrouped convolution")
        return {
            "rank": IntDistribution(2, 32, log=True),
            "lora_alpha": FloatDistribution(1.0, 64.0, log=True),
            "blocks": CategoricalDistribution(blocks),
            "dropout": FloatDistribution(0.0, 0.5),
        }

    def build(self, problem: Problem) -> Candidate:
        """Wrap every adaptable layer."""
        tap, body = self._body(problem)
        for name, layer in list(adaptable(body)):
            body.set_submodule(name, LowRank(layer, self.rank, self.lora_alpha / self.rank))
        module = with_head(body, problem.source.n_features, problem.n_outputs, dropout=self.dropout)
        return Candidate(module, (tap,))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Fit the head, then train the changes and the head."""
        if self.head_first:
            start_head(candidate, data)
        return trainer.run(candidate)

    def _body(self, problem: Problem) -> tuple[Tap, nn.Sequential]:
        taps = problem.source.taps
        start = taps[(len(taps) - 1) // 2 if self.blocks == "late" else 0].name
        return Tap(start), problem.source.suffix(start).requires_grad_(False)


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer LoRA."""
    return [LoRA]
