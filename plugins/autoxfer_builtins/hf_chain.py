"""A transformer that reads text, as a chain of segments: embeddings, layers, pooled features.

Between two segments the tokens' vectors carry their mask as one more channel: (batch, tokens, width + 1), 1 where a
token is and 0 where the text has ended. So a segment needs nothing but what the one before it gives.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer.cutting import Chain, origins, tensors
from autoxfer.heads import close
from autoxfer.tokens import PADDING

POOLINGS = ("mean", "cls", "last")
LAYERS = ("encoder.layer", "transformer.layer", "encoder.layers", "layers")  # where networks keep their layers


class Pooled(nn.Module):
    """One vector of a text from those of its tokens."""

    def __init__(self, kind: str, *, normalise: bool) -> None:
        super().__init__()
        self.kind, self.normalise = kind, normalise

    def forward(self, hidden: Tensor, there: Tensor) -> Tensor:
        """(batch, tokens, width), (batch, tokens) -> (batch, width)."""
        if self.kind == "cls":
            pooled = hidden[:, 0]
        elif self.kind == "last":
            last = (there.sum(1).long() - 1).clamp(min=0)
            pooled = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        else:
            pooled = (hidden * there[:, :, None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1.0)
        return functional.normalize(pooled, dim=1) if self.normalise else pooled


@final
class Embeddings(nn.Module):
    """Ids -> the tokens' vectors with their mask."""

    def __init__(self, embeddings: nn.Module, pad: int) -> None:
        super().__init__()
        self.embeddings, self.pad = embeddings, pad

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) -> (batch, tokens, width + 1)."""
        there = ids != PADDING
        hidden = self.embeddings(torch.where(there, ids, self.pad).long())
        return torch.cat([hidden, there[:, :, None].to(hidden.dtype)], -1)


@final
class Layer(nn.Module):
    """One layer, which attends only to the tokens that there are; the last one of a chain pools what it gives."""

    def __init__(self, layer: nn.Module, pool: Pooled | None = None) -> None:
        super().__init__()
        self.layer, self.pool = layer, pool

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width + 1) -> the same, or (batch, width)."""
        there = x[..., -1]
        ignored = (1.0 - there)[:, None, None, :] * torch.finfo(x.dtype).min
        # One mask for every token that looks: the fast kernels of attention want it in full.
        out = self.layer(x[..., :-1], attention_mask=ignored.expand(-1, -1, x.shape[1], -1))
        hidden: Tensor = out[0] if isinstance(out, tuple) else out
        return torch.cat([hidden, x[..., -1:]], -1) if self.pool is None else self.pool(hidden, there)


@final
class Whole(nn.Module):
    """A network that cannot be cut: ids -> pooled features."""

    def __init__(self, network: nn.Module, pad: int, pool: Pooled) -> None:
        super().__init__()
        self.network, self.pad, self.pool = network, pad, pool

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) -> (batch, width)."""
        there = ids != PADDING
        filled = torch.where(there, ids, self.pad).long()
        hidden = self.network(input_ids=filled, attention_mask=there.long(), return_dict=True).last_hidden_state
        pooled: Tensor = self.pool(hidden, there.to(hidden.dtype))
        return pooled


def cut(network: nn.Module, pad: int, pool: Pooled, length: int, n_ids: int) -> Chain:
    """Cut a copy of ``network``, which reads ids (batch, length), and compare it with the network itself."""
    work = copy.deepcopy(network).eval()
    names = {id(tensor): name for name, tensor in tensors(work).items()}
    ids = _examples(min(length, 12), n_ids)
    with torch.no_grad():
        expected = Whole(work, pad, pool)(ids)
        segments = _segments(work, pad, pool)
        if segments is None or not _agrees([module for _, module in segments], ids, expected):
            segments = [("last", Whole(work, pad, pool))]
        values = [ids]
        for _, module in segments:
            values.append(module.eval()(values[-1]))
    return Chain(
        names=tuple(name for name, _ in segments),
        segments=tuple(module for _, module in segments),
        shapes=tuple((length, *value.shape[2:]) if value.dim() == 3 else (value.shape[1],) for value in values[1:]),
        head=None,
        aliases={},
        origins=tuple(origins(module, names) for _, module in segments),
    )


def _segments(network: nn.Module, pad: int, pool: Pooled) -> list[tuple[str, nn.Module]] | None:
    """Find embeddings and layers where encoders keep them; None where this network does not."""
    embeddings = getattr(network, "embeddings", None)
    for path in LAYERS:
        try:
            layers: Any = network.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(embeddings, nn.Module) and isinstance(layers, nn.ModuleList) and len(layers):
            found: list[tuple[str, nn.Module]] = [("embeddings", Embeddings(embeddings, pad))]
            found += [(f"layer{k}", Layer(layer)) for k, layer in enumerate(layers[:-1])]
            return [*found, ("last", Layer(layers[-1], pool))]
    return None


def _agrees(modules: Sequence[nn.Module], ids: Tensor, expected: Tensor) -> bool:
    try:
        return close(nn.Sequential(*modules)(ids), expected)
    except Exception:  # a network of another kind may want anything
        return False


def _examples(length: int, n_ids: int) -> Tensor:
    """Texts of several lengths, (4, length) int32, drawn apart from the global random state."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(n_ids, (4, length), generator=generator, dtype=torch.int32)
    for row, kept in enumerate((length, max(1, length // 2), 1, max(1, length - 1))):
        ids[row, kept:] = PADDING
    return ids
