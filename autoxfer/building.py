"""What strategies are built with: a body with a linear head, features made comparable, a head fitted first."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import linear
from autoxfer.activations import content
from autoxfer.axes import principal_axes, weighted_mean
from autoxfer.heads import OnTokens, Pool
from autoxfer.strategy import Candidate, Tap, TrainData

__all__ = ["Normalise", "OnTokens", "Pool", "fit_head", "start_head", "with_head"]

NORMALISATIONS = ("none", "standardise", "l2")
MIN_SPREAD = 0.01  # of the largest spread; a feature is never scaled up beyond it


MOST_HEADS = 64
_HEADS: dict[str, tuple[Tensor, Tensor]] = {}  # what was fitted -> weight, bias; the oldest first


def with_head(body: nn.Module, n_features: int, n_outputs: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Put a linear head on a body: children "body", "dropout" and "head", for groups to match."""
    head = nn.Linear(n_features, n_outputs)
    return nn.Sequential(OrderedDict(body=body, dropout=nn.Dropout(dropout), head=head))


def start_head(candidate: Candidate, data: TrainData) -> None:
    """Fit the child "head" on the features of the train split, which the body still gives before its first step.

    Kumar et al., "Fine-tuning can distort pretrained features", ICLR 2022, https://arxiv.org/abs/2202.10054.
    """
    head = candidate.module.get_submodule("head")
    assert isinstance(head, nn.Linear)
    weight, bias = fit_head(data[Tap("last")], data.labels, head.out_features, data.weights)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def fit_head(features: Tensor, labels: Tensor, n_outputs: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Fit a linear head on the train split's features: weight (n_outputs, p), bias (n_outputs,).

    As ``linear.fit_head``, once for the same numbers: most trials of a run ask for one that another has asked for.
    ``weights`` are ``TrainData.weights``.
    """
    given = (features, labels) if weights is None else (features, labels, weights)
    key = f"{content(*given)} {n_outputs} {features.device}"
    if key not in _HEADS:
        while len(_HEADS) >= MOST_HEADS:
            del _HEADS[next(iter(_HEADS))]
        _HEADS[key] = linear.fit_head(features, labels, n_outputs, weights)
    weight, bias = _HEADS[key]
    return weight.clone(), bias.clone()


@final
class Normalise(nn.Module):
    """Make features comparable: by the train split's mean and spread, or by each example's own length.

    With ``n_components`` they are turned to their principal axes first. Call ``fit`` before training.
    """

    mean: Tensor
    axes: Tensor
    center: Tensor
    spread: Tensor

    def __init__(self, n_features: int, kind: str = "none", n_components: int = 0) -> None:
        super().__init__()
        if kind not in NORMALISATIONS:
            raise ValueError(f"normalisation must be one of {', '.join(NORMALISATIONS)}; got {kind!r}")
        self.kind = kind
        self.n_components = min(n_components, n_features)
        self.n_features = self.n_components or n_features
        if self.n_components:
            self.register_buffer("mean", torch.zeros(n_features))
            self.register_buffer("axes", torch.eye(n_features, self.n_components))
        if kind == "standardise":
            self.register_buffer("center", torch.zeros(self.n_features))
            self.register_buffer("spread", torch.ones(self.n_features))

    @torch.no_grad()
    def fit(self, features: Tensor, weights: Tensor | None = None) -> None:
        """Take the statistics from (n, n_features) of the train split; what hardly varies there stays small.

        ``weights`` are ``TrainData.weights``.
        """
        if self.n_components:
            turned = principal_axes(features, weights)
            self.mean.copy_(turned.mean)
            self.axes.zero_()
            leading = turned.axes.flip(1)[:, : self.n_components]  # strongest first; fewer where n is small
            self.axes[:, : leading.shape[1]].copy_(leading)
            features = (features - turned.mean.to(features)) @ turned.axes.flip(1)[:, : self.n_components].to(features)
            features = functional.pad(features, (0, self.n_components - features.shape[1]))
        if self.kind == "standardise":
            center = weighted_mean(features, weights)
            squares = None if weights is None else weighted_mean((features - center).square(), weights)
            spread = features.std(0, correction=0) if squares is None else squares.sqrt()
            self.center.copy_(center)
            # A feature that hardly varies among few examples may vary later: scaled up, it would drown the others.
            floor = MIN_SPREAD * spread.amax()
            self.spread.copy_(torch.where(floor > 0, spread.maximum(floor), torch.ones_like(spread)))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_features) -> (batch, self.n_features)."""
        if self.n_components:
            x = (x - self.mean) @ self.axes
        if self.kind == "standardise":
            x = (x - self.center) / self.spread
        if self.kind == "l2":
            x = functional.normalize(x, dim=1) * self.n_features**0.5  # mean square 1, as after standardising
        return x
