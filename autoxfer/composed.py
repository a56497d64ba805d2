"""One network from stored examples to a candidate's answer, and the part of it that every candidate shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor, nn

from autoxfer.layout import ChannelsLast
from autoxfer.scoring import Scale
from autoxfer.strategy import Input, Raw, Tap

if TYPE_CHECKING:
    from autoxfer.preparation import Preparation
    from autoxfer.source import Source


@final
class Reader(nn.Module):
    """Natural examples -> the tensors of ``inputs``, in order; each source runs once, frozen."""

    def __init__(self, inputs: Sequence[Input], preparation: Preparation, sources: Mapping[str, Source]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        taps = [name for name in inputs if isinstance(name, Tap)]
        # Lists, not dictionaries: a source's name may hold dots, a module's may not.
        self.names = names = sorted({str(tap.source) for tap in taps})
        self.taps = [sorted({tap.name for tap in taps if tap.source == name}) for name in names]
        self.standardise = preparation.standardise if Raw() in self.inputs else nn.Identity()
        self.preprocess = nn.ModuleList(_prepared(sources[name], preparation) for name in names)
        self.extract = nn.ModuleList(
            sources[name].extract(wanted) if wanted != ["input"] else nn.Identity()
            for name, wanted in zip(names, self.taps, strict=True)
        )
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Reader:
        """Stay in evaluation mode: what lies before a tap is frozen."""
        return super().train(False)

    def forward(self, natural: Tensor) -> tuple[Tensor, ...]:
        """(batch, *natural shape) -> one tensor per input."""
        found: dict[Input, Tensor] = {}
        if Raw() in self.inputs:
            found[Raw()] = self.standardise(natural)
        for source, taps, preprocess, extract in zip(self.names, self.taps, self.preprocess, self.extract, strict=True):
            prepared = preprocess(natural)
            activations = (prepared,) if taps == ["input"] else extract(prepared)
            found.update({Tap(tap, source): value for tap, value in zip(taps, activations, strict=True)})
        return tuple(found[name] for name in self.inputs)


def _prepared(source: Source, preparation: Preparation) -> nn.Module:
    """Make what turns natural examples into a source's input, laid out as it computes fastest."""
    adapt = preparation.adapt(source)
    return nn.Sequential(adapt, ChannelsLast()) if source.channels_last else adapt


@final
class Composed(nn.Module):
    """One network from stored examples to the candidate's answer: what judges, reports and serves.

    Returns logits (batch, classes or labels), or predictions (batch, outputs) in the labels' own units.
    """

    center: float | Tensor  # of the target over the train split; 0 and 1 but for regression, (outputs,) of several
    spread: float | Tensor

    def __init__(self, unpack: nn.Module, reader: Reader, module: nn.Module, center: Scale, spread: Scale) -> None:
        super().__init__()
        self.unpack = unpack
        self.reader = reader
        self.module = module
        self.temperature = 1.0  # what the logits are divided by
        for name, value in (("center", center), ("spread", spread)):
            if isinstance(value, np.ndarray):
                self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
            else:
                setattr(self, name, value)

    def forward(self, stored: Tensor) -> Tensor:
        """(batch, *stored shape) of the stored dtype -> (batch, n_outputs)."""
        answer: Tensor = self.module(*self.reader(self.unpack(stored)))
        if isinstance(self.center, Tensor) or (self.center, self.spread) != (0.0, 1.0):
            answer = answer * self.spread + self.center
        return answer if self.temperature == 1.0 else answer / self.temperature
