"""Cut a network into a chain of segments, each with weights of its own, its head set apart.

Where the network cannot be opened it stays whole: a chain of one segment. What was cut is compared with the network
itself before it is used.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain as chained
from typing import Any

import torch
from torch import Tensor, nn

from autoxfer import tracing
from autoxfer.conventions import pooling, stage_ends, turned, working_size
from autoxfer.errors import InputError
from autoxfer.heads import Pool, close, split_head
from autoxfer.layout import channels_last
from autoxfer.opening import Named, Network, open_module, repeated


@dataclass(frozen=True)
class Chain:
    """A backbone as consecutive segments; the last one ends in the features (batch, n_features)."""

    names: tuple[str, ...]  # of the tap at each segment's end; the last is "last"
    segments: tuple[nn.Module, ...]  # in evaluation mode
    shapes: tuple[tuple[int, ...], ...]  # of the activation at each segment's end, without the batch
    head: nn.Linear | None  # the network's own, on the features
    aliases: Mapping[str, str]  # outer module path -> tap
    origins: tuple[Mapping[str, str], ...]  # per segment: name of a tensor there -> its name in the network
    channels_last: bool = False  # whether it takes maps in that layout
    pooling: tuple[str, int] = (
        "mean",
        0,
    )  # how the network's own head pools tokens, how many at the start it leaves out
    stages: tuple[str, ...] = ()  # the taps at which stages end; empty = all


def cut(network: nn.Module, shape: Sequence[int], *, n_classes: int | None = None, where: str = "source") -> Chain:
    """Cut a copy of ``network``, which reads (batch, *shape). Raises InputError where it does not run on that shape."""
    inputs = _examples(shape)
    reference = copy.deepcopy(network).eval()
    expected = [_run(reference, x, where) for x in inputs]
    for opened in (True, False):
        work = copy.deepcopy(network).eval()
        names = {id(tensor): name for name, tensor in tensors(work).items()}
        _set_inplace_off(work)
        fixed = _fixed_buffers(work, inputs[0])
        known = Network(repeated(work), partial(_given, work, inputs))
        parts = open_module(work, "", known) if opened else [("network", work)]
        try:
            parts = _settle(parts, inputs, fixed)
            if _agrees(parts, inputs, expected):
                is_free = _takes_channels_last(parts, inputs, expected)
                chain = _finish(parts, inputs[0], known.aliases, names, n_classes)
                return replace(chain, channels_last=is_free)
        except Exception:
            if not opened:
                raise
    raise InputError("a network that gives the same output twice in evaluation mode", "different outputs", where)


def _given(network: nn.Module, inputs: Sequence[Tensor], module: nn.Module) -> list[Tensor]:
    """Find what a module of the network is called with, for each of the inputs; nothing if not once, with a tensor."""
    seen: list[Any] = []
    hook = module.register_forward_pre_hook(lambda _, given: seen.extend(given[:1]))
    with torch.no_grad():
        for x in inputs:
            network(x.clone())
    hook.remove()
    return seen if len(seen) == len(inputs) and all(isinstance(each, Tensor) for each in seen) else []


def _settle(parts: Named, inputs: Sequence[Tensor], fixed: Collection[int]) -> Named:
    """Merge what may not be cut apart (a shared tensor, no tensor in between); protect inputs that would be changed."""
    parts = _merge_shared(parts, fixed)
    index = 0
    values: list[Any] = list(inputs)
    while index < len(parts):
        name, module = parts[index]
        with torch.no_grad():
            before = [value.clone() for value in values]
            after = [module(value) for value in values]
        if index + 1 < len(parts) and not all(
            _is_activation(value, x.shape[0]) for value, x in zip(after, inputs, strict=True)
        ):
            parts[index : index + 2] = [_merged(parts[index : index + 2])]  # the network's own output is one
            values = before
            continue
        if not all(torch.equal(a, b) for a, b in zip(before, values, strict=True)):
            parts[index] = (name, nn.Sequential(OrderedDict(copy=Copied(), body=module)))
        values, index = after, index + 1
    return parts


def _merge_shared(parts: Named, fixed: Collection[int]) -> Named:
    """Merge segments from the first to the last user of a tensor that several of them use, unless it never changes."""
    first: dict[int, int] = {}
    groups: list[Named] = []
    for name, module in parts:
        groups.append([(name, module)])
        used = {id(tensor) for tensor in chained(module.parameters(), module.buffers())} - set(fixed)
        start = min((first[tensor] for tensor in used if tensor in first), default=len(groups) - 1)
        groups[start:] = [[named for group in groups[start:] for named in group]]
        first = {tensor: min(group, start) for tensor, group in first.items()}
        first |= dict.fromkeys(used, start)
    return [_merged(group) for group in groups]


def _fixed_buffers(network: nn.Module, x: Tensor) -> set[int]:
    """Find the buffers that training leaves as they are, such as tables of positions."""
    trained = copy.deepcopy(network).train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trained(x.clone())
    except Exception:  # a network may not train on two examples
        return set()
    after = dict(trained.named_buffers())
    return {id(buffer) for name, buffer in network.named_buffers() if torch.equal(buffer, after[name])}


def _merged(group: Named) -> tuple[str, nn.Module]:
    if len(group) == 1:
        return group[0]
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for name, module in group:
        children[tracing.child_name(name, children)] = module
    return group[-1][0], nn.Sequential(children)


def _is_activation(value: Any, batch: int) -> bool:
    return isinstance(value, Tensor) and value.dim() >= 2 and value.shape[0] == batch and value.is_floating_point()


def _agrees(parts: Named, inputs: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    sequence = nn.Sequential(*(module for _, module in parts))
    with torch.no_grad():
        return all(close(sequence(x), y) for x, y in zip(inputs, expected, strict=True))


def _takes_channels_last(parts: Named, inputs: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether images may come with their channels last; a network that views its maps as vectors refuses them."""
    laid_out = [channels_last(x) for x in inputs]
    try:
        return inputs[0].dim() == 4 and _agrees(parts, laid_out, expected)
    except RuntimeError:
        return False


