"""Which layer an operation of an exported program came from, and that layer with the operation's weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

ATEN = torch.ops.aten


@dataclass(frozen=True)
class Layer:
    """What an operation is made into, and which of its arguments are what."""

    make: Callable[[Sequence[Any]], nn.Module]
    weight: int
    bias: int = 2
    given: int = 0


def layer_of(node: fx.Node) -> str | None:
    """Find the path of the layer that an operation came from: empty for dropout, None where it was none."""
    if node.target is ATEN.dropout.default:
        return ""
    kind = LAYERS.get(node.target)
    if kind is None or kind.weight >= len(node.args) or not is_constant(node.args[kind.weight]):
        return None
    path, _, last = inner(node.args[kind.weight]).rpartition(".")
    bias = node.args[kind.bias] if kind.weight < kind.bias < len(node.args) else None
    own = not isinstance(bias, fx.Node) or inner(bias) == f"{path}.bias"
    return path if path and last == "weight" and own else None


def activation(node: fx.Node) -> fx.Node:
    """Find the operation's argument that is no weight."""
    kind = LAYERS.get(node.target)
    given = node.args[0 if kind is None else kind.given]
    assert isinstance(given, fx.Node)
    return given


def _linear(args: Sequence[Any]) -> nn.Module:
    weight, bias = args[1], _at(args, 2)
    return filled(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight=weight, bias=bias)


def _conv2d(args: Sequence[Any]) -> nn.Module:
    weight, bias, groups = args[1], _at(args, 2), _at(args, 6, 1)
    stride, padding, dilation = _at(args, 3, [1, 1]), _at(args, 4, [0, 0]), _at(args, 5, [1, 1])
    made = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        tuple(stride),
        tuple(padding),
        tuple(dilation),
        groups,
        bias=bias is not None,
    )
    return filled(made, weight=weight, bias=bias)


def _batch_norm(args: Sequence[Any]) -> nn.Module:
    x, weight, bias, mean, var, _, momentum, eps, _ = args
    kind = nn.BatchNorm2d if x.meta["val"].dim() == 4 else nn.BatchNorm1d
    made = kind(len(weight), eps=eps, momentum=momentum)
    return filled(made, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _layer_norm(args: Sequence[Any]) -> nn.Module:
    bias = _at(args, 3)
    made = nn.LayerNorm(list(args[1]), eps=_at(args, 4, 1e-5), bias=bias is not None)
    return filled(made, weight=args[2], bias=bias)


def _group_norm(args: Sequence[Any]) -> nn.Module:
    made = nn.GroupNorm(args[1], len(args[2]), eps=_at(args, 4, 1e-5))
    return filled(made, weight=args[2], bias=_at(args, 3))


def _embedding(args: Sequence[Any]) -> nn.Module:
    weight, padding = args[0], _at(args, 2, -1)
    made = nn.Embedding(weight.shape[0], weight.shape[1], padding_idx=padding if padding >= 0 else None)
    return filled(made, weight=weight)


def _at(args: Sequence[Any], place: int, default: Any = None) -> Any:
    return args[place] if place < len(args) else default


# operation -> its layer, and which arguments are weight, bias and activation
LAYERS: Mapping[Any, Layer] = {
    ATEN.linear.default: Layer(_linear, 1),
    ATEN.conv2d.default: Layer(_conv2d, 1),
    ATEN.batch_norm.default: Layer(_batch_norm, 1),
    ATEN.layer_norm.default: Layer(_layer_norm, 2, 3),
    ATEN.group_norm.default: Layer(_group_norm, 2, 3),
    ATEN.embedding.default: Layer(_embedding, 0, 0, 1),
}


def filled(layer: nn.Module, **state: Tensor | None) -> nn.Module:
    """Copy weights into a layer."""
    with torch.no_grad():
        for name, value in state.items():
            if value is not None:
                getattr(layer, name).copy_(value)
    return layer


def is_constant(node: Any) -> bool:
    """Whether it is a parameter or a buffer."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def inner(node: Any) -> str:
    """Name a constant's place inside the one module that a program of ours wraps."""
    return str(node.target).removeprefix("module.")


def anew(network: nn.Module) -> nn.Module:
    """Copy a lifted network, newly initialised under torch's current random state: layers as torch makes them.

    A parameter that stands in no layer (a class token, positions, a scale) is drawn small, or set to its mean.
    """
    fresh = copy.deepcopy(network)
    for part in fresh.modules():
        reset: Any = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
            continue
        for parameter in part.parameters(recurse=False):
            with torch.no_grad():
                parameter.normal_(0.0, 0.02) if parameter.dim() > 1 else parameter.fill_(float(parameter.mean()))
    return fresh
