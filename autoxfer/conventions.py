"""What the axes of an activation mean, how a network pools its tokens, where its stages end: found by looking.

A strategy that puts a layer behind a tap, or averages what stands there, has to know where the channels are. Networks
differ: convolutions keep them first, many transformers over pictures last. The layers around an activation tell: a
convolution or a batch norm reads the first axis, a linear layer or a layer norm the last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from autoxfer.heads import close
from autoxfer.opening import Named

MOST_STAGES = 12  # that anyone would look through
MOST_SKIPPED = 8  # tokens at the start that stand for no part of the example: a class, registers


@dataclass(frozen=True)
class Call:
    """A layer at work, without layers inside it."""

    layer: nn.Module
    given: Tensor
    made: Tensor


@final
class Turned(nn.Module):
    """Move an axis of an activation."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, x: Tensor) -> Tensor:
        """Move it; the numbers stay."""
        return x.movedim(self.start, self.end).contiguous()


def turned(parts: Named, values: Sequence[Tensor]) -> Named:
    """Turn activations between segments so that maps are (channels, height, width) and tokens (tokens, width).

    ``values`` are the activations before the first segment and after each. Every segment still gets what it got.
    """
    found = list(parts)
    known: int | None = None  # of the map before
    for index in range(len(parts) - 1):
        value = values[index + 1]
        if value.dim() not in (3, 4):
            continue
        before, after = calls(parts[index][1], values[index]), calls(parts[index + 1][1], value)
        usual = 1 if value.dim() == 4 else -1
        axis = channel_axis(value, before, after) or (known if value.dim() == 4 else None) or usual
        known = axis if value.dim() == 4 else known
        if axis != usual:
            (name, module), (next_name, next_module) = found[index : index + 2]
            found[index] = (name, nn.Sequential(OrderedDict(body=module, turn=Turned(axis, usual))))
            found[index + 1] = (next_name, nn.Sequential(OrderedDict(turn=Turned(usual, axis), body=next_module)))
    return found


def channel_axis(value: Tensor, before: Sequence[Call], after: Sequence[Call]) -> int | None:
    """Say which axis of an activation (batch, ...) holds its channels, 1 or -1; None where no layer tells.

    First the layers that read it or wrote it, then those before it that work on tensors of its size.
    """
    written = [(call.layer, call.made) for call in reversed(before)]
    read = [(call.layer, call.given) for call in after]
    for exactly, seen in ((True, [*read, *written]), (False, written)):
        for layer, tensor in seen:
            own = _axis_of(layer)
            if own is None or tensor.dim() < 3 or tensor.shape[0] != value.shape[0]:
                continue
            fits = [axis for axis in (1, -1) if _same(_tokens(tensor, own), _tokens(value, axis), exactly=exactly)]
            if len(fits) == 1:
                return fits[0]
    return None


def _axis_of(layer: nn.Module) -> int | None:
    """Say along which axis a layer looks for channels."""
    name = type(layer).__name__.lower()
    if isinstance(layer, _ConvNd | _NormBase | nn.GroupNorm) or (isinstance(layer, nn.LayerNorm) and "2d" in name):
        return 1
    return -1 if isinstance(layer, nn.Linear | nn.LayerNorm | nn.RMSNorm | nn.MultiheadAttention) else None


def _tokens(x: Tensor, axis: int) -> Tensor:
    """(batch, positions, channels)."""
    return x.movedim(axis, -1).flatten(1, -2)


def _same(a: Tensor, b: Tensor, *, exactly: bool) -> bool:
    return a.shape == b.shape and (not exactly or torch.equal(a, b))


def pooling(last: nn.Module, x: Tensor, tokens: int) -> tuple[str, int]:
    """Say how a chain's last segment makes one vector of its tokens: ("mean" or "first", how many it leaves out)."""
    seen = calls(last, x)
    made = [t for call in seen for t in (call.given, call.made) if t.dim() == 3 and t.shape[1] == tokens]
    with torch.no_grad():
        vectors = [t for call in seen for t in (call.given, call.made) if t.dim() == 2] + [last(x)]
    for sequence in reversed(made):
        for vector in vectors:
            if vector.shape != (sequence.shape[0], sequence.shape[2]):
                continue
            if close(sequence[:, 0], vector):
                return "first", 0
            for skipped in range(min(MOST_SKIPPED, tokens - 1) + 1):
                if close(sequence[:, skipped:].mean(1), vector):
                    return "mean", skipped
    return "mean", 0


def calls(module: nn.Module, x: Tensor) -> list[Call]:
    """Watch the innermost layers of a module at work on ``x``, in order."""
    found: list[Call] = []

    def note(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        made = made[0] if isinstance(made, tuple) else made
        if given and isinstance(given[0], Tensor) and isinstance(made, Tensor):
            found.append(Call(layer, given[0].clone(), made.clone()))

    whole = nn.MultiheadAttention  # does not call what is inside it
    innermost = [p for p in module.modules() if isinstance(p, whole) or not any(True for _ in p.children())]
    hooks = [part.register_forward_hook(note) for part in innermost]
    with torch.no_grad():
        module(x.clone())
    for hook in hooks:
        hook.remove()
    return found


def working_size(module: nn.Module, x: Tensor) -> tuple[int, ...] | None:
    """Give height and width of the map that the last layer with weights makes, before any pooling; None for no map."""
    sizes = []
    for call in calls(module, x):
        axis = _axis_of(call.layer)
        if axis is not None and call.made.dim() == 4:
            sizes.append(tuple(call.made.movedim(axis, -1).shape[1:3]))
    return sizes[-1] if sizes else None


def stage_ends(names: Sequence[str], sizes: Sequence[tuple[int, ...] | None]) -> tuple[str, ...]:
    """Name the taps at which stages end: where the next segment works on maps of another size, or on none.

    Tokens and vectors have no such size: every tap is an end.
    """
    following = [*sizes[1:], None]
    return tuple(name for name, a, b in zip(names, sizes, following, strict=True) if b is None or a != b)


def chosen(ends: Sequence[str]) -> Sequence[str]:
    """Choose evenly among very many."""
    n = min(len(ends), MOST_STAGES)
    return [ends[(k + 1) * len(ends) // n - 1] for k in range(n)]
