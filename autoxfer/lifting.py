"""A network from an exported program: its layers are modules again, so that it can be cut, trained and made anew.

``torch.export`` leaves a flat list of operations on tensors. Here an operation with weights becomes the layer that it
came from (and dropout, which does nothing in a program, works again in training); everything else is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from autoxfer.layering import LAYERS, activation, filled, inner, is_constant, layer_of
from autoxfer.tracing import child_name

ATEN = torch.ops.aten
_SHAPES = (ATEN.view.default, ATEN.reshape.default)


@dataclass(frozen=True)
class Lifted:
    """A program's network from natural examples on."""

    network: fx.GraphModule  # natural batch -> logits, or predictions in the label's own units
    body: fx.GraphModule  # natural batch -> features (batch, n_features), or the same where there is no head
    head: nn.Linear | None  # features -> what the network gives
    shape: tuple[int, ...]  # of one natural example


def lift(program: torch.export.ExportedProgram, unpack: str) -> Lifted:
    """Lift what follows the module at the path ``unpack``, which turns stored examples into natural ones.

    A linear end is set apart as the head; that of two branches, whose outputs are added, is one head on both.
    """
    module: Any = program.module()
    work = _Lifting(module, unpack)
    outputs = next(node for node in module.graph.nodes if node.op == "output").args[0]
    end, scale, shift = _before_link(outputs[0], work.constant)
    terms = _terms(end)
    if terms is None:
        network = work.network(work.copied(end))
        return Lifted(network, network, None, work.shape)
    parts = [work.copied(x) for x, _, _ in terms]
    features = parts[0] if len(parts) == 1 else work.graph.call_function(torch.cat, (parts, 1))
    head = _joined([(work.constant(w), None if b is None else work.constant(b)) for _, w, b in terms], scale, shift)
    return Lifted(work.network(features, head), work.network(features), head, work.shape)


class _Lifting:
    """A graph under way, from the program's to the network's."""

    def __init__(self, module: nn.Module, unpack: str) -> None:
        self.module = module
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.known: dict[fx.Node, fx.Node] = {}
        self.n_dropouts = 0
        graph: Any = module.graph
        stored = next(node for node in graph.nodes if node.op == "placeholder")
        inside = [node for node in graph.nodes if node.op == "call_function" and _is_in(node, unpack)]
        natural = next((node for node in reversed(inside) if _is_batch(node)), stored)
        self.order = {node: place for place, node in enumerate(graph.nodes)}
        self.batches = [node for node in graph.nodes if _is_batch(node) and self.order[node] >= self.order[natural]]
        self.shape = tuple(int(size) for size in natural.meta["val"].shape[1:])
        self.known[natural] = self.graph.placeholder("x")

    def constant(self, node: Any) -> Tensor:
        """Look up a parameter or buffer of the program. Raises TypeError for anything else."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            raise TypeError(f"{node} is no constant")
        return _attribute(self.module, str(node.target))

    def copied(self, node: fx.Node) -> fx.Node:
        """Copy a node with all that it needs, in the program's order."""
        needed, waiting = set[fx.Node](), [node]
        while waiting:
            current = waiting.pop()
            if current in needed or current in self.known or _is_size(current):
                continue
            needed.add(current)
            waiting += current.all_input_nodes if layer_of(current) is None else [activation(current)]
        for current in sorted(needed, key=self.order.__getitem__):
            self.known[current] = self._copy(current)
        return self.known[node]

    def network(self, end: fx.Node, head: nn.Linear | None = None) -> fx.GraphModule:
        """Make the network that ends in a node, or in a head on it."""
        graph, known = fx.Graph(), dict[fx.Node, fx.Node]()
        graph.graph_copy(self.graph, known)
        last, root = known[end], self.root
        if head is not None:
            root = nn.Module()
            root._modules.update(self.root._modules)
            root._parameters.update(self.root._parameters)
            root._buffers.update(self.root._buffers)
            name = child_name("head", root._modules)
            root.add_module(name, head)
            last = graph.call_module(name, (last,))
        graph.output(last)
        return fx.GraphModule(root, graph, "Lifted").eval()

    def _copy(self, node: fx.Node) -> fx.Node:
        if node.op == "get_attr":
            _register(self.root, inner(node), _attribute(self.module, str(node.target)))
            return self.graph.get_attr(inner(node))
        if node.op != "call_function":
            raise ValueError(f"a program with a {node.op} cannot be lifted")
        path = layer_of(node)
        if path is not None:
            return self._layer(node, path)
        args = _with_free_batch(node) if node.target in _SHAPES else node.args
        args, kwargs = fx.node.map_arg((args, dict(node.kwargs)), lambda each: self._mapped(each, node))
        args, kwargs = fx.node.map_aggregate((args, kwargs), lambda each: self._placed(each, node))
        return self.graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]

    def _placed(self, value: Any, user: fx.Node) -> Any:
        """Put what a program makes by itself (a range, a mask) where the batch is, not where it was exported."""
        return self.graph.call_function(getattr, (self._latest(user), "device")) if _is_device(value) else value

    def _latest(self, user: fx.Node) -> fx.Node:
        """Find the last batch before a node."""
        latest = [each for each in self.batches if self.order[each] < self.order[user] and each in self.known]
        return self.known[latest[-1]]

    def _mapped(self, node: fx.Node, user: fx.Node) -> fx.Node:
        """Find the copy of a value; a size is asked of the latest batch, so that nothing else has to stay alive."""
        if not _is_size(node):
            return self.known[node]
        if node.target is ATEN.sym_size.int:
            return self.graph.call_function(ATEN.sym_size.int, (self._latest(user), 0))
        args = fx.node.map_arg(node.args, lambda each: self._mapped(each, user))
        return self.graph.call_function(node.target, args)  # type: ignore[arg-type]

    def _layer(self, node: fx.Node, path: str) -> fx.Node:
        """Make a layer of an operation, once for all operations with its weights."""
        if not path:
            self.n_dropouts += 1
            path = f"dropout_{self.n_dropouts}"
            self.root.add_module(path, nn.Dropout(float(node.args[1])))  # type: ignore[arg-type]
        if _find(self.root, path) is None:
            values = [self.constant(each) if is_constant(each) else each for each in node.args]
            _put(self.root, path, LAYERS[node.target].make(values))
        return self.graph.call_module(path, (self.known[activation(node)],))


