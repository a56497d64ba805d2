"""A source of autoxfer's own compact architecture, as ``autoxfer pretrain --model compact`` leaves it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from autoxfer import InputError, Source, SourceLoader, SourceSpec, hookimpl
from autoxfer.architectures import WIDTHS, Compact
from autoxfer.cutting import Chain, tensors
from autoxfer.source import fingerprint
from autoxfer.textnets import CompactText
from autoxfer.tokens import LONGEST, Tokenizer, Vocabulary
from autoxfer_builtins.weights import InputCard, fit_weights, locate, read_card, read_weights


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
        if "vocabulary" in card.record:
            return _of_texts(spec, path.name, card, state)
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


def _of_texts(spec: SourceSpec, file: str, card: InputCard, state: dict[str, Tensor]) -> Source:
    """Make a source of the compact network over texts; the words that it knows stand on its card. Raises InputError."""
    where = f"sources.{spec.name}"
    known = card.record["vocabulary"]
    if not isinstance(known, list) or not all(isinstance(word, str) for word in known):
        raise InputError("vocabulary: a list of words, as autoxfer pretrain writes it", f"{known!s:.40}", file)
    content = Vocabulary(tuple(known), ()).content
    architecture = CompactText(len(known), WIDTHS[spec.model])
    with torch.random.fork_rng(devices=[]):
        network = architecture(len(state["head.weight"])).eval()
    fit_weights(network, state, f"{where}.weights")
    body, head = network.get_submodule("body"), network.get_submodule("head").requires_grad_(False)
    assert isinstance(head, nn.Linear)
    own = {name: name for name in tensors(body)}
    reading = {"tokenizer": hashlib.sha256(content.encode()).hexdigest(), "length": LONGEST}
    record = {key: value for key, value in card.record.items() if key != "vocabulary"}
    return Source(
        spec.name,
        Chain(("last",), (body,), ((head.in_features,),), head, {}, (own,)),
        lambda: architecture(1).get_submodule("body"),
        input_shape=(LONGEST,),
        mean=(0.0,),
        std=(1.0,),
        classes=card.classes,
        tokenizer=Tokenizer("words", content, LONGEST, spec.name),
        card={**record, "model": spec.model, "weights": file, "input": reading, "segments": ["last"]},
        fingerprint=fingerprint(network, reading),
    )


@hookimpl
def autoxfer_sources() -> list[type[SourceLoader]]:
    """Offer what pretrain makes."""
    return [CompactLoader]
