"""Open a module: its own forward as runs of nodes, each around one weight layer, wherever a single tensor is alive.

The children of an opened module stay whole (each may be opened in its turn), so that what depends on train or
evaluation mode keeps working. A module whose forward cannot be traced, or does something else in train mode than in
evaluation mode (functional dropout excepted, which becomes a module), is not opened.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

_DROPOUTS: dict[Any, type[_DropoutNd]] = {
    functional.dropout: nn.Dropout,
    functional.dropout1d: nn.Dropout1d,
    functional.dropout2d: nn.Dropout2d,
    functional.alpha_dropout: nn.AlphaDropout,
}
_CALLS = ("call_module", "call_function", "call_method")

Unit = list[fx.Node]  # nodes between two neighbouring points where a single tensor is alive


class Tracer(fx.Tracer):
    """Traces the forward of one module with one tensor; every child is a leaf, other arguments keep their defaults."""

    proxy_buffer_attributes = True
    param_shapes_constant = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Every child stays whole."""
        return True

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """One symbolic tensor; whatever else forward takes keeps its default."""
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]


def trace(module: nn.Module) -> fx.Graph | None:
    """Trace what ``module`` does in evaluation mode; None where it cannot be opened faithfully."""
    try:
        in_training = Tracer().trace(module.train())
        graph = Tracer().trace(module.eval())
    except Exception:  # user code may raise anything when it meets a symbolic value
        return None
    finally:
        module.eval()
    return graph if _reconcile(module, in_training, graph) else None


def _reconcile(module: nn.Module, in_training: fx.Graph, graph: fx.Graph) -> bool:
    """Turn functional dropout into modules; say whether nothing else depends on the mode."""
    pairs = list(zip(in_training.nodes, graph.nodes, strict=False))
    if len(in_training.nodes) != len(graph.nodes):
        return False
    twins = dict(pairs)
    dropouts = []
    for ours, theirs in pairs:
        if ours.target in _DROPOUTS and ours.kwargs.get("training") and not theirs.kwargs.get("training"):
            dropouts.append(theirs)
        elif not _same(module, ours, theirs, twins):
            return False
        elif theirs.kwargs.get("inplace") is True:
            theirs.update_kwarg("inplace", False)
    for index, node in enumerate(dropouts):
        name = f"dropout_{index}"
        while hasattr(module, name):
            name += "_"
        module.add_module(name, _DROPOUTS[node.target](float(node.kwargs.get("p", 0.5))))
        node.op, node.target, node.args, node.kwargs = "call_module", name, (node.all_input_nodes[0],), {}
    return True


def _same(module: nn.Module, ours: fx.Node, theirs: fx.Node, twins: dict[fx.Node, fx.Node]) -> bool:
    """Whether two nodes of the two modes do the same."""
    if ours.op != theirs.op:
        return False
    if ours.op == "get_attr":  # a constant made in forward is a new attribute each time
        a, b = (operator.attrgetter(str(node.target))(module) for node in (ours, theirs))
        return a is b or (
            isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and bool((a == b).all())
        )
    if ours.target != theirs.target:
        return False
    mapped = fx.node.map_arg((ours.args, ours.kwargs), lambda node: twins[node])
    return repr(mapped) == repr((theirs.args, theirs.kwargs))


def fix_sizes(module: nn.Module, graph: fx.Graph, examples: Callable[[], Sequence[Tensor]]) -> None:
    """Write numbers that every batch has alike, such as a map's height, into a graph that hands them to its children.

    Handed on from block to block beside the tensor, they would leave no place where one tensor alone is alive.
    ``examples`` gives what the module takes, in batches of different sizes.
    """
    depends = dependent(graph)
    calls = [node for node in graph.nodes if node.op == "call_module"]
    if not any(sum(given in depends for given in node.all_input_nodes) > 1 for node in calls):
        return
    seen = [_Sizes(module, graph).of(example) for example in examples()]
    found = seen[0] if seen else {}
    fixed = {node: size for node, size in found.items() if all(other.get(node) == size for other in seen)}
    for node in graph.nodes:
        node.args, node.kwargs = fx.node.map_arg((node.args, node.kwargs), lambda given: fixed.get(given, given))
    for node in reversed(graph.nodes):
        reads = node.target in (getattr, operator.getitem) or (node.op, node.target) == ("call_method", "size")
        if not node.users and (node in fixed or reads):
            graph.erase_node(node)


