"""Watch a network of transformers at work: which module was given what, and where the activation went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(eq=False)
class Call:
    """A module's call: what it was given, and what it gave back."""

    path: str
    module: nn.Module
    leaves: list[Any]
    spec: Any
    place: int  # of the activation among the leaves
    returned: Any = None

    @property
    def given(self) -> Any:
        """Give the activation."""
        return self.leaves[self.place]


def atoms_of(network: nn.Module) -> set[str]:
    """Find the layers: what stands in a list, and in no layer itself."""
    lists = [path for path, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    found = {f"{path}.{k}" for path in lists for k, _ in enumerate(network.get_submodule(path).children())}
    return {path for path in found if not any(path.startswith(f"{other}.") for other in found)}


def watch(caller: nn.Module, network: nn.Module, x: Tensor) -> list[Call]:
    """Call it, and note every module's call in the order in which they begin."""
    calls: list[Call] = []
    running: list[Call | None] = []

    def before(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            leaves, spec = pytree.tree_flatten((args, kwargs))
            place = next((k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), None)
            running.append(None if place is None else Call(path, module, leaves, spec, place))
            calls.extend(running[-1:] if running[-1] is not None else [])  # type: ignore[arg-type]

        return hook

    def after(module: nn.Module, args: Any, kwargs: Any, returned: Any) -> None:
        call = running.pop()
        if call is not None:
            call.returned = returned

    hooks: list[Any] = []
    for path, module in network.named_modules():
        if path:
            hooks.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            hooks.append(module.register_forward_hook(after, with_kwargs=True))
    caller(x)  # with gradients: what was computed from weights can be told from what is constant
    for hook in hooks:
        hook.remove()
    return calls


def follow(calls: Sequence[Call], x: Tensor, atoms: set[str]) -> list[Call]:
    """Follow the activation from call to call, into what holds layers and into nothing else."""
    found: list[Call] = []
    current: Any = x
    for call in calls:
        inside = found and call.path.startswith(f"{found[-1].path}.")
        if inside or holds(call.path, atoms) or call.given is not current or not _is_constant_beside(call):
            continue
        found.append(call)
        current = first_tensor(call.returned)
    return found


def holds(path: str, atoms: set[str]) -> bool:
    """Whether layers stand inside."""
    return path not in atoms and any(atom.startswith(f"{path}.") for atom in atoms)


def _is_constant_beside(call: Call) -> bool:
    return not any(isinstance(v, Tensor) and v.requires_grad for k, v in enumerate(call.leaves) if k != call.place)


def first_tensor(value: Any) -> Tensor:
    """Find the first tensor among what a module was given, or gave back."""
    return next(leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))
