"""Set a network's classifier apart from its features."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from autoxfer.tracing import matrices

_LINKS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda z: z,
    lambda z: z.softmax(1),
    lambda z: z.log_softmax(1),
    lambda z: z.sigmoid(),
)

POOLINGS = ("mean", "first", "last", "max")


class Pool(nn.Module):
    """Features of an activation: maps are averaged over space, tokens pooled, the rest is flattened.

    ``kind`` is for tokens: their mean without the first ``skipped``, the first one, the last one or the largest values.
    Where the activation is ``masked``, its last channel says which tokens there are, and only they count.
    """

    def __init__(self, kind: str = "mean", *, skipped: int = 0, masked: bool = False) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}; got {kind!r}")
        self.kind, self.skipped, self.masked = kind, skipped, masked

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width), (batch, tokens, width) or (batch, ...) -> (batch, features)."""
        if self.masked:
            return self._there(x[..., :-1], x[..., -1:])
        if x.dim() == 4:
            return x.mean((2, 3))
        if x.dim() != 3:
            return x.flatten(1)
        if self.kind == "mean":
            return x[:, self.skipped :].mean(1)
        return x.amax(1) if self.kind == "max" else x[:, 0 if self.kind == "first" else -1]

    def _there(self, x: Tensor, there: Tensor) -> Tensor:
        """(batch, tokens, width), (batch, tokens, 1) -> (batch, width)."""
        if self.kind == "first":
            return x[:, 0]
        if self.kind == "last":
            place = (there.sum(1, keepdim=True).long() - 1).clamp(min=0)
            return x.gather(1, place.expand(-1, 1, x.shape[2]))[:, 0]
        if self.kind == "max":
            return torch.where(there > 0, x, torch.finfo(x.dtype).min).amax(1)
        return (x * there).sum(1) / there.sum(1).clamp(min=1.0)


class OnTokens(nn.Module):
    """Apply a module to the tokens of a masked activation; the mask stays beside them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width + 1), in the same shape."""
        return torch.cat([self.inner(x[..., :-1]), x[..., -1:]], -1)


def split_head(last: nn.Module, x: Tensor, n_classes: int | None) -> tuple[nn.Module | None, nn.Linear | None]:
    """Split a chain's last segment into (what belongs to the features, the head); ``x`` is the activation before it.

    None for the first: nothing of it does. None for the second: there is no head, or none that reads pooled features.
    """
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def remember(path: str) -> Any:
        return lambda module, args, output: calls.append((path, module, args[0], output))

    candidates = [(p, m) for p, m in last.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [module.register_forward_hook(remember(path)) for path, module in candidates]
    with torch.no_grad():
        y = last(x)
    for hook in hooks:
        hook.remove()
    if not calls:
        return last, None
    path, module, before, after = calls[-1]
    alone = matrices(list(last.parameters())) == 1 and close(before, x)
    if isinstance(module, nn.Linear):
        if alone and any(close(link(after).flatten(1), y.flatten(1)) for link in _LINKS):
            return None, copy.deepcopy(module)
        if path and after.dim() == 2 and close(after, y):
            head = copy.deepcopy(module)
            last.set_submodule(path, nn.Identity())
            return last, head
    if isinstance(module, nn.Conv2d) and path and before.shape[2:] == (1, 1) and close(after.flatten(1), y.flatten(1)):
        last.set_submodule(path, nn.Identity())
        return last, _as_linear(module)
    if alone and isinstance(module, nn.Conv2d) and y.flatten(1).shape[1] == module.out_channels:
        return _split_convolution(last, module, x, y, n_classes)
    return last, None


def _split_convolution(
    last: nn.Module, conv: nn.Conv2d, x: Tensor, y: Tensor, n_classes: int | None
) -> tuple[nn.Module | None, nn.Linear | None]:
    """Split a 1x1 convolution whose output is averaged: a linear layer on averaged features, unless ReLU is between."""
    own = sum(p.numel() for p in conv.parameters())
    if conv.kernel_size != (1, 1) or conv.groups != 1 or sum(p.numel() for p in last.parameters()) != own:
        return last, None
    linear = _as_linear(conv)
    with torch.no_grad():
        exact = close(linear(x.mean((2, 3))), y.flatten(1))
    if exact:
        return None, linear
    classifies = n_classes == conv.out_channels or any(isinstance(layer, _DropoutNd) for layer in last.modules())
    return (None, None) if classifies else (last, None)


def _as_linear(conv: nn.Conv2d) -> nn.Linear:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
        linear.weight.copy_(conv.weight.flatten(1))
        if conv.bias is not None:
            linear.bias.copy_(conv.bias)
    return linear


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two activations are equal up to rounding."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5 * (1 + float(b.abs().max())))
