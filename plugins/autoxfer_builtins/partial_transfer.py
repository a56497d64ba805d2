r"""Partial transfer: inherit a share of the source's weights, start the rest anew.

Yuan et al., "Theory of parameter transfer", arXiv 2509.22056 (a random share of the filters is copied, everything
trains); Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014,
https://arxiv.org/abs/1411.1792 (the first layers are copied, and frozen or trained):

    by channels:  w = where(channel in S, source, fresh),  |S| = fraction * channels
    by depth:     segments whose end holds at most about ``fraction`` of the parameters = source, the rest fresh

Differs from the papers: layers with equally many channels share one S, so that norms and skip connections fit.
With fraction = 0 this is scratch with the source's architecture, bit for bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from torch import Tensor, nn

from autoxfer import Candidate, Group, Problem, Recipe, Strategy, Tap, TapInfo, hookimpl

STAGE_NEAR = 0.05  # share of the parameters by which a stage's end may be farther off: half a step of the search


@final
@dataclass(frozen=True)
class PartialTransfer(Strategy):
    """Inherit ``fraction`` of the source, by depth or by channels, and train it too or keep it as it is."""

    name: ClassVar[str] = "partial_transfer"
    recipe: ClassVar[Recipe | None] = Recipe(augment="shift")
    fraction: float = 0.5
    by: str = "depth"  # depth, channels
    train_inherited: bool = True
    inherited_lr: float = 0.3  # of inherited segments, as a share of the recipe's
    dropout: float = 0.0

    @classmethod
    def space(cls, problem: Problem) -> dict[str, BaseDistribution]:
        """Leave out fraction 0, which is scratch, and depth where the source is in one piece."""
        pieces = len(problem.source.taps) > 2
        return {
            "fraction": FloatDistribution(0.1, 1.0, step=0.1),
            "by": CategoricalDistribution(["depth", "channels"] if pieces else ["channels"]),
            "train_inherited": CategoricalDistribution([True, False]),
            "inherited_lr": FloatDistribution(0.03, 1.0, log=True),
            "dropout": FloatDistribution(0.0, 0.5),
        }

    def build(self, problem: Problem) -> Candidate:
        """Make the source's architecture anew, as scratch does, and put the inherited weights in."""
        source = problem.source
        architecture = problem.architectures[source.name]
        module = architecture(problem.n_outputs, dropout=self.dropout)
        body = module.get_submodule("body")
        if self.fraction == 0:
            return Candidate(module, (architecture.input,))
        if self.by == "channels":
            masks = _inherit_channels(body, source.suffix("input"), self.fraction)
            frozen = {} if self.train_inherited else {f"body.{name}": mask for name, mask in masks.items()}
            return Candidate(module, (architecture.input,), frozen=frozen)
        n_inherited = _nearest(source.taps, self.fraction)
        children = list(body.named_children())
        if not self.train_inherited:
            module.add_module("body", nn.Sequential(OrderedDict(children[n_inherited:])))
            return Candidate(module, (Tap(source.taps[n_inherited].name),))
        inherited = children[:n_inherited]
        for (_, child), donor in zip(inherited, source.suffix("input"), strict=False):
            child.load_state_dict(donor.state_dict())
        groups = tuple(Group(f"body.{name}.", lr=self.inherited_lr) for name, _ in inherited)
        return Candidate(module, (architecture.input,), (*groups, Group()))


def _nearest(taps: Sequence[TapInfo], fraction: float) -> int:
    """Find the tap up to which about ``fraction`` is inherited; the end of a stage rather than of a block beside it."""
    return min(
        range(1, len(taps)), key=lambda k: abs(taps[k].inherited - fraction) - (STAGE_NEAR if taps[k].stage else 0.0)
    )


def _inherit_channels(body: nn.Module, donor: nn.Module, fraction: float) -> dict[str, Tensor]:
    """Copy the same random output channels of every tensor with equally many; parameter -> mask of what was copied."""
    chosen: dict[int, Tensor] = {}
    masks: dict[str, Tensor] = {}
    parameters, given = dict(body.named_parameters()), donor.state_dict()
    for name, tensor in body.state_dict().items():
        if tensor.dim() == 0:
            continue
        width = tensor.shape[0]
        if width not in chosen:
            chosen[width] = torch.randperm(width)[: max(1, round(fraction * width))]
        rows = chosen[width]
        tensor[rows] = given[name][rows]
        if name in parameters:
            masks[name] = torch.zeros_like(tensor, dtype=torch.bool)
            masks[name][rows] = True
    return masks


@hookimpl
def autoxfer_strategies() -> list[type[Strategy]]:
    """Offer partial transfer."""
    return [PartialTransfer]
