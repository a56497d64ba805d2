"""Open a network into segments: as fine as its blocks, and no finer; a segment holds weights of its own."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import final

from torch import Tensor, nn

from autoxfer import tracing

Named = list[tuple[str, nn.Module]]


@final
@dataclass(frozen=True)
class Network:
    """What is known of the network that is opened, and of its names."""

    blocks: Collection[type]  # classes that it has several instances of
    given: Callable[[nn.Module], Sequence[Tensor]]  # what one of its modules is called with, in batches of two sizes
    aliases: dict[str, str] = field(default_factory=dict)  # outer module path -> segment; filled while it is opened


def open_module(module: nn.Module, prefix: str, network: Network) -> Named:
    """Make a chain of segments with weights; a block, or a module that cannot be opened, is one segment."""
    whole = [(prefix or "network", module)]
    if isinstance(module, nn.TransformerEncoder):
        return _layers(module, prefix) or whole
    graph = tracing.trace(module) if _has_inside(module) else None
    if graph is None:
        return whole
    tracing.fix_sizes(module, graph, lambda: network.given(module))
    parts = tracing.units(graph)
    if parts is None:
        return whole
    grouped = tracing.runs(module, parts)
    if prefix and _is_block(module, prefix, grouped, network.blocks):
        return whole
    segments = [named for run in grouped for named in _segments(module, prefix, run, network)]
    return whole if prefix and len(segments) < 2 else segments


def _layers(encoder: nn.TransformerEncoder, prefix: str) -> Named:
    """Take torch's own encoder apart, which cannot be traced; a mask it has none, since it is called with a tensor."""
    named = [(_join(prefix, f"layers.{index}"), layer) for index, layer in enumerate(encoder.layers)]
    if encoder.norm is not None and named:
        name, last = named[-1]
        named[-1] = (name, nn.Sequential(OrderedDict(layer=last, norm=encoder.norm)))
    return named


def _is_block(module: nn.Module, name: str, grouped: list[list[tracing.Unit]], blocks: Collection[type]) -> bool:
    """Whether it is one of several and not a stage: most of a stage's weights lie in blocks of its own."""
    numbered = name.rpartition(".")[2].isdigit() and not type(module).__module__.startswith("torch.nn.")
    if type(module) not in blocks and not numbered:
        return False
    units = [unit for run in grouped for unit in run]
    inside = [tracing.weights(module, unit) for unit in units if tracing.plain_call(unit) is not None]
    return 2 * sum(n for n in inside if n > 1) <= sum(tracing.weights(module, unit) for unit in units)


def repeated(network: nn.Module) -> set[type]:
    """Find the classes of the network's own, torch's left out, that it has several instances of."""
    counts = Counter(type(module) for module in network.modules())
    return {cls for cls, n in counts.items() if n > 1 and not cls.__module__.startswith("torch.nn.")}


def _segments(module: nn.Module, prefix: str, run: list[tracing.Unit], network: Network) -> Named:
    """Make the segments of one run: one, or several where the child that it is built around can be opened."""
    weighted = [index for index, unit in enumerate(run) if tracing.weights(module, unit)]
    if not weighted:
        return [(prefix or "network", tracing.assemble(module, run))]
    core = weighted[0]
    path = tracing.plain_call(run[core])
    name = _join(prefix, path or _last_weighted(module, run[core]))
    if path is not None and _openable(child := module.get_submodule(path)):
        inner = open_module(child, name, network)
        if len(inner) > 1:
            network.aliases[name] = inner[-1][0]
            _attach(module, inner, run[:core], run[core + 1 :])
            return inner
    return [(name, tracing.assemble(module, run))]


def _attach(module: nn.Module, inner: Named, lead: list[tracing.Unit], tail: list[tracing.Unit]) -> None:
    if lead:
        name, first = inner[0]
        inner[0] = (name, nn.Sequential(OrderedDict(lead=tracing.assemble(module, lead), body=first)))
    if tail:
        name, last = inner[-1]
        inner[-1] = (name, nn.Sequential(OrderedDict(body=last, tail=tracing.assemble(module, tail))))


def _openable(module: nn.Module) -> bool:
    """Whether it may hold more than one segment."""
    return _has_inside(module) and tracing.matrices(list(module.parameters())) > 1


def _has_inside(module: nn.Module) -> bool:
    """Whether it is made of layers; torch's own layers and composites (attention, a layer of an encoder) stay whole."""
    return isinstance(module, nn.Sequential | nn.TransformerEncoder) or not type(module).__module__.startswith(
        "torch.nn."
    )


def _last_weighted(module: nn.Module, unit: tracing.Unit) -> str:
    """Name a unit of several nodes after its last child with weights, or its last weight."""
    paths = [str(node.target) for node in unit if node.op == "call_module"]
    weighted = [path for path in paths if tracing.matrices(list(module.get_submodule(path).parameters()))]
    own = [str(used.target) for node in unit for used in node.all_input_nodes if used.op == "get_attr"]
    return (weighted or paths or own or ["body"])[-1]


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix else path