def _before_link(node: Any, constant: Callable[[Any], Tensor]) -> tuple[fx.Node, Any, Any]:
    """Walk back over what turns a linear answer into what users read: softmax, sigmoid, the label's own units."""
    scale: Any = 1.0
    shift: Any = 0.0
    while True:
        if node.target in (ATEN.softmax.int, ATEN.sigmoid.default):
            node = node.args[0]
        elif node.target in (ATEN.mul.Tensor, ATEN.div.Tensor, ATEN.add.Tensor) and _is_fixed(node.args[1]):
            value = constant(node.args[1]) if isinstance(node.args[1], fx.Node) else node.args[1]
            if node.target is ATEN.add.Tensor:
                shift = shift + value * scale
            else:
                scale = scale * (value if node.target is ATEN.mul.Tensor else 1.0 / value)
            node = node.args[0]
        else:
            return node, scale, shift


def _terms(node: Any) -> list[tuple[fx.Node, Any, Any]] | None:
    """Find the linear layers whose outputs add up to ``node``; None where that is not what it is."""
    if node.target is ATEN.linear.default and is_constant(node.args[1]):
        x, weight, bias = (*node.args, None)[:3]
        return [(x, weight, bias)] if bias is None or is_constant(bias) else None
    if node.target is ATEN.add.Tensor and not node.kwargs and all(isinstance(each, fx.Node) for each in node.args):
        one, other = (_terms(each) for each in node.args)
        return None if one is None or other is None else [*one, *other]
    return None


def _joined(terms: Sequence[tuple[Tensor, Tensor | None]], scale: Any, shift: Any) -> nn.Linear:
    """Make one linear layer of several that are added, and of the units that its answer is turned into."""
    weight = torch.cat([weight for weight, _ in terms], 1)
    bias = torch.stack([torch.zeros(len(weight)) if b is None else b for _, b in terms]).sum(0)
    head = nn.Linear(weight.shape[1], weight.shape[0])
    column = scale.reshape(-1, 1) if isinstance(scale, Tensor) else scale
    row = scale.reshape(-1) if isinstance(scale, Tensor) else scale
    return filled(head, weight=weight * column, bias=bias * row + shift)  # type: ignore[return-value]


def _with_free_batch(node: fx.Node) -> tuple[Any, ...]:
    """Let the batch's size follow from the others in a new shape."""
    value, shape = node.args
    sizes = list(shape)  # type: ignore[arg-type]
    free = [place for place, size in enumerate(sizes) if isinstance(size, fx.Node)]
    if len(free) == 1 and -1 not in sizes:
        sizes[free[0]] = -1
    return value, sizes


def _is_in(node: fx.Node, path: str) -> bool:
    return any(str(where[0]) == path for where in (node.meta.get("nn_module_stack") or {}).values())


def _is_batch(node: fx.Node) -> bool:
    """Whether it is a tensor with one row for each example."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dim() >= 2 and isinstance(value.shape[0], torch.SymInt)


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt)


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device)


def _is_fixed(value: Any) -> bool:
    return isinstance(value, int | float) or is_constant(value)


def _attribute(module: nn.Module, path: str) -> Tensor:
    parent, _, name = path.rpartition(".")
    value = getattr(module.get_submodule(parent), name)
    assert isinstance(value, Tensor)
    return value


def _find(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    _container(root, parent).add_module(name, module)


def _container(root: nn.Module, path: str) -> nn.Module:
    for name in filter(None, path.split(".")):
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _register(root: nn.Module, path: str, value: Tensor) -> None:
    parent, _, name = path.rpartition(".")
    place, own = _container(root, parent), torch.zeros(value.shape, dtype=value.dtype).copy_(value.detach())
    if isinstance(value, nn.Parameter):
        place.register_parameter(name, nn.Parameter(own))
    else:
        place.register_buffer(name, own)
