"""Take a transformer of any kind apart: its embeddings, each of its layers, and what follows them.

Each part is the network itself, run by its own code on the hidden state (transformers' ``hidden_states``) that the part
before it gives, with everything that belongs to the other parts taken out. So masks, positions and rotations are the
network's own in each part: encoders and decoders are cut alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from autoxfer.tokens import PADDING

Segments = list[tuple[str, nn.Module]]


@final
class Embeddings(nn.Module):
    """Ids -> the tokens' vectors with their mask."""

    def __init__(self, network: nn.Module, pad: int) -> None:
        super().__init__()
        self.network, self.pad = network, pad

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) -> (batch, tokens, width + 1)."""
        there = ids != PADDING
        filled = torch.where(there, ids, self.pad).long()
        hidden = self.network(input_ids=filled, attention_mask=seen(there), return_dict=True).last_hidden_state
        return torch.cat([hidden, there[:, :, None].to(hidden.dtype)], -1)


@final
class Layer(nn.Module):
    """One layer, which attends only to the tokens that there are; the last one of a chain pools what it gives."""

    def __init__(self, network: nn.Module, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.pool = network, pool

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width + 1) -> the same, or (batch, width)."""
        there = x[..., -1]
        made = self.network(inputs_embeds=x[..., :-1], attention_mask=seen(there), return_dict=True)
        hidden: Tensor = made.last_hidden_state
        if self.pool is None:
            return torch.cat([hidden, x[..., -1:]], -1)
        pooled: Tensor = self.pool(hidden, there)
        return pooled


def seen(there: Tensor) -> Tensor:
    """Say which tokens may be looked at; the first always, so that an empty text has something to look at."""
    return torch.cat([torch.ones_like(there[:, :1]), there[:, 1:]], 1).long()


@final
class Skipped(nn.Module):
    """Stands for a layer of another part: hands on what comes, in the form in which the layer would."""

    def __init__(self, layer: nn.Module, *, in_tuple: bool) -> None:
        super().__init__()
        self.in_tuple = in_tuple
        for name, value in vars(layer).items():  # networks ask their layers which attention is theirs
            if isinstance(value, str | int | float) and name not in vars(self):
                setattr(self, name, value)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """Do nothing."""
        return (hidden_states,) if self.in_tuple else hidden_states


@final
class Embedded(nn.Module):
    """Stands for embeddings where the hidden state is given: hands that on, or adds nothing to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Find the hidden state among the arguments; where there are only ids or positions, give zeros."""
        found = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        for value in found:
            if value.is_floating_point() and value.dim() == 3:
                return value
        return found[0].new_zeros((*found[0].shape, self.width), dtype=torch.float32)


def segments(network: Any, pad: int, pool: nn.Module, ids: Tensor) -> Segments | None:
    """Take ``network`` apart, which loses its weights to the segments; None where it has no list of layers."""
    path = _find_layers(network)
    if path is None:
        return None
    network.config.use_cache = False
    layers: Any = network.get_submodule(path)
    before, after, outputs = _watch(network, path, lambda: Embeddings(network, pad)(ids))
    own = list(layers)
    if len(outputs) != len(own):
        return None  # layers that work several times
    for index, layer in enumerate(own):
        layers[index] = Skipped(layer, in_tuple=isinstance(outputs[0], tuple))
    starts = {name: network.get_submodule(name) for name in before}
    ends = {name: network.get_submodule(name) for name in after}
    for name in (*before, *after):
        network.set_submodule(name, nn.Identity())
    found: Segments = [("embeddings", Embeddings(_with(network, starts), pad))]
    width = (outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]).shape[-1]
    for name, module in starts.items():
        if not isinstance(module, nn.Dropout):
            network.set_submodule(name, Embedded(width))
    for index, layer in enumerate(own[:-1]):
        found.append((f"layer{index}", Layer(_with(network, {f"{path}.{index}": layer}))))
    last = _with(network, {f"{path}.{len(own) - 1}": own[-1], **ends})
    return [*found, ("last", Layer(last, pool))]


def _find_layers(network: nn.Module) -> str | None:
    """Find the list of modules of one class that holds most of the weights."""
    sizes = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and len({type(layer) for layer in module}) == 1:
            sizes[path] = sum(parameter.numel() for parameter in module.parameters())
    return max(sizes, key=lambda path: sizes[path], default=None)


def _watch(network: nn.Module, path: str, run: Callable[[], Any]) -> tuple[list[str], list[str], list[Any]]:
    """Run the network: which modules beside its layers work before these, which after them; what layers return."""
    before: list[str] = []
    after: list[str] = []
    outputs: list[Any] = []
    steps = path.split(".")
    layers: Any = network.get_submodule(path)
    hooks = [layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in layers]

    def note(name: str) -> Any:
        return lambda *_: (after if outputs else before).append(name)

    for depth, step in enumerate(steps):
        above = ".".join(steps[:depth])
        for name, child in network.get_submodule(above).named_children():
            works = isinstance(child, nn.Dropout) or any(True for _ in child.parameters())
            if name != step and works:
                hooks.append(child.register_forward_hook(note(f"{above}.{name}".lstrip("."))))
    run()
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(before)), list(dict.fromkeys(after)), outputs


def _with(network: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """Copy a network whose weights are taken out, and put some of them, themselves, back."""
    copied = copy.deepcopy(network)
    for name, module in parts.items():
        copied.set_submodule(name, module)
    return copied