def _finish(
    parts: Named, x: Tensor, aliases: Mapping[str, str], names: Mapping[int, str], n_classes: int | None
) -> Chain:
    """Set the head apart, pool what is left to (batch, features), record shapes and where the tensors come from."""
    before = _activations(parts, x)
    name, last = parts[-1]
    body, head = split_head(last, before[-2], n_classes)
    parts = parts[:-1] if body is None else [*parts[:-1], (name, body)]
    if body is not None and head is not None and len(parts) > 1 and not tracing.matrices(list(body.parameters())):
        parts[-2:] = [(parts[-2][0], _merged(parts[-2:])[1])]
    if not parts or _activations(parts, x)[-1].dim() != 2:
        end = parts[-1:] or [("network", nn.Identity())]
        parts[-1:] = [(end[0][0], nn.Sequential(OrderedDict(body=end[0][1], pool=Pool())))]
    parts = turned(parts, _activations(parts, x))
    values = _activations(parts, x)
    ends = {name: f"{name}_" if name in ("input", "last") else name for name, _ in parts} | {parts[-1][0]: "last"}
    outer_names = {**aliases, **{name: name for name in ends}}
    names_of_taps = tuple(ends[name] for name, _ in parts)
    sizes = [working_size(module, value) for (_, module), value in zip(parts, values, strict=False)]
    return Chain(
        names=names_of_taps,
        segments=tuple(module for _, module in parts),
        shapes=tuple(tuple(value.shape[1:]) for value in values[1:]),
        head=None if head is None else head.eval().requires_grad_(False),
        aliases={outer: ends[name] for outer, name in outer_names.items() if ends.get(name, outer) != outer},
        origins=tuple(origins(module, names) for _, module in parts),
        pooling=pooling(parts[-1][1], values[-2], values[-2].shape[1]) if values[-2].dim() == 3 else ("mean", 0),
        stages=stage_ends(names_of_taps, sizes),
    )


def with_stages(chain: Chain, paths: Sequence[str]) -> Chain:
    """Call the taps where the modules at ``paths`` end by those names, the names that they had being aliases.

    They are the stages then, if any but the last tap is among them.
    """
    names = {chain.aliases.get(path, path): path for path in paths}
    new = {name: names[name] if name in names and name != "last" else name for name in chain.names}
    aliases = {alias: new[name] for alias, name in chain.aliases.items() if alias != new[name]}
    aliases |= {name: other for name, other in new.items() if name != other}
    ends = tuple(new[name] for name in chain.names if name in names or name == "last")
    stages = ends if len(ends) > 1 else chain.stages
    return replace(chain, names=tuple(new.values()), aliases=aliases, stages=stages)


def _activations(parts: Named, x: Tensor) -> list[Tensor]:
    values = [x]
    with torch.no_grad():
        for _, module in parts:
            values.append(module(values[-1]))
    return values


def origins(module: nn.Module, names: Mapping[int, str]) -> dict[str, str]:
    """Map a segment's tensors to their names in the network; constants that tracing made have none."""
    return {name: names[id(tensor)] for name, tensor in tensors(module).items() if id(tensor) in names}


class Copied(nn.Module):
    """Protects an activation from a segment that works in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Copy ``x``."""
        return x.clone()


def _set_inplace_off(module: nn.Module) -> None:
    """Activations are read from outside: no layer may overwrite what it was given."""
    for child in module.modules():
        if getattr(child, "inplace", False) is True:
            child.inplace = False  # type: ignore[assignment]


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that are not saved included."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _examples(shape: Sequence[int]) -> list[Tensor]:
    """Two batches of unequal size; noise of unit scale, drawn apart from the global random state."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((batch, *shape), generator=generator) for batch in (2, 3)]


def _run(network: nn.Module, x: Tensor, where: str) -> Tensor:
    y: Any
    try:
        with torch.no_grad():
            y = network(x.clone())  # it may work in place
    except Exception as error:
        size = "x".join(map(str, x.shape[1:]))
        raise InputError(
            f"a network that runs on its input shape {size}", f"{type(error).__name__}: {error}", where
        ) from error
    if not isinstance(y, Tensor) or not _is_activation(y, x.shape[0]):
        kind = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InputError("a network that returns one tensor (batch, ...)", kind, where)
    return y
