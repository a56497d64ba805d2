"""A source of autoxfer's own compact architecture, as ``autoxfer pretrain --model compact`` leaves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, final

import torch
from torch import nn

from autoxfer import InputError, Source, SourceLoader, SourceSpec, hookimpl
from autoxfer.architectures import WIDTHS, Compact
from autoxfer_builtins.weights import fit_weights, locate, read_card, read_weights


@final
class CompactLoader(SourceLoader):
    """Makes the compact network that a file's tensors fit, for what its card says that it reads."""

    name: ClassVar[str] = "compact"

    def loads(self, spec: SourceSpec) -> bool:
        """Whether the model is ``compact`` or ``compact_wide``."""
        return spec.model in WIDTHS

    def load(self, spec: SourceSpec) -> Source:
        """Load the weights. Raises InputError where there are none, or they are another network's."""
        where = f"sources.{spec.name}"
        if spec.weights is None:
            raise InputError("weights, as autoxfer pretrain writes them", "none", f"{where}.weights")
        path = locate(spec, spec.weights)
        card = read_card(spec, path)
        state = read_weights(path, f"{where}.weights")
        if "head.weight" not in state or state["head.weight"].dim() != 2:
            found = f"no head.weight in {path.name}"
            raise InputError("the weights of a compact network", found, f"{where}.weights")
        factory = self.factory(spec, card.shape, len(state["head.weight"]))
        with torch.random.fork_rng(devices=[]):
            network = factory()
        fit_weights(network, state, f"{where}.weights")
        return Source.from_network(
            spec.name,
            factory,
            network,
            input_shape=card.shape,
            mean=card.mean,
            std=card.std,
            reverse=card.reverse,
            classes=card.classes,
            columns=card.columns,
            card={**card.record, "model": spec.model, "weights": path.name},
        )

    def factory(self, spec: SourceSpec, shape: Sequence[int], n_outputs: int) -> Callable[[], nn.Module]:
        """Give the architecture that scratch trains too. Raises InputError for options."""
        if spec.options:
            raise InputError(f"no options for {spec.model}", ", ".join(spec.options), f"sources.{spec.name}.options")
        return partial(Compact(tuple(shape), WIDTHS[spec.model]), n_outputs)


@hookimpl
def autoxfer_sources() -> list[type[SourceLoader]]:
    """Offer what pretrain makes."""
    return [CompactLoader]
