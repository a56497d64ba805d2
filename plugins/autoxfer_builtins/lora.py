r"""LoRA: low-rank changes of a frozen source's weights.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022, https://arxiv.org/abs/2106.09685:

    W x + (lora_alpha / rank) B A x,        B = 0 at the start

Differs from the paper: all linear layers and ungrouped convolutions, not attention alone (a convolution's A has its
kernel, B is 1x1; fused projections of queries, keys and values change as one matrix); the head is fitted first, so
that training starts at the linear probe.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

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
    """A frozen layer and a trainable change of it, of low rank; starts as the layer.

    What reads the layer's weight instead of calling it, as attention often does, reads the changed one.
    """

    def __init__(self, base: nn.Module, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.down: nn.Module
        self.up: nn.Module
        weight = base.get_parameter("weight")
        n_inputs, n_outputs = weight.shape if _is_transposed(base) else (weight.shape[1], weight.shape[0])
        rank = min(rank, n_inputs, n_outputs)
        if isinstance(base, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            self.down = copy.deepcopy(base)  # keeps stride, padding, dilation, and what a subclass does with them
            self.down.out_channels, self.down.bias = rank, None
            self.down.weight = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
            self.down.reset_parameters()
            self.up = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[weight.dim() - 3](rank, n_outputs, 1, bias=False)
        else:
            self.down, self.up = nn.Linear(n_inputs, rank, bias=False), nn.Linear(rank, n_outputs, bias=False)
        nn.init.zeros_(self.up.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        out: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return out

    @property
    def weight(self) -> Tensor:
        """The layer's weight with the change, in its shape."""
        change = change_of(self.down.get_parameter("weight"), self.up.get_parameter("weight"))
        return self.base.get_parameter("weight") + self.scale * (change.T if _is_transposed(self.base) else change)

    def merged(self) -> nn.Module:
        """Give the layer with the change in its weight: what is served, and no slower than the source."""
        layer = copy.deepcopy(self.base)
        with torch.no_grad():
            layer.get_parameter("weight").copy_(self.weight)
        return layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)  # bias, in_features, stride and so on


class LowRankMatrix(nn.Module):
    """The change of a weight that a module holds itself; a parametrisation (torch.nn.utils.parametrize)."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        n_outputs, n_inputs = weight.shape
        rank = min(rank, n_inputs, n_outputs)
        self.scale = scale
        self.down, self.up = nn.Linear(n_inputs, rank, bias=False), nn.Linear(rank, n_outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, weight: Tensor) -> Tensor:
        """(n_outputs, n_inputs), in the same shape."""
        return weight + self.scale * change_of(self.down.weight, self.up.weight)


def change_of(down: Tensor, up: Tensor) -> Tensor:
    """Multiply A (rank, n_inputs, *kernel) and B (n_outputs, rank, *ones): (n_outputs, n_inputs, *kernel)."""
    return (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])


def adaptable(body: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Find the layers whose change can be of low rank."""
    for name, part in body.named_modules():
        own = {key for key, _ in part.named_parameters(recurse=False)}
        convolves = isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and part.groups == 1
        if (isinstance(part, nn.Linear) or convolves or _is_transposed(part)) and own <= {"weight", "bias"}:
            yield name, part


def projections(body: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Find the weights that torch's attention holds itself."""
    for part in body.modules():
        if isinstance(part, nn.MultiheadAttention):
            names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
            yield from ((part, name) for name in names if getattr(part, name) is not None)


def _is_transposed(layer: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, which transformers calls Conv1D: weight (n_inputs, n_outputs)."""
    return type(layer).__name__ == "Conv1D" and isinstance(getattr(layer, "nf", None), int)


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
        scale = self.lora_alpha / self.rank
        for name, layer in list(adaptable(body)):
            body.set_submodule(name, LowRank(layer, self.rank, scale))
        for part, name in list(projections(body)):
            register_parametrization(part, name, LowRankMatrix(part.get_parameter(name), self.rank, scale))
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
