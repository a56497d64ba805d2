"""A transformer that reads text, as a chain of segments: embeddings, layers, pooled features.

Between two segments the tokens' vectors carry their mask as one more channel: (batch, tokens, width + 1), 1 where a
token is and 0 where the text has ended. So a segment needs nothing but what the one before it gives.
"""

from __future__ import annotations

import copy
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer.cutting import Chain, origins, tensors
from autoxfer.heads import close
from autoxfer.tokens import PADDING
from autoxfer_builtins.hf_layers import Segments, seen, segments

POOLINGS = ("mean", "cls", "max", "last")


class Pooled(nn.Module):
    """One vector of a text from those of its tokens."""

    def __init__(self, kind: str, *, normalise: bool, after: nn.Module | None = None) -> None:
        super().__init__()
        self.kind, self.normalise, self.after = kind, normalise, after

    def forward(self, hidden: Tensor, there: Tensor) -> Tensor:
        """(batch, tokens, width), (batch, tokens) -> (batch, features)."""
        if self.kind == "cls":
            pooled = hidden[:, 0]
        elif self.kind == "last":
            last = (there.sum(1).long() - 1).clamp(min=0)
            pooled = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        elif self.kind == "max":
            lowest = torch.finfo(hidden.dtype).min
            kept = torch.where(there[:, :, None] > 0, hidden, lowest).amax(1)
            pooled = torch.where(there.sum(1, keepdim=True) > 0, kept, 0.0)
        else:
            pooled = (hidden * there[:, :, None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1.0)
        pooled = pooled if self.after is None else self.after(pooled)
        return functional.normalize(pooled, dim=1) if self.normalise else pooled


@final
class Judged(nn.Module):
    """What a checkpoint's classifier reads, from the vectors of a text's tokens: its own code, the backbone left out.

    Takes the backbone's place there with what the backbone would have given; its pooler, where the classifier reads
    that, comes along.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    @classmethod
    def of(cls, network: Any, base: Any, pad: int, *, trusted: bool) -> tuple[Judged, nn.Linear] | None:
        """Take the head off, and compare with the network itself unless ``trusted``; None where that fails."""
        whole = None if trusted else copy.deepcopy(network).eval()
        linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
        outside = [path for path in linear if not path.startswith(f"{network.base_model_prefix}.")]
        if not outside:
            return None
        head: Any = network.get_submodule(outside[-1])
        network.set_submodule(outside[-1], nn.Identity())
        setattr(network, network.base_model_prefix, _Given(getattr(base, "pooler", None)))
        judged = cls(network)
        if whole is not None and not judged._agrees(whole, base, head, pad):
            return None
        return judged, head

    def _agrees(self, whole: Any, base: Any, head: nn.Linear, pad: int) -> bool:
        ids = _examples(8, int(base.get_input_embeddings().weight.shape[0]))
        there = ids != PADDING
        filled = torch.where(there, ids, pad).long()
        try:
            with torch.no_grad():
                expected = whole(input_ids=filled, attention_mask=there.long(), return_dict=True).logits
                hidden = base(input_ids=filled, attention_mask=there.long(), return_dict=True).last_hidden_state
                return close(head(self.eval()(hidden, there.to(hidden.dtype))), expected)
        except Exception:  # a classifier of another kind may want anything
            return False

    def forward(self, hidden: Tensor, there: Tensor) -> Tensor:
        """(batch, tokens, width), (batch, tokens) -> (batch, what the classifier reads)."""
        out: Tensor = self.network(inputs_embeds=hidden, attention_mask=there.long(), return_dict=True).logits
        return out


class _Given(nn.Module):
    """Gives back what it is given as if it had computed it."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling  # noqa: PLC0415 - heavy

        pooled: Any = None if self.pooler is None else self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


Pooling = Pooled | Judged


@final
class Whole(nn.Module):
    """A network that cannot be cut: ids -> pooled features."""

    def __init__(self, network: nn.Module, pad: int, pool: Pooling) -> None:
        super().__init__()
        self.network, self.pad, self.pool = network, pad, pool

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) -> (batch, width)."""
        there = ids != PADDING
        filled = torch.where(there, ids, self.pad).long()
        hidden = self.network(input_ids=filled, attention_mask=seen(there), return_dict=True).last_hidden_state
        pooled: Tensor = self.pool(hidden, there.to(hidden.dtype))
        return pooled


def cut(body: nn.ModuleList, pad: int, length: int, n_ids: int, head: nn.Linear | None = None) -> Chain:
    """Cut a copy of ``body``, a network that reads ids (batch, length) and what pools its tokens; compare the two."""
    ids = _examples(min(length, 12), n_ids)
    with torch.no_grad():
        for apart in (True, False):
            both = copy.deepcopy(body).eval()
            names = {id(tensor): name for name, tensor in tensors(both).items()}
            found = _segments(both, pad, ids, apart=apart)
            if found is not None:
                break
        assert found is not None
        values = [ids]
        for _, module in found:
            values.append(module.eval()(values[-1]))
    kind = getattr(body[1], "kind", "mean")
    return Chain(
        names=tuple(name for name, _ in found),
        segments=tuple(module for _, module in found),
        shapes=tuple((length, *value.shape[2:]) if value.dim() == 3 else (value.shape[1],) for value in values[1:]),
        head=None if head is None else copy.deepcopy(head).eval().requires_grad_(False),
        aliases={},
        origins=tuple(origins(module, names) for _, module in found),
        pooling=("first" if kind == "cls" else kind, 0),
    )


def _segments(body: Any, pad: int, ids: Tensor, *, apart: bool) -> Segments | None:
    """Take the network apart and compare, or leave it whole; None where it cannot be taken apart."""
    network, pool = body
    assert isinstance(pool, Pooled | Judged)
    network.config.use_cache = False
    whole = Whole(network, pad, pool)
    if not apart:
        return [("last", whole)]
    expected = whole(ids)
    try:
        found = segments(network, pad, pool, ids)
        agrees = found is not None and close(nn.Sequential(*(module for _, module in found))(ids), expected)
    except Exception:  # a network of another kind may want anything
        return None
    return found if agrees else None


def _examples(length: int, n_ids: int) -> Tensor:
    """Texts of several lengths, (4, length) int32, drawn apart from the global random state."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(n_ids, (4, length), generator=generator, dtype=torch.int32)
    for row, kept in enumerate((length, max(1, length // 2), 1, max(1, length - 1))):
        ids[row, kept:] = PADDING
    return ids