class _Sizes(fx.Interpreter):
    """Notes which nodes give whole numbers, or several of them."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self._found: dict[fx.Node, int | tuple[int, ...]] = {}

    def of(self, example: Tensor) -> dict[fx.Node, int | tuple[int, ...]]:
        """Run the graph once."""
        with torch.no_grad():
            self.run(example.clone())
        return self._found

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        value = super().run_node(n)
        several = isinstance(value, tuple | list) and value and all(type(each) is int for each in value)
        if type(value) is int or several:
            self._found[n] = tuple(value) if several else value
        return value


def units(graph: fx.Graph) -> list[Unit] | None:
    """Split the graph at every point where one tensor alone is alive; None where it does not return one value."""
    depends = dependent(graph)
    nodes = [node for node in graph.nodes if node.op in _CALLS and node in depends]
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    if not nodes or output.args[0] is not nodes[-1]:
        return None
    position = {node: index for index, node in enumerate(nodes)} | {output: len(nodes)}
    source = next(node for node in graph.nodes if node.op == "placeholder")

    def last_use(node: fx.Node) -> int:
        return max((position[user] for user in node.users), default=-1)

    found: list[Unit] = [[]]
    needed = last_use(source)
    for index, node in enumerate(nodes):
        found[-1].append(node)
        if needed <= index < last_use(node):
            found.append([])
        needed = max(needed, last_use(node))
    return found[:-1]


def dependent(graph: fx.Graph) -> set[fx.Node]:
    """Find what depends on the tensor that comes in; the rest is computed anew wherever it is needed."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(argument in found for argument in node.all_input_nodes):
            found.add(node)
    return found


def matrices(parameters: Sequence[nn.Parameter]) -> int:
    """Count the weight matrices and kernels; biases, norms and scales are none."""
    return sum(parameter.dim() >= 2 for parameter in parameters)


def weights(module: nn.Module, unit: Unit) -> int:
    """Count the weight matrices that a unit uses; a bare (1, ...) or (n, 1, ...) one is an offset or a scale."""
    count = 0
    for node in unit:
        if node.op == "call_module":
            count += matrices(list(module.get_submodule(str(node.target)).parameters()))
        for attribute in node.all_input_nodes:
            if attribute.op == "get_attr":
                value = operator.attrgetter(str(attribute.target))(module)
                count += isinstance(value, nn.Parameter) and value.numel() > value.shape[0] > 1
    return count


def plain_call(unit: Unit) -> str | None:
    """Find the child's path where a unit is nothing but one child called with the value before it."""
    (node, *others) = unit
    plain = not others and node.op == "call_module" and len(node.args) == 1 and not node.kwargs
    return str(node.target) if plain and isinstance(node.args[0], fx.Node) else None


def leads(module: nn.Module, unit: Unit) -> bool:
    """Whether a unit belongs to the layer that follows it: dropout and padding."""
    path = plain_call(unit)
    if path is None:
        return len(unit) == 1 and unit[0].target is functional.pad
    child = module.get_submodule(path)
    return isinstance(child, _DropoutNd) or type(child).__module__ == "torch.nn.modules.padding"


def runs(module: nn.Module, parts: list[Unit]) -> list[list[Unit]]:
    """Group units so that every run holds one unit with weights; what has none follows the one before."""
    grouped: list[list[Unit]] = [[]]
    weighted = False
    for unit in parts:
        if weights(module, unit):
            if weighted:
                grouped.append([])
                while leads(module, grouped[-2][-1]):
                    grouped[-1].insert(0, grouped[-2].pop())
            weighted = True
        grouped[-1].append(unit)
    return grouped


def assemble(module: nn.Module, run: list[Unit]) -> nn.Module:
    """Make a module of consecutive units: the child itself, a sequence of children, or a graph."""
    paths = [plain_call(unit) for unit in run]
    if len(paths) == 1 and paths[0] is not None:
        return module.get_submodule(paths[0])
    if all(path is not None for path in paths):
        children: OrderedDict[str, nn.Module] = OrderedDict()
        for path in paths:
            name = child_name(str(path), children)
            children[name] = module.get_submodule(str(path))
        return nn.Sequential(children)
    return _graph_module(module, [node for unit in run for node in unit])


def _graph_module(module: nn.Module, nodes: list[fx.Node]) -> fx.GraphModule:
    graph = fx.Graph()
    start = graph.placeholder("x")
    copies: dict[fx.Node, fx.Node] = {}
    own, depends = set(nodes), dependent(nodes[0].graph)

    def lookup(node: fx.Node) -> fx.Node:
        if node not in copies:
            if node in depends:
                copies[node] = start
            elif node.op == "get_attr":
                copies[node] = graph.get_attr(str(node.target))
            else:
                bring(node)
                copies[node] = graph.node_copy(node, lookup)
        return copies[node]

    def bring(node: fx.Node) -> None:
        """Put what a node needs before it."""
        for argument in node.all_input_nodes:
            if argument not in own:
                lookup(argument)

    for node in nodes:
        bring(node)
        copies[node] = graph.node_copy(node, lookup)
    graph.output(copies[nodes[-1]])
    return fx.GraphModule(module, graph, "Segment")


def child_name(path: str, taken: Any) -> str:
    """Make a name that a child of nn.Sequential may have."""
    name = path.replace(".", "_")
    while name in taken or hasattr(nn.Sequential, name):
        name += "_"
    return name
