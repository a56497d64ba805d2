r"""Adapters: small bottlenecks behind the blocks of a frozen source.

Houlsby et al., "Parameter-efficient transfer learning for NLP", ICML 2019, https://arxiv.org/abs/1902.00751:

    x + W_up gelu(W_down x),        W_up = 0 at the start

Differs from the paper: behind every block of any network (1x1 convolutions where activations are maps), or behind the
ends of the stages and some blocks between them where there are very many; normalisation layers stay frozen, and the
head is fitted first, so that training starts at the linear probe.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import (
    Candidate,
    Fitted,
    OnTokens,
    Problem,
    Recipe,
    Source,
    Strategy,
    Tap,
    TapInfo,
    TrainData,
    Trainer,
    hookimpl,
    start_head,
    with_head,
)

MOST = 16  # adapters in one network


class Adapter(nn.Module):
    """x + up(gelu(down(x))) over channels, or over the last dimension; starts as the identity."""

    def __init__(self, n_channels: int, width: int, *, maps: bool = False) -> None:
        super().__init__()
        self.down: nn.Module
        self.up: nn.Conv2d | nn.Linear
        if maps:
            self.down, self.up = nn.Conv2d(n_channels, width, 1), nn.Conv2d(width, n_channels, 1)
        else:
            self.down, self.up = nn.Linear(n_channels, width), nn.Linear(width, n_channels)
        nn.init.zeros_(self.up.weight)
        assert self.up.bias is not None
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """In the shape of ``x``."""
        out: Tensor = x + self.up(functional.gelu(self.down(x)))
        return out


def adapter(tap: TapInfo, width: int) -> nn.Module:
    """Make an adapter for the activation at a tap."""
    made = Adapter(tap.width, width, maps=len(tap.shape) == 3)
    return OnTokens(made) if tap.masked else made


def places(source: Source) -> list[TapInfo]:
    """Choose where blocks end: everywhere, or of very many at the ends of stages and evenly among the others."""
    ends = source.taps[1:]
    others = [tap for tap in ends if not tap.stage]
    n = min(len(others), max(0, MOST - len(source.stages)))
    kept = [*source.stages, *(others[(k + 1) * len(others) // n - 1] for k in range(n))]
    return [tap for tap in ends if tap in kept]


@final
@dataclass(frozen=True)
class Adapters(Strategy):
    """Train bottlenecks of ``width`` behind all blocks (``places``), or the last half of them."""

    name: ClassVar[str] = "adapters"
    recipe: ClassVar[Recipe | None] = Recipe(lr=3e-3)
    width: int = 16
    blocks: str = "all"  # all, late
    dropout: float = 0.0
    head_first: bool = True

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Choose width and place."""
        several = len(problem.source.taps) > 2
        return {
            "width": IntDistribution(4, 64, log=True),
            "blocks": CategoricalDistribution(["all", "late"] if several else ["all"]),
            "dropout": FloatDistribution(0.0, 0.5),
        }

    def build(self, problem: Problem) -> Candidate:
        """Read the cached activation where the first adapter stands, and put the others into what follows."""
        source = problem.source
        ends = places(source)
        first, *others = ends[len(ends) // 2 :] if self.blocks == "late" else ends
        body = source.suffix(first.name).requires_grad_(False)
        following = source.taps[source.taps.index(first) + 1 :]
        children: OrderedDict[str, nn.Module] = OrderedDict(adapter=adapter(first, self.width))
        for (name, block), tap in zip(body.named_children(), following, strict=True):
            children[name] = block
            if tap in others:
                children[f"{name}_adapter"] = adapter(tap, self.width)
        module = with_head(nn.Sequential(children), source.n_features, problem.n_outputs, dropout=self.dropout)
        return Candidate(module, (Tap(first.name),))

    def fit(self, candidate: Candidate, data: TrainData, trainer: Trainer) -> Fitted:
        """Fit the head, then train adapters and head."""
        if self.head_first:
            start_head(candidate, data)
        return trainer.run(candidate)


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer adapters."""
    return [Adapters]
