"""A network that looks at pictures, as transformers builds them, cut where its layers or stages begin and end.

One call is watched: what each module was given, beside the activation itself, stays what it was. What lies behind the
last layer (norms, pooling, slices written in plain code) is the network again, its layers letting pass what comes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoxfer.conventions import pooling, turned
from autoxfer.cutting import Chain, origins, tensors
from autoxfer.heads import close
from autoxfer.opening import Named
from autoxfer_builtins.hf_calls import Call, atoms_of, first_tensor, follow, holds, watch


@final
class Features(nn.Module):
    """A network, and the vector that is taken from what it returns."""

    def __init__(self, network: nn.Module, pick: str, n_prefix: int = 0) -> None:
        super().__init__()
        self.network, self.pick, self.n_prefix = network, pick, n_prefix

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width), or the activation that the network goes on with -> (batch, features)."""
        out = self.network(pixel_values=x, return_dict=True)
        if self.pick in ("logits", "pooler_output"):
            vector: Tensor = getattr(out, self.pick).flatten(1)
            return vector
        hidden: Tensor = out.last_hidden_state
        if self.pick == "cls":
            return hidden[:, 0]
        return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden[:, self.n_prefix :].mean(1)


@final
class Called(nn.Module):
    """A module with all that it was given beside the activation."""

    def __init__(self, module: nn.Module, leaves: Sequence[Any], spec: Any, place: int) -> None:
        super().__init__()
        self.module, self.spec, self.place = module, spec, place
        self.leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.constants = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and k != place]
        for k in self.constants:
            self.register_buffer(f"constant{k}", leaves[k].detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Call it."""
        leaves = list(self.leaves)
        leaves[self.place] = x
        for k in self.constants:
            leaves[k] = getattr(self, f"constant{k}")
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return first_tensor(self.module(*args, **kwargs))


@final
class Passed(nn.Module):
    """Stands where a module was: gives back what it is given, in the form that the module used.

    What the network's own code asks of the module (a size, a dtype) is answered by a copy without weights.
    """

    def __init__(self, module: nn.Module, returned: Any) -> None:
        super().__init__()
        self.returned, self.spec = pytree.tree_flatten(returned)
        self.returned = [isinstance(leaf, Tensor) or leaf for leaf in self.returned]
        self.__dict__["shell"] = _emptied(module)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__.get("shell"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Let the first tensor pass."""
        x = first_tensor((args, kwargs))
        return pytree.tree_unflatten([x if leaf is True else leaf for leaf in self.returned], self.spec)


def cut(network: nn.Module, pick: str, shape: Sequence[int], head: nn.Linear | None, n_prefix: int = 0) -> Chain:
    """Cut a copy of ``network``, which gives its features as ``pick`` says, and compare it with the network itself."""
    inputs = _examples(shape)
    work = copy.deepcopy(network).eval()
    with torch.no_grad():
        expected = [Features(work, pick, n_prefix)(x) for x in inputs]
    parts = _try_segments(copy.deepcopy(work), pick, n_prefix, inputs, expected)
    if parts is None:
        parts = [("last", Features(work, pick, n_prefix))], tensors(work)
    segments, own = parts
    names = {id(tensor): name for name, tensor in own.items()}
    segments = turned(segments, _values(segments, inputs[0]))
    values = _values(segments, inputs[0])
    return Chain(
        names=tuple(name for name, _ in segments),
        segments=tuple(module for _, module in segments),
        shapes=tuple(tuple(value.shape[1:]) for value in values[1:]),
        head=None if head is None else copy.deepcopy(head).eval().requires_grad_(False),
        aliases={},
        origins=tuple(origins(module, names) for _, module in segments),
        pooling=pooling(segments[-1][1], values[-2], values[-2].shape[1]) if values[-2].dim() == 3 else ("mean", 0),
    )


def _values(segments: Named, x: Tensor) -> list[Tensor]:
    values = [x]
    with torch.no_grad():
        for _, module in segments:
            values.append(module.eval()(values[-1]))
    return values


def _try_segments(
    work: nn.Module, pick: str, n_prefix: int, inputs: Sequence[Tensor], expected: Sequence[Tensor]
) -> tuple[Named, dict[str, Tensor]] | None:
    own = tensors(work)
    try:
        calls, atoms = watch(Features(work, pick, n_prefix), work, inputs[0]), atoms_of(work)
        chain = follow(calls, inputs[0], atoms)
        for call in calls:  # what else looks at the picture itself (its size, say) serves the layers alone
            inside = any(f"{call.path}.".startswith(f"{other.path}.") for other in chain)
            if call.given is inputs[0] and not inside and not holds(call.path, atoms):
                work.set_submodule(call.path, Passed(call.module, call.returned))
        segments = _segments(work, chain, atoms, pick, n_prefix)
        if segments is None:
            return None
        sequence = nn.Sequential(*(module for _, module in segments)).eval()
        with torch.no_grad():
            agrees = all(close(sequence(x), y) for x, y in zip(inputs, expected, strict=True))
    except Exception:  # a network of another kind may want anything
        return None
    return (segments, own) if agrees else None


def _segments(work: nn.Module, chain: list[Call], atoms: set[str], pick: str, n_prefix: int) -> Named | None:
    """Make embeddings, layers and what is left of a chain of calls; ``work`` keeps what is left."""
    last = max((k for k, call in enumerate(chain) if call.path in atoms), default=-1)
    if last < 0 or len({call.path for call in chain}) < len(chain):
        return None
    chain = chain[: last + 1]
    first = next(k for k, call in enumerate(chain) if call.path in atoms)
    called = [Called(call.module, call.leaves, call.spec, call.place) for call in chain]
    for call in chain:
        work.set_submodule(call.path, Passed(call.module, call.returned))
    segments: Named = [("embeddings", nn.Sequential(*called[:first]))] if first else []
    segments += [(name, part) for name, part in zip(_names(chain[first:]), called[first:], strict=True)]
    tail = Features(work, pick, n_prefix)
    return [*segments[:-1], ("last", nn.Sequential(segments[-1][1], tail))]


def _names(calls: Sequence[Call]) -> list[str]:
    """Name layers as the list in which they stand, "layer3"; by their whole paths where that is not clear."""
    short = ["".join((call.path.split(".")[-2].removesuffix("s"), call.path.split(".")[-1])) for call in calls]
    clear = len(set(short)) == len(short) and not any(name[0].isdecimal() for name in short)
    return short if clear else [call.path for call in calls]


def _emptied(module: nn.Module) -> nn.Module:
    """Copy a module without its weights, which are plain empty tensors then."""
    memo: dict[int, Any] = {id(tensor): torch.empty(0, dtype=tensor.dtype) for tensor in tensors(module).values()}
    shell = copy.deepcopy(module, memo)
    for part in shell.modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            part._parameters.pop(name, None)
            part._buffers.pop(name, None)
            part.__dict__[name] = value
    return shell


def _examples(shape: Sequence[int]) -> list[Tensor]:
    """Two batches of unequal size, drawn apart from the global random state."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((batch, *shape), generator=generator) for batch in (2, 3)]
