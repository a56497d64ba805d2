"""Weights that are kept while a module trains: the best so far, entries that must not change, anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from autoxfer.optimising import group_of
from autoxfer.records import Score
from autoxfer.scoring import UNKNOWN
from autoxfer.strategy import Candidate, Fitted


@final
class Keeper:
    """Holds what must not change and the best checkpoint so far."""

    def __init__(self, module: nn.Module, candidate: Candidate) -> None:
        self._module = module
        self._best: tuple[Score, float, dict[str, Tensor]] | None = None
        parameters = dict(module.named_parameters())
        self._masks = [
            (parameters[name], mask.to(parameters[name].device), parameters[name].detach().clone())
            for name, mask in candidate.frozen.items()
        ]
        self._anchors = [
            (parameter, group.anchor, parameter.detach().clone())
            for name, parameter in parameters.items()
            if (group := group_of(name, candidate.groups)).anchor and parameter.requires_grad
        ]

    def offer(self, score: Score, share: float) -> None:
        """Keep the weights if they are the best so far."""
        if self._best is None or score.beats(self._best[0]):
            self._best = score, share, state_of(self._module)

    def pull(self) -> None:
        """Add the gradient of anchor / 2 * ||w - w0||^2."""
        for parameter, anchor, initial in self._anchors:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - initial, alpha=anchor)

    @torch.no_grad()
    def hold(self) -> None:
        """Put masked entries back: weight decay and AdamW's momentum move them even where the gradient is zero."""
        for parameter, mask, initial in self._masks:
            parameter.copy_(torch.where(mask, initial, parameter))

    def fitted(self, curve: Sequence[tuple[float, float]], steps: int, stopped: str) -> Fitted:
        """Go back to the best checkpoint; where none was scored, stay with the last."""
        if self._best is None:
            return Fitted(state_of(self._module), UNKNOWN, (), steps)
        score, share, state = self._best
        self._module.load_state_dict(state)
        return Fitted(state, score, tuple(curve), steps, stopped, {"kept": share})


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Copy a module's state."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def load_part(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put some of a module's tensors in. Raises ValueError for one that it lacks."""
    unexpected = module.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"a state names tensors that the module lacks: {', '.join(unexpected[:3])}")
